"""The text downloader's state file, as an older stage leaves it in the store.

Table ``processed_items`` of the documented schema. Older files have no ``source_hash``.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

_COLUMNS = (
    "video_id TEXT PRIMARY KEY",
    "source_hash TEXT NOT NULL",
    "processed_at TEXT NOT NULL",
    "status TEXT NOT NULL",
    "error TEXT",
    "artifact_key TEXT",
    "vector_id TEXT",
    "retry_count INTEGER NOT NULL DEFAULT 0",
)


@dataclass(frozen=True, slots=True)
class TextStateRow:
    """The last word on one clip; ``source_hash`` is empty where it isn't known."""

    video_id: str
    source_hash: str
    processed_at: str
    status: str
    error: str | None = None
    artifact_key: str | None = None


def text_state_sqlite(rows: Iterable[TextStateRow], *, with_source_hash: bool = True) -> bytes:
    """An SQLite database file with these rows; the same rows give the same bytes.

    Args:
        rows: Of distinct clips.
        with_source_hash: False for the older schema without that column.
    """
    columns = [text for text in _COLUMNS if with_source_hash or "source_hash" not in text]
    names = ["video_id", "processed_at", "status", "error", "artifact_key"]
    names += ["source_hash"] if with_source_hash else []
    values = [tuple(getattr(row, name) for name in names) for row in rows]
    marks = ", ".join("?" * len(names))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE processed_items ({', '.join(columns)})")
        connection.executemany(
            f"INSERT INTO processed_items ({', '.join(names)}) VALUES ({marks})",  # noqa: S608 - constants
            values,
        )
        connection.commit()
        return bytes(connection.serialize())
