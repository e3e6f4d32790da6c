"""One materialisation a partition, each with a data version of its own.

Dagster gives a step's output one data version: over a range, all its partitions would carry the
same. So in a range every partition's own materialisation is logged after the output's. It is the
latest one then, which is what downstream staleness, checks and the UI go by.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

# The names of the tags that carry a materialisation's version, which Dagster does not export.
from dagster._core.definitions.data_version import (
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
)

from clipfarm_assets.orchestration.metadata import Metadata
from clipfarm_assets.orchestration.settings import BadSettings


class PartitionGone(BadSettings):
    """What a partition stands for is not there any more; of a range, the others are made."""


@dataclass(frozen=True)
class Made:
    """What became of one partition."""

    data_version: str
    metadata: Metadata


def materialise_each(
    context: dg.AssetExecutionContext, make: Callable[[str], Made]
) -> Iterator[dg.MaterializeResult[Any]]:
    """Make the run's partitions one after the other, in the order of their keys.

    Where one fails in a range, those made before it count as materialised: they are published, and
    are not made again. One whose `PartitionGone` keeps none from being made: it fails the run last.

    Args:
        context: Of the asset's step, whose result this is.
        make: From a partition key to what was made.

    Raises:
        PartitionGone: That of one partition, or what `make` said of the first of a range, and which
            they all are.
    """
    if context.has_partition_key:
        made = make(context.partition_key)
        yield dg.MaterializeResult(
            metadata=made.metadata, data_version=dg.DataVersion(made.data_version)
        )
        return
    results: dict[str, Made] = {}
    gone: dict[str, PartitionGone] = {}
    try:
        for key in sorted(context.partition_keys):
            try:
                results[key] = make(key)
            except PartitionGone as error:
                gone[key] = error
        _check_all_there(gone)
    except BaseException:
        _log(context, results)
        raise
    yield dg.MaterializeResult()
    _log(context, results)


def _check_all_there(gone: Mapping[str, PartitionGone]) -> None:
    """Raise the first, which says what to do, with the names of all."""
    if gone:
        first, *others = gone.values()
        named = f"; {len(gone)} in all: {', '.join(map(repr, gone))}" if others else ""
        msg = f"{first}{named}; the other partitions are made"
        raise PartitionGone(msg)


def _log(context: dg.AssetExecutionContext, results: dict[str, Made]) -> None:
    keys = {str(key): key for key in context.partition_keys}
    for key, made in results.items():
        tags = _tags_of_output(context, key)
        if isinstance(keys[key], dg.MultiPartitionKey):
            dimensions = keys[key].keys_by_dimension
            tags |= {f"dagster/partition/{name}": part for name, part in dimensions.items()}
        tags |= {DATA_VERSION_TAG: made.data_version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
        context.log_event(
            dg.AssetMaterialization(
                context.asset_key, partition=keys[key], metadata=made.metadata, tags=tags
            )
        )


def _tags_of_output(context: dg.AssetExecutionContext, partition: str) -> dict[str, str]:
    """Those of the run's own materialisation, if there is one yet: which inputs it was made of."""
    wanted = dg.AssetRecordsFilter(context.asset_key, asset_partitions=[partition])
    for record in context.instance.fetch_materializations(wanted, limit=1).records:
        if record.run_id == context.run.run_id and record.asset_materialization is not None:
            return dict(record.asset_materialization.tags or {})
    return {}
