"""Fusion where something was lost, left behind by a killed run, or overtaken by a later capture."""

import pytest

from clipfarm_assets.pipelines.fuse import FuseOptions, FusionStage
from clipfarm_assets.pipelines.manifest import DanglingPointer
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    TERMINAL_TEXT,
    Clip,
    clips,
    fuse,
    npy_key,
    prepared,
    state,
)


def test_vectors_count_by_their_objects_where_the_embedding_states_were_lost(world, open_world):
    prepared(world, [Clip("one", text_state=TERMINAL_TEXT)])
    for modality in ("video", "audio", "text"):
        world.store.delete(world.layout.state(f"{modality}_embedding"))
    words = world.store.get(npy_key("text"))
    world.store.delete(npy_key("text"))

    new = open_world("new")
    fuse(new)
    assert state(new).status == "success_text_placeholder"

    new.store.put(npy_key("text"), words)
    assert fuse(new).reasons == {"text_arrived": 1}
    assert state(new).status == "success_full"


def test_a_vector_that_was_stored_but_never_recorded_is_of_no_known_encoder(world):
    prepared(world, [])
    world.fill([Clip("aaa"), Clip("one")])
    for modality in ("video", "audio", "text"):
        world.store.put(npy_key(modality), world.store.get(npy_key(modality, "aaa")))
    assert fuse(world).statuses == {"missing_required_modality": 1, "success_full": 1}
    assert state(world).error == "video: not embedded yet; audio: not embedded yet"

    world.embed_all()
    assert fuse(world).statuses == {"success_full": 1}


def test_a_stale_index_does_not_turn_a_clip_back(world):
    old, new = Clip("one", DAY_1, url="https://a/1"), Clip("one", DAY_2, url="https://a/2")
    world.fill([Clip("aaa"), old])
    stale = world.index(DAY_1)
    world.embed_all()
    world.lock()
    fuse(world)
    world.fill([Clip("aaa"), new])
    world.embed_all(DAY_2)
    world.fuse(DAY_2)
    shards, rows = world.shards(), world.states("fusion_concat")

    stage = FusionStage(world.deployment, "concat", FuseOptions(), world.said.append)
    report = stage.run(stale)[DAY_1]

    assert report.totals["outdated_index_rows"] == 1
    assert report.reasons == {}
    assert world.shards() == shards
    assert world.states("fusion_concat") == rows


def test_a_lost_shard_is_made_again_on_request_under_a_number_never_used(world):
    prepared(world, [Clip("one")])
    fuse(world)
    world.merge()
    before = world.manifest_rows()["one"]
    vector = world.fused_vector(before)
    world.store.delete(before["fused_key"])

    assert fuse(world).reasons == {}
    with pytest.raises(DanglingPointer, match=r"does not exist.*verify_objects: true"):
        world.merge()
    assert fuse(world, verify_objects=True).reasons == {"object_missing": 2}
    world.merge()
    after = world.manifest_rows()["one"]
    assert after["fused_key"] > before["fused_key"]
    assert (world.fused_vector(after) == vector).all()
    assert fuse(world, verify_objects=True).reasons == {}


def test_shards_are_looked_at_once(world, monkeypatch):
    prepared(world, clips(3))
    fuse(world, shard_rows=1)
    world.fill([Clip("aaa"), *clips(3, DAY_2)])
    world.embed_all(DAY_2)
    world.fuse(DAY_2)  # the clips moved on: no row of that day names the first day's shards
    world.fuse(DAY_1)
    got = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda s, k: (got.append(k), get(s, k))[1])
    world.fuse(DAY_1)
    assert not [key for key in got if key.endswith(".npz")]
