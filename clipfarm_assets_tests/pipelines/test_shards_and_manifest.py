"""Part numbers, immutable shards, and a manifest that is a function of them."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.pipelines.embedding_manifest import embedding_manifest
from clipfarm_assets.pipelines.lock import NoLock
from clipfarm_assets.pipelines.manifest import DanglingPointer, load_manifest, shards_of
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    CORRUPT,
    DAY_1,
    DAY_2,
    MANIFEST,
    Clip,
    clips,
    version_of,
)

DATE = f"clipfarm/fused/concat/shards/date={DAY_1}"
STAGE = "fusion_concat"


def part(number):
    return f"{DATE}/part-{number:04d}.npz"


def ready(world, *more):
    """Embedded and locked, not fused."""
    world.fill([*clips(5), *more])
    world.embed_all(DAY_1, DAY_2)
    world.lock()


def test_shards_take_the_next_free_number(world):
    ready(world)
    world.fuse(shard_rows=2)
    assert world.shards() == [part(0), part(1), part(2)]
    first = world.objects(DATE)

    world.fill([*clips(5), Clip("late")])
    world.embed_all()
    world.fuse()
    assert world.shards() == [part(n) for n in range(4)]
    assert {key: world.store.get(key) for key in first} == first


def test_a_gap_is_not_filled_and_other_objects_are_no_shards(world):
    ready(world)
    world.fuse(shard_rows=2)
    taken = world.store.get(part(2))
    for number in (0, 1):
        world.store.delete(part(number))
    world.store.put(f"{DATE}/part-9x.npz", b"someone's note")
    world.fill([*clips(5), Clip("late")])
    world.embed_all()

    world.fuse()

    assert world.store.exists(part(3))
    assert not world.store.exists(part(0))
    assert not world.store.exists(part(1))
    assert world.store.get(part(2)) == taken


def test_a_rival_that_takes_the_number_keeps_it(world, open_world, monkeypatch):
    ready(world)
    rival, rivals_bytes = open_world("rival"), {}  # a machine whose ledger is its own
    create = ObjectStore.put_if_absent

    def rival_first(store, key, data):
        monkeypatch.undo()
        rival.fill([*clips(5), Clip("rivals")])
        rival.embed_all()
        rival.fuse()
        rivals_bytes.update(rival.objects(DATE))
        create(store, key, data)

    monkeypatch.setattr(ObjectStore, "put_if_absent", rival_first)
    world.fuse()
    world.merge()

    assert list(rivals_bytes) == [part(0)]
    assert world.shards() == [part(0), part(1)]
    assert world.store.get(part(0)) == rivals_bytes[part(0)]
    rows = world.manifest_rows()
    assert sorted(rows) == [*(c.video_id for c in clips(5)), "rivals"]
    for row in rows.values():
        world.fused_vector(row)


def test_three_pointers_are_read_back(world, monkeypatch):
    ready(world)
    world.fuse(shard_rows=2)

    update = world.merge()

    assert update.new_shards == (part(0), part(1), part(2))
    assert update.read_back == (
        f"clip-000 -> {part(0)}[0]",
        f"clip-002 -> {part(1)}[0]",
        f"clip-004 -> {part(2)}[0]",
    )
    # Those of new shards; and of everything where nothing is new.
    world.fill([*clips(5), Clip("late")])
    world.embed_all()
    world.fuse()
    assert world.merge().read_back == (f"late -> {part(3)}[0]",)
    assert [line.split(" ")[0] for line in world.merge().read_back] == [
        "clip-000",
        "clip-003",
        "late",
    ]


def test_a_pointer_that_leads_elsewhere_is_found_by_reading_back(world):
    ready(world)
    world.fuse()
    world.merge()
    shard = FusedShard.from_npz(world.store.get(part(0)), part(0))
    world.store.put(part(0), replace(shard, video_ids=shard.video_ids[::-1].copy()).to_npz())

    with pytest.raises(DanglingPointer, match=r"clip-000 -> .*\[0\]: the shard holds 'clip-004'"):
        world.merge()


@pytest.mark.parametrize("damage", ["cut", "bit", "junk", "pickled"])
def test_a_damaged_shard_is_caught_and_named(world, damage):
    ready(world)
    world.fuse()
    good = world.store.get(part(0))
    with np.load(io.BytesIO(good), allow_pickle=False) as arrays:
        members = dict(arrays)
    pickled = io.BytesIO()
    np.savez(pickled, **members | {"video_ids": members["video_ids"].astype(object)})
    bit = bytearray(good)
    bit[good.index(members["vectors"].tobytes()) + 5] ^= 1
    bad = {"cut": good[:-40], "bit": bytes(bit), "junk": b"x", "pickled": pickled.getvalue()}
    world.store.put(part(0), bad[damage])
    before = world.objects()

    with pytest.raises(BadShard, match=part(0)):
        world.merge()
    assert world.objects() == before
    ((_, told),) = shards_of(world.deployment, [part(0)])
    assert isinstance(told, str)

    # A run that would take over its rows stops too, rather than fuse past it.
    world.ledger.commit(STAGE, [replace(i, artifact_key="x") for i in world.states(STAGE).values()])
    with pytest.raises(BadShard, match=part(0)):
        world.fuse()


def test_a_shard_that_is_gone_has_a_sentence(world):
    found = dict(shards_of(world.deployment, [part(7)]))
    assert found == {part(7): f"{part(7)} does not exist"}


def test_a_shard_made_by_another_encoder_does_not_enter(world):
    ready(world)
    world.fuse()
    shard = FusedShard.from_npz(world.store.get(part(0)), part(0))
    other = np.array([version_of(m, "r9").id for m in ("video", "audio", "text")])
    foreign = replace(shard, declared=replace(shard.declared, embedding_versions=other))
    world.store.put(part(1), foreign.to_npz())

    with pytest.raises(LockMismatch, match=r"embedding_versions\.video"):
        world.merge()
    assert not world.store.exists(MANIFEST)


def test_a_shard_without_declaration_is_left_alone_and_counted(world):
    ready(world)
    world.fuse()
    file = io.BytesIO()
    np.savez(file, video_ids=["x"], vectors=np.zeros((1, 15), "f4"), captured_at=["2026"])
    world.store.put(part(9), file.getvalue())

    update = world.merge()

    assert update.undeclared == (part(9),)
    assert update.new_shards == (part(0),)
    assert "x" not in world.manifest_rows()


def test_the_manifest_is_the_same_however_the_shards_come_in(world):
    ready(world, *clips(4, DAY_2, "second"))
    world.fuse(DAY_1, shard_rows=2)
    world.merge()
    world.fuse(DAY_2, shard_rows=3)
    world.merge()
    in_steps = world.store.get(MANIFEST)

    world.store.delete(MANIFEST)
    world.merge()

    assert world.store.get(MANIFEST) == in_steps


def test_readers_see_the_old_manifest_or_the_new_one(world, monkeypatch):
    """A rival's update lands between reading and swapping: both updates' rows are kept."""
    ready(world, *clips(4, DAY_2, "second"))
    world.fuse(DAY_1)
    swap, raced = ObjectStore.swap, []

    def rival_first(store, key, data, expected):
        if key == MANIFEST and not raced:
            raced.append(key)
            world.fuse(DAY_2)
            world.merge()
        return swap(store, key, data, expected)

    monkeypatch.setattr(ObjectStore, "swap", rival_first)
    world.merge()

    assert raced
    assert len(world.manifest_rows()) == 9
    loaded = load_manifest(world.deployment, "concat")
    assert loaded.shards == frozenset(world.shards())


def test_the_latest_row_of_a_clip_and_source_is_the_one(world):
    ready(world)
    world.fuse()
    world.merge()
    moved = Clip("clip-001", DAY_2, url="https://youtu.be/elsewhere")
    world.fill([c for c in clips(5) if c.video_id != moved.video_id] + [moved])
    world.embed_all(DAY_1, DAY_2)
    world.fuse(DAY_1, DAY_2)
    world.merge()

    rows = pl.read_parquet(io.BytesIO(world.store.get(MANIFEST)))
    of_clip = rows.filter(pl.col("video_id") == "clip-001")
    assert set(of_clip["source_hash"]) == {clips(2)[1].source_hash, moved.source_hash}
    assert len(rows) == 6


def test_without_a_lock_or_a_manifest_readers_are_told_what_to_do(world):
    with pytest.raises(NoLock, match="clips/schema_lock"):
        world.merge()
    world.fill(clips(1))
    world.embed_all()
    world.lock()
    with pytest.raises(FileNotFoundError, match="materialise clips/fused_manifest for 'concat'"):
        load_manifest(world.deployment, "concat")
    world.merge()
    assert world.manifest_rows() == {}
    assert load_manifest(world.deployment, "concat").rows.num_rows == 0


def test_the_embedding_manifest_says_what_the_ledger_knows(world):
    world.fill([Clip("absent", video=None), Clip("bad", audio=CORRUPT), Clip("good")])
    world.embed_all()

    rows = embedding_manifest(world.deployment, world.index()[DAY_1]).to_pylist()

    assert [(r["video_id"], r["modality"]) for r in rows] == [
        (i, m) for i in ("absent", "bad", "good") for m in ("audio", "text", "video")
    ]
    by_key = {(r["video_id"], r["modality"]): r for r in rows}
    good, absent, bad = (
        by_key[key] for key in (("good", "video"), ("absent", "video"), ("bad", "audio"))
    )
    assert {k: good[k] for k in good if k != "processed_at"} == {
        "video_id": "good",
        "source_hash": Clip("good").source_hash,
        "captured_at": f"{DAY_1}T12:00:00+00:00",
        "modality": "video",
        "embedding_key": "clipfarm/embeddings/video/good.npy",
        "embedding_dim": 6,
        "model_name": "hash",
        "model_version": "r1",
        "preprocess_version": "hash-1",
        "status": "success",
    }
    assert good["processed_at"].tzinfo is not None
    # Nobody looked at what isn't there; a model did look at what failed.
    assert (absent["status"], absent["model_name"]) == ("missing_raw_object", None)
    assert (bad["status"], bad["model_name"], bad["embedding_key"]) == ("fail", "hash", None)
