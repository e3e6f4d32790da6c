"""Reading one table of a SQLite file that someone else wrote, without trusting the file.

The file comes from the store: an older tool's, another machine's, a hostile one. Only its bytes
are read: it is opened in memory and read-only, views, triggers, virtual tables and generated
columns are not evaluated, and sizes are bounded.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Final

MAX_STATE_BYTES: Final = 1 << 30

_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_WAL_VERSION: Final = 2
_ROLLBACK_VERSION: Final = 1
_MAX_VALUE_BYTES: Final = 1 << 24
# A row takes at least this many bytes of the file; more rows than fit mean a page cited twice.
_MIN_ROW_BYTES: Final = 4

Value = str | int | float | bytes | None


class BadState(ValueError):  # noqa: N818
    """A state object that cannot be read. The message names its key."""


@contextmanager
def open_sqlite(data: bytes, key: str) -> Iterator[sqlite3.Connection]:
    """Open the bytes of a SQLite file for `read_table`.

    A file that an older tool left in WAL mode is opened as it is without its log: a copy of it is
    marked as one in rollback mode, because a database in memory has no log.

    Raises:
        BadState: It is no SQLite file, it is damaged, or it is over `MAX_STATE_BYTES`.
    """
    if len(data) > MAX_STATE_BYTES:
        msg = f"{key} has {len(data)} bytes, more than a state file may ({MAX_STATE_BYTES})"
        raise BadState(msg)
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        msg = f"{key} is not a SQLite file: it begins with {data[:16]!r}"
        raise BadState(msg)
    image = bytearray(data)
    if _WAL_VERSION in image[18:20]:
        image[18:20] = bytes([_ROLLBACK_VERSION] * 2)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        try:
            connection.deserialize(bytes(image))
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA cell_size_check=ON")
            yield connection
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            msg = (
                f"{key} is not a readable SQLite file ({error}); restore it from a backup, or "
                "delete it to start from what the ledger knows"
            )
            raise BadState(msg) from error


def has_table(connection: sqlite3.Connection, key: str, table: str) -> bool:
    """Whether the file has the table.

    Raises:
        BadState: The name is taken by something that is not an ordinary table.
    """
    # SQLite makes of an entry what its sql says, and refuses a file where the name differs.
    row = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    if row is None:
        return False
    if not str(row[0]).upper().startswith("CREATE TABLE"):
        msg = f"{key}: {table} is not an ordinary table, and nothing else is ever evaluated"
        raise BadState(msg)
    return True


def read_table(
    connection: sqlite3.Connection,
    key: str,
    table: str,
    columns: Mapping[str, bool],
    max_bytes: int,
) -> Iterator[tuple[Value, ...]]:
    """The rows of an ordinary table, in any order.

    Args:
        connection: From `open_sqlite`.
        key: Names the object in errors.
        table: Table name, a constant of this house.
        columns: The columns wanted, in order; true if required. An absent one that is not
            required reads as None.
        max_bytes: Size of the file, which bounds the number of rows.

    Raises:
        BadState: There is no such table or column.
    """
    if not has_table(connection, key, table):
        msg = f"{key} has no table {table}"
        raise BadState(msg)
    # hidden is not 0 for generated columns, whose expressions would be run by reading them.
    stored = {
        name: hidden == 0
        for _, name, _, _, _, _, hidden in connection.execute(f'PRAGMA table_xinfo("{table}")')
    }
    for name, required in columns.items():
        if (required and name not in stored) or not stored.get(name, True):
            has = ", ".join(found for found, plain in stored.items() if plain)
            msg = f"{key}: table {table} has no stored column {name}; it has {has}"
            raise BadState(msg)
    selected = ", ".join(f'"{name}"' if name in stored else "NULL" for name in columns)
    cursor = connection.execute(f'SELECT {selected} FROM "{table}"')  # noqa: S608 - our constants
    limit = max_bytes // _MIN_ROW_BYTES
    for count, row in enumerate(cursor):
        if count >= limit:
            msg = f"{key}: table {table} claims more rows than its file can hold; it is damaged"
            raise BadState(msg)
        yield row


def text_values(key: str, row: Sequence[Value], names: Sequence[str]) -> list[str | None]:
    """The first values of a row, which must be text or NULL.

    Raises:
        BadState: A value is of another type or holds a NUL character.
    """
    values: list[str | None] = []
    for name, value in zip(names, row, strict=False):
        if value is not None and (not isinstance(value, str) or "\x00" in value):
            msg = f"{key}: column {name} of the row {row[0]!r} holds {value!r:.60}, not plain text"
            raise BadState(msg)
        values.append(value)
    return values
