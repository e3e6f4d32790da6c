"""What makes assembling impossible is refused, in one sentence each."""

from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.contracts.horizon_csv import HorizonCsvError
from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines.assemble import (
    EmptyManifest,
    NoFusedManifest,
    NoRowsAtHorizon,
    NothingToJoin,
)
from clipfarm_assets.pipelines.index import NoMetadata
from clipfarm_assets.pipelines.lock import NoLock
from clipfarm_assets.pipelines.manifest import DanglingPointer
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.training.splits import BadSplitRatios, TooFewRows
from clipfarm_assets_tests.pipelines.assemble.kit import CLIPS, LAYOUT


def test_a_missing_manifest_or_lock_is_not_found(bench):
    with pytest.raises(NoLock, match="materialise clips/schema_lock"):
        bench.assemble("sum_pool")
    bench.store.delete(LAYOUT.fused_manifest("concat"))
    with pytest.raises(NoFusedManifest, match="materialise clips/fused_manifest for 'concat'"):
        bench.assemble()
    assert issubclass(NoFusedManifest, FileNotFoundError)


def test_a_manifest_without_rows_of_the_strategy_is_refused(bench):
    bench.edit_manifest(lambda row: {**row, "fusion_strategy": "sum_pool"})
    with pytest.raises(EmptyManifest, match="found 90 rows, none of them its own"):
        bench.assemble()


def test_a_horizon_without_rows_is_refused(bench):
    bench.write_rows([row for row in bench.rows() if row["horizon_days"] == "7"])
    assert len(bench.assemble(horizon=7)) == CLIPS
    with pytest.raises(NoRowsAtHorizon, match=r"horizon_days 30 .*found 90 at 7 days among 90"):
        bench.assemble(horizon=30)


def test_a_horizon_whose_labels_are_all_refused_is_refused(bench):
    bench.edit_rows(lambda row: {**row, "horizon_view_count": "-1"})
    with pytest.raises(NoRowsAtHorizon, match=r"none of them is a clip with a label.*views_neg"):
        bench.assemble()


def test_metadata_of_other_clips_is_refused(bench):
    bench.edit_rows(lambda row: {**row, "video_id": f"x{row['video_id']}"})
    with pytest.raises(NothingToJoin, match=r"90 labelled clips .* among the 90 fused"):
        bench.assemble()


def test_no_metadata_and_metadata_without_labels_are_refused(bench):
    names = [name for name in bench.rows()[0] if name != "horizon_view_count"]
    bench.write_rows(bench.rows(), names)
    with pytest.raises(HorizonCsvError, match="horizon_view_count not found"):
        bench.assemble()
    bench.store.delete(LAYOUT.metadata())
    with pytest.raises(NoMetadata):
        bench.assemble()


def test_too_few_rows_and_bad_ratios_are_refused(make):
    few = make(clips=11, strategies=["concat"])
    with pytest.raises(TooFewRows):
        few.assemble()
    with pytest.raises(BadSplitRatios):
        make(strategies=["concat"]).assemble(ratios=(0.9, 0.2, 0.1))


def shifted(row):
    return {**row, "shard_idx": (row["shard_idx"] + 1) % row["shard_n"]}


def test_a_pointer_to_another_clip_is_refused(bench):
    bench.edit_manifest(shifted)
    with pytest.raises(DanglingPointer, match=r"the shard holds .*restore the shard"):
        bench.assemble()


def test_a_lost_or_damaged_shard_is_refused(bench):
    key = bench.manifest().rows.to_pylist()[0]["fused_key"]
    data = bench.store.get(key)
    bench.store.put(key, data[: len(data) // 2])
    with pytest.raises(DanglingPointer, match="not a readable npz"):
        bench.assemble()
    bench.store.delete(key)
    with pytest.raises(DanglingPointer, match="does not exist"):
        bench.assemble()


def test_a_shard_of_another_encoder_or_lock_is_refused(bench):
    def of(**fields):
        return lambda shard: replace(shard, declared=replace(shard.declared, **fields))

    bench.edit_shards(of(embedding_versions=np.array(["video-other", "b", "c"])))
    with pytest.raises(LockMismatch, match="'video-other' was found"):
        bench.assemble()
    versions = np.array([bench.report.embedding_versions[m] for m in MODALITIES])
    bench.edit_shards(of(embedding_versions=versions, lock_version=2))
    with pytest.raises(LockMismatch, match=r"lock_version of .*part-0000"):
        bench.assemble()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(bench, value):
    def spoil(shard):
        vectors = shard.vectors.copy()
        vectors[3, 4] = value
        return replace(shard, vectors=vectors)

    bench.edit_shards(spoil)
    with pytest.raises(BadShard, match=r"must be finite .* 1 of 40"):
        bench.assemble()


def test_a_mask_that_contradicts_the_manifest_is_refused(bench):
    bench.edit_manifest(lambda row: {**row, "text_present": 1})
    with pytest.raises(BadShard, match="text_present"):
        bench.assemble()


def test_text_of_a_clip_without_text_is_refused(bench):
    def spoil(shard):
        vectors = shard.vectors.copy()
        vectors[vectors[:, -1] == 0, -2] = 0.5
        return replace(shard, vectors=vectors)

    bench.edit_shards(spoil)
    with pytest.raises(BadShard, match="must have a zero text vector"):
        bench.assemble()
