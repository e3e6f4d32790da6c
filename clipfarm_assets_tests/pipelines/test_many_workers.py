"""Thirty dates, three modalities, four processes at once, one of them killed: all done, once."""

from collections import Counter

import pytest

from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.statuses import MODALITIES, embedding_stage, fusion_stage
from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets_tests.pipelines.backfill import LONG, STRATEGY, SharedWorld, work
from clipfarm_assets_tests.pipelines.kit import clips, timeless
from clipfarm_assets_tests.pipelines.workers import Kill
from clipfarm_assets_tests.processes import ended, start
from clipfarm_assets_tests.servers import postgres_url

pytestmark = pytest.mark.kills

BATCH = 2  # a date's clips
PROCESSES = 4
STAGES = [*(embedding_stage(modality) for modality in MODALITIES), fusion_stage(STRATEGY)]


def dealt(dates, number):
    """A process's dates: each date is two processes', which begin at different ends."""
    mine = {number, (number + 1) % PROCESSES}
    own = [date for n, date in enumerate(dates) if n % PROCESSES in mine]
    return own if number % 2 == 0 else own[::-1]


def states(world):
    return {stage: timeless(world.states(stage)) for stage in STAGES}


@pytest.fixture
def alone(tmp_path):
    """What one process leaves that has it all to itself: the store, and the ledger's rows."""

    def run(dates, some):
        with SharedWorld(tmp_path / "alone", f"sqlite:///{tmp_path}/alone.sqlite") as world:
            world.fill(some)
            world.backfill(dates, BATCH)
            world.merge(STRATEGY)
            return world.comparable(), states(world)

    return run


@pytest.mark.parametrize(
    ("database", "days", "dies_at"),
    [
        ("sqlite", 30, 2 * BATCH + 1),  # on its third date: one stored, not in the ledger
        pytest.param("postgres", 8, 1, marks=pytest.mark.postgres),
    ],
)
def test_everything_is_done_exactly_once(database, days, dies_at, alone, tmp_path):
    url = postgres_url() if database == "postgres" else f"sqlite:///{tmp_path}/ledger.sqlite"
    dates = [f"2026-03-{day:02d}" for day in range(1, days + 1)]
    some = [clip for date in dates for clip in clips(BATCH, date, f"d{date[-2:]}")]
    root = tmp_path / "together"
    with SharedWorld(root, url) as world:
        world.fill(some)

    def started(number, kill=None):
        return start(work, str(root), url, dealt(dates, number), BATCH, number > 0, kill)

    deadly = Kill("ObjectStore.put", "embeddings/video/", dies_at, "after")
    killed, *others = [started(n, None if n else deadly) for n in range(PROCESSES)]
    killed.join(LONG)
    again = started(0)
    assert ended(killed, *others, again, seconds=LONG) == [-9, *[0] * PROCESSES]

    ids = Counter(clip.video_id for clip in some)
    objects, rows = alone(dates, some)
    with SharedWorld(root, url) as world:
        check_embedded_once(world, ids, killed.pid)
        for stage in STAGES:
            key = world.layout.state(stage)
            assert sqlite_to_items(world.store.get(key), key) == world.states(stage)
        assert states(world) == rows
        check_fused_once(world, ids)
        assert world.comparable() == objects
        assert world.ledger.held_leases() == []


def check_embedded_once(world, ids, killed):
    """But for at most a batch of the process that was killed."""
    by = {}
    for line in world.log.read_text().splitlines():
        modality, video_id, pid = line.split()
        by.setdefault((modality, video_id), []).append(int(pid))
    assert set(by) == {(modality, video_id) for modality in MODALITIES for video_id in ids}
    again = [pids for pids in by.values() if len(pids) > 1]
    assert len(again) <= BATCH
    assert all(len(pids) == 2 and pids[0] == killed != pids[1] for pids in again)
    workers = {pid for pids in by.values() for pid in pids}
    assert len(workers) > 1, "more than one of them did something"


def check_fused_once(world, ids):
    declared = Counter()
    for key in world.shards(STRATEGY):
        shard = FusedShard.from_npz(world.store.get(key), key)
        declared.update(shard.video_ids.tolist())
    assert declared == ids
    world.merge(STRATEGY)
    rows = world.manifest_rows(STRATEGY)
    assert Counter(rows.keys()) == ids
    for row in rows.values():
        world.fused_vector(row)
