"""The three embedding assets and the manifest over them."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.defs.clips import common
from clipfarm_assets.defs.clips.pictures import embedding_map
from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.loading import choose_device
from clipfarm_assets.orchestration import metadata, partitions
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.embedding_manifest import embedding_manifest as manifest_of


class EmbedConfig(common.RetryOptions):
    """How an embedding run works; none of these changes what a vector is."""

    batch_size: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Items committed together; a run that is killed leaves at most so many vectors "
        "to be made again.",
    )
    workers: int | None = Field(
        default=None, ge=1, le=256, description="Threads that decode; unset, one a core."
    )
    fetch_workers: int | None = Field(
        default=None, ge=1, le=256, description="Threads that read raw objects; unset, 8."
    )
    encode_workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that run the model, each on items of its own; unset, one a core as "
        "far as memory allows, and one on an accelerator.",
    )
    put_workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that store vectors; unset, 4. No more than batch_size are stored "
        "before they are committed.",
    )
    queue_depth: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Items a worker that each queue holds; unset, 2 for fetching and 4 for "
        "decoding and encoding.",
    )
    prefetch_mib: int = Field(
        default=256,
        ge=1,
        le=1_048_576,
        description="MiB of raw objects in memory at most, being fetched, waiting or being "
        "decoded; one larger object is let through alone. Decoding holds up to twice an item more.",
    )
    verify_objects: bool = Field(
        default=False,
        description="Read every vector that the ledger says is stored, and embed clips again whose "
        "vector is gone or isn't what was stored.",
    )


@defaults_from("CLIPFARM_VIDEO_CONFIG")
class VideoRun(EmbedConfig, VideoConfig):
    """Configuration of `clips/video_embeddings`."""


@defaults_from("CLIPFARM_AUDIO_CONFIG")
class AudioRun(EmbedConfig, AudioConfig):
    """Configuration of `clips/audio_embeddings`."""


@defaults_from("CLIPFARM_TEXT_CONFIG")
class TextRun(EmbedConfig, TextConfig):
    """Configuration of `clips/text_embeddings`."""


def _embed(
    context: dg.AssetExecutionContext,
    modality: Modality,
    config: EmbedConfig,
    settings: EncoderConfig,
    index: Mapping[str, pa.Table],
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> None:
    options = EmbedOptions(
        batch_size=config.batch_size,
        workers=config.workers,
        fetch_workers=config.fetch_workers,
        encode_workers=config.encode_workers,
        put_workers=config.put_workers,
        queue_depth=config.queue_depth,
        audio_seconds=settings.max_audio_seconds if isinstance(settings, AudioConfig) else 90.0,
        threads=settings.threads,
        prefetch_mib=config.prefetch_mib,
        item_deadline_seconds=settings.item_deadline_seconds,
        max_fail_retries=config.max_fail_retries,
        retry_terminal=config.retry_terminal,
        verify_objects=config.verify_objects,
    )
    with deployment.open() as opened:
        stage = EmbeddingStage(
            opened,
            modality,
            lambda: encoders.open(modality, settings, opened.models_lock()),
            options,
            common.say(context),
            lambda: encoders.known_version(modality, settings, opened.models_lock()),
            lambda: str(choose_device(settings).type),
        )
        for date, report in stage.run(index).items():
            context.add_asset_metadata(
                {
                    **metadata.stage_metadata(
                        report,
                        opened.standing(report.stage, index[date]["video_id"].to_pylist()),
                    ),
                    **embedding_map(
                        opened, modality, date, index[date], redraw=report.worked_on > 0
                    ),
                },
                partition_key=date,
            )


def _options(modality: Modality) -> dict[str, Any]:
    return {
        **common.asset_options(
            f"{modality}_embeddings",
            kinds={"pytorch", "numpy"},
            code_version="1",
            writes=f"clipfarm/embeddings/{modality}/<video_id>.npy",
        ),
        "partitions_def": partitions.dates,
        "ins": {"clip_index": dg.AssetIn(common.INDEX, partition_mapping=partitions.same_date)},
        "pool": common.ENCODER_POOL,
    }


@dg.asset(
    **_options("video"),
    description="VideoMAE over 16 frames a clip: one float32 unit vector each, as .npy, only for "
    "clips that are new, changed, unfinished or of another embedding version.",
)
def video_embeddings(
    context: dg.AssetExecutionContext,
    config: VideoRun,
    clip_index: dict[str, pa.Table],
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> None:
    """Embed the pictures."""
    _embed(context, "video", config, config, clip_index, deployment, encoders)


@dg.asset(
    **_options("audio"),
    description="wav2vec2 over up to 90 s of 16 kHz mono sound, mean over time: one float32 unit "
    "vector a clip, as .npy, only for what changed.",
)
def audio_embeddings(
    context: dg.AssetExecutionContext,
    config: AudioRun,
    clip_index: dict[str, pa.Table],
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> None:
    """Embed the sound."""
    _embed(context, "audio", config, config, clip_index, deployment, encoders)


@dg.asset(
    **_options("text"),
    description="MiniLM over title, description and query, and over the transcript: the two unit "
    "vectors joined and normalised, as .npy, only for what changed.",
)
def text_embeddings(
    context: dg.AssetExecutionContext,
    config: TextRun,
    clip_index: dict[str, pa.Table],
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> None:
    """Embed the words."""
    _embed(context, "text", config, config, clip_index, deployment, encoders)


@dg.asset(
    **common.asset_options(
        "embedding_manifest",
        kinds={"parquet"},
        code_version="1",
        writes="clipfarm/embeddings/manifests/date=<date>/embedding_manifest.parquet",
    ),
    partitions_def=partitions.dates,
    ins={"clip_index": dg.AssetIn(common.INDEX, partition_mapping=partitions.same_date)},
    deps=[
        dg.AssetDep(asset, partition_mapping=partitions.same_date)
        for asset in common.EMBEDDINGS.values()
    ],
    io_manager_key="parquet_by_partition",
    description="One row a clip and modality: where its vector is, which model at which revision "
    "made it, and its status.",
)
def embedding_manifest(
    context: dg.AssetExecutionContext,
    clip_index: dict[str, pa.Table],
    deployment: DeploymentResource,
) -> Mapping[str, pa.Table]:
    """Write down what the ledger knows of the date's clips."""
    with deployment.open() as opened:
        for modality in statuses.MODALITIES:
            opened.restore(statuses.embedding_stage(modality))
        tables = {date: manifest_of(opened, index) for date, index in clip_index.items()}
    for date, table in tables.items():
        counts = table.group_by(["modality", "status"]).aggregate([([], "count_all")]).to_pylist()
        counts.sort(key=lambda row: (row["modality"], row["status"]))
        context.add_asset_metadata(
            {
                "dagster/row_count": table.num_rows,
                "counts": metadata.records(
                    [
                        {"modality": r["modality"], "status": r["status"], "clips": r["count_all"]}
                        for r in counts
                    ]
                ),
                "preview": metadata.preview(
                    table,
                    [
                        "video_id",
                        "modality",
                        "status",
                        "model_name",
                        "model_version",
                        "embedding_dim",
                    ],
                ),
            },
            partition_key=date,
        )
    return tables
