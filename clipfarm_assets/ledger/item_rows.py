"""Items as rows of the items' table, and back."""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

import sqlalchemy as sa

from clipfarm_assets.ledger.schema import ITEMS, Item, microseconds

KEY: Final = ("store_id", "stage", "video_id")
FIELDS: Final = tuple(column.name for column in ITEMS.columns if column.name not in KEY)
COLUMNS: Final = (*KEY, *FIELDS)
#: What `read` makes items of; `details`, as JSON, is the last.
ITEM_COLUMNS: Final = tuple(ITEMS.c[name] for name in Item.__slots__)

ROWS_FETCHED: Final = 1000
_TO_JSON = json.JSONEncoder(sort_keys=True, allow_nan=False).encode


def rows_of(store_id: str, stage: str, items: Iterable[Item]) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS` in order of their key: writers that lock in one order cannot deadlock.

    Raises:
        ValueError: Two states of one clip, text that PostgreSQL cannot hold, or a number in the
            details that JSON cannot.
    """
    rows: dict[str, tuple[Any, ...]] = {}
    for item in items:
        if item.video_id in rows:
            msg = f"two states of {item.video_id!r} in one commit of {stage}: which one holds?"
            raise ValueError(msg)
        details = _TO_JSON(dict(item.details))
        moment = microseconds(item.processed_at)
        # A tuple in the order of the columns: as mappings rows take twice the time.
        row = (
            store_id,
            stage,
            item.video_id,
            item.source_hash,
            item.processed_at,
            moment,
            item.status,
            item.error,
            item.artifact_key,
            item.vector_id,
            item.retry_count,
            item.version,
            item.content_sha256,
            details,
        )
        if not _storable("".join([value for value in row if isinstance(value, str)])):
            held = dict(zip(COLUMNS, row, strict=True))
            name = next(n for n, v in held.items() if isinstance(v, str) and not _storable(v))
            msg = f"{name} of {item.video_id!r} in {stage} holds a NUL or a lone surrogate"
            raise ValueError(msg)
        rows[item.video_id] = row
    return [rows[video_id] for video_id in sorted(rows)]


def fetched(result: sa.Result[Any]) -> Iterator[sa.Row[Any]]:
    """The rows, fetched many at a time: one by one costs as much as making them."""
    return chain.from_iterable(result.partitions(ROWS_FETCHED))


def read(result: sa.Result[Any]) -> Iterator[Item]:
    """Rows of `ITEM_COLUMNS` as items."""
    for row in fetched(result):
        values: tuple[Any, ...] = (*row[:-1], json.loads(row[-1]))
        yield Item(*values)


def _storable(text: str) -> bool:
    if text.isascii():
        return "\x00" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text
