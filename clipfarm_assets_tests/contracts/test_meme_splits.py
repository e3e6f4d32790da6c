"""Near-duplicates stay together, labels are spread evenly, and what has a split keeps it."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.contracts.meme_splits import (
    MAX_DISTANCE,
    BadSplitRatios,
    BadSplits,
    MemeSplits,
    TooFewGroups,
    assign_splits,
    near_duplicate_groups,
    no_group_in_two_splits,
    normalised,
)
from clipfarm_assets.storage.images import DEFAULT_LIMITS
from clipfarm_assets_tests.contracts.meme_kit import meme

WORDS = st.sampled_from(["", "cats", "Cats!", "dogs", "so it is", "so, it IS", "😂", "  "])
HASHES = st.one_of(
    st.none(), st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 31, 2**63, 0b11111, 0b1111100000])
)


@st.composite
def collections(draw, most=14):
    """Rows with their images' hashes."""
    n = draw(st.integers(1, most))
    rows = [
        meme(
            f"m{k}",
            image=draw(st.sampled_from([f"{k}.png", f"{k}.png", "shared.png"])),
            caption=draw(WORDS | st.just(f"c{k}")),
            ocr=draw(WORDS),
            labels=draw(st.sampled_from([{}, {"abuse_hate": 0}, {"abuse_hate": 1}])),
        )
        for k in range(n)
    ]
    return rows, {row.image: draw(HASHES) for row in rows}


def plain_groups(rows, hashes, max_distance):
    """All with all, and belonging passed on until nothing changes."""

    def same(a, b):
        texts = [{normalised(t) for t in (r.caption, r.ocr, r.text)} - {""} for r in (a, b)]
        x, y = hashes[a.image], hashes[b.image]
        near = x is not None and y is not None and (x ^ y).bit_count() <= max_distance
        return near or a.image == b.image or bool(texts[0] & texts[1])

    groups = {row.id: {row.id} for row in rows}
    for a in rows:
        for b in rows:
            if same(a, b) and groups[a.id] is not groups[b.id]:
                joined = groups[a.id] | groups[b.id]
                for meme_id in joined:
                    groups[meme_id] = joined
    return {meme_id: min(group) for meme_id, group in groups.items()}


@given(collections(), st.sampled_from([0, 4, 9]))
def test_groups_are_those_of_the_plain_way(collection, max_distance):
    rows, hashes = collection
    expected = plain_groups(rows, hashes, max_distance)
    assert near_duplicate_groups(rows, hashes, max_distance) == expected
    assert near_duplicate_groups(rows[::-1], hashes, max_distance) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It's a CAT!", "it s a cat", True),
        ("ﬁne", "FINE", True),
        ("straße", "STRASSE", True),
        ("a  b\n c", "a b c", True),
        ("кот", "КОТ", True),
        ("😂😂", "😂 😂", False),
        ("!!!", "???", False),
        ("cat", "cats", False),
    ],
)
def test_texts_are_compared_by_their_words(one, other, same):
    assert (normalised(one) == normalised(other)) == same


@pytest.mark.parametrize(
    ("a", "b", "together"),
    [
        # A benign confounder: the caption stays, what OCR makes of the other image differs.
        ({"caption": "look", "ocr": "L00K"}, {"caption": "look", "ocr": "LOOK l"}, True),
        ({"caption": "one", "ocr": "read"}, {"caption": "two", "ocr": "READ"}, True),
        ({"caption": "words"}, {"caption": "", "ocr": "words"}, True),
        ({"caption": "", "ocr": ""}, {"caption": " ", "ocr": "!"}, False),
        ({"caption": "", "ocr": ""}, {"caption": "", "ocr": ""}, False),
    ],
)
def test_a_text_is_the_caption_the_ocr_or_both(a, b, together):
    rows = [meme("a", **a), meme("b", **b)]
    groups = near_duplicate_groups(rows, {"a.png": None, "b.png": None})
    assert (groups["a"] == groups["b"]) == together


def test_an_image_without_a_hash_is_like_itself_alone():
    rows = [meme("a", image="x.png"), meme("b", image="x.png"), meme("c")]
    groups = near_duplicate_groups(rows, {"x.png": None, "c.png": None})
    assert groups == {"a": "a", "b": "a", "c": "c"}


def test_an_image_nobody_looked_at_is_a_mistake():
    with pytest.raises(KeyError, match=r"a\.png"):
        near_duplicate_groups([meme("a")], {})


# Assignment


@st.composite
def grouped_rows(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=3, max_size=60))
    labels = st.sampled_from([{}, {"abuse_hate": 0}, {"abuse_hate": 1}, {"abuse_hate": 1, "x": 1}])
    rows = [meme(f"g{g}-{k}", labels=draw(labels)) for g, n in enumerate(sizes) for k in range(n)]
    return rows, {row.id: row.id.split("-")[0] for row in rows}


RATIOS = st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.1, 0.1), (0.2, 0.2, 0.6)])


