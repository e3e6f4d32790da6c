"""A shard is stored while the next is filled: one at a time, in order, errors in their place."""

import threading

import pytest

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.shard_rows import ShardRows
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import DAY_1, clips, fuse, prepared

STAGE = "fusion_concat"
ROWS = 2
SHARDS = 6


@pytest.fixture
def events(monkeypatch):
    """What the run does, as it ends: ``made``, ``stored`` or ``committed``, and of which shard."""
    events = []
    make, put, commit = ShardRows.shard, ObjectStore.put_if_absent, Ledger.commit

    def made(rows):
        shard = make(rows)
        events.append(("made", shard.video_ids[0]))
        return shard

    def stored(store, key, data):
        put(store, key, data)
        if "part-" in key:
            events.append(("stored", key))

    def committed(ledger, stage, items, **options):
        items = list(items)
        commit(ledger, stage, items, **options)
        if stage == STAGE and items:
            events.append(("committed", items[0].artifact_key))

    monkeypatch.setattr(ShardRows, "shard", made)
    monkeypatch.setattr(ObjectStore, "put_if_absent", stored)
    monkeypatch.setattr(Ledger, "commit", committed)
    return events


def test_a_shard_is_stored_and_committed_before_the_next_one_is_stored(world, events):
    prepared(world, clips(SHARDS * ROWS - 1))
    events.clear()
    fuse(world, shard_rows=ROWS, read_ahead=ROWS)

    made = [name for kind, name in events if kind == "made"]
    assert len(made) == len(world.shards()) == SHARDS
    written = [event for event in events if event[0] != "made"]
    assert written == [(kind, key) for key in world.shards() for kind in ("stored", "committed")]
    under_way = 0
    for kind, _ in events:
        under_way += {"made": 1, "stored": 0, "committed": -1}[kind]
        assert under_way <= 2


def test_the_next_shard_is_made_while_one_is_being_stored(world, events, monkeypatch):
    prepared(world, clips(SHARDS * ROWS - 1))
    events.clear()
    put, make, second = ObjectStore.put_if_absent, ShardRows.shard, threading.Event()

    def waits_for_the_next(store, key, data):
        if key.endswith("part-0000.npz"):
            assert second.wait(30), "nothing is done while a shard is being stored"
        put(store, key, data)

    def made(rows):
        shard = make(rows)
        if len([kind for kind, _ in events if kind == "made"]) == 2:
            second.set()
        return shard

    monkeypatch.setattr(ObjectStore, "put_if_absent", waits_for_the_next)
    monkeypatch.setattr(ShardRows, "shard", made)
    fuse(world, shard_rows=ROWS, read_ahead=ROWS)
    assert len(world.shards()) == SHARDS


def test_a_shard_that_cannot_be_stored_stops_the_run_and_nothing_before_it_is_lost(
    world, monkeypatch
):
    prepared(world, clips(SHARDS * ROWS - 1))
    put = ObjectStore.put_if_absent

    def full(store, key, data):
        if key.endswith("part-0002.npz"):
            raise OSError("no space left on device")
        put(store, key, data)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "put_if_absent", full)
        with pytest.raises(OSError, match="no space left"):
            fuse(world, shard_rows=ROWS, read_ahead=ROWS)
    assert world.shards() == [world.layout.shard("concat", DAY_1, part) for part in range(2)]
    assert {item.artifact_key for item in world.states(STAGE).values()} == set(world.shards())
    assert not [t for t in threading.enumerate() if t.name.startswith("clipfarm")]

    report = fuse(world, shard_rows=ROWS, read_ahead=ROWS)
    assert report.statuses == {"success_full": (SHARDS - 2) * ROWS}
    assert len(world.states(STAGE)) == SHARDS * ROWS
    assert {item.artifact_key for item in world.states(STAGE).values()} == set(world.shards())
    assert len(world.shards()) == SHARDS


def test_a_fault_while_the_next_shard_is_filled_leaves_the_one_before_on_record(world, monkeypatch):
    prepared(world, clips(SHARDS * ROWS - 1))
    add = ShardRows.add

    def broken(rows, *args):
        if world.shards():
            raise MemoryError("no room for the next shard")
        return add(rows, *args)

    with monkeypatch.context() as patched:
        patched.setattr(ShardRows, "add", broken)
        with pytest.raises(MemoryError, match="next shard"):
            fuse(world, shard_rows=ROWS, read_ahead=ROWS)
    assert {item.artifact_key for item in world.states(STAGE).values()} == set(world.shards())
    assert world.shards() != []
