"""What all assets of the clip pipeline have in common."""

from functools import partial
from typing import Final

import dagster as dg
from pydantic import Field

from clipfarm_assets.contracts import statuses
from clipfarm_assets.defs import options
from clipfarm_assets.defs.options import OWNERS, TRAINING_POOL, say
from clipfarm_assets.ledger.leases import WAIT_SECONDS
from clipfarm_assets.pipelines.turns import LeaseOptions

__all__ = ["OWNERS", "TRAINING_POOL", "say"]

GROUP: Final = "clips"
ENCODER_POOL: Final = "encoders"

key: Final = partial(options.asset_key, GROUP)
asset_options: Final = partial(options.asset_options, GROUP)

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


class RetryOptions(dg.Config):
    """What a run does about items that failed before, and about others at work on its dates."""

    max_fail_retries: int = Field(
        default=statuses.DEFAULT_MAX_FAIL_RETRIES,
        ge=0,
        description="Failures of one source kept as `fail`; the next one is `fail_terminal`.",
    )
    retry_terminal: bool = Field(
        default=False, description="Try items again that ended as `fail_terminal`."
    )
    lease_wait_seconds: float = Field(
        default=WAIT_SECONDS,
        ge=0,
        description="How long to wait for another run that works on the same date; 0 for not at "
        "all. What that one did is not done again.",
    )

    def leases(self, context: dg.AssetExecutionContext) -> LeaseOptions:
        """How the run waits for others, and what they are told of it."""
        return LeaseOptions(wait_seconds=self.lease_wait_seconds, run_id=context.run.run_id)
