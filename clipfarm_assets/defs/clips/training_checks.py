"""The promises about datasets, models and predictions: what training and serving refuse by."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from clipfarm_assets.contracts import model_checks
from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.horizons import HORIZONS, as_horizon
from clipfarm_assets.contracts.model_checks import Coverage
from clipfarm_assets.defs.clips import common
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.checks import (
    Evaluate,
    EvaluateLatest,
    Latest,
    latest_promise_check,
    promise_check,
)
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.pipelines.train import PROMISES
from clipfarm_assets.serving.promotion import binding_resolves
from clipfarm_assets.serving.registry import load_registry
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.dataset_file import read_dataset
from clipfarm_assets.training.metrics import regression_metrics
from clipfarm_assets.training.snapshot import SnapshotId
from clipfarm_assets.training.snapshot_reader import Snapshot, open_snapshot


def _of_dataset(promise: str) -> Evaluate:
    def evaluate(deployment: Deployment, keys: Sequence[str]) -> Mapping[str, Verdict]:
        found = {}
        for key in keys:
            job = partitions.training_job(key)
            data = read_dataset(deployment.store, deployment.layout, *job)
            found[key] = PROMISES[promise].verdict(deployment, data)
        return found

    return evaluate


def _of_snapshot(examine: Callable[[Snapshot], Verdict]) -> EvaluateLatest:
    """A promise about the snapshot that each partition's latest materialisation published."""

    def evaluate(deployment: Deployment, latest: Latest) -> Mapping[str, Verdict]:
        found = {}
        for key, materialisation in latest.items():
            if materialisation is None:
                missing = Finding(key, "has no snapshot: materialise clips/model_snapshots")
                found[key] = Verdict((missing,), 0)
                continue
            shown = materialisation.metadata
            model = str(shown["model"].value)
            snapshot_id = SnapshotId(
                str(shown["run_id"].value),
                *partitions.training_job(key),
                None if model == "all" else model,
            )
            found[key] = examine(open_snapshot(deployment.store, deployment.layout, snapshot_id))
        return found

    return evaluate


def _beats_mean(snapshot: Snapshot) -> Verdict:
    train, test = _targets(snapshot, "train"), _targets(snapshot, "test")
    floor = regression_metrics(test, np.full(len(test), train.mean()))
    errors: dict[str, float] = {
        family: _rmse(snapshot.scores(family, "test"))
        for family in snapshot.families
        if family != "mean"
    }
    return model_checks.beats_mean(errors, _rmse(floor))


def _rmse(scores: Mapping[Any, float | None]) -> float:
    found = scores["rmse_log"]
    return math.nan if found is None else found


def _interval_coverage(snapshot: Snapshot) -> Verdict:
    n = len(_targets(snapshot, "test"))
    told = {family: snapshot.metrics["models"][family]["interval"] for family in snapshot.families}
    return model_checks.interval_coverage(
        {
            family: Coverage(
                interval["attained_level"], interval["n"], interval["test_coverage"], n
            )
            for family, interval in told.items()
        }
    )


def _targets(snapshot: Snapshot, part: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rows = snapshot.split_manifest().filter(pl.col("split") == part)
    return rows["target_log"].to_numpy()


def _binding_resolves(deployment: Deployment, keys: Sequence[str]) -> Mapping[str, Verdict]:
    store, layout = deployment.store, deployment.layout
    return {
        key: binding_resolves(store, layout, load_registry(store, layout, as_horizon(key)).serving)
        for key in keys
    }


def _predictions_complete(deployment: Deployment, dates: Sequence[str]) -> Mapping[str, Verdict]:
    store, layout = deployment.store, deployment.layout
    registries = [load_registry(store, layout, horizon) for horizon in HORIZONS]
    fused = {
        registry.horizon: frozenset(
            load_manifest(deployment, registry.serving.fusion_strategy).rows["video_id"].to_pylist()
        )
        for registry in registries
        if registry.current
    }
    found = {}
    for date in dates:
        index = parquet_to_table(store.get(layout.clip_index(date)))
        rows = pl.DataFrame(parquet_to_table(store.get(layout.clip_predictions(date))))
        found[date] = model_checks.predictions_complete(rows, fused, index["video_id"].to_pylist())
    return found


def _on_dataset(name: str, promise: str) -> dg.AssetChecksDefinition:
    return promise_check(
        common.DATASET,
        name,
        promise,
        partitions.strategy_by_horizon,
        _of_dataset(name),
        blocking=True,
    )


def _on_snapshot(
    name: str, promise: str, examine: Callable[[Snapshot], Verdict], *, blocking: bool = False
) -> dg.AssetChecksDefinition:
    return latest_promise_check(
        common.SNAPSHOTS,
        name,
        promise,
        partitions.strategy_by_horizon,
        _of_snapshot(examine),
        blocking=blocking,
    )


ALL = [
    _on_dataset(
        "features_declared",
        "Every feature is declared, and known when the feature set says.",
    ),
    _on_dataset(
        "no_leaky_feature",
        "No feature copies or nearly reproduces the target or a column known after the outcome.",
    ),
    _on_dataset(
        "splits_hold",
        "No clip, duplicate or group in two parts of a split; no train row captured after a test "
        "row where the split is chronological.",
    ),
    _on_snapshot(
        "snapshot_intact",
        "Every artifact is there with the bytes that were published, and nothing else.",
        Snapshot.verify_all,
        blocking=True,
    ),
    _on_snapshot(
        "beats_mean", "Every family predicts test better than the mean of train.", _beats_mean
    ),
    _on_snapshot(
        "interval_coverage",
        "Intervals hold as many true values of test as promised, as far as chance allows.",
        _interval_coverage,
    ),
    promise_check(
        common.REGISTRY,
        "binding_resolves",
        "The promoted version leads to a snapshot with the bytes that were promoted, made under "
        "the schema lock in force.",
        partitions.horizons,
        _binding_resolves,
        blocking=True,
    ),
    promise_check(
        common.PREDICTIONS,
        "predictions_complete",
        "Every fused clip of the date has one finite prediction for every promoted horizon.",
        partitions.dates,
        _predictions_complete,
    ),
]
