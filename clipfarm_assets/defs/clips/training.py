"""Training datasets and model snapshots."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import dagster as dg
import polars as pl
from pydantic import Field

from clipfarm_assets.contracts.features import (
    DEFAULT_FEATURE_SET,
    Availability,
    Column,
    FeatureContract,
    FeatureSet,
    Kind,
)
from clipfarm_assets.contracts.split_rules import SPLIT_KINDS, SplitKind
from clipfarm_assets.defs.clips import common
from clipfarm_assets.defs.clips.index import IndexConfig
from clipfarm_assets.orchestration import metadata, partitions, plots
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.each_partition import Made, materialise_each
from clipfarm_assets.orchestration.io_managers import LazyDatasets
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.orchestration.settings import BadSettings, merged, validated
from clipfarm_assets.pipelines.assemble import COUNTS, AssembleOptions, assemble
from clipfarm_assets.pipelines.train import TrainedSnapshot, TrainOptions, train_snapshot
from clipfarm_assets.pipelines.turns import LeaseOptions, at_work
from clipfarm_assets.storage.layout import check_run_id
from clipfarm_assets.training.artifacts import data_summary
from clipfarm_assets.training.config import RankMetric, Settings, SuiteConfig
from clipfarm_assets.training.data import TrainingData
from clipfarm_assets.training.families import FAMILIES, FamilyName

_BACKFILL_TAG = "dagster/backfill"
_PREVIEW_ROWS = 10
# The settings of the suite that are fields of the run's configuration themselves.
_OWN_FIELDS = ("seed", "rank_metric", "interval_coverage")
_NETWORKS = ("concat_mlp", "gated_fusion_mlp", "gbdt")


@defaults_from("CLIPFARM_TRAINING_CONFIG")
class TrainingDatasetConfig(dg.Config):
    """What the rows and features of a training dataset are."""

    feature_set: FeatureSet = Field(
        default=DEFAULT_FEATURE_SET,
        description="v2: metadata known when a clip is published. v1: the older deployment's, with "
        "columns captured at the horizon, which contain part of the outcome.",
    )
    declared_columns: dict[str, dict[str, str]] = Field(
        default={},
        description="Columns of the CSV beyond the contract's, by name: availability (at_publish, "
        "at_capture, after_outcome) and kind (numeric, boolean, categorical, identifier, text, "
        "time).",
    )
    ratios: list[float] = Field(
        default=[0.70, 0.15, 0.15], description="Shares of train, val and test."
    )
    seed: int = Field(default=42, ge=0, description="Of the random and grouped splits.")


class _Declaration(Settings):
    availability: Availability
    kind: Kind


@dg.asset(
    **{
        **common.asset_options(
            "training_dataset",
            kinds={"polars", "numpy", "parquet"},
            code_version="1",
            writes="clipfarm/training/strategy=<strategy>/horizon=<horizon>/<sha256>/…",
        ),
        "backfill_policy": partitions.one_run_each(),
    },
    partitions_def=partitions.strategy_by_horizon,
    deps=[
        dg.AssetDep(common.MANIFEST, partition_mapping=partitions.strategy_of),
        common.METADATA,
    ],
    io_manager_key="training_data",
    description="Fused vectors joined with the views at the horizon: rows, features, vectors and "
    "every split of them, with what was left out on the way and why.",
)
def training_dataset(
    context: dg.AssetExecutionContext,
    config: TrainingDatasetConfig,
    deployment: DeploymentResource,
) -> Mapping[str, TrainingData]:
    """Assemble each partition's rows from manifest, shards and CSV."""
    with deployment.open() as opened:
        options = assemble_options(config)
        datasets = {}
        for key in sorted(context.partition_keys):
            strategy, horizon = partitions.training_job(key)
            data = assemble(opened, strategy, horizon, options, common.say(context))
            context.log.info("dataset %s, %d days: %d rows", strategy, horizon, len(data))
            context.add_asset_metadata(_dataset_metadata(data), partition_key=key)
            datasets[key] = data
    return datasets


def assemble_options(config: TrainingDatasetConfig) -> AssembleOptions:
    """The configuration as the pipeline takes it.

    Raises:
        BadSettings: A declaration is none.
    """
    where = "training_dataset.declared_columns"
    declared = {
        name: validated(_Declaration, told, f"{where}.{name}")
        for name, told in config.declared_columns.items()
    }
    if len(config.ratios) != 3:
        msg = f"training_dataset.ratios must be of train, val and test: found {config.ratios}"
        raise BadSettings(msg)
    return AssembleOptions(
        feature_set=config.feature_set,
        declared_columns={n: Column(d.availability, d.kind) for n, d in declared.items()},
        ratios=(config.ratios[0], config.ratios[1], config.ratios[2]),
        seed=config.seed,
        # As the clips' identities were made, by the deployment's setting.
        include_captured_at_in_hash=IndexConfig().include_captured_at_in_hash,
    )


