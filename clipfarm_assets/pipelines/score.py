"""Predictions of a date's clips, by the models that the registry names."""

import json
from collections import Counter
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts.clip_tables import CLIP_PREDICTIONS
from clipfarm_assets.contracts.horizon_csv import latest_rows, read_horizon_csv
from clipfarm_assets.contracts.horizons import HORIZONS, Horizon
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines.clip_batch import clip_batch
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import read_metadata
from clipfarm_assets.pipelines.labels import horizon_of_row
from clipfarm_assets.pipelines.manifest import load_stored_manifest
from clipfarm_assets.pipelines.modality_vectors import latest_fused, read_fused, read_modalities
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.serving.predictor import Predictions, Predictor, load_predictor
from clipfarm_assets.serving.registry import NoModel
from clipfarm_assets.training.snapshot_reader import open_snapshot

_OF_VECTORS: Final = tuple(f"{modality}_" for modality in MODALITIES)
UNSCORED: Final = "clipfarm.unscored"
"""Key of the table's own metadata: horizon -> what -> number of clips. Those of `NO_PREDICTION`
have none. Of others a feature could not be read (``unparsable:<column>``) or lies
outside of what train held (``out_of_range:<feature>``), the fused vector is of another source
than the index (``other_source_hash``), or a modality's vector was not used as it is stored
(``<modality>_<problem>``)."""
NO_PREDICTION: Final = ("no_fused_vector", "no_metadata_row", "no_modality_vector")


def score_date(deployment: Deployment, date: str, index: pa.Table, say: Say = silent) -> pa.Table:
    """Predict the date's clips at every horizon that has a promoted model.

    A clip's metadata row is its latest one of the model's horizon, as in training; where it has
    none yet, its latest of any.

    Args:
        deployment: Whose store and ledger.
        date: The partition.
        index: Its table of `clip_tables.CLIP_INDEX`.
        say: Told how far it is.

    Returns:
        Table of `clip_tables.CLIP_PREDICTIONS`, sorted by (video_id, horizon_days).

    Raises:
        NoModel: No horizon has one.
        BindingMismatch: What is stored now is not what a model was fitted to.
        NoFusedManifest, LockMismatch, DanglingPointer, BadManifest, BadShard: See `assemble`.
    """
    tables: list[pa.Table] = []
    unscored: dict[str, dict[str, int]] = {}
    missing: list[NoModel] = []
    for horizon in HORIZONS:
        try:
            predictor = load_predictor(deployment.store, horizon=horizon, layout=deployment.layout)
        except NoModel as error:
            say(f"no predictions at {horizon} days: {error}")
            missing.append(error)
            continue
        reasons: Counter[str] = Counter()
        found = _score(deployment, predictor, horizon, index, reasons, say)
        unscored[str(horizon)] = dict(reasons)
        if found is not None:
            snapshot = open_snapshot(
                deployment.store, deployment.layout, predictor.version.snapshot_id
            )
            tables.append(_table(found, horizon, snapshot.split_manifest()))
    if len(missing) == len(HORIZONS):
        raise missing[0]
    table = pa.concat_tables(tables) if tables else CLIP_PREDICTIONS.empty_table()
    told = {UNSCORED: json.dumps(unscored, sort_keys=True)}
    order = [("video_id", "ascending"), ("horizon_days", "ascending")]
    say(f"{date}: {table.num_rows} predictions of {index.num_rows} clips")
    return table.sort_by(order).replace_schema_metadata(told)


def _score(
    deployment: Deployment,
    predictor: Predictor,
    horizon: Horizon,
    index: pa.Table,
    reasons: Counter[str],
    say: Say,
) -> Predictions | None:
    binding = predictor.binding
    stored = load_stored_manifest(deployment, binding.strategy)
    binding.check_lock(stored.lock, predictor.adopted)
    binding.check_versions(stored.lock.embedding_versions, predictor.adopted, MODALITIES)
    fused = latest_fused(stored, Counter())
    wanted = index["video_id"].to_pylist()
    fused = fused.filter(pl.col("video_id").is_in(wanted))
    reasons["no_fused_vector"] = len(wanted) - len(fused)
    metadata = metadata_rows(deployment, horizon)
    known = fused.filter(pl.col("video_id").is_in(metadata["video_id"].implode()))
    reasons["no_metadata_row"] = len(fused) - len(known)
    if not len(known):
        return None
    hashes = dict(zip(wanted, index["source_hash"].to_pylist(), strict=True))
    sources = known.select("video_id", "source_hash").iter_rows()
    reasons["other_source_hash"] = sum(hashes[name] != source for name, source in sources)
    progress = Progress(f"read {binding.strategy} shards", known["fused_key"].n_unique(), say)
    rows = read_fused(deployment, stored.lock, known, progress)
    taken: Counter[str] = Counter()
    vectors = read_modalities(deployment, stored, known, rows, taken, say)
    reasons.update({name: n for name, n in taken.items() if name.startswith(_OF_VECTORS)})
    usable = np.flatnonzero(vectors.usable)
    reasons["no_modality_vector"] = len(known) - len(usable)
    if not len(usable):
        return None
    ids = known["video_id"][usable]
    by_id = ids.to_frame().join(metadata, on="video_id", how="left", maintain_order="left")
    clips, unparsable = clip_batch(
        by_id, ids.to_list(), rows.take(usable), vectors.take(usable), binding.contract
    )
    reasons.update({f"unparsable:{name}": n for name, n in unparsable.items()})
    found = predictor.predict_clips(clips)
    reasons.update({f"out_of_range:{name}": n for name, n in found.out_of_range.items()})
    return found


def metadata_rows(deployment: Deployment, horizon: Horizon) -> pl.DataFrame:
    """One row of the CSV a clip, as text: its latest of the horizon, else its latest of any."""
    csv = read_horizon_csv(read_metadata(deployment), deployment.layout.metadata())
    found: dict[str, int] = {}
    days = (
        csv.rows["horizon_days"].to_list()
        if "horizon_days" in csv.rows.columns
        else [None] * len(csv.rows)
    )
    of_horizon = np.flatnonzero([horizon_of_row(text) == horizon for text in days])
    for positions in (np.arange(len(csv.rows)), of_horizon):
        picked = csv.rows[positions]
        latest = latest_rows(replace(csv, rows=picked)).rows
        found |= {
            video_id: int(positions[row - 1])
            for video_id, row in latest.select("video_id", "csv_row").iter_rows()
        }
    rows = csv.rows[list(found.values())]
    return rows.with_columns(pl.Series("video_id", list(found), dtype=pl.String))


def _table(found: Predictions, horizon: Horizon, split_manifest: pl.DataFrame) -> pa.Table:
    n = len(found)
    splits = dict(split_manifest.select("video_id", "split").iter_rows())
    return pa.table(
        {
            "video_id": found.video_ids.tolist(),
            "horizon_days": [horizon] * n,
            "model_version": [found.model_version] * n,
            "prediction_log": found.log,
            "prediction_raw": found.raw,
            "interval_low_raw": found.low_raw,
            "interval_high_raw": found.high_raw,
            "text_present": found.text_present.astype(np.int64),
            "split": [splits.get(video_id, "") for video_id in found.video_ids.tolist()],
        },
        schema=CLIP_PREDICTIONS,
    )
