"""The schema lock: made once, verified ever after, changed by migration alone."""

from dataclasses import replace

import pytest

from clipfarm_assets.contracts.schema_lock import BadLock, LockMismatch, SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines import lock as lock_module
from clipfarm_assets.pipelines.lock import NothingEmbedded
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    LOCK,
    Clip,
    clips,
    door,
    fields,
    version_of,
)


def test_the_first_lock_says_what_the_vectors_are(world):
    world.fill(clips(2))
    world.embed_all()

    outcome = world.lock(clock=lambda: "2026-02-05T00:00:00+00:00")

    assert outcome.what == "created"
    assert fields(world) == {
        "fusion_strategy": "concat",
        "video_dim": 6,
        "audio_dim": 4,
        "text_dim": 4,
        "fused_dim": 15,
        "mask_appended": True,
        "updated_at": "2026-02-05T00:00:00+00:00",
        "lock_version": 1,
        "embedding_versions": {m: version_of(m).id for m in MODALITIES},
    }


@pytest.mark.parametrize(("strategy", "dim"), [("concat", 15), ("sum_pool", 7), ("max_pool", 7)])
def test_a_lock_that_agrees_is_verified_and_left_alone(world, strategy, dim):
    world.fill(clips(2))
    world.embed_all()
    assert world.lock(strategy).lock.fused_dim == dim
    before = world.objects()

    assert world.lock(strategy).what == "verified"
    assert world.objects() == before


@pytest.mark.parametrize("absent", MODALITIES)
def test_there_is_nothing_to_lock_before_every_modality_has_a_vector(world, absent):
    world.fill([Clip("one", **{absent: None})])
    world.embed_all()

    with pytest.raises(NothingEmbedded, match=f"materialise clips/{absent}_embeddings"):
        world.lock()
    assert not world.store.exists(LOCK)


def test_a_lock_that_is_none_is_not_replaced(fused):
    fused.store.put(LOCK, b"{")
    with pytest.raises(BadLock, match=LOCK):
        fused.lock()
    assert fused.store.get(LOCK) == b"{"


@pytest.mark.parametrize("modality", MODALITIES)
def test_another_encoder_stops_at_the_lock_and_says_how_to_go_on(fused, modality):
    fused.embed(modality, by=door(modality, "r2"))
    before = fused.objects()

    with pytest.raises(LockMismatch) as stopped:
        fused.lock()

    sentence = str(stopped.value)
    for part in (
        f"embedding_versions.{modality}",
        version_of(modality).id,
        version_of(modality, "r2").id,
        "{migrate: true}",
        "clips/schema_lock",
    ):
        assert part in sentence
    assert "\n" not in sentence
    assert fused.objects() == before


def test_another_dimension_stops_at_the_lock(fused):
    fused.embed("video", by=door("video", "wide", dim=9))

    with pytest.raises(LockMismatch, match="video_dim is locked to 6 but 9 was found"):
        fused.lock()


def test_fusion_stops_before_anything_is_written(fused):
    """New clips of another encoder beside old ones: not one shard, not one status."""
    fused.fill([*clips(5), *clips(6, DAY_2, "new"), Clip("aaa", DAY_2, text=None)])
    fused.embed_all(DAY_2)
    fused.embed("audio", DAY_2, by=door("audio", "r2"))
    before, states = fused.objects(), fused.states("fusion_concat")

    with pytest.raises(LockMismatch, match=r"embedding_versions\.audio"):
        fused.fuse(DAY_1, DAY_2, shard_rows=1)

    assert fused.objects() == before
    assert fused.states("fusion_concat") == states


def test_two_first_locks_at_once_are_one(world, monkeypatch):
    world.fill(clips(2))
    world.embed_all()
    create = ObjectStore.put_if_absent

    def rival_first(store, key, data):
        monkeypatch.undo()
        world.lock(clock=lambda: "the rival's")
        create(store, key, data)

    monkeypatch.setattr(ObjectStore, "put_if_absent", rival_first)
    outcome = world.lock(clock=lambda: "ours")

    assert (outcome.what, outcome.lock.updated_at) == ("verified", "the rival's")
    assert fields(world)["updated_at"] == "the rival's"


def test_the_mask_is_the_deployments_choice(fused):
    """A lock without mask stays one, also through a migration."""
    old = SchemaLock.from_json(fused.store.get(LOCK))
    bare = replace(old, mask_appended=False, fused_dim=14)
    fused.store.put(LOCK, bare.to_json())
    assert fused.lock().what == "verified"

    fused.embed("video", by=door("video", "r2"))
    assert fused.lock(migrate=True).lock.fused_dim == 14


def test_now_is_a_moment_with_its_zone():
    assert lock_module.now().endswith("+00:00")


def test_the_mask_can_be_left_out_of_a_new_lock(world):
    world.fill(clips(2))
    world.embed_all()
    lock = world.lock(append_mask=False).lock
    assert lock.mask_appended is False
    assert lock.fused_dim == lock.video_dim + lock.audio_dim + lock.text_dim
    world.fuse()
    world.merge()
    assert {row["fused_dim"] for row in world.manifest_rows().values()} == {lock.fused_dim}
    assert world.lock().what == "verified"
    with pytest.raises(LockMismatch, match="fused_dim is locked to"):
        world.lock(append_mask=True)
    assert world.lock(append_mask=True, migrate=True).lock.fused_dim == lock.fused_dim + 1


def test_a_lock_of_another_strategy_is_refused(fused):
    fused.lock("sum_pool")
    other = fused.store.get("clipfarm/fused/sum_pool/schema.json")
    fused.store.put(LOCK, other)
    sentence = "must be the lock of 'concat' but is that of 'sum_pool'"
    for step in (fused.fuse, fused.merge, fused.lock):
        with pytest.raises(LockMismatch, match=sentence):
            step()


def test_a_vector_that_vanished_before_it_was_ever_locked_has_a_sentence(world):
    world.fill(clips(1))
    world.embed_all()
    world.store.delete(world.layout.models_lock())
    world.store.delete(world.layout.embedding("video", "clip-000"))
    with pytest.raises(NothingEmbedded, match=r"does not exist: restore it.*verify_objects: true"):
        world.lock()
