"""The three embedding assets and the manifest over them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from pydantic import Field

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.defs.clips import common
from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig
from clipfarm_assets.orchestration import metadata, partitions, plots
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.manifest import embedding_manifest as manifest_of
from clipfarm_assets.storage.npy import BadVector, npy_to_vector

# Points of the 2-D map: more would only hide each other.
_MAP_CLIPS = 2000


class EmbedConfig(common.RetryOptions):
    """How an embedding run works; none of these changes a vector."""

    batch_size: int = Field(
        default=8, ge=1, le=1024, description="Items encoded, stored and committed together."
    )
    workers: int = Field(
        default=2, ge=1, le=256, description="Threads that fetch and decode ahead of the encoder."
    )


class VideoRun(EmbedConfig, VideoConfig):
    """Configuration of `clips/video_embeddings`."""


class AudioRun(EmbedConfig, AudioConfig):
    """Configuration of `clips/audio_embeddings`."""


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
        item_deadline_seconds=settings.item_deadline_seconds,
        max_fail_retries=config.max_fail_retries,
        retry_terminal=config.retry_terminal,
    )
    with deployment.open() as opened:
        stage = EmbeddingStage(
            opened,
            modality,
            lambda: encoders.open(modality, settings, opened.models_lock()),
            options,
            common.say(context),
            lambda: encoders.known_version(modality, settings, opened.models_lock()),
        )
        for date, report in stage.run(index).items():
            context.add_asset_metadata(
                {
                    **metadata.stage_metadata(report),
                    **_pictures(opened, modality, date, index[date]),
                },
                partition_key=date,
            )


def _pictures(
    deployment: Deployment, modality: Modality, date: str, index: pa.Table
) -> dict[str, Any]:
    """Norm histogram and 2-D map of the date's embeddings, whenever they were made."""
    rows = deployment.ledger.rows(statuses.embedding_stage(modality), index["video_id"].to_pylist())
    queries = dict(zip(index["video_id"].to_pylist(), index["query"].to_pylist(), strict=True))
    there = [i for i in sorted(rows) if rows[i].status == statuses.SUCCESS]
    shown = there[:_MAP_CLIPS]
    vectors = _vectors(deployment, modality, shown)
    facts: dict[str, Any] = {"embeddings": len(there), "embeddings_on_the_map": len(vectors)}
    if len(vectors) < 2:
        return facts
    png = plots.embedding_map(
        np.stack(list(vectors.values())),
        [queries[video_id] for video_id in vectors],
        f"{modality} embeddings of {date}",
    )
    key = deployment.layout.report(f"{modality}_embeddings", date, "map.png")
    deployment.store.put(key, png)
    return {
        **facts,
        "map": plots.inline_png(png, f"map of the {modality} embeddings of {date}"),
        "map_file": key,
    }


def _vectors(
    deployment: Deployment, modality: Modality, video_ids: Sequence[str]
) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """What can be drawn; what can't is the check's to name, and shows as a difference in counts."""
    keys = {deployment.layout.embedding(modality, video_id): video_id for video_id in video_ids}
    vectors = {}
    for key, data in deployment.store.get_many(keys):
        if isinstance(data, bytes):
            with suppress(BadVector):
                vectors[keys[key]] = npy_to_vector(data)
    return vectors


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
