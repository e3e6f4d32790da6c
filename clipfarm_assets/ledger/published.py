"""A stage's ledger as an object in the store, for other tools and other machines.

The object is a SQLite file with the published pipeline's table ``processed_items`` and a second
one, ``item_provenance``, for what that table has no columns for. Tools that know only the first
leave the second stale, so its row counts only while source_hash and processed_at agree.
"""

import json
import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.rules import newest
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.ledger.sqlite_file import (
    BadState,
    Value,
    has_table,
    open_sqlite,
    read_table,
    text_values,
)
from clipfarm_assets.storage.objects import ObjectChanged, ObjectStore

__all__ = ["BadState", "items_to_sqlite", "publish", "restore", "sqlite_to_items"]

_ITEM_COLUMNS = {
    "video_id": True,
    "source_hash": True,
    "processed_at": True,
    "status": True,
    "error": False,
    "artifact_key": False,
    "vector_id": False,
    "retry_count": False,  # older files lack it
}
_PROVENANCE_COLUMNS = {
    "video_id": True,
    "source_hash": True,
    "processed_at": True,
    "version": True,
    "content_sha256": True,
    "details": True,
}
_CREATE = """
CREATE TABLE processed_items (
    video_id TEXT PRIMARY KEY,
    source_hash TEXT NOT NULL,
    processed_at TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    artifact_key TEXT,
    vector_id TEXT,
    retry_count INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE item_provenance (
    video_id TEXT PRIMARY KEY,
    source_hash TEXT NOT NULL,
    processed_at TEXT NOT NULL,
    version TEXT,
    content_sha256 TEXT,
    details TEXT NOT NULL
);
"""
_MAX_RETRY_COUNT = 2**31 - 1  # PostgreSQL's integer
_ITEM_VALUES = attrgetter(*_ITEM_COLUMNS)
_TEXT_COLUMNS = tuple(_ITEM_COLUMNS)[:-1]
_TO_JSON = json.JSONEncoder(sort_keys=True).encode
_VIDEO_ID = attrgetter("video_id")
_ROWS_AT_ONCE = 1000


def publish(ledger: Ledger, store: ObjectStore, key: str, stage: str) -> int:
    """Merge a stage's rows into the object `key`, losing none that others published.

    The object is not read where neither it nor the ledger changed since the last time. The ledger's
    rows pass through; in memory are the old file and its rows, and the new file twice.

    Returns:
        How many rows the object gained or had replaced; with 0 nothing was written.

    Raises:
        BadState: What is there now cannot be read; it is left alone.
    """
    # Taken before the rows: what is committed in between is published again, not forgotten.
    mark = ledger.mark(stage)
    try:
        present = store.version(key)
    except FileNotFoundError:
        present = None
    if mark == ledger.published_mark(stage, key) and present == ledger.merged_version(stage, key):
        return 0
    merging = _Merge(partial(ledger.stream, stage), key)
    written = _write_once(store, key, merging)
    if not merging.foreign and written is not None:
        ledger.set_merged_version(stage, key, written)  # nothing in it that `restore` would take
    ledger.set_published_mark(stage, key, mark)
    return merging.changed


@dataclass
class _Merge:
    """Rows merged into a published file, as a change that may be repeated.

    Attributes:
        local: Gives the ledger's rows by video_id, each time from the start.
        key: Names the file.
        changed: How many rows the file gained or had replaced the last time.
        foreign: How many rows are in it that are not the ledger's.
    """

    local: Callable[[], Generator[Item, None, None]]
    key: str
    changed: int = 0
    foreign: int = 0

    def __call__(self, current: bytes | None) -> bytes | None:
        remote = {} if current is None else sqlite_to_items(current, self.key)
        self.changed = self.foreign = 0
        with closing(self._merged(remote)) as rows:
            data = _to_sqlite(rows)
        return data if self.changed else None

    def _merged(self, remote: Mapping[str, Item]) -> Generator[Item, None, None]:
        theirs = (remote[video_id] for video_id in sorted(remote))
        with closing(self.local()) as ours:
            for video_id, states in groupby(merge(ours, theirs, key=_VIDEO_ID), _VIDEO_ID):
                mine, *other = states  # of equal keys `merge` gives the first source's first
                kept = newest(other[0], mine) if other else mine
                self.changed += remote.get(video_id) != kept
                self.foreign += kept != mine if other else video_id in remote
                yield kept


def _write_once(store: ObjectStore, key: str, merging: _Merge) -> str | None:
    """Apply `merging` to the object; its version then, None if absent or rivals left it unknown."""
    current: bytes | None
    version: str | None
    try:
        current, version = store.get_versioned(key)
    except FileNotFoundError:
        current, version = None, None
    data = merging(current)
    if data is None:
        return version
    try:
        return store.swap(key, data, version)
    except ObjectChanged:
        store.update(key, merging)
        return None


