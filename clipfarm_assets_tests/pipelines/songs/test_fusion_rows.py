"""The rows that models are fitted and judged on: no song in two splits, whatever was stored."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipfarm_assets.contracts.song_splits import SPLITS
from clipfarm_assets.pipelines.songs import fusion_rows
from clipfarm_assets.pipelines.songs.comparison import compare
from clipfarm_assets.pipelines.songs.fusion import train_fusion
from clipfarm_assets.pipelines.songs.fusion_rows import open_rows
from clipfarm_assets.pipelines.songs.splits import StaleSplits, make_splits, read_splits
from clipfarm_assets.storage.objects import ObjectChanged, ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.song_models import network_models
from clipfarm_assets_tests.pipelines.songs import fusion_kit as kit
from clipfarm_assets_tests.pipelines.songs.segment_kit import parquet

FEW = 18
SETTINGS = kit.settings()


@pytest.fixture
def store(tmp_path):
    store = ObjectStore.open(str(tmp_path / "store"))
    kit.plant(store, songs=FEW)
    return store


def rows_of(store, config=SETTINGS):
    return open_rows(store, kit.LAYOUT, config, print, cache_dir=None)


def songs_of(store, split):
    splits = read_splits(store, kit.LAYOUT)
    return sorted({splits.group_of[each] for each in splits.ids(split)})


def rename(store, names):
    """Songs have other names in the metadata from now on."""
    found = parquet_to_table(store.get(kit.LAYOUT.metadata()))
    songs = [names.get(name, name) for name in found["song_id"].to_pylist()]
    place = found.schema.get_field_index("song_id")
    changed = found.set_column(place, "song_id", pa.array(songs, pa.string()))
    store.put(kit.LAYOUT.metadata(), parquet(changed))


def test_media_that_change_meanwhile_are_not_read_as_those_that_were_aligned(store, monkeypatch):
    """The file is written again between the look at the alignment and the first segment."""

    def write_again(*args, **options):
        media = pq.read_table(pa.BufferReader(store.get(kit.LAYOUT.media())))
        store.put(kit.LAYOUT.media(), parquet(media, row_group_size=3))
        return network_models(*args, **options)

    monkeypatch.setattr(fusion_rows, "network_models", write_again)
    rows = rows_of(store)
    with pytest.raises(ObjectChanged):
        rows.dataset.survey("train")


def test_songs_that_turn_out_to_be_one_are_not_parted(store):
    """A name is corrected: what was of train, and what was of test, are one song."""
    one, other = songs_of(store, "train")[0], songs_of(store, "test")[0]
    rename(store, {other: one})
    refused = f"1 findings.*song {one}: has segments apart.*materialise songs/splits again"
    for use in (
        lambda: train_fusion(store, kit.LAYOUT, "late", SETTINGS),
        lambda: compare(store, kit.LAYOUT, SETTINGS),
    ):
        with pytest.raises(StaleSplits, match=refused):
            use()
    make_splits(store, kit.LAYOUT, SETTINGS)
    rows = rows_of(store)
    found = {split for split in SPLITS if one in rows.labelled(split).groups}
    assert found == {"train"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"split_by": "album"}, "split_by song, not album"),
        ({"seed": 7}, "seed 42, not 7"),
        ({"ratios": [0.4, 0.3, 0.3]}, r"ratios \(0.5, 0.2, 0.3\), not \(0.4, 0.3, 0.3\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_splits_of_other_settings_are_refused(store, changed, told):
    with pytest.raises(StaleSplits, match=f"found {told}; materialise songs/splits with these"):
        rows_of(store, kit.settings(data=changed))


def test_rows_are_resampled_by_songs_as_they_are_called_now(store):
    first, second, *others = songs_of(store, "test")
    rename(store, {second: first})
    groups = rows_of(store).labelled("test").groups
    assert set(groups) == {first, *others}
    assert (groups == first).sum() == 2 * kit.SEGMENTS


def test_segments_without_a_split_are_left_out_and_refuse_nothing(store):
    kit.plant(store, songs=FEW + 1, split=False)
    rows = rows_of(store)
    assert len(rows.dataset) == FEW * kit.SEGMENTS
    assert rows.left_out() == {"no_split": kit.SEGMENTS}
