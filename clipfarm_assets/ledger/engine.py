"""Connecting to the database that a ledger is kept in."""

import sqlite3
import time
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from clipfarm_assets.ledger.head import bring_to_head

_BUSY_SECONDS = 60
_BUSY_POLL_SECONDS = 0.01


# Parameters of libpq that hold or name a secret; in what is shown of a url only its password is
# hidden.
_SECRETS: Final = frozenset({"password", "passfile", "sslpassword"})


def database_url(text: str) -> sa.URL:
    """The url of a ledger's database, with the driver that is used.

    Args:
        text: ``sqlite:///path`` or ``postgresql://user:password@host/database``.

    Raises:
        ValueError: Neither of the two, a SQLite database in memory, or a secret among its
            parameters, where messages that name the database would show it.
    """
    if text.startswith("postgres://"):
        text = text.replace("postgres://", "postgresql://", 1)
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise ValueError(
            "the ledger's database url is not one: expected sqlite:///path or "
            "postgresql://user:password@host/database"
        ) from None  # the message of the cause holds the url, and that a password
    backend = url.get_backend_name()
    if backend == "postgresql":
        if secret := sorted(url.query.keys() & _SECRETS):
            msg = (
                f"the ledger's database url has {', '.join(secret)} among its parameters, where it "
                "would be shown: write postgresql://user:password@host/database, or set "
                "PGPASSWORD, PGPASSFILE or PGSSLPASSWORD"
            )
            raise ValueError(msg)
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        msg = f"a ledger lives in SQLite or PostgreSQL, not in {backend!r}"
        raise ValueError(msg)
    if url.database in {None, "", ":memory:"} or url.query:
        raise ValueError("a SQLite ledger needs a file: sqlite:///path/ledger.sqlite")
    return url


def open_engine(url: sa.URL) -> sa.Engine:
    """Connections to the ledger's database, whose tables exist and are at head.

    Raises:
        RuntimeError: psycopg isn't installed, or SQLite can't keep a log beside its file.
        NewerSchema: A later version of this code made the tables.
        OutdatedSchema: They have to be migrated, and this role may not.
    """
    engine = make_engine(url)
    try:
        bring_to_head(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def make_engine(url: sa.URL) -> sa.Engine:
    """Connections to a database, whatever is in it; the folder of a SQLite file is made.

    Raises:
        RuntimeError: As `open_engine`.
    """
    if url.get_backend_name() == "postgresql":
        try:
            return sa.create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            msg = "a PostgreSQL ledger needs psycopg: run pip install '.[postgres]' in the checkout"
            raise RuntimeError(msg) from error
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    sa.event.listen(engine, "connect", _set_pragmas)
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
