"""Modality vectors out of objects, and when those in concat rows stand for them."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.schema_lock import UNVERSIONED, LockMismatch
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines import object_vectors
from clipfarm_assets.pipelines.assemble import NothingToJoin
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets_tests.pipelines.assemble.kit import CLIPS, DIMS, LAYOUT, plainly


@pytest.mark.parametrize("batch", [1, 7, object_vectors.BATCH])
def test_a_clip_whose_video_or_audio_is_gone_is_left_out_and_counted(pooled, monkeypatch, batch):
    monkeypatch.setattr(object_vectors, "BATCH", batch)
    ids = pooled.ids()
    pooled.store.delete(LAYOUT.embedding("video", ids[0]))
    pooled.store.delete(LAYOUT.embedding("audio", ids[1]))
    pooled.store.put(LAYOUT.embedding("audio", ids[2]), b"no vector")
    data = pooled.assemble("sum_pool")
    assert data.clips.video_ids.tolist() == sorted(ids)[3:]
    counts = data.counts
    assert (counts["video_missing"], counts["audio_missing"], counts["audio_broken"]) == (1, 1, 1)
    assert (counts["vectors_from_objects"], counts["rows"]) == (CLIPS, CLIPS - 3)
    plain = {row[0]: row for row in plainly_without(pooled, ids[:3])}
    for at, video_id in enumerate(data.clips.video_ids):
        np.testing.assert_array_equal(data.clips.fused[at], plain[video_id][1])
        for modality in MODALITIES:
            expected = plain[video_id][2][modality]
            np.testing.assert_array_equal(data.clips.modality(modality)[at], expected)
        assert data.target_raw[at] == plain[video_id][4]


def plainly_without(bench, gone):
    rows = bench.manifest("sum_pool").rows.to_pylist()
    bench.write_manifest([row for row in rows if row["video_id"] not in gone], "sum_pool")
    return plainly(bench, "sum_pool", 7)


def test_when_every_vector_is_gone_there_is_nothing_to_train_on(make):
    bench = make(strategies=["sum_pool"])
    with pytest.raises(NothingToJoin, match=r"none of the 90 .*video_missing 90"):
        bench.assemble("sum_pool")


def test_a_lost_text_vector_makes_a_clip_one_without_text(pooled):
    lost, broken = pooled.report.truth.filter("has_text")["video_id"][:2]
    pooled.store.delete(LAYOUT.embedding("text", lost))
    pooled.store.put(LAYOUT.embedding("text", broken), b"")
    data = pooled.assemble("sum_pool")
    for video_id in (lost, broken):
        at = data.clips.video_ids.tolist().index(video_id)
        assert not data.clips.text_present[at]
        assert not data.clips.text[at].any()
        assert data.clips.fused[at, -1] == 1, "the fused vector stays as stored"
    assert (data.counts["text_missing"], data.counts["text_broken"]) == (1, 1)
    absent = pooled.report.without_text + 2
    assert int((~data.clips.text_present).sum()) == absent
    assert len(data) == CLIPS


@pytest.mark.parametrize("length", [4, 9])
def test_a_text_vector_of_another_length_is_padded_or_cut(pooled, length):
    video_id = pooled.id_with_text()
    other = np.linspace(0.1, 0.9, length).astype(np.float32)
    pooled.store.put(LAYOUT.embedding("text", video_id), vector_to_npy(other))
    data = pooled.assemble("sum_pool")
    at = data.clips.video_ids.tolist().index(video_id)
    expected = np.zeros(DIMS["text"], np.float32)
    expected[: min(length, 6)] = other[:6]
    np.testing.assert_array_equal(data.clips.text[at], expected)
    assert data.counts["text_resized"] == 1


def test_a_video_vector_of_another_length_is_a_structural_fault(pooled):
    key = LAYOUT.embedding("video", pooled.ids()[0])
    pooled.store.put(key, vector_to_npy(np.ones(3, np.float32)))
    with pytest.raises(LockMismatch, match="video_dim is locked to 10 but 3 was found"):
        pooled.assemble("sum_pool")


def record(bench, modality, video_ids, **fields):
    """Ledger rows as the embedding stage would leave them."""
    hashes = {r["video_id"]: r["source_hash"] for r in bench.manifest("sum_pool").rows.to_pylist()}
    for video_id in video_ids:
        key = LAYOUT.embedding(modality, video_id)
        told = {
            "source_hash": hashes[video_id],
            "status": statuses.SUCCESS,
            "version": bench.report.embedding_versions[modality],
            "content_sha256": hashlib.sha256(bench.store.get(key)).hexdigest(),
            "artifact_key": key,
            **fields,
        }
        item = Item(video_id=video_id, processed_at=datetime.now(UTC).isoformat(), **told)
        bench.ledger.commit(statuses.embedding_stage(modality), [item])


def test_vectors_that_the_ledger_says_are_others_are_not_taken(pooled):
    ids = pooled.ids()
    record(pooled, "video", ids[2:])
    record(pooled, "video", ids[2:3], source_hash="0" * 64)
    record(pooled, "video", ids[3:4], content_sha256="0" * 64)
    data = pooled.assemble("sum_pool")
    # The first two nobody recorded, although the others are recorded.
    assert data.counts["video_foreign"] == 3
    assert data.counts["video_broken"] == 1
    assert data.clips.video_ids.tolist() == sorted(ids)[4:]


def test_an_object_embedded_again_by_another_encoder_is_refused(pooled):
    """The lock still names the first encoder, whose vectors were fused."""
    record(pooled, "video", pooled.ids())
    record(pooled, "video", pooled.ids()[5:6], version="video-next")
    with pytest.raises(LockMismatch, match=r"embedding_versions.video .*'video-next' was found"):
        pooled.assemble("sum_pool")


def forget_declarations(bench, strategy):
    """Make a strategy's shards those of an older deployment, whose lock was named since."""
    bench.edit_shards(lambda shard: replace(shard, declared=None), strategy)


