"""What the assets of all pipelines have in common."""

from typing import Any, Final

import dagster as dg

from clipfarm_assets.orchestration import partitions
from clipfarm_assets.pipelines.progress import Say

OWNERS: Final = ["team:clipfarm"]
TRAINING_POOL: Final = "training"


def asset_key(group: str, name: str) -> dg.AssetKey:
    """The key of an asset: its pipeline, which is its group, and its name."""
    return dg.AssetKey([group, name])


def asset_options(
    group: str, name: str, *, kinds: set[str], code_version: str, writes: str
) -> dict[str, Any]:
    """The arguments of ``@asset`` that every asset sets.

    `writes` is the form of the keys it writes, shown with the asset.
    """
    return {
        "key": asset_key(group, name),
        "group_name": group,
        "owners": OWNERS,
        "kinds": kinds,
        "code_version": code_version,
        "metadata": {"writes": writes},
        "backfill_policy": partitions.backfill_policy(),
    }


def say(context: dg.AssetExecutionContext) -> Say:
    """Progress lines go to the run's log."""
    return context.log.info
