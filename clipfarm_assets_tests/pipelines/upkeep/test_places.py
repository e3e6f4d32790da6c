"""A key is ours only if the layout could have made it."""

import pytest

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.pipelines.upkeep.places import is_kept, place_of
from clipfarm_assets.pipelines.upkeep.presence import STAGES
from clipfarm_assets.storage.layout import Layout

SHA256 = "0" * 64
LAYOUTS = (Layout(), Layout("a/b.c"))


def collected(layout):
    """What may be collected, by the layout's own methods."""
    for modality in MODALITIES:
        yield "embedding", layout.embedding(modality, "-_Az09")
    for strategy in STRATEGIES:
        yield "shard", layout.shard(strategy, "2026-02-05", 12345)
        yield "manifest_delta", layout.manifest_delta(strategy, SHA256)
        for horizon in HORIZONS:
            for name in ("rows.parquet", "vectors-0000.npz"):
                part = layout.training_dataset_part(strategy, horizon, SHA256, name)
                yield "training_dataset", part
            for family in (None, "ridge"):
                staging = layout.snapshot_staging("r-1.x", strategy, horizon, family)
                yield "snapshot_staging", f"{staging}{SHA256}/models/ridge.skops"
    yield "probe", f"{layout.prefix}/state/.probe-{'a' * 32}"


def kept(layout):
    """What never is."""
    yield layout.clip_index("2026-02-05")
    yield layout.embedding_manifest("2026-02-05")
    yield layout.clip_predictions("2026-02-05")
    yield layout.report("video_embeddings", "2026-02-05", "map.png")
    yield layout.models_lock()
    yield layout.equivalence()
    yield layout.upkeep_report("gc-20260205T000000.000000Z")
    yield layout.comparison("r1", "leaderboard.csv")
    yield from (layout.state(stage) for stage in STAGES)
    for horizon in HORIZONS:
        yield layout.model_registry(horizon)
    for strategy in STRATEGIES:
        yield layout.schema_lock(strategy)
        yield layout.schema_lock_archive(strategy, 12)
        yield layout.fused_manifest(strategy)
        yield layout.fused_manifest_archive(strategy, 12)
        yield layout.training_dataset(strategy, 7)
        yield f"{layout.snapshot('r1', strategy, 7)}snapshot.json"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.prefix)
def test_every_key_of_the_layout_is_known(layout):
    for kind, key in collected(layout):
        place = place_of(layout, key)
        assert place is not None, key
        assert (place.kind, is_kept(layout, key)) == (kind, False), key
    for key in kept(layout):
        assert (place_of(layout, key), is_kept(layout, key)) == (None, True), key


def test_what_a_place_says():
    layout = Layout()
    embedding = place_of(layout, layout.embedding("audio", "one"))
    assert (embedding.modality, embedding.video_id) == ("audio", "one")
    shard = place_of(layout, layout.shard("sum_pool", "2026-02-05", 7))
    assert (shard.strategy, shard.date, shard.part) == ("sum_pool", "2026-02-05", 7)
    part = place_of(layout, layout.training_dataset_part("concat", 30, SHA256, "rows.parquet"))
    folder = "clipfarm/training/strategy=concat/horizon=30/"
    assert (part.dataset, part.sha256) == (folder, SHA256)


@pytest.mark.parametrize(
    "key",
    [
        "clipfarm/raw/video/one.mp4",
        "clipfarm/raw/video/one.npy",
        "clipfarm/metadata/shorts_metadata_horizon.csv",
        "clipfarm/state/text_downloader.sqlite",
        "clipfarm/state/other_tool.sqlite",
        "clipfarm/state/.probe-short",
        "clipfarm/embeddings/video/one.npy.bak",
        "clipfarm/embeddings/video/sub/one.npy",
        "clipfarm/embeddings/video/é.npy",
        "clipfarm/embeddings/touch/one.npy",
        "clipfarm/embeddings/video/one.npy\n",
        f"clipfarm/embeddings/video/{'x' * 65}.npy",
        "clipfarm/fused/concat/shards/date=2026-02-05/part-00.npz",
        "clipfarm/fused/concat/shards/date=2026-02-30/part-0000.npz",
        "clipfarm/fused/other/shards/date=2026-02-05/part-0000.npz",
        "clipfarm/fused/concat/manifest_deltas/short.parquet",
        f"clipfarm/training/strategy=concat/horizon=7/{SHA256}/notes.txt",
        f"clipfarm/training/strategy=concat/horizon=8/{SHA256}/rows.parquet",
        f"clipfarm/models/staging/run_id=r1/strategy=concat/horizon=7/{SHA256[:-1]}/a",
        "memes/embeddings/video/one.npy",
        "clipfarm2/embeddings/video/one.npy",
        "embeddings/video/one.npy",
        "clipfarm/notes.txt",
    ],
)
def test_a_key_that_no_run_makes_is_not_ours(key):
    layout = Layout()
    assert place_of(layout, key) is None
    assert not is_kept(layout, key)


def test_the_metadata_are_not_ours_wherever_they_are_said_to_be():
    layout = Layout(metadata_key="embeddings/video/table.npy")
    assert place_of(layout, layout.metadata()) is None
    assert place_of(Layout(), layout.metadata()) is not None
