"""The nightly job, its schedule, and the sensor that carries on from there."""

import os
from datetime import timedelta
from typing import Final

import dagster as dg

from clipfarm_assets.defs.clips import common
from clipfarm_assets.orchestration import partitions

LOOKBACK_VARIABLE: Final = "CLIPFARM_LOOKBACK_DAYS"
_DEFAULT_LOOKBACK_DAYS: Final = 7

AUTOMATION_VARIABLE: Final = "CLIPFARM_AUTOMATION_SECONDS"
_DEFAULT_AUTOMATION_SECONDS: Final = 30

clips_daily = dg.define_asset_job(
    "clips_daily",
    selection=dg.AssetSelection.assets(
        common.INDEX, *common.EMBEDDINGS.values(), common.EMBEDDING_MANIFEST
    ),
    description="Index and embed the clips of a date, or of a range of dates in one run.",
)
clips_fuse = dg.define_asset_job(
    "clips_fuse",
    selection=dg.AssetSelection.assets(common.SHARDS),
    description="Fuse the clips of a date with one strategy.",
)
clips_lock = dg.define_asset_job(
    "clips_lock",
    selection=dg.AssetSelection.assets(common.SCHEMA_LOCK),
    description="Make or verify the schema lock of a strategy, or migrate it by run config.",
)
clips_publish = dg.define_asset_job(
    "clips_publish",
    selection=dg.AssetSelection.assets(common.MANIFEST),
    description="Bring the fused manifest of a strategy up to date.",
)
clips_observe = dg.define_asset_job(
    "clips_observe",
    selection=dg.AssetSelection.assets(common.METADATA),
    description="Look whether the metadata CSV changed.",
)
clips_train = dg.define_asset_job(
    "clips_train",
    selection=dg.AssetSelection.assets(common.DATASET, common.SNAPSHOTS),
    description="Assemble the training data of a strategy and a horizon, and fit the model suite.",
)
clips_compare = dg.define_asset_job(
    "clips_compare",
    selection=dg.AssetSelection.assets(common.COMPARISON),
    description="Compare the snapshots of a training run, the newest one by default.",
)
clips_promote = dg.define_asset_job(
    "clips_promote",
    selection=dg.AssetSelection.assets(common.REGISTRY),
    description="Choose the model that serves a horizon, or go back to an earlier one.",
)
clips_score = dg.define_asset_job(
    "clips_score",
    selection=dg.AssetSelection.assets(common.PREDICTIONS),
    description="Predict the views of a date's clips with the promoted models.",
)


def lookback_days() -> int:
    """How many days before today the nightly run covers.

    Raises:
        ValueError: The environment variable is no number of days.
    """
    return _whole_number(LOOKBACK_VARIABLE, _DEFAULT_LOOKBACK_DAYS, "days")


def automation_seconds() -> int:
    """How often the automation sensor looks, at most.

    Raises:
        ValueError: The environment variable is no number of seconds.
    """
    return _whole_number(AUTOMATION_VARIABLE, _DEFAULT_AUTOMATION_SECONDS, "seconds")


def _whole_number(variable: str, default: int, unit: str) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal():
        msg = f"{variable} must be a number of {unit}: found {text!r}"
        raise ValueError(msg)
    return int(text)


@dg.schedule(
    job=clips_daily,
    cron_schedule="15 2 * * *",
    execution_timezone="UTC",
    description="Every night, the last days in one run: only what changed is worked on, and clips "
    "that waited for an upload are taken up. Of days already done, no raw object is read, and each "
    "vector once, by the check.",
)
def clips_nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One run over a range of dates."""
    now = context.scheduled_execution_time
    since = (now.date() - timedelta(days=lookback_days())).isoformat()
    wanted = [d for d in partitions.dates.get_partition_keys(current_time=now) if d >= since]
    if not wanted:
        return dg.SkipReason(f"no date partition is as late as {since}")
    return dg.RunRequest(
        run_key=now.date().isoformat(),
        tags={
            "dagster/asset_partition_range_start": wanted[0],
            "dagster/asset_partition_range_end": wanted[-1],
        },
    )


ALL_JOBS: Final = (
    clips_observe,
    clips_daily,
    clips_lock,
    clips_fuse,
    clips_publish,
    clips_train,
    clips_compare,
    clips_promote,
    clips_score,
)

clips_automation = dg.AutomationConditionSensorDefinition(
    "clips_automation",
    target=dg.AssetSelection.assets(common.SCHEMA_LOCK, common.SHARDS, common.MANIFEST),
    minimum_interval_seconds=automation_seconds(),
    description="Starts schema_lock once, fused_shards for dates whose embeddings are new and pass "
    "their checks, and fused_manifest after them.",
)
