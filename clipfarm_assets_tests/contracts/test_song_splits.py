"""A song is in one split, labels are spread evenly, and what has a split keeps it."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.song_splits import (
    SPLITS,
    BadSplitRatios,
    BadSplits,
    SongSplits,
    TooFewGroups,
    assign_song_splits,
    no_song_in_two_splits,
    song_groups,
)
from clipfarm_assets_tests.contracts.song_kit import segment

BY = st.sampled_from(["song", "album"])


def songs(n, per_song=3, albums=6, labels=("calm", "wild")):
    """Segments of `n` songs, dealt to albums in turn; a song has one label."""
    return [
        segment(f"s{k:03}-{i}", song=f"s{k:03}", album=f"a{k % albums}", label=labels[k % 2])
        for k in range(n)
        for i in range(per_song)
    ]


@st.composite
def corpora(draw):
    """Segments of songs of all sizes, some of two albums, some without a label."""
    made = []
    for k, size in enumerate(draw(st.lists(st.integers(1, 5), min_size=3, max_size=25))):
        albums = draw(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=2))
        label = draw(st.sampled_from(["calm", "wild", None]))
        made += [
            segment(f"s{k}-{i}", song=f"s{k}", album=albums[i % len(albums)], label=label)
            for i in range(size)
        ]
    return made


def plain_album_groups(segments):
    """All with all, and belonging passed on until nothing changes."""
    group = {s.id: {s.id} for s in segments}
    for a in segments:
        for b in segments:
            linked = a.album == b.album or a.song == b.song
            if linked and group[a.id] is not group[b.id]:
                joined = group[a.id] | group[b.id]
                for each in joined:
                    group[each] = joined
    album_of = {s.id: s.album for s in segments}
    return {s.id: min(album_of[each] for each in group[s.id]) for s in segments}


@given(corpora())
def test_groups_are_those_of_the_plain_way(segments):
    assert song_groups(segments, "album") == plain_album_groups(segments)
    assert song_groups(segments[::-1], "album") == song_groups(segments, "album")
    assert song_groups(segments) == {s.id: s.song for s in segments}


@given(corpora(), BY, st.integers(0, 3))
def test_no_song_straddles_and_no_split_is_empty(segments, by, seed):
    groups = song_groups(segments, by)
    if len(set(groups.values())) < 3:
        with pytest.raises(TooFewGroups, match=f"3 groups of segments that share no {by}: found"):
            assign_song_splits(segments, by=by, seed=seed)
        return
    splits = assign_song_splits(segments, by=by, seed=seed)
    assert splits.split_of.keys() == {s.id for s in segments}
    assert splits.group_of == groups
    verdict = no_song_in_two_splits(segments, splits)
    assert verdict.holds
    assert verdict.examined == len(segments)
    assert all(splits.sizes().values())
    largest = max(Counter(groups.values()).values())
    for split, ratio in zip(SPLITS, splits.ratios, strict=True):
        assert abs(splits.sizes()[split] - ratio * len(segments)) <= 2 * largest


@given(corpora(), BY, st.randoms())
def test_the_same_segments_in_any_order_give_the_same_bytes(segments, by, random):
    if len(set(song_groups(segments, by).values())) < 3:
        return
    expected = assign_song_splits(segments, by=by).to_json()
    shuffled = random.sample(segments, len(segments))
    assert assign_song_splits(shuffled, by=by).to_json() == expected
    previous = SongSplits.from_json(expected)
    assert previous == assign_song_splits(segments, by=by)
    assert assign_song_splits(shuffled, by=by, previous=previous).to_json() == expected


def test_every_split_has_its_share_of_every_label():
    segments = songs(200)
    splits = assign_song_splits(segments)
    for label in ("calm", "wild"):
        found = Counter(splits.split_of[s.id] for s in segments if s.label == label)
        for split, ratio in zip(SPLITS, splits.ratios, strict=True):
            assert abs(found[split] - ratio * 300) <= 3


def test_a_song_of_two_albums_is_one_group_and_makes_one_of_the_albums():
    segments = [*songs(12), segment("live", song="s000", album="a3")]
    assert assign_song_splits(segments).group_of["live"] == "s000"
    groups = song_groups(segments, "album")
    assert {groups[s.id] for s in segments if s.album in ("a0", "a3")} == {"a0"}
    assert groups["s001-0"] == "a1"


@pytest.mark.parametrize("by", ["song", "album"])
def test_segments_keep_their_splits(by):
    segments = songs(40)
    before = assign_song_splits(segments[:60], by=by)
    after = assign_song_splits(segments, by=by, previous=before)
    assert all(after.split_of[each] == split for each, split in before.split_of.items())
    fewer = assign_song_splits(segments[30:], by=by, previous=after)
    assert fewer.retired == {s.id: after.split_of[s.id] for s in segments[:30]}
    stored = SongSplits.from_json(fewer.to_json())
    assert assign_song_splits(segments, by=by, previous=stored) == after


@given(corpora(), BY, st.randoms())
def test_songs_that_are_cut_anew_stay_where_they_were(segments, by, random):
    """Also songs that were gone in between, with other ids; of albums that share one now, both."""
    if len(set(song_groups(segments, by).values())) < 3:
        return
    before = assign_song_splits(segments, by=by)
    gone = set(random.sample(sorted({s.song for s in segments}), 2))
    fewer = [s for s in segments if s.song not in gone]
    if len(set(song_groups(fewer, by).values())) >= 3:
        before_that, before = before, assign_song_splits(fewer, by=by, previous=before)
        assert before.split_of_song == before_that.split_of_song
    stored = SongSplits.from_json(before.to_json())
    recut = [replace(s, id=f"{s.id}-again") for s in segments]
    after = assign_song_splits(recut, by=by, previous=stored)
    assert not after.split_of.keys() & before.split_of.keys()
    assert {s.song: after.split_of[s.id] for s in recut} == before.split_of_song


def test_a_song_of_train_that_is_cut_anew_on_another_album_takes_that_album_along():
    segments = songs(12)
    before = assign_song_splits(segments, by="album")
    (album, *_) = sorted({s.album for s in segments if before.split_of[s.id] == "test"})
    train = next(s for s in segments if before.split_of[s.id] == "train")
    rest = [s for s in segments if s.song != train.song]
    after = assign_song_splits(
        [*rest, segment("new", song=train.song, album=album)], by="album", previous=before
    )
    assert after.split_of["new"] == "train"
    assert {after.split_of[s.id] for s in rest if s.album == album} == {"train"}


def test_splits_that_were_stored_without_songs_know_them_by_their_groups():
    segments = songs(12)
    splits = assign_song_splits(segments)
    body = json.loads(splits.to_json())
    del body["songs"], body["albums"]
    assert SongSplits.from_json(json.dumps(body).encode()) == splits


@pytest.mark.parametrize("settings", [{"seed": 7}, {"ratios": (0.6, 0.2, 0.2)}, {"by": "album"}])
def test_other_settings_deal_everything_out_anew(settings):
    segments = songs(40)
    before = assign_song_splits(segments, **settings)
    after = assign_song_splits(segments)
    assert before.split_of != after.split_of
    assert assign_song_splits(segments, previous=before) == after


def test_another_seed_deals_otherwise():
    segments = songs(40)
    other = assign_song_splits(segments, seed=1)
    assert other.split_of != assign_song_splits(segments).split_of


@pytest.mark.parametrize("ratios", [(1, 0, 0), (0.5, 0.5), (0.7, 0.2, 0.2), ("a", 1, 1)])
def test_ratios_that_are_none(ratios):
    with pytest.raises(BadSplitRatios, match="three positive numbers"):
        assign_song_splits(songs(9), ratios=ratios)


def test_groupings_there_are():
    with pytest.raises(ValueError, match="one of song, album: found 'artist'"):
        assign_song_splits(songs(9), by="artist")


# The promise


def test_a_song_in_two_splits_is_found_whatever_the_splits_say_of_groups():
    segments = songs(9)
    splits = assign_song_splits(segments)
    moved = segments[0].id
    other = next(s for s in SPLITS if s != splits.split_of[moved])
    broken = replace(
        splits,
        split_of={**splits.split_of, moved: other},
        group_of={s.id: s.id for s in segments},
    )
    (finding,) = no_song_in_two_splits(segments, SongSplits.from_json(broken.to_json())).findings
    assert finding.subject == "song s000"
    assert f"{moved} in {other}" in finding.problem


def test_an_album_in_two_splits_is_found_where_albums_are_kept_together():
    segments = songs(9, albums=3)
    splits = assign_song_splits(segments, by="album")
    other = next(s for s in SPLITS if s != splits.split_of["s000-0"])
    moved = {each: other for each in splits.split_of if each.startswith("s000")}
    broken = replace(splits, split_of={**splits.split_of, **moved})
    (finding,) = no_song_in_two_splits(segments, broken).findings
    assert finding.subject == "album a0"
    assert no_song_in_two_splits(segments, replace(broken, by="song")).holds


def test_a_segment_without_a_split_is_found():
    segments = songs(9)
    verdict = no_song_in_two_splits([*segments, segment("new")], assign_song_splits(segments))
    assert [str(f) for f in verdict.findings] == [
        "id new: has no split: deal the segments out again"
    ]
    assert verdict.facts["songs"] == 9


# The stored object


def stored(**changes):
    body = json.loads(assign_song_splits(songs(6)).to_json())
    return json.dumps({**body, **changes}).encode()


def test_the_object_names_ids_by_split():
    body = json.loads(stored())
    settings = {"by", "format", "ratios", "retired", "seed", "songs", "albums"}
    assert {*body} == {*settings, *SPLITS}
    assert sorted(each for split in SPLITS for each in body[split]) == [s.id for s in songs(6)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        stored(format="clipfarm.meme_splits.v1"),
        stored(by="artist"),
        stored(by=None),
        stored(ratios=[1]),
        stored(train=["s000-0"]),
        stored(train={"x": "g"}, val={"y": "g"}),
        stored(train={"x": "g"}, val={"x": "g"}),
        stored(retired={"val": ["s000-0"]}),
        stored(songs={"train": ["s"], "val": ["s"]}),
        stored(songs=["s"]),
        stored(albums={"train": "a"}),
    ],
    ids=lambda data: data.decode(errors="replace")[:40],
)
def test_what_are_no_splits_is_refused_with_a_remedy(data):
    with pytest.raises(BadSplits, match=r"^songs/splits\.json .*every segment dealt out anew"):
        SongSplits.from_json(data, "songs/splits.json")
