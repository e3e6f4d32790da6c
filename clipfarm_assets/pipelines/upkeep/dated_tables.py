"""The dated tables of the clip pipeline: stored without forgotten clips, and rid of them.

Who forgets a clip buries it first and looks for it last; who stores a table looks afterwards who
was buried meanwhile. So whichever of the two comes later finds what the other one left, also where
each has a ledger of its own, which leases don't reach.
"""

import json
from collections.abc import Collection, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import SKIPPED_ROWS
from clipfarm_assets.storage.tables import BadTable, parquet_to_table, table_to_parquet

_SKIPPED: Final = SKIPPED_ROWS.encode()


def store_tables(deployment: Deployment, tables: Mapping[str, pa.Table]) -> None:
    """Store tables of clips by their keys, without clips that were removed for good.

    Args:
        deployment: Whose store.
        tables: Key -> table with a column ``video_id``, made at whatever time before.
    """
    gone = deployment.forgotten()
    for key, table in tables.items():
        deployment.store.put(key, table_to_parquet(_others(table, gone)))
    late = deployment.forgotten() - gone
    if late:
        for key in tables:
            strip_table(deployment, key, late)


def strip_table(deployment: Deployment, key: str, video_ids: Collection[str]) -> None:
    """Swap in a stored table without the clips.

    Raises:
        BadTable: It is no table of clips; names `key`.
    """

    def change(data: bytes | None) -> bytes | None:
        return None if data is None else _without_clips(data, key, video_ids)

    deployment.store.update(key, change)


def mentions(table: pa.Table, video_id: str) -> bool:
    """Whether the table's own metadata tell of a row of the clip that was skipped."""
    return any(row.get("video_id") == video_id for row in _skipped_rows(table))


def _without_clips(data: bytes, key: str, video_ids: Collection[str]) -> bytes | None:
    """A table's file without the clips' rows, or telling of them; None if it has neither.

    Raises:
        BadTable: It is no table with a column ``video_id``; names `key`.
    """
    try:
        table = parquet_to_table(data)
        others = _others(table, video_ids)
    except (BadTable, KeyError) as error:
        msg = f"{key}: {error}"
        raise BadTable(msg) from error
    return None if others is table else table_to_parquet(others)


def _others(table: pa.Table, video_ids: Collection[str]) -> pa.Table:
    """A table without the clips' rows, and without telling of them; itself if it has neither."""
    if not video_ids:
        return table
    is_gone = pc.is_in(table["video_id"], pa.array(sorted(video_ids), pa.string()))
    others = table.filter(pc.invert(is_gone))
    told = _skipped_rows(table)
    rows = [row for row in told if row.get("video_id") not in video_ids]
    if len(rows) < len(told):
        skipped = {_SKIPPED: json.dumps(rows, sort_keys=True).encode()}
        return others.replace_schema_metadata(dict(table.schema.metadata) | skipped)
    return table if others.num_rows == table.num_rows else others


def _skipped_rows(table: pa.Table) -> list[dict[str, object]]:
    told = (table.schema.metadata or {}).get(_SKIPPED)
    try:
        rows = json.loads(told or b"[]")
    except ValueError:
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
