"""How the stored clip indexes compare with what the metadata CSV says now."""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

import pyarrow as pa

from clipfarm_assets.contracts.clip_tables import CLIP_INDEX
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import ClipIndex
from clipfarm_assets.storage.tables import BadTable, parquet_to_table

Stored = Literal["missing", "current", "outdated", "unreadable"]

# What decides whether a clip is worked on again. A new title alone does not.
_IDENTITY: Final = ("video_id", "source_hash", "captured_at")


def stored_index(data: bytes | FileNotFoundError, table: pa.Table) -> Stored:
    """How a date's stored index compares with the one that its next run will write.

    Args:
        data: The stored one, or that there is none.
        table: The next one, of `CLIP_INDEX`.
    """
    if isinstance(data, FileNotFoundError):
        return "missing"
    try:
        stored = parquet_to_table(data, CLIP_INDEX)
    except BadTable:
        return "unreadable"
    return "current" if stored.select(_IDENTITY) == table.select(_IDENTITY) else "outdated"


def compare_indexes(
    deployment: Deployment, index: ClipIndex, dates: Iterable[str]
) -> Iterator[tuple[str, Stored]]:
    """Each date with how its stored index compares; few indexes are in memory at a time."""
    by_key = {deployment.layout.clip_index(date): date for date in dates}
    for key, data in deployment.store.get_many(by_key):
        yield by_key[key], stored_index(data, index.table(by_key[key]))
