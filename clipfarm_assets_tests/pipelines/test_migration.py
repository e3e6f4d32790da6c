"""Going over to other encoders: archives, a new lock version, and runs that come in between."""

import pytest

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.lock import NothingToMigrate
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.storage.objects import ObjectChanged, ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    FUSED,
    LOCK,
    MANIFEST,
    TERMINAL_TEXT,
    Clip,
    clips,
    door,
    fields,
    version_of,
)


def test_a_migration_archives_and_opens_the_next_version(fused):
    shards = {key: fused.store.get(key) for key in fused.shards()}
    old_lock, old_manifest = fused.store.get(LOCK), fused.store.get(MANIFEST)
    old_vectors = {i: fused.fused_vector(row).tolist() for i, row in fused.manifest_rows().items()}
    fused.embed_all(revision="r2")

    outcome = fused.lock(migrate=True)

    assert (outcome.what, outcome.lock.lock_version) == ("migrated", 2)
    assert [change.name for change in outcome.changes] == [
        f"embedding_versions.{m}" for m in MODALITIES
    ]
    assert outcome.archived == (f"{FUSED}/schema.v1.json", f"{FUSED}/fused_manifest.v1.parquet")
    assert fused.store.get(f"{FUSED}/schema.v1.json") == old_lock
    assert fused.store.get(f"{FUSED}/fused_manifest.v1.parquet") == old_manifest
    assert fused.manifest_rows() == {}
    assert load_manifest(fused.deployment, "concat").lock_version == 2

    reports = fused.fuse(DAY_1)
    assert reports[DAY_1].reasons == {"version_changed": 5}
    update = fused.merge()
    assert update.archived == (), "known from the manifest that was archived: not read again"
    assert update.manifest.shards > shards.keys()
    rows = fused.manifest_rows()
    assert len(rows) == 5
    assert {key: fused.store.get(key) for key in shards} == shards
    assert not {row["fused_key"] for row in rows.values()} & shards.keys()
    assert all(fused.fused_vector(row).tolist() != old_vectors[i] for i, row in rows.items())
    assert fused.lock().what == "verified"
    assert fused.fuse(DAY_1)[DAY_1].reasons == {}


def test_another_dimension_can_be_migrated_to(fused):
    fused.embed("video", by=door("video", "wide", dim=9))

    assert fused.lock(migrate=True).lock.fused_dim == 18
    fused.fuse(DAY_1)
    fused.merge()

    assert {row["fused_dim"] for row in fused.manifest_rows().values()} == {18}


def test_a_second_migration_keeps_both_archives(fused):
    for version in (2, 3):
        fused.embed("video", by=door("video", f"r{version}"))
        assert fused.lock(migrate=True).lock.lock_version == version
        fused.fuse(DAY_1)
        fused.merge()

    assert fields(fused, f"{FUSED}/schema.v1.json")["embedding_versions"]["video"] == (
        version_of("video").id
    )
    assert fields(fused, f"{FUSED}/schema.v2.json")["embedding_versions"]["video"] == (
        version_of("video", "r2").id
    )
    assert len(fused.manifest_rows()) == 5


def test_there_must_be_something_to_migrate(fused, world):
    before = fused.objects()
    with pytest.raises(NothingToMigrate, match="nothing to migrate"):
        fused.lock(migrate=True)
    with pytest.raises(NothingToMigrate, match="does not exist"):
        fused.lock("sum_pool", migrate=True)
    assert fused.objects() == before


def test_clips_that_are_not_embedded_again_yet_wait(fused):
    fused.fill([*clips(5), *clips(3, DAY_2, "new")])
    fused.embed_all(DAY_2, revision="r2")
    fused.lock(migrate=True)

    reports = fused.fuse(DAY_1, DAY_2)
    fused.merge()

    assert reports[DAY_1].statuses == {"missing_required_modality": 5}
    item = fused.states("fusion_concat")["clip-000"]
    assert "which the lock has left behind" in item.error
    assert sorted(fused.manifest_rows()) == ["new-000", "new-001", "new-002"]

    fused.embed_all(DAY_1, revision="r2")
    reports = fused.fuse(DAY_1)
    fused.merge()
    assert reports[DAY_1].statuses == {"success_full": 5}
    assert len(fused.manifest_rows()) == 8