def forget_versions(bench, strategy):
    """Make a strategy's vectors unversioned, in the lock and in every shard."""
    key = LAYOUT.schema_lock(strategy)
    body = json.loads(bench.store.get(key))
    body["embedding_versions"] = dict.fromkeys(MODALITIES, UNVERSIONED)
    bench.store.put(key, json.dumps(body).encode())
    versions = np.array([UNVERSIONED] * 3)
    bench.edit_shards(
        lambda shard: replace(shard, declared=replace(shard.declared, embedding_versions=versions)),
        strategy,
    )


@pytest.mark.parametrize("forget", [forget_declarations, forget_versions])
@pytest.mark.parametrize("older", [("sum_pool",), ("concat",), ("sum_pool", "concat")])
def test_unversioned_vectors_are_never_taken_for_equal(make, older, forget):
    bench = make(strategies=["sum_pool", "concat"], write_embeddings=True)
    expected = bench.assemble("sum_pool").clips
    for strategy in older:
        forget(bench, strategy)
    data = bench.assemble("sum_pool")
    assert (data.counts["vectors_from_concat"], data.counts["vectors_from_objects"]) == (0, CLIPS)
    for modality in MODALITIES:
        np.testing.assert_array_equal(data.clips.modality(modality), expected.modality(modality))
    assert len(bench.assemble("concat")) == CLIPS


def test_unversioned_vectors_of_one_adopted_version_are_taken_for_equal(make):
    bench = make(strategies=["sum_pool", "concat"])
    models = bench.deployment.models_lock()
    for modality, dim in DIMS.items():
        version = EmbeddingVersion(modality, "model", "r1", "0" * 64, "p-1", {}, dim)
        models.adopt(modality, version, is_stand_in=False)
    expected = bench.assemble("sum_pool").clips
    for strategy in ("sum_pool", "concat"):
        forget_versions(bench, strategy)
    data = bench.assemble("sum_pool")
    assert data.counts["vectors_from_concat"] == CLIPS
    np.testing.assert_array_equal(data.clips.audio, expected.audio)


def test_a_concat_row_of_another_source_or_with_other_text_is_not_taken(make):
    bench = make(strategies=["sum_pool", "concat"], write_embeddings=True)
    expected = bench.assemble("sum_pool").clips
    changed = bench.ids()[0]
    rows = bench.manifest("concat").rows.to_pylist()
    gone, upgraded = bench.report.truth.filter("has_text")["video_id"][1:3]
    edits = {changed: {"source_hash": "1" * 64}, upgraded: {"text_present": 0}}
    edited = [{**row, **edits.get(row["video_id"], {})} for row in rows if row["video_id"] != gone]
    bench.write_manifest(edited, "concat")
    data = bench.assemble("sum_pool")
    assert data.counts["vectors_from_objects"] == 3
    assert data.counts["vectors_from_concat"] == CLIPS - 3
    for modality in MODALITIES:
        np.testing.assert_array_equal(data.clips.modality(modality), expected.modality(modality))
