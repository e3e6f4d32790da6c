import pytest

from clipfarm_assets.contracts.song_splits import BadSplits, TooFewGroups, no_song_in_two_splits
from clipfarm_assets.pipelines.songs.segments import NoSegments, read_segments
from clipfarm_assets.pipelines.songs.splits import NoSongSplits, make_splits, read_splits
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets_tests.contracts.song_kit import SCHEMA, row, table
from clipfarm_assets_tests.pipelines.songs.segment_kit import LAYOUT, counting_store, parquet

CONFIG = song_config({})


def songs(count, start=0, **changes):
    """Two segments each of songs, of three labels in turn, on four albums."""
    return [
        row(
            f"s{n:02}-{part}",
            **{
                "song_id": f"song {n:02}",
                "album": f"album {n % 4}",
                "label": ("joy", "grief", "unrest")[n % 3],
                **changes,
            },
        )
        for n in range(start, start + count)
        for part in "ab"
    ]


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


def put(store, rows):
    store.put(LAYOUT.metadata(), parquet(table(*rows, schema=SCHEMA)))


def make(store, config=CONFIG, **options):
    return make_splits(store, LAYOUT, config, **options)


def test_splits_are_written_and_read_back(store):
    put(store, songs(40))
    report = make(store)
    assert read_splits(store, LAYOUT) == report.splits
    assert report.sizes == {"train": 56, "val": 12, "test": 12}
    assert report.classes["val"] == {"grief": 4, "joy": 4, "unrest": 4}
    assert (report.groups, report.together) == (40, 80)
    assert (report.kept, report.new, report.moved, report.removed) == (0, 80, {}, 0)
    assert (report.unlabelled, report.notes) == (0, ())


def test_songs_stay_together_and_so_do_albums_where_that_is_wanted(store):
    rows = songs(40)
    put(store, rows)
    split_of = make(store).splits.split_of
    assert all(split_of[f"s{n:02}-a"] == split_of[f"s{n:02}-b"] for n in range(40))
    by_album = song_config({"data": {"split_by": "album"}})
    report = make(store, by_album)
    splits_of_album = {}
    for each in rows:
        splits_of_album.setdefault(each["album"], set()).add(
            report.splits.split_of[each["segment_id"]]
        )
    assert all(len(found) == 1 for found in splits_of_album.values())
    assert any("seed, ratios or grouping are others than before" in n for n in report.notes)


def test_a_second_run_writes_the_same_bytes(store, tmp_path):
    rows = songs(20)
    put(store, rows)
    first = make(store)
    before = store.get(LAYOUT.splits())
    store.reset()
    report = make(store)
    assert store.count("put") == 0
    assert (report.kept, report.new, report.version) == (40, 0, first.version)
    other = counting_store(tmp_path / "other")
    put(other, rows[::-1])
    make(other)
    assert other.get(LAYOUT.splits()) == before


def test_songs_that_come_later_leave_the_others_where_they_are(store):
    put(store, songs(20))
    before = make(store).splits
    put(store, [*songs(20, start=20), *songs(20)])
    report = make(store)
    assert report.splits.split_of.items() >= before.split_of.items()
    assert (report.kept, report.new) == (40, 40)
    assert report.sizes == {"train": 56, "val": 12, "test": 12}


def test_segments_that_return_have_the_split_they_had(store):
    put(store, songs(40))
    before = make(store).splits
    put(store, songs(30))
    report = make(store)
    assert report.removed == 20
    assert any(note.startswith("20 segments had a split and are no rows") for note in report.notes)
    put(store, songs(40))
    report = make(store)
    assert report.splits == before
    assert (report.kept, report.new, report.returned) == (80, 0, 20)


def test_segments_that_become_one_song_are_moved_and_it_is_said(store):
    rows = songs(20)
    put(store, rows)
    before = make(store).splits
    a, b = before.ids("train")[0], before.ids("test")[0]
    song = next(each["song_id"] for each in rows if each["segment_id"] == a)
    put(store, [{**each, "song_id": song} if each["segment_id"] == b else each for each in rows])
    said = []
    report = make(store, say=said.append)
    assert report.moved == {b: ("test", "train")}
    assert any(f"{b} test -> train" in note and "because songs now" in note for note in said)
    assert set(report.notes) == set(said)


def test_segments_without_a_label_are_split_and_told(store):
    put(store, [*songs(20), *songs(3, start=20, label=None)])
    report = make(store)
    assert report.unlabelled == 6
    assert "6 segments have no label, so that they are no examples" in report.notes
    assert sum(report.sizes.values()) == 46
    assert sum(sum(found.values()) for found in report.classes.values()) == 40
    assert set(report.classes["train"]) == {"grief", "joy", "unrest"}


def test_a_label_that_a_split_lacks_and_a_share_that_is_off_are_told(store):
    put(store, [*songs(3, label="joy"), *songs(1, start=3, label="grief")])
    notes = make(store).notes
    assert any(" has no segment labelled grief" in note for note in notes)
    assert any("70.0% were asked for; the largest group, song" in note for note in notes)


def test_no_song_is_in_two_splits_also_of_two_albums(store):
    rows = songs(20)
    put(store, [{**each, "album": f"live {n % 5}"} for n, each in enumerate(rows)])
    report = make(store)
    assert no_song_in_two_splits(read_segments(store, LAYOUT).segments, report.splits).holds


def test_splits_that_are_none_are_refused(store):
    put(store, songs(4))
    with pytest.raises(NoSongSplits, match=r"must hold songs/splits\.json"):
        read_splits(store, LAYOUT)
    store.put(LAYOUT.splits(), b"{}")
    with pytest.raises(BadSplits, match=r"songs/splits\.json must be splits"):
        make(store)
    assert store.get(LAYOUT.splits()) == b"{}"


def test_too_few_songs_and_no_metadata_are_refused(store):
    with pytest.raises(NoSegments):
        make(store)
    put(store, songs(2))
    with pytest.raises(TooFewGroups, match="found 2 among 4 segments"):
        make(store)