@pytest.mark.parametrize("told", [None, TERMINAL_TEXT])
def test_outdated_words_are_waited_for_and_no_placeholder(world, told):
    """Whatever the text downloader says by now: there are words, of the last encoder."""
    world.fill([Clip("aaa"), Clip("one", DAY_2, text_state=told)])
    world.all_of_it(DAY_1, DAY_2)
    world.embed_all(DAY_1, revision="r2")
    for modality in ("video", "audio"):
        world.embed(modality, DAY_2, by=door(modality, "r2"))
    world.lock(migrate=True)

    for _ in range(2):
        world.fuse(DAY_1, DAY_2)
        item = world.states("fusion_concat")["one"]
        assert item.status == "missing_text_pending"
        assert "which the lock has left behind" in item.error

    world.embed("text", DAY_2, by=door("text", "r2"))
    world.fuse(DAY_2)
    assert world.statuses("fusion_concat")["one"] == "success_full"


def test_going_back_to_the_encoder_left_behind_stops_the_run(fused):
    fused.embed_all(revision="r2")
    fused.lock(migrate=True)
    fused.fuse(DAY_1)
    fused.embed("video", by=door("video", "r1"))
    before = fused.objects()

    with pytest.raises(LockMismatch, match=r"embedding_versions\.video is locked to"):
        fused.fuse(DAY_1)
    assert fused.objects() == before


def test_a_version_that_no_lock_ever_named_stops_the_run_even_after_a_migration(fused):
    fused.embed_all(revision="r2")
    fused.lock(migrate=True)
    fused.embed("video", by=door("video", "r3"))

    with pytest.raises(LockMismatch, match=r"embedding_versions\.video"):
        fused.fuse(DAY_1)


class StoppedError(Exception):
    """Stands for kill -9 between two writes: nothing after it happens."""


def stop_after_lock_swap(monkeypatch):
    swap = ObjectStore.swap

    def stopping(store, key, data, expected):
        out = swap(store, key, data, expected)
        if key == LOCK:
            raise StoppedError
        return out

    monkeypatch.setattr(ObjectStore, "swap", stopping)


def test_a_migration_stopped_half_way_is_seen_by_readers_and_completed_by_the_next_update(
    fused, monkeypatch
):
    old_manifest = fused.store.get(MANIFEST)
    fused.embed_all(revision="r2")
    with monkeypatch.context() as patched:
        stop_after_lock_swap(patched)
        with pytest.raises(StoppedError):
            fused.lock(migrate=True)

    # The new lock beside the old manifest, which is archived already.
    assert fields(fused)["lock_version"] == 2
    assert fused.store.get(MANIFEST) == old_manifest
    assert fused.store.get(f"{FUSED}/fused_manifest.v1.parquet") == old_manifest
    with pytest.raises(LockMismatch, match=r"of lock version 1 .* version 2 is in force"):
        load_manifest(fused.deployment, "concat")
    with pytest.raises(NothingToMigrate):
        fused.lock(migrate=True)
    assert fused.lock().what == "verified"

    fused.merge()
    assert fused.manifest_rows() == {}
    fused.fuse(DAY_1)
    fused.merge()
    assert len(fused.manifest_rows()) == 5
    assert load_manifest(fused.deployment, "concat").lock_version == 2


def test_a_migration_stopped_before_the_new_lock_changed_nothing(fused, monkeypatch):
    fused.embed_all(revision="r2")
    before = fused.objects()

    def stopping(store, key, data, expected):
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "swap", stopping)
        with pytest.raises(StoppedError):
            fused.lock(migrate=True)

    after = fused.objects()
    assert {key: after[key] for key in before} == before
    assert load_manifest(fused.deployment, "concat").lock_version == 1
    assert fused.lock(migrate=True).lock.lock_version == 2


def test_a_manifest_updated_during_a_migration_is_not_emptied(fused, monkeypatch):
    """A rival fuses and merges between the new lock and the empty manifest."""
    fused.embed_all(revision="r2")
    swap = ObjectStore.swap

    def rival_first(store, key, data, expected):
        out = swap(store, key, data, expected)
        if key == LOCK:
            monkeypatch.undo()
            fused.fuse(DAY_1)
            fused.merge()
        return out

    monkeypatch.setattr(ObjectStore, "swap", rival_first)
    fused.lock(migrate=True)

    assert len(fused.manifest_rows()) == 5
    assert load_manifest(fused.deployment, "concat").lock_version == 2


