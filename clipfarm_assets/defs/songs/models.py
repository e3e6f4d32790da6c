"""Fusion models of songs, a strategy each, and how they compare."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from clipfarm_assets.defs.songs import common, shown
from clipfarm_assets.orchestration import metadata, partitions, plots
from clipfarm_assets.orchestration.each_partition import Made, materialise_each
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.orchestration.settings import BadSettings
from clipfarm_assets.pipelines.songs.comparison import compare
from clipfarm_assets.pipelines.songs.fusion import FusionReport, train_fusion
from clipfarm_assets.storage.song_layout import FusionStrategy
from clipfarm_assets.training.snapshot import data_version

_MADE_OF = [
    dg.AssetDep(common.SPLITS),
    dg.AssetDep(common.ALIGNMENT, partition_mapping=partitions.all_partitions),
    dg.AssetDep(common.FEATURES, partition_mapping=partitions.all_partitions),
]


@dg.asset(
    **{
        **common.asset_options(
            "fusion_models",
            kinds={"pytorch"},
            code_version="1",
            writes="songs/models/fusion/strategy=<strategy>/config.yaml, model.safetensors, "
            "metrics.json, curves.json, gradients.json, versions/<version>/…",
        ),
        "backfill_policy": partitions.one_run_each(),
    },
    partitions_def=partitions.fusion_strategies,
    deps=_MADE_OF,
    pool=common.TRAINING_POOL,
    description="Encoders of lyrics, audio and MIDI, and a head over what they say, fused by the "
    "strategy; fitted on train, stopped and calibrated on val. Every version is immutable; the "
    "newest lies under the known keys too.",
)
def fusion_models(
    context: dg.AssetExecutionContext,
    config: common.SongRun,
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Fit each strategy of the run."""
    with deployment.open() as opened:
        settings = config.over(opened, common.FUSION_MODELS)
        shared: dict[str, bytes] = {}

        def make(key: str) -> Made:
            report = train_fusion(
                opened.store,
                opened.songs,
                partitions.as_fusion_strategy(key),
                settings,
                common.say(context),
                warn=context.log.warning,
                shared=shared,
                cache_dir=Path(encoders.cache_dir),
                profile=encoders.profile,
            )
            if report.loss_falls is False:
                context.log.warning("%s: the training loss did not fall", report.id)
            folder = opened.songs.fusion_model(partitions.as_fusion_strategy(key))
            return Made(report.id.version, {"key": folder, **_fusion_metadata(report)})

        yield from materialise_each(context, make)


def _fusion_metadata(report: FusionReport) -> dict[str, Any]:
    encoders = ", ".join(f"{name}: {title}" for name, title in report.encoders.items())
    files = report.manifest.artifacts
    return {
        "model": str(report.id),
        "reused": report.reused,
        **{f"encoder/{name}": title for name, title in report.encoders.items()},
        "rows": metadata.counts_by("split", report.rows),
        "present": metadata.counts_by("split", report.present),
        **{f"left_out/{why}": n for why, n in report.left_out.items()},
        **{f"media_problem/{kind}": n for kind, n in report.problems.items()},
        **{f"val/{name}": metadata.rounded(v) for name, v in report.metrics["val"].items()},
        **metadata.flat("calibration", report.calibration),
        "loss_falls": "one epoch tells nothing" if report.loss_falls is None else report.loss_falls,
        **plots.learning_curves({report.id.model: report.curve}, f"fusion of {encoders}"),
        **shown.gradients(report.gradients),
        "gradient_advice": "; ".join(report.advice) or "none: no modality is far ahead",
        "resumed_after": report.resumed_after,
        "discarded_checkpoints": report.discarded,
        "files": metadata.records(
            [{"file": n, "bytes": each.size, "sha256": each.sha256} for n, each in files.items()]
        ),
        "seconds": round(report.seconds, 3),
    }


class ComparisonRun(common.SongRun):
    """Settings of one run that compares."""

    without_dropout: list[str] = Field(
        default=[],
        description="Strategies to fit once more without modality dropout, to see what it is good "
        "for; these models serve nobody.",
    )

    def twins(self) -> list[FusionStrategy]:
        """Those strategies.

        Raises:
            BadSettings: One is none.
        """
        try:
            return [partitions.as_fusion_strategy(name) for name in self.without_dropout]
        except ValueError as error:
            msg = f"strategy_comparison.without_dropout: {error}"
            raise BadSettings(msg) from None


@dg.asset(
    **{
        **common.asset_options(
            "strategy_comparison",
            kinds={"json", "csv"},
            code_version="1",
            writes="songs/comparison/*, songs/models/single/modality=<modality>/*",
        ),
        # Without partitions there is nothing to divide, whatever the deployment says of backfills.
        "backfill_policy": dg.BackfillPolicy.single_run(),
    },
    deps=[
        dg.AssetDep(common.FUSION_MODELS, partition_mapping=partitions.all_partitions),
        *_MADE_OF,
    ],
    pool=common.TRAINING_POOL,
    description="The strategies side by side on val and test: with every subset of modalities, "
    "what each modality is worth, what its absence costs, and whether fusion is better than the "
    "best modality alone, beyond chance.",
)
def strategy_comparison(
    context: dg.AssetExecutionContext,
    config: ComparisonRun,
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> dg.MaterializeResult[Any]:
    """Fit each modality alone where that isn't done, and judge all models."""
    with deployment.open() as opened:
        settings = config.over(opened, common.COMPARISON)
        found = compare(
            opened.store,
            opened.songs,
            settings,
            common.say(context),
            without_dropout=config.twins(),
            warn=context.log.warning,
            cache_dir=Path(encoders.cache_dir),
            profile=encoders.profile,
        )
        for note in found.notes:
            context.log.warning(note)
        folder = opened.songs.comparison()
    return dg.MaterializeResult(
        metadata={"key": folder, **shown.comparison(found)},
        data_version=dg.DataVersion(data_version(found.metrics)),
    )
