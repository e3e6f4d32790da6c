"""Comparison of snapshots, the model registry, and batch predictions."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
import polars as pl
import pyarrow as pa
from pydantic import Field

from clipfarm_assets.contracts.features import DEFAULT_FEATURE_SET, FeatureSet
from clipfarm_assets.contracts.horizons import Horizon, as_horizon
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.defs.clips import common
from clipfarm_assets.orchestration import metadata, partitions
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.orchestration.settings import BadSettings, validated
from clipfarm_assets.pipelines.compare import compare
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.score import NO_PREDICTION, UNSCORED, score_date
from clipfarm_assets.serving.promotion import Promotion, promote, rollback
from clipfarm_assets.serving.registry import horizon_of, load_registry
from clipfarm_assets.training.config import RankMetric
from clipfarm_assets.training.families import FAMILIES, FamilyName
from clipfarm_assets.training.snapshot_reader import latest_run


class ComparisonConfig(dg.Config):
    """What is compared."""

    run_id: str = Field(default="", description="Whose snapshots; empty: the newest run's.")
    metric: RankMetric = Field(default="mae_log", description="By which models are ranked, on val.")
    families: list[str] = Field(
        default=list(FAMILIES),
        description="Those that every strategy and horizon should have; others are compared too.",
    )


@dg.asset(
    **{
        **common.asset_options(
            "model_comparison",
            kinds={"json", "csv"},
            code_version="1",
            writes="clipfarm/models/snapshots/run_id=<run_id>/comparison/*",
        ),
        # Without partitions there is nothing to divide, whatever the deployment says of backfills.
        "backfill_policy": dg.BackfillPolicy.single_run(),
    },
    deps=[dg.AssetDep(common.SNAPSHOTS, partition_mapping=partitions.all_partitions)],
    description="All models of a training run beside each other: metrics, the best of each "
    "horizon, and which (family, strategy, horizon) jobs are missing.",
)
def model_comparison(
    context: dg.AssetExecutionContext, config: ComparisonConfig, deployment: DeploymentResource
) -> None:
    """Compare the snapshots of one run."""
    with deployment.open() as opened:
        run_id = config.run_id or latest_run(opened.store, opened.layout)
        families = validated(tuple[FamilyName, ...], config.families, "model_comparison.families")
        found = compare(opened.store, opened.layout, run_id, config.metric, families)
    context.log.info(
        "run %s: %d models compared, %d jobs missing", run_id, len(found.rows), len(found.missing)
    )
    context.add_output_metadata(
        {
            "run_id": run_id,
            "metric": f"val_{found.metric}",
            "dagster/row_count": len(found.rows),
            "best": metadata.frame(pl.DataFrame(found.best).drop("rank", "snapshot")),
            "comparison": metadata.frame(pl.DataFrame(found.rows).drop("snapshot")),
            "missing": len(found.missing),
            "missing_jobs": metadata.records(found.missing),
            "files": metadata.records([{"key": key} for key in found.files]),
        }
    )


class RegistryConfig(dg.Config):
    """Which model is to serve."""

    run_id: str = Field(default="", description="Whose models; empty: the horizon's newest run's.")
    strategy: Literal["any", Strategy] = Field(
        default="any", description="Only models of this fusion strategy."
    )
    family: Literal["any", FamilyName] = Field(
        default="any", description="Only models of this family."
    )
    metric: RankMetric = Field(
        default="rmse_log", description="By which the best is chosen, on val."
    )
    feature_set: FeatureSet = Field(
        default=DEFAULT_FEATURE_SET,
        description="Only models of this one. v1 was given a part of the outcome.",
    )
    replace_better: bool = Field(
        default=False,
        description="Promote the best of the newest run also where the model that serves has a "
        "better val metric. A run_id that is named is promoted in any case.",
    )
    model_version: str = Field(
        default="",
        description="Go back to this version, e.g. h7-v3, instead of choosing one of a run.",
    )


@dg.asset(
    **common.asset_options(
        "model_registry",
        kinds={"json"},
        code_version="1",
        writes="clipfarm/models/registry/horizon=<horizon>/registry.json",
    ),
    partitions_def=partitions.horizons,
    deps=[dg.AssetDep(common.SNAPSHOTS, partition_mapping=partitions.horizon_of)],
    description="Which model serves a horizon, bound to its snapshot, features, schema lock, "
    "embedding versions and the hashes of its files. Versions are appended, never changed.",
)
def model_registry(
    context: dg.AssetExecutionContext, config: RegistryConfig, deployment: DeploymentResource
) -> None:
    """Promote the best model of a run, or go back to an earlier version."""
    keys = sorted(context.partition_keys)
    with deployment.open() as opened:
        for key in keys:
            check_registry_config(config, as_horizon(key))
        for key in keys:
            promotion = _promote(opened, as_horizon(key), config)
            version = promotion.version
            context.log.info(
                "%s days: %s serves (%s, %s of run %s)",
                key,
                version.model_version,
                promotion.what,
                version.family,
                version.run_id,
            )
            if promotion.what == "kept":
                context.log.warning("%s days: not promoted: %s", key, promotion.why)
            context.add_asset_metadata(_registry_metadata(opened, promotion), partition_key=key)


def check_registry_config(config: RegistryConfig, horizon: Horizon) -> None:
    """Refuse a configuration that asks for two things, or for another horizon's version.

    Raises:
        BadSettings: It does.
    """
    if not config.model_version:
        return
    try:
        other = horizon_of(config.model_version)
    except ValueError as error:
        msg = f"model_registry.model_version: {error}"
        raise BadSettings(msg) from None
    if other != horizon:
        msg = (
            f"model_registry.model_version {config.model_version!r} is of horizon {other}, the "
            f"partition is {horizon}: materialise partition {str(other)!r} alone"
        )
        raise BadSettings(msg)
    if config.run_id or config.strategy != "any" or config.family != "any":
        msg = (
            "model_registry.model_version names the model already: leave run_id, strategy and "
            "family empty"
        )
        raise BadSettings(msg)


def _promote(deployment: Deployment, horizon: Horizon, config: RegistryConfig) -> Promotion:
    store, layout = deployment.store, deployment.layout
    if config.model_version:
        return rollback(store, layout, config.model_version)
    return promote(
        store,
        layout,
        horizon,
        run_id=config.run_id or latest_run(store, layout, horizon),
        strategy=None if config.strategy == "any" else config.strategy,
        family=None if config.family == "any" else config.family,
        metric=config.metric,
        feature_set=config.feature_set,
        only_if_better=not (config.run_id or config.replace_better),
    )


def _registry_metadata(deployment: Deployment, promotion: Promotion) -> dict[str, Any]:
    version = promotion.version
    versions = load_registry(deployment.store, deployment.layout, version.horizon_days).versions
    return {
        "model_version": version.model_version,
        "what": promotion.what,
        **({"why": promotion.why} if promotion.why else {}),
        "previous": promotion.previous or "none",
        "run_id": version.run_id,
        "strategy": version.fusion_strategy,
        "family": version.family,
        "feature_set": version.feature_set_version,
        "lock_version": version.lock_version,
        "embedding_versions": metadata.records(
            [{"modality": m, "version": v} for m, v in version.embedding_versions.items()]
        ),
        "metrics": metadata.frame(
            pl.DataFrame([{"part": part, **scores} for part, scores in version.metrics.items()])
        ),
        "artifacts": metadata.records(
            [{"name": name, "sha256": sha256} for name, sha256 in version.artifacts.items()]
        ),
        "versions": metadata.records(
            [
                {
                    "model_version": v.model_version,
                    "serves": v.model_version == version.model_version,
                    "family": v.family,
                    "strategy": v.fusion_strategy,
                    "run_id": v.run_id,
                    "promoted_at": v.promoted_at,
                }
                for v in versions
            ]
        ),
        "key": deployment.layout.model_registry(version.horizon_days),
    }


@dg.asset(
    **common.asset_options(
        "clip_predictions",
        kinds={"parquet"},
        code_version="1",
        writes="clipfarm/predictions/date=<date>/clip_predictions.parquet",
    ),
    partitions_def=partitions.dates,
    ins={"clip_index": dg.AssetIn(common.INDEX, partition_mapping=partitions.same_date)},
    deps=[
        dg.AssetDep(common.REGISTRY, partition_mapping=partitions.all_partitions),
        dg.AssetDep(common.MANIFEST, partition_mapping=partitions.all_partitions),
    ],
    io_manager_key="parquet_by_partition",
    pool=common.TRAINING_POOL,
    description="Predicted views of the date's fused clips for every horizon with a promoted "
    "model: log and raw, with an interval.",
)
def clip_predictions(
    context: dg.AssetExecutionContext,
    clip_index: dict[str, pa.Table],
    deployment: DeploymentResource,
) -> Mapping[str, pa.Table]:
    """Score each date's clips."""
    tables = {}
    with deployment.open() as opened:
        for date, index in clip_index.items():
            scored = score_date(opened, date, index, common.say(context))
            context.add_asset_metadata(_scored_metadata(scored, index), partition_key=date)
            tables[date] = scored
    return tables


def _scored_metadata(scored: pa.Table, index: pa.Table) -> dict[str, Any]:
    rows = pl.DataFrame(scored)
    by_horizon = (
        rows.group_by("horizon_days", "model_version")
        .agg(
            pl.len().alias("clips"),
            pl.col("prediction_raw").median().alias("median_views"),
            pl.col("prediction_raw").max().alias("most_views"),
        )
        .sort("horizon_days", "model_version")
    )
    unscored = json.loads((scored.schema.metadata or {}).get(UNSCORED.encode(), b"{}"))
    noticed = [
        {"horizon_days": int(horizon), "why": why, "clips": n}
        for horizon, reasons in unscored.items()
        for why, n in reasons.items()
    ]
    return {
        "dagster/row_count": scored.num_rows,
        "clips": index.num_rows,
        "by_horizon": metadata.frame(by_horizon),
        "without_prediction": metadata.records([n for n in noticed if n["why"] in NO_PREDICTION]),
        "noticed": metadata.records([n for n in noticed if n["why"] not in NO_PREDICTION]),
        "preview": metadata.preview(scored),
    }
