"""Runs that begin while orphans are removed: of the two one sees the other, and gives way."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipfarm_assets.ledger.leases import LeaseHeld
from clipfarm_assets.pipelines.turns import SWEEP, LeaseOptions
from clipfarm_assets.pipelines.upkeep.collect import REFERRED_TO, RunsAtWork, collect
from clipfarm_assets.pipelines.upkeep.orphans import find_orphans
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import DAY_2, Clip, World
from clipfarm_assets_tests.pipelines.upkeep.kit import (
    GHOST,
    SOME,
    TRAINING,
    A,
    files,
    plant,
    tomorrow,
)


def look(world):
    return find_orphans(world.deployment, tomorrow())


def unknown_again(world):
    """A clip with a vector that the ledger lost: gc takes it for an orphan, a run embeds it."""
    key = world.layout.embedding("video", "ghost")
    world.fill([*SOME, Clip("ghost", DAY_2)])
    world.store.put(key, b"ghost")
    return key


def during_the_first_removal(monkeypatch, key, act):
    """Calls `act` between the last look at the orphan and its removal."""
    delete = ObjectStore.delete

    def meanwhile(store, where):
        if where == key:
            act()
        delete(store, where)

    monkeypatch.setattr(ObjectStore, "delete", meanwhile)


def test_a_run_that_is_not_to_wait_is_kept_from_what_is_removed(whole, monkeypatch):
    key = unknown_again(whole)
    refused = []

    def run():
        with World(whole.root) as other, pytest.raises(LeaseHeld, match=f"{SWEEP} is worked on"):
            other.embed("video", DAY_2, leases=LeaseOptions(wait_seconds=0))
        refused.append(key)

    during_the_first_removal(monkeypatch, key, run)
    collect(whole.deployment, look(whole))
    assert refused == [key]
    assert whole.states("video_embedding").get("ghost") is None
    monkeypatch.undo()
    whole.embed("video", DAY_2)
    assert whole.states("video_embedding")["ghost"].status == "success"
    assert whole.store.exists(key)


def test_a_run_that_begins_meanwhile_waits_and_is_given_way(whole, monkeypatch):
    monkeypatch.setattr("clipfarm_assets.pipelines.upkeep.collect._AT_ONCE", 1)
    key = unknown_again(whole)
    found = look(whole)
    assert key != found.orphans[-1].key
    with World(whole.root) as other, ThreadPoolExecutor(1) as pool:
        runs = []

        def run():
            runs.append(pool.submit(other.embed, "video", DAY_2))
            end = time.monotonic() + 30
            while not any(f"{SWEEP}: waiting for" in line for line in other.said):
                assert time.monotonic() < end
                time.sleep(0.01)

        during_the_first_removal(monkeypatch, key, run)
        with pytest.raises(RunsAtWork, match=f"video_embedding/{DAY_2}"):
            collect(whole.deployment, found)
        (report,) = runs[0].result(30).values()
    assert report.statuses == {"success": 1}
    assert whole.store.exists(key)
    assert whole.ledger.held_leases() == []


def test_one_removal_at_a_time(whole):
    plant(whole)
    found, before = look(whole), files(whole)
    with (
        whole.ledger.lease(SWEEP),
        pytest.raises(RunsAtWork, match=f"{SWEEP}: .* wait for them"),
    ):
        collect(whole.deployment, found)
    assert files(whole) == before


def test_a_dataset_that_is_made_again_stays(whole, monkeypatch):
    """Between two removals, by a machine with a ledger of its own."""
    plant(whole)
    parts = {key for key in files(whole) if key.startswith(f"{TRAINING}/{A}/")}
    assert parts <= {orphan.key for orphan in look(whole).orphans}

    def made_again():
        whole.store.put(f"{TRAINING}/dataset.json", json.dumps({"sha256": A}).encode())

    during_the_first_removal(monkeypatch, GHOST, made_again)
    done = collect(whole.deployment, look(whole))
    assert parts <= files(whole).keys()
    assert done.spared[REFERRED_TO] == len(parts)
