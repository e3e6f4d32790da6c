"""Connecting to the database that a ledger is kept in."""

import sqlite3
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from clipfarm_assets.ledger.schema import METADATA

_BUSY_SECONDS = 60
_BUSY_POLL_SECONDS = 0.01
# Any constant: it keeps two processes from creating the tables at once.
_CREATE_LOCK = 0x636C6970


def open_engine(url: sa.URL) -> sa.Engine:
    """Connections to the ledger's database, whose tables exist.

    Raises:
        RuntimeError: psycopg isn't installed, or SQLite can't keep a log beside its file.
    """
    if url.get_backend_name() == "postgresql":
        try:
            engine = sa.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            msg = "a PostgreSQL ledger needs psycopg: pip install 'clipfarm-assets[postgres]'"
            raise RuntimeError(msg) from error
    else:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
        sa.event.listen(engine, "connect", _set_pragmas)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATE_LOCK)))
        for table in METADATA.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
    return engine


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    """Prepare a new SQLite connection."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except sqlite3.OperationalError:
            # The first switch to WAL fails at once, without waiting, if others are there too.
            if time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_POLL_SECONDS)
    if mode != "wal":
        msg = (
            "SQLite cannot keep a write-ahead log next to the ledger's file, as several writers "
            "need; put the file on a local disk or use PostgreSQL"
        )
        raise RuntimeError(msg)
    connection.execute("PRAGMA synchronous=NORMAL")
