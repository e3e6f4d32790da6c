"""Experts, the fusion model over them, and how good all of them are."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from clipfarm_assets.defs.memes import common, shown
from clipfarm_assets.orchestration import metadata, partitions, plots
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.each_partition import Made, materialise_each
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.memes.evaluation import evaluate
from clipfarm_assets.pipelines.memes.experts import ExpertReport, train_expert
from clipfarm_assets.pipelines.memes.fusion import FusionReport, train_fusion
from clipfarm_assets.storage.meme_layout import ExpertModality
from clipfarm_assets.training.expert_config import ExpertConfig
from clipfarm_assets.training.meme_config import MemeEvaluationConfig, MemeFusionConfig
from clipfarm_assets.training.snapshot import data_version

_EPOCHS = "Epochs of the fit at most; unset, as `hyperparameters` or the defaults say."


class ExpertRun(dg.Config):
    """Which expert there is to be, and how it is fine-tuned if it is not finished."""

    model: str = Field(
        default="",
        description="Directory or hub name [@revision] of a finished expert, used as it is. Empty: "
        "the environment's, a directory in the store, or else one is fine-tuned.",
    )
    base: str = Field(
        default="", description="Of the model to fine-tune; empty: the profile's own."
    )
    seed: int = Field(default=42, ge=0, description="Of every random choice.")
    max_epochs: int | None = Field(default=None, ge=1, description=_EPOCHS)
    hyperparameters: dict[str, Any] = Field(
        default={},
        description='Others, e.g. {"top_layers": 2, "fit": {"batch_size": 16}}: see '
        "training/expert_config.py.",
    )


@defaults_from("CLIPFARM_TEXT_EXPERT_CONFIG")
class TextExpertRun(ExpertRun):
    """Configuration of `memes/text_expert`."""


@defaults_from("CLIPFARM_VISION_EXPERT_CONFIG")
class VisionExpertRun(ExpertRun):
    """Configuration of `memes/vision_expert`."""


def expert_config(config: ExpertRun, modality: ExpertModality) -> ExpertConfig:
    """All settings of an expert.

    Raises:
        BadSettings: One doesn't exist or hasn't a value that it can have.
    """
    where = f"{modality}_expert.hyperparameters"
    own = {"model": config.model or None, "base": config.base or None, "seed": config.seed}
    told = common.fit_of(config.max_epochs, config.hyperparameters, where)
    return common.settings_of(ExpertConfig, own, told, where)


def _expert_options(modality: ExpertModality) -> dict[str, Any]:
    return {
        **common.asset_options(
            f"{modality}_expert",
            kinds={"pytorch", "huggingface"},
            code_version="1",
            writes=f"memes/models/[label=<label>/]{modality}_expert/*, "
            f"{modality}_expert_versions/*",
        ),
        "backfill_policy": partitions.one_run_each(),
        "partitions_def": partitions.meme_labels,
        "deps": [dg.AssetDep(common.SHARDS, partition_mapping=partitions.all_partitions)],
        "pool": common.TRAINING_POOL,
    }


def _expert(
    context: dg.AssetExecutionContext,
    modality: ExpertModality,
    config: ExpertRun,
    deployment: DeploymentResource,
) -> Iterator[dg.MaterializeResult[Any]]:
    with deployment.open() as opened:
        settings = expert_config(config, modality)

        def make(label: str) -> Made:
            common.check_label(opened, label)
            report = train_expert(
                opened.store, opened.memes, modality, label, settings, common.say(context)
            )
            root = opened.memes.expert(modality, label)
            if report.record.is_stand_in:
                context.log.warning(
                    "%s is a stand-in with random weights: it shows that everything runs, and "
                    "understands nothing",
                    report.record.name,
                )
            return Made(report.record.version, {"key": root, **_expert_metadata(report)})

        yield from materialise_each(context, make)


def _expert_metadata(report: ExpertReport) -> dict[str, Any]:
    record = report.record
    title = f"{record.modality} expert of {record.label}: {record.name}"
    return {
        "expert": record.name,
        "stand_in": record.is_stand_in,
        "origin": record.origin,
        "source": f"{record.source.name}@{record.source.revision}",
        "version": record.version,
        "weights_sha256": record.weights_sha256,
        "classes": ", ".join(record.classes),
        "dimension": record.dim,
        "representation": record.representation.pooling,
        "reused": report.reused,
        **{f"rows/{part}": n for part, n in record.rows.items()},
        **(plots.learning_curves({record.modality: record.curve}, title) if record.curve else {}),
        "files": metadata.records([{"file": name} for name in record.files]),
    }


@dg.asset(
    **_expert_options("text"),
    description="A Hugging Face classifier of the words: supplied by name, found in the store, or "
    "fine-tuned from the shards. Stand-ins are named as such.",
)
def text_expert(
    context: dg.AssetExecutionContext, config: TextExpertRun, deployment: DeploymentResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Put each label's expert there."""
    yield from _expert(context, "text", config, deployment)


