"""The partitions and how they map onto each other: every mapping written out, none inferred.

Dates are UTC days of a clip's latest capture. There is never a partition a clip, a meme or a
segment: clips live in the ledger, memes in shards, segments of songs in tables. Albums are added as
they are found.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import dagster as dg

from clipfarm_assets.contracts.horizons import HORIZONS, Horizon, as_horizon
from clipfarm_assets.contracts.meme_rows import SPLITS, Split
from clipfarm_assets.contracts.statuses import STRATEGIES, Strategy
from clipfarm_assets.orchestration.meme_settings import meme_settings
from clipfarm_assets.pipelines import environment
from clipfarm_assets.storage.song_layout import FUSION_STRATEGIES, FusionStrategy

DATE: Final = "date"
STRATEGY: Final = "strategy"
HORIZON: Final = "horizon"

START_DATE_VARIABLE: Final = environment.START_DATE_VARIABLE
BACKFILL_VARIABLE: Final = "CLIPFARM_BACKFILL"


def dates_from(environ: Mapping[str, str]) -> dg.DailyPartitionsDefinition:
    """The days from ``CLIPFARM_START_DATE`` to today, or to an earlier ``CLIPFARM_END_DATE``.

    Raises:
        ValueError: A variable is no date, or the end is before the start.
    """
    first, last = environment.first_and_last_date(environ)
    end = None if last is None else (last + timedelta(days=1)).isoformat()
    # The offset makes today a partition: clips captured this morning needn't wait for midnight.
    # Dagster holds it to the end whenever it is asked, so that no clock is read here.
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_date=end, end_offset=1)


dates = dates_from(os.environ)
strategies = dg.StaticPartitionsDefinition(list(STRATEGIES))
horizons = dg.StaticPartitionsDefinition([str(horizon) for horizon in HORIZONS])
dates_by_strategy = dg.MultiPartitionsDefinition({DATE: dates, STRATEGY: strategies})
strategy_by_horizon = dg.MultiPartitionsDefinition({HORIZON: horizons, STRATEGY: strategies})

meme_splits = dg.StaticPartitionsDefinition(list(SPLITS))
meme_labels = dg.StaticPartitionsDefinition(list(meme_settings(os.environ).labels))

SONG_ALBUMS: Final = "song_albums"
song_albums = dg.DynamicPartitionsDefinition(name=SONG_ALBUMS)
fusion_strategies = dg.StaticPartitionsDefinition(list(FUSION_STRATEGIES))

same_date = dg.IdentityPartitionMapping()
date_of = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=DATE)
strategy_of = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=STRATEGY)
horizon_of = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=HORIZON)
same_job = dg.IdentityPartitionMapping()
same_label = dg.IdentityPartitionMapping()
all_dates = dg.AllPartitionMapping()
all_partitions = dg.AllPartitionMapping()


def backfill_policy() -> dg.BackfillPolicy:
    """How a backfill over several partitions runs.

    ``CLIPFARM_BACKFILL=range`` (the default) makes one run of a range, which loads each model once;
    ``per_partition`` makes one run a partition, which many workers can share.

    Raises:
        ValueError: Another value.
    """
    choice = os.environ.get(BACKFILL_VARIABLE) or "range"
    if choice == "range":
        return dg.BackfillPolicy.single_run()
    if choice == "per_partition":
        return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
    msg = f"{BACKFILL_VARIABLE} must be 'range' or 'per_partition': found {choice!r}"
    raise ValueError(msg)


def one_run_each() -> dg.BackfillPolicy:
    """A run a partition, for assets whose partitions have nothing in common to load once.

    One dataset is in memory at a time, and a job that can't be fitted leaves the others alone.
    """
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=1)


def by_strategy(keys: list[str]) -> dict[str, list[str]]:
    """Date x strategy keys as strategy -> dates, both in the order given."""
    out: dict[str, list[str]] = {}
    for key in keys:
        parts = dates_by_strategy.get_partition_key_from_str(key).keys_by_dimension
        out.setdefault(parts[STRATEGY], []).append(parts[DATE])
    return out


def key_of(date: str, strategy: str) -> str:
    """The date x strategy key of two single keys."""
    return str(dg.MultiPartitionKey({DATE: date, STRATEGY: strategy}))


def as_strategy(name: str) -> Strategy:
    """A partition key as the strategy it is.

    Raises:
        ValueError: It is none of `STRATEGIES`.
    """
    for strategy in STRATEGIES:
        if name == strategy:
            return strategy
    msg = f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}"
    raise ValueError(msg)


def training_job(key: str) -> tuple[Strategy, Horizon]:
    """A strategy x horizon key, e.g. ``7|concat``, as what it names."""
    parts = strategy_by_horizon.get_partition_key_from_str(key).keys_by_dimension
    return as_strategy(parts[STRATEGY]), as_horizon(parts[HORIZON])


def training_job_key(strategy: Strategy, horizon: Horizon) -> str:
    """The strategy x horizon key of two single keys."""
    return str(dg.MultiPartitionKey({HORIZON: str(horizon), STRATEGY: strategy}))


def as_fusion_strategy(name: str) -> FusionStrategy:
    """A partition key as the strategy of fusing modalities that it is.

    Raises:
        ValueError: It is none of `FUSION_STRATEGIES`.
    """
    for strategy in FUSION_STRATEGIES:
        if name == strategy:
            return strategy
    msg = f"unknown fusion strategy {name!r}: expected one of {', '.join(FUSION_STRATEGIES)}"
    raise ValueError(msg)


def album_key(album: str) -> str:
    """The partition of an album: its name, but that Dagster takes three dots for a range."""
    return album.replace("...", "…")


def known_albums(instance: dg.DagsterInstance) -> list[str]:
    """The partitions of albums that there are, in the order in which they were added."""
    return list(instance.get_dynamic_partitions(SONG_ALBUMS))


def add_albums(instance: dg.DagsterInstance, keys: Sequence[str]) -> list[str]:
    """Make partitions of those that are none yet; returns which."""
    there = set(known_albums(instance))
    added = [key for key in keys if key not in there]
    if added:
        instance.add_dynamic_partitions(SONG_ALBUMS, added)
    return added


def as_split(name: str) -> Split:
    """A partition key as the split it is.

    Raises:
        ValueError: It is none of `SPLITS`.
    """
    for split in SPLITS:
        if name == split:
            return split
    msg = f"unknown split {name!r}: expected one of {', '.join(SPLITS)}"
    raise ValueError(msg)
