"""Assembled training data is what the plain row-by-row way gives."""

import hashlib
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.pipelines.assemble import COUNTS
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.assemble.kit import CLIPS, DIMS, LAYOUT, plainly


@pytest.mark.parametrize("horizon", [7, 30])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_and_vectors_are_those_of_the_plain_way(made, strategy, horizon):
    data = made.assemble(strategy, horizon)
    plain = plainly(made, strategy, horizon)
    assert data.clips.video_ids.tolist() == [row[0] for row in plain]
    np.testing.assert_array_equal(data.clips.fused, [row[1] for row in plain])
    for modality in MODALITIES:
        expected = np.stack([row[2][modality] for row in plain])
        np.testing.assert_array_equal(data.clips.modality(modality), expected)
        assert data.clips.modality(modality).dtype == np.float32
    assert data.clips.text_present.tolist() == [row[3] == 1 for row in plain]
    np.testing.assert_array_equal(data.target_raw, [row[4] for row in plain])
    np.testing.assert_array_equal(data.target_log, np.log1p([row[4] for row in plain]))
    assert data.counts["vectors_from_concat"] == data.counts["rows"] == len(plain)
    assert set(COUNTS) <= set(data.counts)


def test_concat_slices_take_no_memory_of_their_own(made):
    clips = made.assemble("concat").clips
    for modality in MODALITIES:
        assert np.shares_memory(clips.modality(modality), clips.fused)


@pytest.mark.parametrize("strategy", ["sum_pool", "max_pool"])
def test_objects_and_concat_slices_give_the_same_values(made, make, strategy):
    from_concat = made.assemble(strategy).clips
    alone = make(strategies=[strategy], write_embeddings=True)
    data = alone.assemble(strategy)
    for modality in MODALITIES:
        ours, theirs = data.clips.modality(modality), from_concat.modality(modality)
        np.testing.assert_array_equal(ours, theirs)
    assert data.counts["vectors_from_objects"] == data.counts["rows"] == CLIPS
    assert any("come from npy objects" in line for line in alone.said)


def test_every_shard_is_read_once(made, monkeypatch):
    read = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, key: read.append(key) or get(self, key))
    made.assemble("max_pool")
    shards = [key for key in read if key.endswith(".npz")]
    assert len(shards) == len(set(shards)) == 6  # three of each strategy
    assert not any(key.endswith(".npy") for key in read)
    assert read.count(LAYOUT.metadata()) == 1


def test_what_it_was_made_of_is_told(made):
    data = made.assemble("sum_pool", 30)
    made_of = data.provenance
    assert (made_of.strategy, made_of.horizon, made_of.lock_version) == ("sum_pool", 30, 1)
    assert made_of.embedding_versions == made.report.embedding_versions
    for told, key in (
        (made_of.manifest_sha256, LAYOUT.fused_manifest("sum_pool")),
        (made_of.metadata_sha256, LAYOUT.metadata()),
    ):
        assert told == hashlib.sha256(made.store.get(key)).hexdigest()
    lock = SchemaLock.from_json(made.store.get(LAYOUT.schema_lock("sum_pool")))
    assert made_of.lock_sha256 == lock.sha256


def test_no_outcome_is_a_feature_and_splits_are_drawn(made):
    data = made.assemble()
    assert "view_count" in data.outcomes.columns
    assert not set(data.clips.metadata.columns) & set(data.outcomes.columns)
    assert "channel_view_count" not in data.clips.metadata.columns
    assert "channel_view_count" in made.assemble(feature_set="v1").clips.metadata.columns
    assert data.splits.keys() | data.unavailable_splits.keys() == {
        "random", "chronological", "grouped", "chronological_grouped"
    }  # fmt: skip
    n_train = int((data.splits["random"] == "train").sum())
    assert abs(n_train - int(len(data) * 0.7)) <= 3


def test_the_order_of_the_file_and_of_the_shards_does_not_matter(bench, make):
    shuffled = make(strategies=["concat"], shard_rows=17)
    rows = shuffled.rows()
    np.random.default_rng(0).shuffle(rows)
    shuffled.write_rows(rows)
    ours, theirs = bench.assemble(), shuffled.assemble()
    assert ours.clips.video_ids.tolist() == theirs.clips.video_ids.tolist()
    for kind, parts in ours.splits.items():
        assert parts.tolist() == theirs.splits[kind].tolist()
    np.testing.assert_array_equal(ours.target_raw, theirs.target_raw)


def test_duplicates_are_grouped_and_counted(make):
    bench = make(strategies=["concat"], clips=600)
    data = bench.assemble()
    copies = bench.report.truth.filter(pl.col("copy_of").is_not_null())
    place = {video_id: at for at, video_id in enumerate(data.clips.video_ids.tolist())}
    assert len(copies)
    for copy, original in copies.select("video_id", "copy_of").iter_rows():
        groups = data.duplicate_groups[[place[copy], place[original]]]
        has_text = data.clips.text_present[[place[copy], place[original]]]
        if has_text[0] == has_text[1]:
            assert groups[0] == groups[1]
    assert data.counts["in_duplicate_groups"] >= 2


@pytest.mark.parametrize("strategy", ["concat", "sum_pool"])
def test_the_same_picture_and_sound_with_other_words_is_a_duplicate(make, strategy):
    """By the vectors of video and audio, since the fused ones are far apart."""
    bench = make(strategies=[strategy], clips=600, write_embeddings=True)
    before = bench.assemble(strategy)
    sources = dict(zip(before.clips.video_ids.tolist(), before.source_hash, strict=True))
    copies = bench.report.truth.filter(pl.col("copy_of").is_not_null())
    copy, original = next(
        (copy, original)
        for copy, original in copies.select("video_id", "copy_of").iter_rows()
        if sources[copy] != sources[original]
    )

    def with_other_words(shard):
        vectors = shard.vectors.copy()
        row = vectors[shard.video_ids == copy]
        # Of a pooled vector the words are in all of it.
        first = DIMS["video"] + DIMS["audio"] if strategy == "concat" else 0
        row[:, first:-1] = 5 * np.random.default_rng(0).standard_normal(row[:, first:-1].shape)
        vectors[shard.video_ids == copy] = row
        return replace(shard, vectors=vectors)

    bench.edit_shards(with_other_words, strategy)

    data = bench.assemble(strategy)
    place = {video_id: at for at, video_id in enumerate(data.clips.video_ids.tolist())}
    pair = [place[copy], place[original]]
    left, right = data.clips.fused[pair]
    assert left @ right < 0.9 * np.linalg.norm(left) * np.linalg.norm(right)
    assert len(set(data.duplicate_groups[pair].tolist())) == 1


def test_it_says_how_far_it_is(made):
    made.said.clear()
    made.assemble("concat")
    assert any(line.startswith("read concat shards: 3/3") for line in made.said)
