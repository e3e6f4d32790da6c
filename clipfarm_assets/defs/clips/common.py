"""What all assets of the clip pipeline have in common."""

from typing import Any, Final

import dagster as dg
from pydantic import Field

from clipfarm_assets.contracts import statuses
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.pipelines.progress import Say

GROUP: Final = "clips"
OWNERS: Final = ["team:clipfarm"]
ENCODER_POOL: Final = "encoders"
TRAINING_POOL: Final = "training"


def key(name: str) -> dg.AssetKey:
    """The asset key of this pipeline's `name`."""
    return dg.AssetKey(["clips", name])


METADATA: Final = key("metadata_horizon")
INDEX: Final = key("clip_index")
EMBEDDINGS: Final[dict[statuses.Modality, dg.AssetKey]] = {
    modality: key(f"{modality}_embeddings") for modality in statuses.MODALITIES
}
EMBEDDING_MANIFEST: Final = key("embedding_manifest")
SCHEMA_LOCK: Final = key("schema_lock")
SHARDS: Final = key("fused_shards")
MANIFEST: Final = key("fused_manifest")
DATASET: Final = key("training_dataset")
SNAPSHOTS: Final = key("model_snapshots")
COMPARISON: Final = key("model_comparison")
REGISTRY: Final = key("model_registry")
PREDICTIONS: Final = key("clip_predictions")


def asset_options(name: str, *, kinds: set[str], code_version: str, writes: str) -> dict[str, Any]:
    """The arguments of ``@asset`` that every asset of the pipeline sets.

    `writes` is the form of the keys it writes, shown with the asset.
    """
    return {
        "key": key(name),
        "group_name": GROUP,
        "owners": OWNERS,
        "kinds": kinds,
        "code_version": code_version,
        "metadata": {"writes": writes},
        "backfill_policy": partitions.backfill_policy(),
    }


class RetryOptions(dg.Config):
    """What a run does about items that failed before."""

    max_fail_retries: int = Field(
        default=statuses.DEFAULT_MAX_FAIL_RETRIES,
        ge=0,
        description="Failures of one source kept as `fail`; the next one is `fail_terminal`.",
    )
    retry_terminal: bool = Field(
        default=False, description="Try items again that ended as `fail_terminal`."
    )


def say(context: dg.AssetExecutionContext) -> Say:
    """Progress lines go to the run's log."""
    return context.log.info
