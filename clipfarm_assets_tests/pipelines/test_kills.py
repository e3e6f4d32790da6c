"""kill -9 anywhere: the next run completes the work and leaves the bytes of an undisturbed one."""

import shutil
import signal

import pytest

from clipfarm_assets_tests.pipelines import workers
from clipfarm_assets_tests.pipelines.kit import (
    CORRUPT,
    DAY_1,
    DAY_2,
    NAN,
    TERMINAL_TEXT,
    Clip,
    World,
    clips,
    timeless,
)
from clipfarm_assets_tests.pipelines.workers import Kill
from clipfarm_assets_tests.processes import ended

pytestmark = pytest.mark.kills

SOME = [
    *clips(9, DAY_1, "a"),
    Clip("b-absent", DAY_1, audio=None),
    Clip("b-bad", DAY_1, audio=CORRUPT),
    Clip("b-mute", DAY_1, text=None, text_state=TERMINAL_TEXT),
    Clip("b-nan", DAY_1, video=NAN),
    Clip("b-pending", DAY_1, text=None),
    *clips(4, DAY_1, "c"),
    *clips(6, DAY_2, "d"),
]
DATES = (DAY_1, DAY_2)
STAGES = ("video_embedding", "audio_embedding", "text_embedding", "fusion_concat")
DEAD = -signal.SIGKILL

# Two clips of the first date fail or wait a modality; shards of 4 rows, so 14 rows are 4 shards.
RUN = [("all_of_it", DATES, {"shard_rows": 4, "batch_size": 4})]