@given(grouped_rows(), RATIOS, st.integers(0, 3))
def test_no_group_straddles_no_split_is_empty_and_shares_are_near(made, ratios, seed):
    rows, groups = made
    splits = assign_splits(rows, groups, ratios, seed)
    assert splits.split_of.keys() == {row.id for row in rows}
    assert no_group_in_two_splits(splits).holds
    assert all(splits.sizes().values())
    largest = max(Counter(groups.values()).values())
    for split, ratio in zip(SPLITS, ratios, strict=True):
        assert abs(splits.sizes()[split] - ratio * len(rows)) <= 2 * largest


@given(grouped_rows(), st.randoms())
def test_the_same_rows_in_any_order_give_the_same_bytes(made, random):
    rows, groups = made
    expected = assign_splits(rows, groups).to_json()
    shuffled = random.sample(rows, len(rows))
    again = {meme_id: groups[meme_id] for meme_id in random.sample(sorted(groups), len(groups))}
    assert assign_splits(shuffled, again).to_json() == expected
    kept = assign_splits(shuffled, again, previous=MemeSplits.from_json(expected))
    assert kept.to_json() == expected


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_every_split_has_its_share_of_every_joint_label(share):
    rows = []
    for k in range(1000):
        hate = int(k % 1000 < 1000 * share)
        rows.append(meme(f"m{k}", labels={"abuse_hate": hate, "tone": k % 2}))
    splits = assign_splits(rows, {row.id: row.id for row in rows})
    for joint in {tuple(sorted(row.labels.items())) for row in rows}:
        alike = [row.id for row in rows if tuple(sorted(row.labels.items())) == joint]
        found = Counter(splits.split_of[i] for i in alike)
        for split, ratio in zip(SPLITS, splits.ratios, strict=True):
            assert abs(found[split] - ratio * len(alike)) <= 1.5


def test_another_seed_deals_otherwise():
    rows = [meme(f"m{k}") for k in range(40)]
    groups = {row.id: row.id for row in rows}
    assert assign_splits(rows, groups, seed=1).split_of != assign_splits(rows, groups).split_of


@given(grouped_rows(), st.data())
def test_what_has_a_split_keeps_it_unless_its_group_forbids_it(made, data):
    rows, groups = made
    first = [row for row in rows if data.draw(st.booleans())]
    # The memes there were first may have been in smaller groups: nothing linked them yet.
    smaller = {row.id: data.draw(st.sampled_from([groups[row.id], row.id])) for row in first}
    if len(set(smaller.values())) < 3:
        return
    before = assign_splits(first, smaller)
    after = assign_splits(rows, groups, previous=before)
    assert no_group_in_two_splits(after).holds
    for group in set(groups.values()):
        had = {before.split_of[row.id] for row in first if groups[row.id] == group}
        now = {after.split_of[row.id] for row in rows if groups[row.id] == group}
        if had:
            assert now == {min(had, key=SPLITS.index)}


def test_what_was_trained_on_is_never_examined_on():
    rows = [meme(f"m{k:02}") for k in range(40)]
    alone = {row.id: row.id for row in rows}
    before = assign_splits(rows, alone)
    train, val, test = (before.ids(split) for split in SPLITS)
    linked = {**alone, test[0]: "x", train[0]: "x", test[1]: "y", val[0]: "y", val[1]: "y"}
    after = assign_splits(rows, linked, previous=before)
    moved = {i: s for i, s in after.split_of.items() if before.split_of[i] != s}
    assert moved == {test[0]: "train", test[1]: "val"}


@given(grouped_rows(), st.data())
def test_a_meme_that_returns_has_the_split_it_had(made, data):
    rows, groups = made
    before = assign_splits(rows, groups)
    there = [row for row in rows if data.draw(st.booleans())]
    if len({groups[row.id] for row in there}) < 3:
        return
    without = MemeSplits.from_json(assign_splits(there, groups, previous=before).to_json())
    assert without.split_of.keys() == {row.id for row in there}
    assert without.ever == before.split_of
    more = [*there, *(meme(f"new{k}") for k in range(4))]
    alone = {**groups, **{row.id: row.id for row in more[len(there) :]}}
    between = assign_splits(more, alone, previous=without)
    assert between.retired == without.retired
    after = assign_splits(rows, groups, previous=between)
    assert after.split_of == before.split_of
    assert after.retired.keys() == {f"new{k}" for k in range(4)}


def test_what_was_once_trained_on_draws_its_new_group_to_train():
    rows = [meme(f"m{k:02}") for k in range(40)]
    alone = {row.id: row.id for row in rows}
    before = assign_splits(rows, alone)
    gone, tested = before.ids("train")[0], before.ids("test")[0]
    without = assign_splits([row for row in rows if row.id != gone], alone, previous=before)
    after = assign_splits(rows, {**alone, gone: "x", tested: "x"}, previous=without)
    assert (after.split_of[gone], after.split_of[tested]) == ("train", "train")