def _dataset_metadata(data: TrainingData) -> dict[str, Any]:
    summary = data_summary(data)
    clips = data.clips
    columns: dict[str, Any] = {
        "video_id": clips.video_ids,
        "captured_at": data.captured_at.astype(str),
        "text_present": clips.text_present,
        "target_raw": data.target_raw,
        **{str(kind): parts for kind, parts in data.splits.items()},
    }
    rows = pl.DataFrame({name: c[:_PREVIEW_ROWS].tolist() for name, c in columns.items()})
    splits = [{"split": kind, **counts} for kind, counts in summary["splits"].items()]
    unavailable = [{"split": kind, "why": why} for kind, why in data.unavailable_splits.items()]
    targets = [
        {"target": name, **summary[name]}
        for name in ("target_log", "target_raw")
        if name in summary
    ]
    return {
        "dagster/row_count": len(data),
        "channels": summary["channels"],
        "text_present": summary["text_present"],
        "dims": ", ".join(f"{name} {dim}" for name, dim in summary["dims"].items()),
        "counts": metadata.records(
            [{"count": k, "n": n, "of": COUNTS.get(k, "")} for k, n in data.counts.items()]
        ),
        "splits": metadata.records(splits),
        "unavailable_splits": metadata.records(unavailable),
        "feature_set": data.contract.feature_set,
        "features": metadata.records(_features(data.contract, summary["missing"])),
        "target": metadata.records(targets),
        "preview": metadata.records(rows.to_dicts()),
        "lock_version": data.provenance.lock_version,
    }


def _features(contract: FeatureContract, missing: Mapping[str, int]) -> list[dict[str, Any]]:
    rows = [{"column": n, "use": "numeric", "missing": missing[n]} for n in contract.numeric]
    rows += [
        {"column": n, "use": "categorical", "missing": missing[n]} for n in contract.categorical
    ]
    return [{**row, "why": ""} for row in rows] + [
        {"column": name, "use": "dropped", "missing": 0, "why": why}
        for name, why in contract.dropped.items()
    ]


@defaults_from("CLIPFARM_SUITE_CONFIG")
class SuiteRun(dg.Config):
    """Which models a training run fits, and how."""

    run_id: str = Field(
        default="",
        description="Names the snapshots; a used one is refused. Empty: the backfill's id, else "
        "the Dagster run's.",
    )
    model: Literal["all", FamilyName] = Field(
        default="all", description="One family, for a single-model snapshot; or all of `families`."
    )
    families: list[str] = Field(
        default=list(FAMILIES),
        description=f"What an all-model run fits: some of {', '.join(FAMILIES)}.",
    )
    split: SplitKind = Field(default="random", description="The split whose models are kept.")
    compare_splits: list[str] = Field(
        default=["chronological"],
        description="Further splits, fitted and judged beside it on the leaderboard: some of "
        f"{', '.join(SPLIT_KINDS)}.",
    )
    rank_metric: RankMetric = Field(
        default="rmse_log", description="Ranks the leaderboard, by its value on val."
    )
    interval_coverage: float = Field(
        default=0.9, gt=0, lt=1, description="Promised coverage of the prediction intervals."
    )
    seed: int = Field(default=42, ge=0, description="Of every random choice in training.")
    max_epochs: int | None = Field(
        default=None, ge=1, description="Of every network; unset, each family's own."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without a better val RMSE before a network stops; unset, its own.",
    )
    hyperparameters: dict[str, Any] = Field(
        default={},
        description='By family, e.g. {"ridge": {"alphas": [1, 10]}, "gbdt": {"projector_dim": 9}}.',
    )


