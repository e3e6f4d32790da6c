"""Which model serves a horizon: only one that is whole, of use, and fits the vectors in force."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import numpy as np
import polars as pl

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.features import DEFAULT_FEATURE_SET, FeatureSet
from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.contracts.schema_lock import BadLock, SchemaLock
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.serving.binding import DATA_SUMMARY, Binding
from clipfarm_assets.serving.registry import ModelVersion, Registry, horizon_of, load_registry
from clipfarm_assets.serving.version_list import Change, update
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.config import RankMetric
from clipfarm_assets.training.metrics import rank_key, regression_metrics
from clipfarm_assets.training.snapshot import CONFIG, BadSnapshot
from clipfarm_assets.training.snapshot_reader import (
    INTERVALS,
    METRICS,
    NoSnapshot,
    Snapshot,
    open_snapshot,
    snapshots_of_run,
)

DESCRIBING: Final = (CONFIG, DATA_SUMMARY, METRICS, INTERVALS)
"""What serving reads of a snapshot beside the model itself."""

MARGIN: Final = 1e-3
"""By how much a model must beat the mean: of its error, or in r2. A model whose weights were all
shrunk away differs from the mean by chance alone."""


class NotPromotable(RuntimeError):  # noqa: N818 - a state of the model
    """The model must not serve; says why."""


@dataclass(frozen=True)
class Promotion:
    """What became of the registry.

    Attributes:
        version: The one that serves now.
        what: ``promoted`` a new version, went ``back`` to an older one, ``unchanged``, or ``kept``
            the one that serves because the best of the run is worse.
        previous: The version that served before; empty if none did.
        why: Of ``kept``: both models and their values; else empty.
    """

    version: ModelVersion
    what: Literal["promoted", "back", "unchanged", "kept"]
    previous: str
    why: str = ""


@dataclass(frozen=True)
class _Candidate:
    snapshot: Snapshot
    family: str
    value: float | None

    def __str__(self) -> str:
        return f"{self.family} of snapshot {self.snapshot.id}"


def promote(
    store: ObjectStore,
    layout: Layout,
    horizon: Horizon,
    *,
    run_id: str,
    strategy: Strategy | None = None,
    family: str | None = None,
    metric: RankMetric = "rmse_log",
    feature_set: FeatureSet = DEFAULT_FEATURE_SET,
    only_if_better: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Promotion:
    """Let the best model of a run serve, by `metric` on val; `mean` is the floor and never does.

    Promoting a model that was promoted before goes back to its version; one that serves already
    changes nothing.

    Args:
        store: Where.
        layout: Where in it.
        horizon: Which registry.
        run_id: Whose snapshots are compared; see also `snapshot_reader.latest_run`.
        strategy: Only models of this one.
        family: Only models of this one.
        metric: By which.
        feature_set: Only models of this one. Those of ``v1`` were given a part of the outcome,
            which nobody knows when a clip is published.
        only_if_better: Keep the version that serves unless the best is better by `metric` on val,
            each on its own val rows.
        clock: Gives ``promoted_at``.

    Raises:
        NoSnapshot: The run has none of that horizon.
        NotPromotable: No model is as asked for, or the best one does not beat the mean, has files
            that are not as published, or is bound to another lock than the one in force.
        BadRegistry: The registry is malformed.
    """
    snapshots = snapshots_of_run(store, layout, run_id, horizon)
    best = _best(snapshots, horizon, strategy, family, metric, feature_set)
    _check_beats_mean(best, metric)
    if only_if_better:
        kept = _better_one(load_registry(store, layout, horizon), best, metric)
        if kept:
            return kept
    made = _version(store, layout, best, clock().isoformat())
    return _update(store, layout, horizon, lambda registry: registry.with_serving(made))


def rollback(store: ObjectStore, layout: Layout, model_version: str) -> Promotion:
    """Let a version that was promoted before serve again.

    Raises:
        ValueError: It is no version's name.
        NoModel: There is no such version.
        NotPromotable: Its snapshot is gone or changed, or it is bound to another lock than the one
            in force.
        BadRegistry: The registry is malformed.
    """
    horizon = horizon_of(model_version)
    version = load_registry(store, layout, horizon).version(model_version)
    verdict = binding_resolves(store, layout, version)
    if not verdict.holds:
        msg = f"{model_version} can't serve again: {verdict.summary()}; promote another"
        raise NotPromotable(msg)
    return _update(store, layout, horizon, lambda registry: registry.with_current(model_version))


def binding_resolves(store: ObjectStore, layout: Layout, version: ModelVersion) -> Verdict:
    """What keeps a registered version from serving: its snapshot, its files, or the lock in force.

    The registry's hashes are compared with the snapshot's manifest and that with the bytes, so
    that neither can be exchanged alone.
    """
    try:
        snapshot = open_snapshot(store, layout, version.snapshot_id)
        binding = Binding.of(snapshot)
    except (NoSnapshot, BadSnapshot) as error:
        return Verdict((Finding(version.model_version, str(error)),), 1)
    files = snapshot.verify_all()
    findings = list(files.findings)
    for name, sha256 in version.artifacts.items():
        artifact = snapshot.manifest.artifacts.get(name)
        if artifact is None or artifact.sha256 != sha256:
            problem = f"{name} is not the file that was promoted"
            findings.append(Finding(version.model_version, problem))
    lock = _lock_findings(store, layout, binding)
    examined = files.examined + len(version.artifacts) + lock.examined
    return Verdict((*findings, *lock.findings), examined, files.facts)


def _best(
    snapshots: Sequence[Snapshot],
    horizon: Horizon,
    strategy: Strategy | None,
    family: str | None,
    metric: RankMetric,
    feature_set: FeatureSet,
) -> _Candidate:
    sets = sorted({str(snapshot.config["feature_set_version"]) for snapshot in snapshots})
    if feature_set not in sets:
        msg = (
            f"run_id {snapshots[0].id.run_id!r} has models of feature set {', '.join(sets)} for "
            f"horizon {horizon}, expected {feature_set}: v1 holds a part of the outcome and is for "
            "comparison; promote another run, or ask for the other feature_set"
        )
        raise NotPromotable(msg)
    candidates = [
        _Candidate(snapshot, name, snapshot.scores(name, "val").get(metric))
        for snapshot in snapshots
        if snapshot.config["feature_set_version"] == feature_set
        for name in snapshot.families
        if name != "mean" and strategy in {None, snapshot.id.strategy} and family in {None, name}
    ]
    if not candidates:
        there = sorted({f"{f} of {s.id.strategy}" for s in snapshots for f in s.families})
        asked = " ".join(filter(None, ("of", strategy, family))) if strategy or family else ""
        msg = (
            f"run_id {snapshots[0].id.run_id!r} has no model {asked} for horizon {horizon} to "
            f"promote: found {', '.join(there) or 'none'} (mean is the floor and never serves)"
        )
        raise NotPromotable(msg)
    key = rank_key(metric)
    return min(candidates, key=lambda c: (key(c.value), str(c)))


def _better_one(registry: Registry, best: _Candidate, metric: RankMetric) -> Promotion | None:
    """The version that serves, unless the candidate is better or is that version itself."""
    if not registry.current:
        return None
    serving, key = registry.serving, rank_key(metric)
    value = serving.metrics["val"].get(metric)
    is_same = (serving.snapshot_id, serving.family) == (best.snapshot.id, best.family)
    if is_same or key(best.value) < key(value):
        return None
    why = (
        f"{best} has val {metric} {best.value}, {serving.model_version} that serves "
        f"({serving.family} of run {serving.run_id}) has {value}"
    )
    return Promotion(serving, "kept", serving.model_version, why)


def _check_beats_mean(best: _Candidate, metric: RankMetric) -> None:
    """Raise `NotPromotable` unless the model is better on val than the mean of train."""
    rows = best.snapshot.split_manifest()
    train, val = (
        rows.filter(pl.col("split") == part)["target_log"].to_numpy() for part in ("train", "val")
    )
    floor = regression_metrics(val, np.full(len(val), train.mean()))[metric]
    key = rank_key(metric)
    margin = MARGIN if metric == "r2_log" else MARGIN * abs(key(floor))
    if not key(best.value) < key(floor) - margin:
        msg = (
            f"{best} does not beat the mean of its train rows by {MARGIN:.1%}: val {metric} is "
            f"{best.value}, that of the mean {floor}; train on more rows, or promote another run"
        )
        raise NotPromotable(msg)


def _version(store: ObjectStore, layout: Layout, best: _Candidate, now: str) -> ModelVersion:
    """The candidate as a version without a number.

    Raises:
        NotPromotable: Its files are not as published, or it is bound to another lock.
    """
    snapshot = best.snapshot
    verdict = snapshot.verify_all()
    if not verdict.holds:
        msg = f"{best} has files that are not as published: {verdict.summary()}"
        raise NotPromotable(msg)
    binding = Binding.of(snapshot)
    lock = _lock_findings(store, layout, binding)
    if not lock.holds:
        msg = f"{best} does not fit the vectors in force: {lock.summary()}; train again"
        raise NotPromotable(msg)
    # Loading it proves that serving can, and tells which files that takes.
    _, artifacts = snapshot.load(best.family)
    told = {name: snapshot.manifest.artifacts[name].sha256 for name in DESCRIBING}
    interval = snapshot.interval(best.family)
    return ModelVersion(
        model_version="",
        run_id=snapshot.id.run_id,
        fusion_strategy=snapshot.id.strategy,
        horizon_days=snapshot.id.horizon,
        family=best.family,
        snapshot_family=snapshot.id.family,
        feature_set_version=binding.contract.feature_set,
        feature_contract_sha256=binding.contract.sha256,
        lock_version=binding.lock_version,
        lock_sha256=binding.lock_sha256,
        embedding_versions=dict(binding.embedding_versions),
        artifacts=dict(sorted({**artifacts, **told}.items())),
        interval=dict(interval),
        metrics={
            "val": dict(snapshot.scores(best.family, "val")),
            "test": dict(snapshot.scores(best.family, "test")),
        },
        promoted_at=now,
    )


def _lock_findings(store: ObjectStore, layout: Layout, binding: Binding) -> Verdict:
    key = layout.schema_lock(binding.strategy)
    try:
        lock = SchemaLock.from_json(store.get(key), key)
    except (FileNotFoundError, BadLock) as error:
        return Verdict((Finding(f"schema lock of {binding.strategy}", str(error)),), 1)
    adopted = ModelsLock(store, layout.models_lock()).adopted()
    return binding.lock_findings(lock, adopted)


def _update(
    store: ObjectStore, layout: Layout, horizon: Horizon, change: Callable[[Registry], Registry]
) -> Promotion:
    key = layout.model_registry(horizon)
    before, after = update(
        store, key, lambda data: Registry.from_json(data, horizon, key), change, Registry.to_json
    )
    done = Change.between(before, after)
    return Promotion(done.version, done.what, done.previous)
