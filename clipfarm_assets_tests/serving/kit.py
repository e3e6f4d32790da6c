"""A small world to serve from: clips, their text rows, and snapshots of real models."""

import json
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import polars as pl

from clipfarm_assets.contracts.features import FeatureContract
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.encoders.base import ContentMissing, EmbeddingVersion, Encoded, MediaError
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.serving.promotion import promote
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.families import open_family
from clipfarm_assets.training.features import metadata_features
from clipfarm_assets.training.intervals import SplitConformal
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.metrics import regression_metrics, to_raw
from clipfarm_assets.training.snapshot import SnapshotId, publish
from clipfarm_assets_tests.training.kit import planted_rows, unheard

LAYOUT = Layout()
REGISTRY_KEY = "clipfarm/models/registry/horizon=7/registry.json"
N = 90
DIMS = 6
VERSIONS = {"video": "video-a", "audio": "audio-a", "text": "text-a"}
CONTRACT = FeatureContract(
    feature_set="v2",
    numeric=("duration_seconds", "title_length", "published_hour", "channel_age_at_publish_days"),
    categorical=("channel_country", "default_language"),
    dropped={},
    declared={},
)
CONFIG = SuiteConfig.model_validate(
    {
        "gbdt": {"fit": {"max_epochs": 10}, "boosting": {"max_iter": 20}},
        "gated_fusion_mlp": {
            "tower_dim": 8,
            "gate_hidden": 8,
            "hidden": [16],
            "fit": {"learning_rate": 5e-3, "max_epochs": 10},
        },
        "metadata_only": {"max_iter": 20},
        "pca_gbdt": {"components": 3, "boosting": {"max_iter": 20}},
    }
)
FAMILIES = ("mean", "ridge", "gbdt", "pca_gbdt")
MODALITIES = ("video", "audio", "text")


def lock_of(strategy="concat", version=1, versions=VERSIONS, dims=DIMS, **more):
    shape = dict.fromkeys(("video", "audio", "text"), dims)
    return replace(SchemaLock.of(strategy, shape, versions), lock_version=version, **more)


@lru_cache
def clips(strategy="concat"):
    """Labelled clips and the rows of the metadata CSV that their features are read from."""
    rows = planted_rows(N, dims=DIMS, noise=0.2)
    was = rows.clips
    text = pl.DataFrame(
        {
            "video_id": was.video_ids.tolist(),
            "channel_id": was.channel_id.tolist(),
            "published_at": [f"{moment}Z" for moment in was.published_at.astype("datetime64[s]")],
            "channel_created_at": ["2020-02-03T04:05:06Z"] * N,
            **{
                name: ["" if v is None else str(v) for v in was.metadata[name]]
                for name in was.metadata.columns
            },
            "title": ["a title"] * N,
            "description": [""] * N,
            "query": ["cats"] * N,
            "view_count": ["5"] * N,
        }
    )
    made = replace(
        was,
        fused=fuse(strategy, was.video, was.audio, was.text, was.text_present),
        metadata=metadata_features(text, CONTRACT).metadata,
        published_at=was.published_at.astype("datetime64[s]").astype("datetime64[us]"),
    )
    return replace(rows, clips=made), text


def parts():
    """Positions by part."""
    order = np.random.default_rng(3).permutation(N)
    return dict(zip(("train", "val", "test"), np.split(order, [60, 75]), strict=True))


def snapshot_files(
    run_id="r1",
    strategy="concat",
    horizon=7,
    families=FAMILIES,
    lock=None,
    shuffled=False,
    versions=VERSIONS,
    feature_set="v2",
    val=None,
):
    """A snapshot's artifacts.

    With `shuffled` the targets have nothing to do with the clips; `val` is family -> metric ->
    value, instead of what its models reached there.
    """
    contract = replace(CONTRACT, feature_set=feature_set)
    lock = lock or lock_of(strategy)
    dims = dict.fromkeys(("video", "audio", "text"), DIMS)
    config = {
        "run_id": run_id,
        "strategy": strategy,
        "horizon_days": horizon,
        "families": list(families),
        "features": contract.to_fields(),
        "feature_set_version": contract.feature_set,
        "feature_contract_sha256": contract.sha256,
        "lock_version": lock.lock_version,
        "lock_sha256": lock.sha256,
        "embedding_versions": dict(versions),
    }
    fitted = _fitted(strategy, horizon, tuple(families), shuffled, feature_set)
    metrics = json.loads(fitted["metrics_summary.json"])
    for family, values in (val or {}).items():
        metrics["models"][family]["val"] |= values
    return {
        **fitted,
        "config_used.json": json.dumps(config).encode(),
        "data_summary.json": json.dumps({"dims": {"fused": lock.fused_dim, **dims}}).encode(),
        "metrics_summary.json": json.dumps(metrics).encode(),
    }