PUT = "ObjectStore.put"
CREATE = "ObjectStore.put_if_absent"
SWAP = "ObjectStore.swap"
COMMIT = "Ledger.commit"
KILLS = {
    "embedding: before the first vector": Kill(PUT, "embeddings/video/"),
    "embedding: mid batch": Kill(PUT, "embeddings/video/", 6, "after"),
    "embedding: a batch stored, none of it in the ledger": Kill(COMMIT, "video_embedding", 2),
    "embedding: a batch just in the ledger": Kill(COMMIT, "video_embedding", 2, "after"),
    "embedding: last vector of the second date": Kill(PUT, "text/d-005", 1, "after"),
    "publishing: before the state is there": Kill(SWAP, "audio_embedding.sqlite"),
    "publishing: after the state is there": Kill(SWAP, "audio_embedding.sqlite", 1, "after"),
    "lock: after it is there": Kill(CREATE, "schema.json", 1, "after"),
    "shard: before the first": Kill(CREATE, "part-"),
    "shard: before the second": Kill(CREATE, "part-", 2),
    "shard: stored and not in the ledger": Kill(CREATE, "part-", 2, "after"),
    "shard: just in the ledger": Kill(COMMIT, "fusion_concat", 2, "after"),
    "shard: first of the second date": Kill(CREATE, "date=2026-02-06/part-0000", 1, "after"),
    "fusion: before its state is there": Kill(SWAP, "fusion_concat.sqlite"),
    "manifest: before the swap": Kill(SWAP, "fused_manifest.parquet"),
    "manifest: after the swap": Kill(SWAP, "fused_manifest.parquet", 1, "after"),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with raw objects and the CSV, and nothing done yet."""
    root = tmp_path_factory.mktemp("filled")
    with World(root) as world:
        world.fill(SOME)
    return root


@pytest.fixture(scope="module")
def undisturbed(filled, tmp_path_factory):
    """What one run leaves that nobody disturbs: the store, and the ledger's rows."""
    root = tmp_path_factory.mktemp("undisturbed") / "world"
    shutil.copytree(filled, root)
    with World(root) as world:
        for name, args, options in RUN:
            getattr(world, name)(*args, **options)
        assert len(world.shards()) == 6
        assert len(world.manifest_rows()) == 20
        return world.comparable(), rows(world)


def rows(world):
    return {stage: timeless(world.states(stage)) for stage in STAGES}


def successes(world, stage):
    """States with their moments: one that is done again has another."""
    states = world.states(stage).items()
    return {i: item for i, item in states if item.status.startswith("success")}


@pytest.mark.parametrize("point", KILLS)
def test_the_next_run_completes_the_work(point, filled, undisturbed, tmp_path):
    root = tmp_path / "world"
    shutil.copytree(filled, root)

    assert ended(workers.start(root, "machine", RUN, KILLS[point])) == [DEAD]

    with World(root) as world:
        assert world.comparable() != undisturbed[0] or point.endswith("after the swap")
        prefixes = ("clipfarm/embeddings", "clipfarm/fused/concat/shards")
        objects = {k: v for prefix in prefixes for k, v in world.objects(prefix).items()}
        done = {stage: successes(world, stage) for stage in STAGES}
        for name, args, options in RUN:
            getattr(world, name)(*args, **options)
        assert world.comparable() == undisturbed[0]
        assert rows(world) == undisturbed[1]
        # What was there is there, byte by byte; what was on record was not done again.
        assert objects.items() <= world.objects("clipfarm").items()
        assert all(done[stage].items() <= world.states(stage).items() for stage in STAGES)


@pytest.mark.parametrize(
    "point", ["shard: stored and not in the ledger", "fusion: before its state is there"]
)
def test_another_machine_completes_it_too(point, filled, undisturbed, tmp_path):
    """The dead machine's ledger is lost: the store alone tells what was done."""
    root = tmp_path / "world"
    shutil.copytree(filled, root)
    assert ended(workers.start(root, "lost", RUN, KILLS[point])) == [DEAD]

    with World(root, "other") as world:
        for name, args, options in RUN:
            getattr(world, name)(*args, **options)
        assert world.comparable() == undisturbed[0]
        assert any("took over 4 rows" in line for line in world.said)


@pytest.fixture(scope="module")
def reembedded(filled, tmp_path_factory):
    """Everything done, then embedded again by other encoders: ready to migrate."""
    root = tmp_path_factory.mktemp("reembedded") / "world"
    shutil.copytree(filled, root)
    with World(root) as world:
        world.all_of_it(*DATES)
        world.embed_all(*DATES, revision="r2")
    return root


AFTERWARDS = [("fuse", DATES, {"shard_rows": 4}), ("merge", (), {})]
MIGRATE = [("lock", (), {"migrate": True}), *AFTERWARDS]
MIGRATION_KILLS = {
    "before the lock's archive": Kill(PUT, "schema.v1.json"),
    "between the archives": Kill(PUT, "fused_manifest.v1.parquet"),
    "before the new lock": Kill(SWAP, "schema.json"),
    "between new lock and empty manifest": Kill(SWAP, "schema.json", 1, "after"),
    "after the empty manifest": Kill(SWAP, "fused_manifest.parquet", 1, "after"),
}


@pytest.fixture(scope="module")
def migrated(reembedded, tmp_path_factory):
    root = tmp_path_factory.mktemp("migrated") / "world"
    shutil.copytree(reembedded, root)
    with World(root, "fresh") as world:
        for name, args, options in MIGRATE:
            getattr(world, name)(*args, **options)
        return world.comparable()


@pytest.mark.parametrize("point", MIGRATION_KILLS)
def test_a_migration_can_be_killed_anywhere(point, reembedded, migrated, tmp_path):
    root = tmp_path / "world"
    shutil.copytree(reembedded, root)
    kill = MIGRATION_KILLS[point]

    assert ended(workers.start(root, "fresh", MIGRATE, kill)) == [DEAD]

    with World(root, "fresh") as world:
        done = world.store.exists("clipfarm/fused/concat/schema.v1.json") and (
            b'"lock_version": 2' in world.store.get("clipfarm/fused/concat/schema.json")
        )
        for name, args, options in AFTERWARDS if done else MIGRATE:
            getattr(world, name)(*args, **options)
        assert world.comparable() == migrated