def restore(ledger: Ledger, store: ObjectStore, key: str, stage: str) -> int:
    """Take the rows of the object `key` that are newer than the ledger's.

    An object whose version has been taken before is not read again; one that does not exist
    holds no rows.

    Returns:
        How many rows the ledger took.

    Raises:
        BadState: The object cannot be read.
    """
    try:
        if store.version(key) == ledger.merged_version(stage, key):
            return 0
        data, version = store.get_versioned(key)
    except FileNotFoundError:
        return 0
    taken = ledger.commit_newer(stage, sqlite_to_items(data, key).values())
    ledger.set_merged_version(stage, key, version)
    return taken


def items_to_sqlite(items: Mapping[str, Item]) -> bytes:
    """The published file. Equal items give equal bytes, for one version of SQLite."""
    return _to_sqlite(items[video_id] for video_id in sorted(items))


def _to_sqlite(ordered: Iterable[Item]) -> bytes:
    """The file of items that come in the order of their ids."""
    items = iter(ordered)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size=4096")
        connection.executescript(f"BEGIN; {_CREATE}")
        while some := list(islice(items, _ROWS_AT_ONCE)):
            connection.executemany(
                "INSERT INTO processed_items VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                map(_ITEM_VALUES, some),
            )
            connection.executemany(
                "INSERT INTO item_provenance VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (
                        item.video_id,
                        item.source_hash,
                        item.processed_at,
                        item.version,
                        item.content_sha256,
                        _TO_JSON(dict(item.details)),
                    )
                    for item in some
                    if item.version is not None or item.content_sha256 is not None or item.details
                ),
            )
        connection.execute("COMMIT")
        return connection.serialize()


def sqlite_to_items(data: bytes, key: str) -> dict[str, Item]:
    """The items of a published file, this house's or an older tool's.

    Raises:
        BadState: It cannot be read, or a row is malformed; names `key`.
    """
    items: dict[str, Item] = {}
    with open_sqlite(data, key) as connection:
        for row in read_table(connection, key, "processed_items", _ITEM_COLUMNS, len(data)):
            item = _item(key, row)
            if item.video_id in items:
                msg = f"{key}: {item.video_id!r} has two rows; the file is damaged"
                raise BadState(msg)
            items[item.video_id] = item
        if has_table(connection, key, "item_provenance"):
            rows = read_table(connection, key, "item_provenance", _PROVENANCE_COLUMNS, len(data))
            for row in rows:
                _add_provenance(items, key, row)
    return items


def _item(key: str, row: tuple[Value, ...]) -> Item:
    *head, told, key_made, name_made, count = row
    texts = text_values(key, (*head, _readable(told), key_made, name_made), _TEXT_COLUMNS)
    video_id, source_hash, processed_at, status, error, artifact_key, vector_id = texts
    retry_count = 0 if count is None else count
    if not isinstance(retry_count, int) or not 0 <= retry_count <= _MAX_RETRY_COUNT:
        msg = f"{key}: retry_count of the row {row[0]!r} is {retry_count!r:.60}, not a count"
        raise BadState(msg)
    if not video_id or source_hash is None or processed_at is None or status is None:
        msg = f"{key}: the row {row[0]!r} lacks its video_id, source_hash, processed_at or status"
        raise BadState(msg)
    return Item(
        video_id, source_hash, processed_at, status, error, artifact_key, vector_id, retry_count
    )


def _readable(error: Value) -> Value:
    """An error as databases can hold it: words for people are no reason to refuse a file."""
    return error.replace("\x00", "\\x00") if isinstance(error, str) else error


def _add_provenance(items: dict[str, Item], key: str, row: tuple[Value, ...]) -> None:
    texts = text_values(key, row, tuple(_PROVENANCE_COLUMNS))
    video_id, source_hash, processed_at, version, content_sha256, details = texts
    item = items.get(video_id or "")
    if item is None or (item.source_hash, item.processed_at) != (source_hash, processed_at):
        return
    items[item.video_id] = replace(
        item, version=version, content_sha256=content_sha256, details=_details(key, row, details)
    )


def _details(key: str, row: tuple[Value, ...], text: str | None) -> dict[str, Any]:
    try:
        details = json.loads(text or "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        details = None
    plain = (str, int, float, bool, type(None))
    if not isinstance(details, dict) or not all(isinstance(v, plain) for v in details.values()):
        msg = f"{key}: details of the row {row[0]!r} are not a JSON object of scalars"
        raise BadState(msg)
    return details


def _refuse_constant(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