@dg.asset(
    **{
        **common.asset_options(
            "model_snapshots",
            kinds={"scikitlearn", "pytorch"},
            code_version="1",
            writes="clipfarm/models/snapshots/run_id=<run_id>/[model=<family>/]"
            "strategy=<strategy>/horizon=<horizon>/…",
        ),
        "backfill_policy": partitions.one_run_each(),
    },
    partitions_def=partitions.strategy_by_horizon,
    ins={"training_dataset": dg.AssetIn(common.DATASET, partition_mapping=partitions.same_job)},
    pool=common.TRAINING_POOL,
    description="The model suite, fitted and judged: models, metrics, predictions, curves and "
    "plots, immutable under their run_id. Refuses a dataset whose features or splits break a "
    "promise; of feature set v1 it warns: its columns captured at the horizon hold a part of the "
    "outcome.",
)
def model_snapshots(
    context: dg.AssetExecutionContext,
    config: SuiteRun,
    training_dataset: LazyDatasets,
    deployment: DeploymentResource,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Train each partition's suite; a data version says what it was made of."""
    with deployment.open() as opened:
        run_id = run_id_of(config, context)
        settings, options = suite_config(config), train_options(config)

        def make(key: str) -> Made:
            data = training_dataset[key]
            if data.contract.feature_set != DEFAULT_FEATURE_SET:
                context.log.warning(
                    "%s: feature set %s has columns captured at the horizon, which contain a part "
                    "of the outcome: its figures are for comparison, and it isn't promoted unless "
                    "asked for",
                    key,
                    data.contract.feature_set,
                )
            say, scope = common.say(context), f"model_snapshots/{key}/{run_id}"
            # For who removes objects that nothing refers to: a snapshot is staged before it is one.
            with at_work(opened.ledger, scope, LeaseOptions(run_id=context.run.run_id), say):
                trained = train_snapshot(opened, data, run_id, settings, options, say)
            root = trained.id.root(opened.layout)
            return Made(trained.data_version, _snapshot_metadata(trained, root))

        yield from materialise_each(context, make)


def run_id_of(config: SuiteRun, context: dg.AssetExecutionContext) -> str:
    """The run id of the snapshots: told, or that of the backfill, or of the Dagster run.

    Raises:
        BadSettings: What is told can't be a part of a key.
    """
    if not config.run_id:
        return context.run.tags.get(_BACKFILL_TAG) or context.run.run_id
    try:
        return check_run_id(config.run_id)
    except ValueError as error:
        msg = f"model_snapshots.run_id: {error}"
        raise BadSettings(msg) from None


def suite_config(config: SuiteRun) -> SuiteConfig:
    """All settings of the suite.

    Raises:
        BadSettings: A hyperparameter doesn't exist or hasn't a value that it can have.
    """
    where = "model_snapshots.hyperparameters"
    for name in _OWN_FIELDS:
        if name in config.hyperparameters:
            msg = f"{where}.{name} is a field of its own: set model_snapshots.{name}"
            raise BadSettings(msg)
    # Over each family's own defaults, not those of the class that its nested settings are of.
    told = merged(SuiteConfig().model_dump(), config.hyperparameters)
    settings = validated(SuiteConfig, told, where, hidden=_OWN_FIELDS)
    epochs = {
        name: value
        for name, value in (("max_epochs", config.max_epochs), ("patience", config.patience))
        if value is not None
    }
    networks = {}
    for name in _NETWORKS if epochs else ():
        network = getattr(settings, name)
        set_here = config.hyperparameters.get(name, {}).get("fit", {})
        fit = network.fit.model_copy(update={n: v for n, v in epochs.items() if n not in set_here})
        networks[name] = network.model_copy(update={"fit": fit})
    return settings.model_copy(
        update={**{name: getattr(config, name) for name in _OWN_FIELDS}, **networks}
    )


def train_options(config: SuiteRun) -> TrainOptions:
    """Which models on which splits.

    Raises:
        BadSettings: No family, an unknown one, or one twice; or so of the splits.
    """
    for name, values in (("families", config.families), ("compare_splits", config.compare_splits)):
        if len(set(values)) < len(values):
            msg = f"model_snapshots.{name} must name each once: found {', '.join(values)}"
            raise BadSettings(msg)
    if not config.families:
        msg = f"model_snapshots.families must name some of {', '.join(FAMILIES)}: found none"
        raise BadSettings(msg)
    return TrainOptions(
        model=None if config.model == "all" else config.model,
        families=validated(tuple[FamilyName, ...], config.families, "model_snapshots.families"),
        split=config.split,
        compare_splits=validated(
            tuple[SplitKind, ...], config.compare_splits, "model_snapshots.compare_splits"
        ),
    )


def _snapshot_metadata(trained: TrainedSnapshot, root: str) -> dict[str, Any]:
    best = trained.leaderboard.row(0, named=True)
    rank_metric = trained.metrics["rank_metric"]
    skipped = [{"split": kind, "why": why} for kind, why in trained.skipped_splits.items()]
    shown = {
        f"plot/{name.removeprefix('plots/').removesuffix('.png')}": plots.inline_png(png, name)
        for name, png in sorted(trained.plots.items())
    }
    return {
        "run_id": trained.id.run_id,
        "model": trained.id.family or "all",
        "feature_set": trained.feature_set,
        "snapshot": root,
        "artifacts": len(trained.manifest.artifacts),
        "best_model": best["family"],
        rank_metric: metadata.rounded(best[rank_metric]),
        "leaderboard": metadata.frame(trained.leaderboard),
        **{f"best/{n}": metadata.rounded(v) for n, v in best.items() if n.startswith("test_")},
        "skipped_splits": metadata.records(skipped),
        **shown,
        "plot_files": metadata.records(
            [{"file": name, "bytes": len(png)} for name, png in sorted(trained.plots.items())]
        ),
        "seconds": round(trained.seconds, 3),
    }
