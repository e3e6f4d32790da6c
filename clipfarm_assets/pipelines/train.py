"""From a training dataset to a published snapshot, through the gate.

The gate is here, and not only in the asset checks, because a check stops what comes after it in its
own run alone: a training run started by itself would not be stopped by a check that failed in
another run.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from clipfarm_assets.contracts import leakage, leakage_probe, split_rules
from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.features import FeatureSet
from clipfarm_assets.contracts.leakage import FeatureLeakage
from clipfarm_assets.contracts.schema_lock import LockMismatch, resolve
from clipfarm_assets.contracts.split_rules import SplitKind, SplitLeakage
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.training import snapshot
from clipfarm_assets.training.artifacts import (
    json_bytes,
    metrics_summary,
    snapshot_artifacts,
    split_sha256,
)
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import TrainingData
from clipfarm_assets.training.dataset_file import dataset_sha256
from clipfarm_assets.training.environment import git_sha, package_versions
from clipfarm_assets.training.families import FAMILIES, FamilyName
from clipfarm_assets.training.snapshot import Manifest, SnapshotId
from clipfarm_assets.training.suite import check_split, fit_split, leaderboard


@dataclass(frozen=True)
class TrainOptions:
    """Which models, on which splits.

    Attributes:
        model: One family, for a single-model run; None for an all-model run.
        families: Of an all-model run.
        split: The split whose models are kept.
        compare_splits: Further splits on which the same families are fitted and judged beside it.
    """

    model: FamilyName | None = None
    families: tuple[FamilyName, ...] = FAMILIES
    split: SplitKind = "random"
    compare_splits: tuple[SplitKind, ...] = ("chronological",)

    @property
    def fitted(self) -> tuple[FamilyName, ...]:
        """The families that are fitted."""
        return self.families if self.model is None else (self.model,)


@dataclass(frozen=True)
class TrainedSnapshot:
    """A snapshot just published.

    Attributes:
        id: Where it is.
        manifest: What it holds.
        leaderboard: See `training.suite.leaderboard`.
        metrics: ``metrics_summary.json``.
        feature_set: Version of the metadata features.
        plots: ``plots/<name>.png`` -> bytes.
        skipped_splits: Comparison splits that these rows don't allow, with why.
        seconds: Wall time.
    """

    id: SnapshotId
    manifest: Manifest
    leaderboard: pl.DataFrame
    metrics: Mapping[str, Any]
    feature_set: FeatureSet
    plots: Mapping[str, bytes]
    skipped_splits: Mapping[SplitKind, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def data_version(self) -> str:
        """Changes whenever anything the models depend on does."""
        return self.manifest.data_version


def verify_trainable(deployment: Deployment, data: TrainingData) -> None:
    """Refuse a dataset that breaks a promise.

    Raises:
        FeatureLeakage: A feature is forbidden, undeclared, or reproduces an outcome.
        SplitLeakage: A split breaks its rule.
        LockMismatch: It was assembled under another schema lock than the one in force.
    """
    for name, promise in PROMISES.items():
        verdict = promise.verdict(deployment, data)
        if not verdict.holds:
            msg = f"training refuses the dataset, {name}: {verdict.summary()}; {promise.remedy}"
            raise promise.fault(msg)


def train_snapshot(
    deployment: Deployment,
    data: TrainingData,
    run_id: str,
    config: SuiteConfig,
    options: TrainOptions,
    say: Say = silent,
) -> TrainedSnapshot:
    """Fit the families and publish their snapshot, immutable under its run id.

    Raises:
        FeatureLeakage, SplitLeakage, LockMismatch: See `verify_trainable`.
        SnapshotExists: The run id has this snapshot already.
        NoSuchSplit: The rows don't allow the split asked for.
        NoMetrics: A family gave none.
    """
    started = time.perf_counter()
    store, layout, made_of = deployment.store, deployment.layout, data.provenance
    snapshot_id = SnapshotId(run_id, made_of.strategy, made_of.horizon, options.model)
    snapshot.check_free(store, layout, snapshot_id)
    check_split(data, options.split)
    verify_trainable(deployment, data)
    wanted = [kind for kind in options.compare_splits if kind != options.split]
    skipped = {k: data.unavailable_splits[k] for k in wanted if k not in data.splits}
    for kind, why in skipped.items():
        say(f"{kind} split: left out, {why}")
    facts = config_facts(data, run_id, options) | {"skipped_splits": skipped}
    facts |= {"settings": config.model_dump(mode="json")}
    # Before hours of fitting: an attempt with other inputs may have begun to write this id.
    snapshot.check_free(store, layout, snapshot_id, json_bytes(facts))
    main = fit_split(data, options.split, options.fitted, config, say)
    others = [
        fit_split(data, kind, options.fitted, config, say) for kind in wanted if kind in data.splits
    ]
    artifacts = snapshot_artifacts(data, main, others, config, facts)
    seconds = {name: family.seconds for name, family in main.families.items()}
    manifest = snapshot.publish(
        store,
        layout,
        snapshot_id,
        artifacts,
        {"fit_seconds": seconds},
    )
    return TrainedSnapshot(
        id=snapshot_id,
        manifest=manifest,
        leaderboard=leaderboard(main, others, config.rank_metric),
        metrics=metrics_summary(main, others, config),
        feature_set=data.contract.feature_set,
        plots={name: png for name, png in artifacts.items() if name.startswith("plots/")},
        skipped_splits=skipped,
        seconds=time.perf_counter() - started,
    )


def config_facts(data: TrainingData, run_id: str, options: TrainOptions) -> dict[str, Any]:
    """What ``config_used.json`` says beside the settings."""
    made_of = data.provenance
    return {
        "run_id": run_id,
        "strategy": made_of.strategy,
        "horizon_days": made_of.horizon,
        "model": options.model or "all",
        "families": list(options.fitted),
        "split": options.split,
        "split_sha256": split_sha256(data, options.split),
        "compare_splits": list(options.compare_splits),
        "features": data.contract.to_fields(),
        "feature_set_version": data.contract.feature_set,
        "feature_contract_sha256": data.contract.sha256,
        "dataset_sha256": dataset_sha256(data),
        "lock_version": made_of.lock_version,
        "lock_sha256": made_of.lock_sha256,
        "embedding_versions": dict(made_of.embedding_versions),
        "manifest_sha256": made_of.manifest_sha256,
        "metadata_sha256": made_of.metadata_sha256,
        "git_sha": git_sha(),
        "versions": package_versions(),
    }


def _probe(data: TrainingData) -> Verdict:
    metadata = data.clips.metadata
    forbidden = {
        name: data.outcomes[name].to_numpy() for name in leakage_probe.probed(data.outcomes.columns)
    } | {"target_log": data.target_log}
    features: dict[str, Any] = {
        name: metadata[name].to_numpy().astype(np.float64) for name in data.contract.numeric
    } | {name: metadata[name].to_list() for name in data.contract.categorical}
    scalars = leakage_probe.probe(features, forbidden)
    names = [f"fused[{i}]" for i in range(data.clips.fused.shape[1])]
    vectors = leakage_probe.probe_vectors(data.clips.fused, names, forbidden)
    return _together({"metadata": scalars, "vectors": vectors})


def _splits(data: TrainingData) -> Verdict:
    return _together(
        {
            kind: split_rules.split_verdict(
                kind,
                video_ids=data.clips.video_ids,
                captured_at=data.captured_at,
                channel_id=data.clips.channel_id,
                duplicate_groups=data.duplicate_groups,
                parts=parts,
            )
            for kind, parts in data.splits.items()
        }
    )


def _lock(deployment: Deployment, data: TrainingData) -> Verdict:
    made_of = data.provenance
    lock = load_lock(deployment, made_of.strategy)
    adopted = deployment.models_lock().adopted()
    findings = []
    if (lock.lock_version, lock.sha256) != (made_of.lock_version, made_of.lock_sha256):
        problem = f"assembled under lock {made_of.lock_version}, in force is {lock.lock_version}"
        findings.append(Finding(f"schema lock of {made_of.strategy}", problem))
    for modality in MODALITIES:
        found = made_of.embedding_versions[modality]
        locked = lock.embedding_versions[modality]
        if resolve(found, modality, adopted) != resolve(locked, modality, adopted):
            problem = f"assembled from {found}, locked is {locked}"
            findings.append(Finding(f"{modality} embeddings", problem))
    return Verdict(tuple(findings), 1 + len(MODALITIES))


def _together(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict of several; their facts are told apart by the names they are given here."""
    return Verdict(
        tuple(finding for verdict in verdicts.values() for finding in verdict.findings),
        sum(verdict.examined for verdict in verdicts.values()),
        {
            f"{of}/{fact}": v
            for of, verdict in verdicts.items()
            for fact, v in verdict.facts.items()
        },
    )


_AGAIN: Final = "materialise clips/training_dataset again"


@dataclass(frozen=True)
class Promise:
    """One promise about a training dataset.

    Attributes:
        verdict: From a deployment and a dataset to whether it holds.
        fault: What training raises where it doesn't.
        remedy: What to do then.
    """

    verdict: Callable[[Deployment, TrainingData], Verdict]
    fault: type[Exception]
    remedy: str


PROMISES: Final[Mapping[str, Promise]] = {
    "features_declared": Promise(
        lambda _, data: leakage.contract_findings(data.contract),
        FeatureLeakage,
        f"correct `declared_columns` and {_AGAIN}",
    ),
    "no_leaky_feature": Promise(
        lambda _, data: _probe(data),
        FeatureLeakage,
        "declare the column `after_outcome` in `declared_columns`, or take it out of the metadata "
        f"CSV, and {_AGAIN}",
    ),
    "splits_hold": Promise(lambda _, data: _splits(data), SplitLeakage, _AGAIN),
    "lock_in_force": Promise(_lock, LockMismatch, f"{_AGAIN}, under the lock in force"),
}
"""What the asset checks show, and what training refuses on, in this order."""