@lru_cache
def _fitted(strategy, horizon, families, shuffled, feature_set):
    rows, _ = clips(strategy)
    if shuffled:
        rows = replace(rows, target_log=np.random.default_rng(0).permutation(rows.target_log))
    where = parts()
    of = {part: rows.take(positions) for part, positions in where.items()}
    encoder = MetadataEncoder.fit(
        of["train"].clips.metadata, replace(CONTRACT, feature_set=feature_set)
    )
    files = {"models/metadata_encoder.json": encoder.to_json()}
    metrics, intervals, frames = {}, {}, []
    for family in families:
        model = open_family(family).fit(of["train"], of["val"], encoder, CONFIG, 42, unheard)
        said = {part: model.predict(of[part].clips) for part in of}
        interval = SplitConformal.fit(of["val"].target_log - said["val"], 0.9)
        intervals[family] = interval.to_fields()
        metrics[family] = {
            part: regression_metrics(of[part].target_log, said[part]) for part in ("val", "test")
        }
        files |= {f"models/{name}": data for name, data in model.artifacts().items()}
        for part, log in said.items():
            low, high = interval.interval_raw(log)
            columns = {
                "family": [family] * len(log),
                "part": [part] * len(log),
                "video_id": of[part].clips.video_ids.tolist(),
                "prediction_log": log,
                "prediction_raw": to_raw(log),
                "interval_low_raw": low,
                "interval_high_raw": high,
            }
            frames.append(pl.DataFrame(columns))
    split = np.empty(N, dtype="U5")
    for part, positions in where.items():
        split[positions] = part
    manifest = pl.DataFrame(
        {
            "video_id": rows.clips.video_ids.tolist(),
            "split": split.tolist(),
            "text_present": rows.clips.text_present.astype(np.int64),
            "target_log": rows.target_log,
            "target_raw": np.expm1(rows.target_log),
        }
    )
    return files | {
        "metrics_summary.json": json.dumps({"models": metrics}).encode(),
        "models/intervals.json": json.dumps(intervals).encode(),
        "split_manifest.parquet": table_to_parquet(manifest.to_arrow()),
        "predictions/all.parquet": table_to_parquet(pl.concat(frames).to_arrow()),
    }


def publish_snapshot(store, snapshot_id=None, **what):
    snapshot_id = snapshot_id or SnapshotId("r1", "concat", 7)
    files = snapshot_files(snapshot_id.run_id, snapshot_id.strategy, snapshot_id.horizon, **what)
    publish(store, LAYOUT, snapshot_id, files, {})
    return snapshot_id


def put_lock(store, lock):
    store.put(LAYOUT.schema_lock(lock.fusion_strategy), lock.to_json())


def promoted(store, family="ridge", strategy="concat", **what):
    """The version of a model that serves; `what` as in `snapshot_files`."""
    put_lock(store, lock_of(strategy, versions=what.get("versions", VERSIONS)))
    publish_snapshot(store, SnapshotId("r1", strategy, 7), **what)
    return promote(store, LAYOUT, 7, run_id="r1", family=family).version


def given(strategy="concat"):
    """Everything `predict` takes, as keywords."""
    rows, text = clips(strategy)
    return {
        "rows": text,
        "vectors": {modality: rows.clips.modality(modality) for modality in MODALITIES},
        "text_present": rows.clips.text_present,
        "versions": VERSIONS,
    }


@dataclass
class FileEncoder:
    """An encoder whose media are its vectors' bytes."""

    modality: str
    model: str = "bytes"
    is_stand_in: bool = False

    @property
    def version(self):
        return EmbeddingVersion(self.modality, self.model, "1", "0", "p", {}, DIMS)

    def prepare(self, source, deadline):
        deadline.check("decoding")
        if source.raw == b"no words":
            raise ContentMissing(source.raw.decode())
        if len(source.raw) != 4 * DIMS:
            raise MediaError("corrupt")
        if self.modality == "text":
            assert source.metadata == {"title": "a title", "description": "", "query": "cats"}
        return source

    def encode(self, prepared):
        return [Encoded(np.frombuffer(source.raw, np.float32)) for source in prepared]


def files(position):
    """What `predict_files` takes for a clip, as keywords."""
    rows, text = clips()
    raw = {m: rows.clips.modality(m)[position].tobytes() for m in MODALITIES}
    if not rows.clips.text_present[position]:
        raw["text"] = None
    metadata = dict(zip(text.columns, text.row(position), strict=True))
    return {**raw, "metadata": metadata, "open_encoder": FileEncoder}


def stored(family, strategy="concat"):
    """The snapshot's predictions of every row, in the order of the clips."""
    table = parquet_to_table(snapshot_files(strategy=strategy)["predictions/all.parquet"])
    rows = {row["video_id"]: row for row in table.to_pylist() if row["family"] == family}
    return [rows[video_id] for video_id in clips(strategy)[0].clips.video_ids]