@dg.asset(
    **_expert_options("vision"),
    description="A Hugging Face classifier of the picture: supplied by name, found in the store, "
    "or fine-tuned from the shards. Stand-ins are named as such.",
)
def vision_expert(
    context: dg.AssetExecutionContext, config: VisionExpertRun, deployment: DeploymentResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Put each label's expert there."""
    yield from _expert(context, "vision", config, deployment)


@defaults_from("CLIPFARM_MEME_FUSION_CONFIG")
class FusionRun(dg.Config):
    """How fusion is fitted."""

    seed: int = Field(default=42, ge=0, description="Of every random choice.")
    max_epochs: int | None = Field(default=None, ge=1, description=_EPOCHS)
    hyperparameters: dict[str, Any] = Field(
        default={},
        description='Others, e.g. {"strategy": "gated", "image_representation": "logits"}: see '
        "training/meme_config.py.",
    )


def fusion_config(config: FusionRun) -> MemeFusionConfig:
    """All settings of the fusion model.

    Raises:
        BadSettings: One doesn't exist or hasn't a value that it can have.
    """
    where = "fusion_model.hyperparameters"
    told = common.fit_of(config.max_epochs, config.hyperparameters, where)
    return common.settings_of(MemeFusionConfig, {"seed": config.seed}, told, where)


@dg.asset(
    **{
        **common.asset_options(
            "fusion_model",
            kinds={"pytorch"},
            code_version="1",
            writes="memes/models/[label=<label>/]mm_fusion/fusion_model.pt, versions/<version>/…",
        ),
        "backfill_policy": partitions.one_run_each(),
    },
    partitions_def=partitions.meme_labels,
    deps=[
        *(
            dg.AssetDep(expert, partition_mapping=partitions.same_label)
            for expert in common.EXPERTS.values()
        ),
        dg.AssetDep(common.SHARDS, partition_mapping=partitions.all_partitions),
    ],
    pool=common.TRAINING_POOL,
    description="A head over what both experts say of a meme, fitted on train, stopped and "
    "calibrated on val; experts are frozen unless their top layers are asked for. Every version is "
    "immutable; the newest lies under the known keys too.",
)
def fusion_model(
    context: dg.AssetExecutionContext, config: FusionRun, deployment: DeploymentResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Fit each label's fusion."""
    with deployment.open() as opened:
        settings = fusion_config(config)

        def make(label: str) -> Made:
            common.check_label(opened, label)
            report = train_fusion(opened.store, opened.memes, label, settings, common.say(context))
            if report.loss_falls is False:
                context.log.warning("%s: the training loss did not fall", report.id)
            folder = opened.memes.fusion_model(label)
            return Made(report.id.version, {"key": folder, **_fusion_metadata(report)})

        yield from materialise_each(context, make)


def _fusion_metadata(report: FusionReport) -> dict[str, Any]:
    experts = ", ".join(f"{name}: {title}" for name, title in report.experts.items())
    files = report.manifest.artifacts
    return {
        "model": str(report.id),
        "reused": report.reused,
        **{f"expert/{name}": title for name, title in report.experts.items()},
        "rows": metadata.counts_by("split", report.rows),
        **{f"unlabelled/{split}": n for split, n in report.unlabelled.items()},
        **{f"val/{name}": metadata.rounded(v) for name, v in report.metrics["val"].items()},
        **metadata.flat("calibration", report.calibration),
        "loss_falls": "one epoch tells nothing" if report.loss_falls is None else report.loss_falls,
        **({"notes": "; ".join(report.notes)} if report.notes else {}),
        "resumed_after": report.resumed_after,
        **plots.learning_curves({"fusion": report.curve}, f"fusion of {experts}"),
        "files": metadata.records(
            [{"file": n, "bytes": each.size, "sha256": each.sha256} for n, each in files.items()]
        ),
        "seconds": round(report.seconds, 3),
    }


@defaults_from("CLIPFARM_MEME_EVALUATION_CONFIG")
class EvaluationRun(dg.Config):
    """How models are judged."""

    resamples: int = Field(default=2000, ge=1, le=1_000_000, description="Of the bootstrap.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Of every interval.")
    seed: int = Field(default=42, ge=0, description="Of the bootstrap.")


@dg.asset(
    **{
        **common.asset_options(
            "evaluation",
            kinds={"json", "parquet"},
            code_version="1",
            writes="memes/evaluation/label=<label>/*, memes/models/registry.json",
        ),
        "backfill_policy": partitions.one_run_each(),
    },
    partitions_def=partitions.meme_labels,
    deps=[dg.AssetDep(common.FUSION_MODEL, partition_mapping=partitions.same_label)]
    + [
        dg.AssetDep(expert, partition_mapping=partitions.same_label)
        for expert in common.EXPERTS.values()
    ]
    + [dg.AssetDep(common.SHARDS, partition_mapping=partitions.all_partitions)],
    pool=common.TRAINING_POOL,
    description="Text alone, picture alone and fusion on val and test, with confidence intervals; "
    "whether fusion is better than the best of its parts beyond chance, and so what serves.",
)
def evaluation(
    context: dg.AssetExecutionContext, config: EvaluationRun, deployment: DeploymentResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Judge each label's models, and let the better one serve."""
    with deployment.open() as opened:
        settings = MemeEvaluationConfig(**config.model_dump())

        def make(label: str) -> Made:
            common.check_label(opened, label)
            found = evaluate(opened.store, opened.memes, label, settings, common.say(context))
            folder = opened.memes.evaluation(label)
            version = data_version(found.metrics)
            return Made(version, {"key": folder, **shown.evaluation(found)})

        yield from materialise_each(context, make)
