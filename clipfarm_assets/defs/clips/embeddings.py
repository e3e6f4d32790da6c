"""The three embedding assets and the manifest over them."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import dagster as dg
import pyarrow as pa
from pydantic import Field

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import Modality, embedding_stage
from clipfarm_assets.defs.clips import common
from clipfarm_assets.defs.clips.engine import EngineOptions
from clipfarm_assets.defs.clips.pictures import embedding_map
from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.decoding import DecodeIsolation
from clipfarm_assets.encoders.loading import choose_device
from clipfarm_assets.orchestration import freshness, metadata, partitions
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.ray_jobs import submit
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.embedding_manifest import embedding_manifest as manifest_of
from clipfarm_assets.pipelines.progress import Say
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.turns import LeaseOptions

_Done = dg.MaterializeResult[Any]


class EmbedConfig(EngineOptions, common.RetryOptions):
    """How an embedding run works; none of these changes what a vector is."""

    batch_size: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Items committed together; a run that is killed leaves at most so many vectors "
        "to be made again.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that decode, each with a process of its own; unset, one a core.",
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
    decode_isolation: DecodeIsolation = Field(
        default="process",
        description="process: video and audio are decoded in processes of their own, so that media "
        "that hang, crash or blow up the decoder are single failed items. thread: in the run's own "
        "process, which such media take along.",
    )
    decode_memory_mib: int = Field(
        default=4096,
        ge=256,
        le=1_048_576,
        description="MiB that each of these processes may take; a medium that needs more fails.",
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


RUNS: Final[Mapping[Modality, type[EmbedConfig]]] = {
    "video": VideoRun,
    "audio": AudioRun,
    "text": TextRun,
}


def embed_dates(
    opened: Deployment,
    encoders: EncodersResource,
    modality: Modality,
    config: EmbedConfig,
    settings: EncoderConfig,
    index: Mapping[str, pa.Table],
    say: Say,
    leases: LeaseOptions,
) -> dict[str, StageReport]:
    """The stage over the dates, wherever the configuration says; its reports by date."""
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
        decode_isolation=config.decode_isolation,
        decode_memory_mib=config.decode_memory_mib,
        max_fail_retries=config.max_fail_retries,
        retry_terminal=config.retry_terminal,
        verify_objects=config.verify_objects,
    )
    lock = opened.models_lock()
    with ExitStack() as held:
        stage = EmbeddingStage(
            opened,
            modality,
            lambda: encoders.open(modality, settings, lock),
            options,
            say,
            lambda: encoders.known_version(modality, settings, lock),
            lambda: str(choose_device(settings).type),
            leases=leases,
            engine=config.opened(modality, settings, encoders, lock, say, held),
        )
        return stage.run(index)


def _embed(
    context: dg.AssetExecutionContext,
    modality: Modality,
    config: EmbedConfig,
    settings: EncoderConfig,
    index: Mapping[str, pa.Table],
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> _Done:
    with deployment.open() as opened:
        if config.is_submitted:
            fields = config.model_dump(mode="json")
            reports = submit(context, config.address, modality, fields, list(index))
            opened.restore(embedding_stage(modality))
        else:
            say, leases = common.say(context), config.leases(context)
            reports = embed_dates(opened, encoders, modality, config, settings, index, say, leases)
        for date, report in reports.items():
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
    return dg.MaterializeResult()  # a step that has submitted a job must say so itself


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
) -> _Done:
    """Embed the pictures."""
    return _embed(context, "video", config, config, clip_index, deployment, encoders)


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
) -> _Done:
    """Embed the sound."""
    return _embed(context, "audio", config, config, clip_index, deployment, encoders)


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
) -> _Done:
    """Embed the words."""
    return _embed(context, "text", config, config, clip_index, deployment, encoders)


@dg.asset(
    **common.asset_options(
        "embedding_manifest",
        kinds={"parquet"},
        code_version="1",
        writes="clipfarm/embeddings/manifests/date=<date>/embedding_manifest.parquet",
    ),
    partitions_def=partitions.dates,
    freshness_policy=freshness.made_every_night(),
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