def test_an_update_that_began_before_a_migration_does_not_undo_it(fused, monkeypatch):
    """It holds rows made under the old lock: it may not write them beside the new one."""
    fused.fill([*clips(5), *clips(2, DAY_2, "new")])
    fused.embed_all(DAY_2)
    fused.fuse(DAY_2)
    update = ObjectStore.update

    def migrated_meanwhile(store, key, change, *args):
        monkeypatch.undo()
        fused.embed_all(DAY_1, DAY_2, revision="r2")
        fused.lock(migrate=True)
        return update(store, key, change, *args)

    monkeypatch.setattr(ObjectStore, "update", migrated_meanwhile)
    with pytest.raises(ObjectChanged, match="run again"):
        fused.merge()

    assert load_manifest(fused.deployment, "concat").lock_version == 2
    assert fused.manifest_rows() == {}


def test_two_migrations_at_once_are_one(fused, monkeypatch):
    fused.embed_all(revision="r2")
    swap = ObjectStore.swap

    def rival_first(store, key, data, expected):
        monkeypatch.undo()
        fused.lock(migrate=True)
        return swap(store, key, data, expected)

    monkeypatch.setattr(ObjectStore, "swap", rival_first)
    with pytest.raises(ObjectChanged):
        fused.lock(migrate=True)

    assert fields(fused)["lock_version"] == 2
    assert fields(fused, f"{FUSED}/schema.v1.json")["lock_version"] == 1


BESIDE = {"whole_rows": 0, "delta_share": 9.0}


@pytest.fixture
def grown(fused):
    """Two more clips of another day in a delta, and everything embedded by other encoders."""
    fused.fill([*clips(5), *clips(2, DAY_2, "new")])
    fused.embed_all(DAY_2)
    fused.fuse(DAY_2)
    assert fused.merge(**BESIDE).delta
    fused.embed_all(DAY_1, DAY_2, revision="r2")
    return fused


def one_file(world):
    """The manifest as one file, as merging its deltas into it would leave it."""
    return manifest_file.to_bytes(load_manifest(world.deployment, "concat"))


def test_a_migration_archives_deltas_with_the_manifest(grown):
    before = one_file(grown)
    outcome = grown.lock(migrate=True)

    archive = f"{FUSED}/fused_manifest.v1.parquet"
    assert archive in outcome.archived
    assert grown.store.get(archive) == before
    assert manifest_store.list_deltas(grown.deployment, "concat") == []
    assert grown.merge().archived == ()
    assert grown.manifest_rows() == {}


def test_a_migration_stopped_half_way_leaves_no_delta_behind_for_long(grown, monkeypatch):
    before = one_file(grown)
    with monkeypatch.context() as patched:
        stop_after_lock_swap(patched)
        with pytest.raises(StoppedError):
            grown.lock(migrate=True)

    assert grown.store.get(f"{FUSED}/fused_manifest.v1.parquet") == before
    assert len(manifest_store.list_deltas(grown.deployment, "concat")) == 1
    update = grown.merge(**BESIDE)
    assert (update.rows, update.archived) == (0, ())
    assert manifest_store.list_deltas(grown.deployment, "concat") == []
    grown.fuse(DAY_1, DAY_2)
    grown.merge(**BESIDE)
    assert load_manifest(grown.deployment, "concat").rows.num_rows == 7


def test_a_compaction_during_a_migration_does_not_bring_the_old_rows_back(grown, monkeypatch):
    """The lock changes after the update has read it and before it swaps the base."""
    update = ObjectStore.update

    def migrated_meanwhile(store, key, change, *args):
        monkeypatch.undo()
        grown.lock(migrate=True)
        return update(store, key, change, *args)

    monkeypatch.setattr(ObjectStore, "update", migrated_meanwhile)
    with pytest.raises(ObjectChanged, match="run again"):
        grown.merge(compact="always")

    assert load_manifest(grown.deployment, "concat").rows.num_rows == 0
    assert manifest_store.list_deltas(grown.deployment, "concat") == []
