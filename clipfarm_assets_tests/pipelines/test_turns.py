"""Two runs of one date: the second waits, reads anew what is to do, and does none of it again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from clipfarm_assets.ledger.leases import Lease, LeaseHeld, LeaseLost, Place
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.pipelines.turns import LeaseOptions
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    Door,
    HashEncoder,
    clips,
    door,
    prepared,
    version_of,
)

LONG = 30.0
STAGE = "video_embedding"
IMPATIENT = LeaseOptions(wait_seconds=0)


@dataclass
class Slow(HashEncoder):
    """Waits in its first forward until it may go on."""

    begun: threading.Event = field(default_factory=threading.Event)
    may: threading.Event = field(default_factory=threading.Event)

    def encode(self, prepared):
        self.begun.set()
        assert self.may.wait(LONG)
        return super().encode(prepared)


def slow_door():
    return Door(Slow(version_of("video")))


def until(true):
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def waits_for_other(world, scope):
    return [line for line in world.said if line.startswith(f"{scope}: waiting for ")]


@pytest.fixture
def slow_put(monkeypatch):
    """The first shard waits, when it is all but stored, until it may go on."""
    begun, may, put = threading.Event(), threading.Event(), ObjectStore.put_if_absent

    def slow(store, key, data):
        if "part-" in key and not begun.is_set():
            begun.set()
            assert may.wait(LONG)
        put(store, key, data)

    monkeypatch.setattr(ObjectStore, "put_if_absent", slow)
    return begun, may


def test_a_second_embedding_of_a_date_waits_and_finds_nothing_to_do(world, open_world):
    world.fill(clips(5))
    other, slow, by = open_world(), slow_door(), door("video")
    scope = f"{STAGE}/{DAY_1}"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(world.embed, "video", by=slow)
        assert slow.encoder.begun.wait(LONG)
        second = pool.submit(other.embed, "video", by=by, known=by.encoder.version)
        until(lambda: waits_for_other(other, scope))
        slow.encoder.may.set()
        reports = [run.result(LONG)[DAY_1] for run in (first, second)]
    assert reports[0].statuses == {"success": 5}
    assert (reports[1].considered, reports[1].worked_on) == (5, 0)
    assert by.opened == 0
    assert len(waits_for_other(other, scope)) == 1


def test_a_second_fusion_of_a_date_waits_and_finds_nothing_to_do(world, open_world, slow_put):
    prepared(world, clips(4))
    other, (begun, may) = open_world(), slow_put
    scope = f"fusion_concat/{DAY_1}"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(world.fuse, DAY_1)
        assert begun.wait(LONG)
        second = pool.submit(other.fuse, DAY_1)
        until(lambda: waits_for_other(other, scope))
        may.set()
        reports = [run.result(LONG)[DAY_1] for run in (first, second)]
    assert reports[0].statuses == {"success_full": 5}
    assert (reports[1].considered, reports[1].worked_on) == (5, 0)
    assert len(world.shards()) == 1


def test_what_was_embedded_while_fusion_waited_is_fused(world, open_world, slow_put):
    prepared(world, [])
    other, (begun, may) = open_world(), slow_put
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(world.fuse, DAY_1)
        assert begun.wait(LONG)
        other.fill(clips(2, prefix="more"))
        second = pool.submit(other.fuse, DAY_1)
        until(lambda: waits_for_other(other, f"fusion_concat/{DAY_1}"))
        third = open_world()
        third.embed_all()
        may.set()
        first.result(LONG)
        report = second.result(LONG)[DAY_1]
    assert report.statuses == {"success_full": 2}


def test_a_date_of_another_run_is_left_for_last(world, open_world):
    world.fill([*clips(2, DAY_1, "a"), *clips(3, DAY_2, "b")])
    other = open_world()
    with ThreadPoolExecutor(1) as pool:
        with world.ledger.lease(f"{STAGE}/{DAY_1}"):
            with pytest.raises(LeaseHeld, match=rf"{STAGE}/{DAY_1} is worked on by"):
                other.embed("video", DAY_1, DAY_2, leases=IMPATIENT)
            assert {video_id[0] for video_id in world.states(STAGE)} == {"b"}
            waiting = pool.submit(other.embed, "video", DAY_1, DAY_2)
            until(lambda: waits_for_other(other, f"{STAGE}/{DAY_1}"))
        reports = waiting.result(LONG)
    assert [(date, report.worked_on) for date, report in reports.items()] == [
        (DAY_1, 2),
        (DAY_2, 0),
    ]


def test_a_date_whose_fusion_is_another_runs_is_left_for_last(world, open_world):
    world.fill([*clips(2, DAY_1, "a"), *clips(3, DAY_2, "b")])
    world.embed_all(DAY_1, DAY_2)
    world.lock()
    other = open_world()
    with ThreadPoolExecutor(1) as pool:
        with world.ledger.lease(f"fusion_concat/{DAY_1}"):
            with pytest.raises(LeaseHeld, match=rf"fusion_concat/{DAY_1} is worked on by"):
                other.fuse(DAY_1, DAY_2, leases=IMPATIENT)
            assert {video_id[0] for video_id in world.states("fusion_concat")} == {"b"}
            published = world.store.get(world.layout.state("fusion_concat"))
            assert sqlite_to_items(published, "state") == world.states("fusion_concat")
            waiting = pool.submit(other.fuse, DAY_1, DAY_2)
            until(lambda: waits_for_other(other, f"fusion_concat/{DAY_1}"))
        reports = waiting.result(LONG)
    assert [(date, report.worked_on) for date, report in reports.items()] == [
        (DAY_1, 2),
        (DAY_2, 0),
    ]


@pytest.mark.parametrize("run", ["embed", "fuse"])
def test_a_run_that_fails_gives_its_dates_back(world, monkeypatch, run):
    world.fill([*clips(2, DAY_1, "a"), *clips(2, DAY_2, "b")])
    world.embed_all(DAY_1, DAY_2)
    world.lock()
    by = door("video", "r2")

    def full(*_args):
        assert world.ledger.held_leases(), "it works under a lease"
        raise OSError("no space left")

    monkeypatch.setattr(ObjectStore, "put" if run == "embed" else "put_if_absent", full)
    runs = {
        "embed": lambda: world.embed("video", DAY_1, DAY_2, by=by, known=by.encoder.version),
        "fuse": lambda: world.fuse(DAY_1, DAY_2),
    }
    with pytest.raises(OSError, match="no space left"):
        runs[run]()
    assert world.ledger.held_leases() == []


def test_modalities_and_strategies_do_not_wait_for_each_other(world, open_world):
    prepared(world, clips(2))
    other = open_world()
    other.lock("sum_pool")
    with world.ledger.lease(f"{STAGE}/{DAY_1}"), world.ledger.lease(f"fusion_concat/{DAY_1}"):
        other.embed("audio", leases=IMPATIENT)
        other.fuse(DAY_1, strategy="sum_pool", leases=IMPATIENT)
        with pytest.raises(LeaseHeld):
            other.fuse(DAY_1, leases=IMPATIENT)


@pytest.fixture
def suspended(monkeypatch):
    """Whoever has a lease is as good as suspended: nothing renews it, and it is soon over."""
    monkeypatch.setattr(Lease, "keep", lambda _lease: None)
    return LeaseOptions(ttl_seconds=0.05)


def test_an_embedding_that_was_overtaken_changes_nothing(world, open_world, suspended):
    world.fill(clips(5))
    other, slow = open_world(), slow_door()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.embed, "video", by=slow, leases=suspended)
        assert slow.encoder.begun.wait(LONG)
        other.embed("video", by=door("video", "r2"))
        rows, objects = other.states(STAGE), other.objects("clipfarm/embeddings")
        slow.encoder.may.set()
        with pytest.raises(LeaseLost, match="was taken by") as lost:
            first.result(LONG)
    assert "on no record" not in str(lost.value), "it stored nothing"
    assert {item.version for item in rows.values()} == {version_of("video", "r2").id}
    assert world.states(STAGE) == rows
    assert world.objects("clipfarm/embeddings") == objects
    assert not [t for t in threading.enumerate() if t.name.startswith("clipfarm")]


def test_a_fusion_that_was_overtaken_stores_no_second_shard(
    world, open_world, suspended, monkeypatch
):
    prepared(world, clips(4))
    other = open_world()
    check, begun, may = Lease.check, threading.Event(), threading.Event()

    def late(lease):
        if not begun.is_set():
            begun.set()
            assert may.wait(LONG)
        check(lease)

    monkeypatch.setattr(Lease, "check", late)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.fuse, DAY_1, leases=suspended)
        assert begun.wait(LONG)
        other.fuse(DAY_1)
        rows, shards = other.states("fusion_concat"), other.shards()
        may.set()
        with pytest.raises(LeaseLost, match="was taken by"):
            first.result(LONG)
    assert len(shards) == 1
    assert world.shards() == shards
    assert world.states("fusion_concat") == rows


def overtaken_at(monkeypatch, world, scope):
    """A rival takes the lease when something is about to be committed under it."""
    commit = Ledger.commit

    def late(ledger, stage, items, *, lease=None):
        if lease is not None and lease.scope == scope:
            Place(ledger._begin, world.store.url, scope).take("a rival", 10**6, over=lease.token)
        commit(ledger, stage, items, lease=lease)

    monkeypatch.setattr(Ledger, "commit", late)


def test_an_embedding_that_is_overtaken_names_what_it_has_stored_since(world, monkeypatch):
    world.fill(clips(7))
    overtaken_at(monkeypatch, world, f"{STAGE}/{DAY_1}")
    with pytest.raises(LeaseLost, match="was taken by a rival") as lost:
        world.embed("video", batch_size=8)
    stored = sorted(world.objects("clipfarm/embeddings/video"))
    assert len(stored) == 7
    assert f"on no record: {', '.join(stored[:5])} and 2 more; " in str(lost.value)
    assert "verify_objects: true" in str(lost.value)
    monkeypatch.undo()
    assert world.states(STAGE) == {}


def test_only_what_is_on_no_record_is_named(world, monkeypatch):
    world.fill(clips(2, prefix="a"))
    world.embed("video")
    world.fill([*clips(2, prefix="a"), *clips(1, prefix="b")])
    overtaken_at(monkeypatch, world, f"{STAGE}/{DAY_1}")
    with pytest.raises(LeaseLost, match=r"on no record: clipfarm/embeddings/video/b-000\.npy; "):
        world.embed("video")


def test_a_fusion_that_is_overtaken_names_its_shard(world, monkeypatch):
    prepared(world, clips(3))
    overtaken_at(monkeypatch, world, f"fusion_concat/{DAY_1}")
    with pytest.raises(LeaseLost) as lost:
        world.fuse(DAY_1)
    (shard,) = world.shards()
    assert f"on no record: {shard}; the next run" in str(lost.value)
    monkeypatch.undo()
    assert world.states("fusion_concat") == {}
    assert world.fuse(DAY_1)[DAY_1].worked_on == 0, "the next run takes its rows over"
