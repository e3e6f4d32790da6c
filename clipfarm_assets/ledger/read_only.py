"""A ledger that is looked at and left as it is: not made, not brought up to date, not written."""

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from clipfarm_assets.ledger.head import HEAD, REVISIONS, NewerSchema, found
from clipfarm_assets.ledger.leases import HeldLease
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.schema import ITEMS, LEASES, METADATA, NO_TIME, timestamp

_BUSY_SECONDS: Final = 60
_QUERY_ONLY: Final = "PRAGMA query_only=ON"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NoLedger(RuntimeError):  # noqa: N818 - a state of the deployment
    """The database has no ledger in it."""


class ReadOnlyLedger(Ledger):
    """The item states of one store; the database refuses whatever would change them.

    A SQLite ledger that was never made reads as one without rows, see `absent`; an older one is
    read as it is, without what it has no tables for.
    """

    _absent = ""
    _tables: frozenset[str] = frozenset()

    @property
    def address(self) -> str:
        """The database's url, without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def absent(self) -> str:
        """Why there are no rows to read, as a sentence; empty where there is a ledger."""
        with self._begin():
            return self._absent

    def changed_at(self, stage: str) -> str | None:
        """When a state of the stage was written last, as `timestamp`; None if that isn't known."""
        query = sa.select(sa.func.max(ITEMS.c.processed_us)).where(
            ITEMS.c.store_id == self._store_id, ITEMS.c.stage == stage
        )
        with self._begin() as connection:
            return moment_text(connection.execute(query).scalar_one())

    def ids_of_status(self, stage: str, statuses: Collection[str]) -> list[str]:
        """The clips whose state is one of those statuses, sorted."""
        query = sa.select(ITEMS.c.video_id).where(
            ITEMS.c.store_id == self._store_id,
            ITEMS.c.stage == stage,
            ITEMS.c.status.in_(sorted(statuses)),
        )
        with self._begin() as connection:
            return sorted(connection.execute(query).scalars())

    def ids_after(self, stage: str, statuses: Collection[str], after: str, limit: int) -> list[str]:
        """Some of the clips whose state is one of those statuses, in the database's own order.

        Args:
            stage: Of which stage.
            statuses: Which.
            after: The last clip of the call before; empty for the first ones.
            limit: How many at most.
        """
        query = (
            sa.select(ITEMS.c.video_id)
            .where(
                ITEMS.c.store_id == self._store_id,
                ITEMS.c.stage == stage,
                ITEMS.c.status.in_(sorted(statuses)),
                ITEMS.c.video_id > after,
            )
            .order_by(ITEMS.c.video_id)
            .limit(limit)
        )
        with self._begin() as connection:
            return list(connection.execute(query).scalars())

    def moments(self, stage: str, statuses: Collection[str], limit: int) -> list[int]:
        """When the latest states of those statuses were written, in microseconds, newest first."""
        query = (
            sa.select(ITEMS.c.processed_us)
            .where(
                ITEMS.c.store_id == self._store_id,
                ITEMS.c.stage == stage,
                ITEMS.c.status.in_(sorted(statuses)),
                ITEMS.c.processed_us > NO_TIME,
            )
            .order_by(ITEMS.c.processed_us.desc())
            .limit(limit)
        )
        with self._begin() as connection:
            return list(connection.execute(query).scalars())

    def held_leases(self) -> list[HeldLease]:
        """See `Ledger.held_leases`."""
        with self._begin():
            return super().held_leases() if LEASES.name in self._tables else []

    def _noted(self, column: sa.Column[str], stage: str, key: str) -> str | None:
        with self._begin():
            there = str(column.table) in self._tables
        return super()._noted(column, stage, key) if there else None

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """A connection that can't write."""
        with self._lock:
            if self._engine is None:
                self._engine, self._pid = self._opened(), os.getpid()
                with self._engine.connect() as connection:
                    self._tables = frozenset(sa.inspect(connection).get_table_names())
            engine = self._engine
        with engine.connect() as connection:
            yield connection

    def _opened(self) -> sa.Engine:
        """Connections to the database as it is.

        Raises:
            NoLedger: A PostgreSQL database without the ledger's tables.
            NewerSchema: A later version of this code made the tables.
            RuntimeError: psycopg isn't installed.
        """
        on_postgres = self._url.get_backend_name() == "postgresql"
        engine = self._postgresql() if on_postgres else self._sqlite()
        if engine is None:
            return self._empty(f"the ledger {self._url.database} does not exist yet")
        try:
            with engine.connect() as connection:
                schema = found(connection)
        except BaseException:
            engine.dispose()
            raise
        if schema in REVISIONS:
            return engine
        engine.dispose()
        if schema is not None:
            msg = (
                f"the ledger's database was made by a newer clipfarm: it is at schema {schema}, "
                f"this one knows those up to {HEAD}; update clipfarm here"
            )
            raise NewerSchema(msg)
        if on_postgres:
            shown = self._url.render_as_string(hide_password=True)
            msg = f"{shown} has no ledger yet: run `clipfarm migrate`, or any run of the pipeline"
            raise NoLedger(msg)
        return self._empty(f"{self._url.database} holds no ledger yet")

    def _sqlite(self) -> sa.Engine | None:
        """Connections to the file; None if there is none."""
        path = Path(str(self._url.database)).absolute()
        if not path.is_file():
            return None

        def connect() -> sqlite3.Connection:
            # Not "ro": with a write-ahead log that leaves files beside the database.
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode=rw",
                uri=True,
                timeout=_BUSY_SECONDS,
                check_same_thread=False,
            )
            connection.execute(_QUERY_ONLY)
            return connection

        return sa.create_engine("sqlite://", creator=connect, poolclass=QueuePool)

    def _postgresql(self) -> sa.Engine:
        try:
            return sa.create_engine(self._url, execution_options={"postgresql_readonly": True})
        except ModuleNotFoundError as error:
            msg = "a PostgreSQL ledger needs psycopg: run pip install '.[postgres]' in the checkout"
            raise RuntimeError(msg) from error

    def _empty(self, why: str) -> sa.Engine:
        """A ledger without rows, in memory."""
        self._absent = f"{why}: the first run makes it"
        engine = sa.create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        METADATA.create_all(engine)
        with engine.connect() as connection:
            connection.exec_driver_sql(_QUERY_ONLY)
        return engine


def moment_text(microseconds: int | None) -> str | None:
    """A moment in microseconds since 1970 as `timestamp`; None for none, or for no time."""
    if microseconds is None or microseconds == NO_TIME:
        return None
    return timestamp(_EPOCH + timedelta(microseconds=microseconds))
