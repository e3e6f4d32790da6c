"""Deltas of another version of the lock."""

import hashlib

import pytest

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.storage.objects import ObjectChanged
from clipfarm_assets_tests.pipelines.manifest_deltas.kit import DELTAS, LAYOUT, hooked


def test_deltas_of_an_earlier_lock_are_passed_over_and_removed(grown):
    old = grown.plainly()
    grown.lock(2)
    with pytest.raises(LockMismatch, match=r"of lock version 1 but version 2 is in force"):
        grown.manifest()
    new = grown.put(2, "x", lock_version=2)

    # The base is of the old lock: it is made anew, and the old deltas go.
    grown.update("never")
    assert grown.deltas() == []
    assert grown.ids() == ["x"]
    assert grown.manifest().shards == {*old.shards, new}


def test_a_late_delta_of_an_earlier_lock_changes_nothing(grown):
    late = grown.store.get(grown.deltas()[0])
    grown.lock(2)
    grown.put(2, "x", lock_version=2)
    grown.update()
    key = LAYOUT.manifest_delta("concat", hashlib.sha256(late).hexdigest())
    grown.store.put(key, late)

    assert grown.ids() == ["x"]
    grown.put(3, "y", lock_version=2)
    update = grown.update()
    assert (update.deltas, update.delta_rows) == (1, 1)
    assert grown.ids() == ["x", "y"]
    grown.update("always")
    assert grown.deltas() == []
    assert grown.base() == manifest_file.to_bytes(grown.plainly(2))


def test_a_delta_of_a_later_lock_stops_readers_and_updates(grown):
    data = manifest_file.to_bytes(FusedManifest.empty(2))
    key = LAYOUT.manifest_delta("concat", hashlib.sha256(data).hexdigest())
    grown.store.put(key, data)
    with pytest.raises(LockMismatch, match=f"{key} is of lock version 2 but version 1"):
        grown.manifest()
    before = grown.base()
    for compact in ("always", "never"):
        grown.put(7 + len(compact), "x")
        with pytest.raises(ObjectChanged, match=f"{key} was migrated to lock version 2 meanwhile"):
            grown.update(compact)
    assert grown.base() == before


def test_an_update_that_publishes_under_a_lock_just_replaced_says_so(grown, monkeypatch):
    grown.put(2, "e")
    hooked(monkeypatch, "put_if_absent", DELTAS, lambda: grown.lock(2))
    with pytest.raises(ObjectChanged, match="migrated to lock version 2 meanwhile: run again"):
        grown.update()