def test_splits_of_before_ids_were_kept_are_read():
    body = json.loads(stored())
    del body["retired"], body["max_distance"], body["images"]
    splits = MemeSplits.from_json(json.dumps(body).encode())
    assert splits == MemeSplits.from_json(stored())
    assert (splits.retired, splits.max_distance) == ({}, MAX_DISTANCE)
    assert splits.images == DEFAULT_LIMITS


def test_new_memes_go_where_they_are_lacking():
    rows = [meme(f"m{k:03}") for k in range(100)]
    before = assign_splits(rows[:10], {row.id: row.id for row in rows[:10]})
    after = assign_splits(rows, {row.id: row.id for row in rows}, previous=before)
    assert after.sizes() == {"train": 70, "val": 15, "test": 15}
    assert all(after.split_of[i] == split for i, split in before.split_of.items())


@pytest.mark.parametrize("change", [{"seed": 7}, {"ratios": (0.6, 0.2, 0.2)}])
def test_other_settings_deal_everything_out_anew(change):
    rows = [meme(f"m{k}") for k in range(40)]
    groups = {row.id: row.id for row in rows}
    before = replace(assign_splits(rows, groups), **change)
    assert assign_splits(rows, groups, previous=before) == assign_splits(rows, groups)


def test_three_groups_are_one_a_split_whatever_their_sizes():
    rows = [meme(f"a{k}") for k in range(50)] + [meme("b"), meme("c")]
    splits = assign_splits(rows, {row.id: row.id[0] for row in rows})
    assert splits.sizes()["train"] == 50
    assert all(splits.sizes().values())


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_groups_are_refused_with_what_is_there(n):
    rows = [meme(f"{'ab'[k % 2]}{k}") for k in range(10 * n)]
    groups = {row.id: row.id[0] if n == 2 else "a" for row in rows}
    with pytest.raises(TooFewGroups, match=f"found {n} among {10 * n} memes"):
        assign_splits(rows, groups)


@pytest.mark.parametrize(
    "ratios", [(1, 0, 0), (0.5, 0.5), (0.7, 0.2, 0.2), (2, -0.5, -0.5), ("a", 1, 1), (0.5,) * 4]
)
def test_ratios_that_are_none(ratios):
    with pytest.raises(BadSplitRatios, match="three positive numbers"):
        assign_splits(
            [meme(f"m{k}") for k in range(9)], {f"m{k}": f"m{k}" for k in range(9)}, ratios
        )


# The stored object


def stored(**changes):
    rows = [meme(f"m{k}") for k in range(6)]
    body = json.loads(assign_splits(rows, {row.id: row.id for row in rows}).to_json())
    return json.dumps({**body, **changes}).encode()


def test_stored_bytes_are_those_of_the_first_version():
    rows = [meme(f"m{k:02}", labels={"abuse_hate": int(k % 3 == 0)}) for k in range(40)]
    groups = {row.id: f"m{k - k % 2:02}" for k, row in enumerate(rows)}
    first = assign_splits(rows[:30], groups)
    data = assign_splits(rows[10:], groups, previous=first).to_json()
    expected = "6d1524c3ea6cd87c71bb909421d689cb2c1f7bf5f38efea70558189cb67a3367"
    assert hashlib.sha256(data).hexdigest() == expected


def test_the_object_names_ids_by_split():
    body = json.loads(stored())
    assert {*body} == {
        "format", "images", "max_distance", "ratios", "retired", "seed", "train", "val", "test",
    }  # fmt: skip
    assert sorted(i for split in SPLITS for i in body[split]) == [f"m{k}" for k in range(6)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        stored(format="v0"),
        stored(ratios=[1]),
        stored(ratios=None),
        stored(seed="x"),
        stored(train=["m0"]),
        stored(train=[["m0", "m0"]]),
        stored(train={"m0": 7}),
        stored(train={"m0": "m0"}, val={"m0": "m0"}),
        stored(train={"m0": "g"}, val={"m1": "g"}),
        stored(max_distance=None),
        stored(images={"pixels": 0}),
        stored(images={"pixels": "many"}),
        stored(images={"colours": 7}),
        stored(retired=["a"]),
        stored(retired={"dev": ["a"]}),
        stored(retired={"val": {"a": "g"}}),
        stored(retired={"val": [7]}),
        stored(retired={"val": ["a"], "test": ["a"]}),
        stored(retired={"val": ["m0"]}),
    ],
    ids=lambda data: data.decode(errors="replace")[:60],
)
def test_what_are_no_splits_is_refused_with_a_remedy(data):
    with pytest.raises(BadSplits, match=r"^memes/splits\.json .*dealt out anew") as caught:
        MemeSplits.from_json(data, "memes/splits.json")
    assert len(str(caught.value)) < 600


def test_a_group_in_two_splits_is_found():
    splits = MemeSplits({"a": "train", "b": "test", "c": "val"}, {"a": "g", "b": "g", "c": "c"})
    verdict = no_group_in_two_splits(splits)
    assert [str(finding) for finding in verdict.findings] == ["group g: is in train and test"]
    assert verdict.examined == 2
