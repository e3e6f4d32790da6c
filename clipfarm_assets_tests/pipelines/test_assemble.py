"""Assembling training data, against a plain row-by-row version written here."""

import csv
import hashlib
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.features import Column
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.horizon_csv import HorizonCsvError
from clipfarm_assets.contracts.leakage import UndeclaredColumn
from clipfarm_assets.contracts.schema_lock import UNVERSIONED, LockMismatch, SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines import object_vectors
from clipfarm_assets.pipelines.assemble import (
    COUNTS,
    AssembleOptions,
    EmptyManifest,
    NoFusedManifest,
    NoRowsAtHorizon,
    NothingToJoin,
    assemble,
)
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import NoMetadata
from clipfarm_assets.pipelines.lock import NoLock
from clipfarm_assets.pipelines.manifest import DanglingPointer
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npy import npy_to_vector, vector_to_npy
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet
from clipfarm_assets.training.splits import BadSplitRatios, TooFewRows

LAYOUT = Layout()
DIMS = {"video": 10, "audio": 8, "text": 6}
CLIPS = 90


class Bench:
    """A planted store in a folder, and what tests do to it."""

    def __init__(self, folder, **options):
        self.store = ObjectStore.open(str(folder / "store"))
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.sqlite", self.store.url)
        self.deployment = Deployment(self.store, LAYOUT, self.ledger)
        options = {"clips": CLIPS, "dims": DIMS, "shard_rows": 40, **options}
        self.report = make_planted_store(self.store, LAYOUT, **options)
        self.said = []

    def assemble(self, strategy="concat", horizon=7, **options):
        chosen = AssembleOptions(**options)
        return assemble(self.deployment, strategy, horizon, chosen, self.said.append)

    def rows(self):
        text = self.store.get(LAYOUT.metadata()).decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def write_rows(self, rows, columns=None):
        text = io.StringIO(newline="")
        names = list(rows[0]) if columns is None else columns
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.store.put(LAYOUT.metadata(), text.getvalue().encode())

    def edit_rows(self, edit):
        self.write_rows([edit(dict(row)) for row in self.rows()])

    def manifest(self, strategy="concat"):
        data = self.store.get(LAYOUT.fused_manifest(strategy))
        return FusedManifest.from_table(parquet_to_table(data))

    def write_manifest(self, rows, strategy="concat"):
        """Put a manifest of these rows, given as dicts."""
        old = self.manifest(strategy)
        table = old.rows.slice(0, 0).from_pylist(rows, schema=old.rows.schema)
        new = replace(old, rows=table)
        data = table_to_parquet(new.rows, new.file_metadata())
        self.store.put(LAYOUT.fused_manifest(strategy), data)

    def edit_manifest(self, edit, strategy="concat"):
        rows = self.manifest(strategy).rows.to_pylist()
        self.write_manifest([edit(row) for row in rows], strategy)

    def edit_shards(self, edit, strategy="concat"):
        for info in list(self.store.list(LAYOUT.shards_prefix(strategy))):
            shard = FusedShard.from_npz(self.store.get(info.key), info.key)
            self.store.put(info.key, edit(shard).to_npz())

    def ids(self):
        return self.report.truth["video_id"].to_list()

    def id_with_text(self):
        return self.report.truth.filter("has_text")["video_id"][0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Only read."""
    bench = Bench(tmp_path_factory.mktemp("made"), write_embeddings=True)
    yield bench
    bench.ledger.close()


@pytest.fixture
def make(tmp_path):
    opened = []

    def make_one(**options):
        opened.append(Bench(tmp_path / str(len(opened)), **options))
        return opened[-1]

    yield make_one
    for bench in opened:
        bench.ledger.close()


@pytest.fixture
def bench(make):
    return make(strategies=["concat"])


@pytest.fixture
def pooled(make):
    """Without concat, so that modality vectors are read from objects."""
    return make(strategies=["sum_pool"], write_embeddings=True)


def plainly(bench, strategy, horizon):
    """Row by row: open what the row points at."""
    latest = {}
    for row in bench.rows():
        if float(row["horizon_days"]) == horizon:
            held = latest.get(row["video_id"])
            if held is None or row["captured_at"] >= held["captured_at"]:
                latest[row["video_id"]] = row
    pointers = {row["video_id"]: row for row in bench.manifest(strategy).rows.to_pylist()}
    out = []
    for video_id in sorted(latest.keys() & pointers.keys()):
        pointer, store = pointers[video_id], bench.store
        with np.load(io.BytesIO(store.get(pointer["fused_key"])), allow_pickle=False) as shard:
            fused = shard["vectors"][pointer["shard_idx"]]
        vectors = {
            modality: npy_to_vector(store.get(pointer[f"{modality}_emb_key"]))
            if pointer[f"{modality}_emb_key"]
            else np.zeros(DIMS[modality], np.float32)
            for modality in MODALITIES
        }
        views = float(latest[video_id]["horizon_view_count"] or 0)
        out.append((video_id, fused, vectors, pointer["text_present"], views))
    return out


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


def test_horizons_and_views_are_read_as_people_write_them(bench):
    ids = sorted(bench.ids())
    views = dict(zip(ids, ["", " 12 ", "12.0", "1e3", "many", "-3", "nan", "1e400"], strict=False))

    def edit(row):
        if row["horizon_days"] == "7":
            row["horizon_days"] = "7.0" if row["video_id"] < ids[40] else " 7"
            row["horizon_view_count"] = views.get(row["video_id"], row["horizon_view_count"])
        return row

    bench.edit_rows(edit)
    data = bench.assemble()
    kept = dict(zip(data.clips.video_ids.tolist(), data.target_raw.tolist(), strict=True))
    assert [kept.get(i) for i in ids[:8]] == [0.0, 12.0, 12.0, 1000.0, None, None, None, None]
    counts = data.counts
    assert (counts["views_missing"], counts["views_unparsable"], counts["views_negative"]) == (
        1, 3, 1,
    )  # fmt: skip
    assert counts["rows"] == CLIPS - 4


def test_a_refused_label_is_not_replaced_by_an_earlier_one(bench):
    rows = bench.rows()
    first = next(row for row in rows if row["horizon_days"] == "7")
    later = {**first, "captured_at": "2030-01-01T00:00:00+00:00", "horizon_view_count": "lots"}
    bench.write_rows([later, *rows])
    data = bench.assemble()
    assert first["video_id"] not in data.clips.video_ids
    assert (data.counts["superseded_rows"], data.counts["views_unparsable"]) == (1, 1)


def test_the_latest_row_of_a_clip_wins_by_time_and_not_by_text(bench):
    rows = bench.rows()
    first = next(row for row in rows if row["horizon_days"] == "7")
    moment = datetime.fromisoformat(first["captured_at"])
    # Half a day earlier as a moment, later as text, and later in the file.
    zoned = {**first, "captured_at": f"{moment:%Y-%m-%dT}23:59:59+23:59"}
    bench.write_rows([*rows, {**zoned, "horizon_view_count": "1"}])
    data = bench.assemble()
    at = data.clips.video_ids.tolist().index(first["video_id"])
    assert zoned["captured_at"] > first["captured_at"]
    assert data.target_raw[at] == float(first["horizon_view_count"]) != 1
    assert data.captured_at[at] == np.datetime64(moment.replace(tzinfo=None))


def test_rows_without_partner_are_counted_on_both_sides(bench):
    gone = set(bench.ids()[:5])
    bench.write_rows([row for row in bench.rows() if row["video_id"] not in gone])
    lost = set(bench.ids()[-3:])
    manifest = bench.manifest().rows.to_pylist()
    bench.write_manifest([row for row in manifest if row["video_id"] not in lost])
    data = bench.assemble()
    assert data.counts["fused_without_metadata"] == 5
    assert data.counts["metadata_without_fused"] == 3
    assert len(data) == CLIPS - 8


def test_a_clip_fused_from_another_url_is_kept_and_counted(bench):
    changed = bench.ids()[0]

    def edit(row):
        if row["video_id"] == changed:
            row["url"] = "https://youtu.be/elsewhere"
        return row

    bench.edit_rows(edit)
    data = bench.assemble()
    assert data.counts["other_source_hash"] == 1
    assert changed in data.clips.video_ids


def test_the_latest_fused_row_of_a_clip_wins(bench):
    """Two sources of one clip: the manifest has a row of each."""
    rows = bench.manifest().rows.to_pylist()
    one, other = rows[0], next(r for r in rows[1:] if r["text_present"] == rows[0]["text_present"])
    # An earlier source of clip `one`, fused where `other` lies, in a shard edited to say so.
    old = {**other, "video_id": one["video_id"], "source_hash": "0" * 64}
    # Earlier as a moment, later as text.
    old["captured_at"] = f"{one['captured_at'][:10]}T23:59:59+23:59"

    def rename(shard):
        ids = np.where(shard.video_ids == other["video_id"], one["video_id"], shard.video_ids)
        return replace(shard, video_ids=ids)

    bench.edit_shards(rename)
    bench.write_manifest([old, *(row for row in rows if row is not other)])
    data = bench.assemble()
    at = data.clips.video_ids.tolist().index(one["video_id"])
    shard = FusedShard.from_npz(bench.store.get(one["fused_key"]), "shard")
    np.testing.assert_array_equal(data.clips.fused[at], shard.vectors[one["shard_idx"]])
    assert data.counts["superseded_fused_rows"] == 1


# Structural faults: one sentence each.


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


def test_an_undeclared_column_is_refused_and_a_declared_one_is_a_feature(bench):
    bench.edit_rows(lambda row: {**row, "novelty": "0.5"})
    with pytest.raises(UndeclaredColumn, match="'novelty'"):
        bench.assemble()
    data = bench.assemble(declared_columns={"novelty": Column("at_publish", "numeric")})
    assert (data.clips.metadata["novelty"] == 0.5).all()


def test_a_declared_column_that_the_file_lacks_is_counted_and_said(bench):
    column = Column("at_publish", "numeric")
    without = bench.assemble()
    assert without.counts["declared_columns_absent"] == 0
    assert not any("declared but not in the CSV" in line for line in bench.said)
    bench.edit_rows(lambda row: {**row, "novelty": "0.5"})
    declared = dict.fromkeys(("novelty", "novelti", "a_typo"), column)
    data = bench.assemble(declared_columns=declared)
    assert data.counts["declared_columns_absent"] == 2
    assert (data.clips.metadata["novelty"] == 0.5).all()
    assert set(data.clips.metadata.columns) == {*without.clips.metadata.columns, "novelty"}
    said = [line for line in bench.said if "declared but not in the CSV" in line]
    assert said == ["declared but not in the CSV, so no feature: a_typo, novelti; misspelt?"]


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


# Modality vectors out of objects.


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


def test_what_features_cannot_read_is_counted_by_column(bench):
    first = bench.ids()[0]

    def edit(row):
        if row["video_id"] == first:
            row["duration_seconds"] = "soon"
        return row

    bench.edit_rows(edit)
    data = bench.assemble()
    assert data.counts["unparsable:duration_seconds"] == 1
    assert data.clips.metadata["duration_seconds"][0] is None


def test_an_older_file_without_channels_and_times_is_taken(bench):
    lacking = {"channel_id", "published_at", "channel_created_at"}
    names = [name for name in bench.rows()[0] if name not in lacking]
    bench.write_rows(bench.rows(), names)
    data = bench.assemble()
    assert not data.clips.channel_id.astype(bool).any()
    assert np.isnat(data.clips.published_at).all()
    assert "published_hour" not in data.clips.metadata.columns


def test_duplicates_are_grouped_and_counted(make):
    bench = make(strategies=["concat"], clips=600)
    data = bench.assemble()
    copies = bench.report.truth.filter(pl.col("copy_of").is_not_null())
    place = {video_id: at for at, video_id in enumerate(data.clips.video_ids.tolist())}
    assert len(copies)
    for copy, original in copies.select("video_id", "copy_of").iter_rows():
        groups = data.duplicate_groups[[place[copy], place[original]]]
        has_text = data.clips.text_present[[place[copy], place[original]]]
        same_url = data.source_hash[place[copy]] == data.source_hash[place[original]]
        if has_text[0] == has_text[1] or same_url:
            assert groups[0] == groups[1]
    assert data.counts["in_duplicate_groups"] >= 2


def test_it_says_how_far_it_is(made):
    made.said.clear()
    made.assemble("concat")
    assert any(line.startswith("read concat shards: 3/3") for line in made.said)
