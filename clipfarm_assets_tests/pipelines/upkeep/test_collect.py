"""Orphans are removed, and nothing else, whatever happens meanwhile."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.ledger.published import items_to_sqlite, sqlite_to_items
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.inspect.audit.run import audit
from clipfarm_assets.pipelines.upkeep import collect as collecting
from clipfarm_assets.pipelines.upkeep.collect import RunsAtWork, TooMany, collect
from clipfarm_assets.pipelines.upkeep.orphans import find_orphans
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import DAY_1, MANIFEST
from clipfarm_assets_tests.pipelines.upkeep.kit import (
    DATES,
    GHOST,
    UNFINISHED,
    age,
    disturbed,
    files,
    plant,
    superseded_shard,
    tomorrow,
)
from clipfarm_assets_tests.training.stores import Killed, kill

OTHER = "clipfarm/embeddings/video/ghost-b.npy"


def look(world):
    return find_orphans(world.deployment, tomorrow())


def named(world, video_id):
    """As a run that has just stored a vector names it."""
    like = world.states("video_embedding")["a-000"]
    key = f"clipfarm/embeddings/video/{video_id}.npy"
    world.ledger.commit("video_embedding", [replace(like, video_id=video_id, artifact_key=key)])


def test_exactly_the_orphans_go_and_a_report_lists_them(whole):
    planted = plant(whole)
    before = files(whole)
    done = collect(whole.deployment, look(whole))

    after = files(whole)
    report = json.loads(after.pop(done.report))
    assert after == {key: data for key, data in before.items() if key not in planted}
    assert {orphan.key for orphan in done.deleted} == planted
    assert done.spared == {}
    assert report["state"] == "ended"
    assert {(r["key"], r["bytes"]) for r in report["deleted"]} == {
        (key, len(before[key])) for key in planted
    }
    again = look(whole)
    assert again.orphans == ()
    assert collect(whole.deployment, again).report == "", "nothing is written about nothing"

    # The pipeline finds all it needs, and has nothing to do.
    whole.all_of_it(*DATES)
    for row in whole.manifest_rows().values():
        whole.fused_vector(row)
    assert {k: v for k, v in files(whole).items() if "state" not in k} == {
        k: v for k, v in after.items() if "state" not in k
    }


def test_what_is_referred_to_after_it_was_found_stays(whole):
    plant(whole)
    whole.store.put(OTHER, b"ghost")
    found = look(whole)
    named(whole, "ghost-b")
    done = collect(whole.deployment, found)
    assert OTHER in files(whole)
    assert GHOST not in files(whole)
    assert done.spared == {collecting.REFERRED_TO: 1}


def test_what_is_referred_to_between_two_removals_stays(whole, monkeypatch):
    """Not known when the batch began: each is asked for right before."""
    whole.store.put(OTHER, b"ghost")
    whole.store.put(GHOST, b"ghost")
    shard = superseded_shard(whole)
    delete = ObjectStore.delete

    def meanwhile(store, key):
        if key == OTHER:  # the first one, by its key
            named(whole, "ghost")
            rows = whole.states("fusion_concat")
            led = replace(rows["late-words"], artifact_key=shard)
            whole.ledger.commit("fusion_concat", [led])
        delete(store, key)

    monkeypatch.setattr(ObjectStore, "delete", meanwhile)
    done = collect(whole.deployment, look(whole))
    assert [orphan.key for orphan in done.deleted] == [OTHER]
    assert {GHOST, shard} <= files(whole).keys()
    assert done.spared == {collecting.REFERRED_TO: 2}


def test_what_is_written_again_or_removed_meanwhile_is_left_alone(whole, monkeypatch):
    for key in (GHOST, OTHER):
        whole.store.put(key, b"ghost")
        age(whole, key)
    (whole.root / "store" / UNFINISHED).write_bytes(b"half")
    age(whole, UNFINISHED)
    cutoff = datetime.now(UTC) - timedelta(days=7)
    found = find_orphans(whole.deployment, cutoff)
    assert {orphan.key for orphan in found.orphans} == {GHOST, OTHER, UNFINISHED}
    refuse, calls = collecting.refuse_at_work, []

    def once_more(deployment, own=None):
        calls.append(None)
        if len(calls) == 2:  # in the batch, after it was looked at for the last time as a whole
            marks = collecting._Sweep._marks

            def later(sweep):
                now = marks(sweep)
                again = find_orphans(whole.deployment, cutoff)
                monkeypatch.setattr(collecting, "find_orphans", lambda *_: again)
                whole.store.put(GHOST, b"new")
                whole.store.delete(OTHER)
                (whole.root / "store" / UNFINISHED).unlink()
                return now

            monkeypatch.setattr(collecting._Sweep, "_marks", later)
        refuse(deployment, own)

    monkeypatch.setattr(collecting, "refuse_at_work", once_more)
    done = collect(whole.deployment, found)
    assert done.deleted == ()
    assert done.spared == {collecting.GONE: 2, collecting.WRITTEN_AGAIN: 1}
    assert whole.store.get(GHOST) == b"new"


def test_a_manifest_that_changes_between_batches_is_read_again(whole, monkeypatch):
    monkeypatch.setattr(collecting, "_AT_ONCE", 1)
    planted = plant(whole)
    shard = superseded_shard(whole)
    delete = ObjectStore.delete
    pointing = _pointing_to(whole, shard)

    def meanwhile(store, key):
        if key == GHOST:
            whole.store.put(MANIFEST, pointing)
        delete(store, key)

    monkeypatch.setattr(ObjectStore, "delete", meanwhile)
    done = collect(whole.deployment, look(whole))
    assert shard in files(whole)
    assert {orphan.key for orphan in done.deleted} == planted - {shard}


def _pointing_to(world, shard):
    """The manifest with a row more, which points to the shard."""
    base = manifest_file.from_bytes(world.store.get(MANIFEST), MANIFEST)
    rows = FusedShard.from_npz(world.store.get(shard), shard).manifest_rows(shard)
    rows = rows.set_column(0, "video_id", [["zzz"]])
    return manifest_file.to_bytes(base.merged([rows], [shard]))


def test_nothing_is_removed_while_a_run_is_at_work(whole):
    plant(whole)
    found, before = look(whole), files(whole)
    with (
        whole.ledger.lease(f"video_embedding/{DAY_1}"),
        pytest.raises(RunsAtWork, match=f"video_embedding/{DAY_1}: .* wait for them"),
    ):
        collect(whole.deployment, found)
    assert files(whole) == before
    assert len(collect(whole.deployment, found).deleted) == len(found.orphans)


def test_a_run_that_begins_meanwhile_ends_it(whole, monkeypatch):
    monkeypatch.setattr(collecting, "_AT_ONCE", 1)
    planted = plant(whole)
    delete = ObjectStore.delete
    with whole.ledger.lease("video_embedding/x") as lease:
        held = whole.ledger.held_leases()
    assert lease

    def meanwhile(store, key):
        monkeypatch.setattr(type(whole.ledger), "held_leases", lambda _: held)
        delete(store, key)

    monkeypatch.setattr(ObjectStore, "delete", meanwhile)
    with pytest.raises(RunsAtWork):
        collect(whole.deployment, look(whole))
    monkeypatch.undo()
    (report,) = whole.store.list("clipfarm/state/upkeep")
    told = json.loads(whole.store.get(report.key))
    assert told["state"] == "broken_off"
    gone = {record["key"] for record in told["deleted"]}
    assert gone == planted - files(whole).keys()
    assert 0 < len(gone) < len(planted)


def test_so_many_of_a_kind_are_a_wrong_ledger_rather(whole):
    for n in range(21):
        whole.store.put(f"clipfarm/embeddings/video/ghost-{n}.npy", b"ghost")
    found, before = look(whole), files(whole)
    with pytest.raises(TooMany, match=r"21 of 44 objects of kind embedding .* --max-share 1"):
        collect(whole.deployment, found, max_share=0.4)
    assert files(whole) == before
    assert len(collect(whole.deployment, found, max_share=1.0).deleted) == 22


def test_killed_anywhere_it_is_completed_by_the_next(whole):
    planted = plant(whole)
    before = files(whole)
    kills = 0
    while found := look(disturbed(whole, 3, kill)).orphans:  # the report, one object, and dead
        try:
            collect(whole.deployment, look(whole))
        except Killed:
            kills += 1
        assert before.keys() - files(whole).keys() <= planted
        assert len(found) > len(look(whole).orphans)
    assert kills > 5
    after = {k: v for k, v in files(whole).items() if "/upkeep/" not in k}
    assert after == {key: data for key, data in before.items() if key not in planted}


def test_what_a_forgotten_clip_left_behind_is_an_orphan(whole):
    """A run that did not know it yet stored its vector once more."""
    key = "clipfarm/embeddings/video/gone.npy"
    whole.store.put(key, b"vector")
    whole.ledger.commit("video_embedding", [Item("gone", "", "2026-02-05", "forgotten")])
    assert key in {orphan.key for orphan in look(whole).orphans}


def test_no_published_state_names_what_was_removed(whole):
    """A run was killed before it published its rows; then what these replaced was collected."""
    key, shard = "clipfarm/state/fusion_concat.sqlite", superseded_shard(whole)
    items = sqlite_to_items(whole.store.get(key), key)
    earlier = "2020-01-01T00:00:00.000000+00:00"
    old = replace(items["late-words"], artifact_key=shard, processed_at=earlier)
    whole.store.put(key, items_to_sqlite(items | {"late-words": old}))
    assert shard in {orphan.key for orphan in collect(whole.deployment, look(whole)).deleted}
    assert audit(whole.deployment).findings == ()
    assert sqlite_to_items(whole.store.get(key), key) == whole.states("fusion_concat")
