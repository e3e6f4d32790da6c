"""The ledger: one interface over SQLite and PostgreSQL."""

import json
import os
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from clipfarm_assets.contracts.statuses import FORGOTTEN
from clipfarm_assets.ledger import engine, item_rows, leases
from clipfarm_assets.ledger.item_rows import COLUMNS, FIELDS, ITEM_COLUMNS, KEY, ROWS_FETCHED
from clipfarm_assets.ledger.refusals import told_in_a_sentence
from clipfarm_assets.ledger.rules import newest
from clipfarm_assets.ledger.schema import ITEMS, MERGED, METADATA, PUBLISHED, Item

_T = TypeVar("_T")

_IDS_PER_QUERY = 10_000
_ROWS_PER_STATEMENT = 5000
# Keeps sums of microseconds over many rows within 64 bits; 35 minutes.
_MARK_MODULUS = 2**31
# Written out: statements have the values of a row as parameters, and no others.
_FORGOTTEN = sa.literal_column(f"'{FORGOTTEN}'", sa.Text)


class Ledger:
    """Item states of one store, by stage.

    Several processes and machines may write one PostgreSQL ledger, several processes of one
    machine one SQLite ledger. Connections are made on first use, and anew in a forked child.
    """

    def __init__(self, url: sa.URL, store_id: str) -> None:
        """See `open`."""
        self._url = url
        self._store_id = store_id
        self._engine: sa.Engine | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, database_url: str, store_id: str) -> Self:
        """The ledger of the store `store_id` in a database.

        Args:
            database_url: ``sqlite:///path`` (parent folders are created) or
                ``postgresql://user:password@host/database``.
            store_id: What names the store, `ObjectStore.url`.

        Raises:
            ValueError: Neither of the two, or a SQLite database in memory.
        """
        return cls(engine.database_url(database_url), store_id)

    def __repr__(self) -> str:
        """The database, without its password, and the store."""
        return f"Ledger({self._url.render_as_string(hide_password=True)!r}, {self._store_id!r})"

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connections. Using the ledger again opens it again."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose(close=self._pid == os.getpid())
                self._engine = None

    def rows(self, stage: str, video_ids: Collection[str] | None = None) -> dict[str, Item]:
        """States by video_id: of all items of a stage, or of those asked for that have one."""
        with self._begin() as connection:
            if video_ids is None:
                items = item_rows.read(connection.execute(self._states(stage)))
                return {item.video_id: item for item in items}
            found: dict[str, Item] = {}
            for chunk in _chunks(video_ids, _IDS_PER_QUERY):
                items = item_rows.read(connection.execute(self._states(stage, self._among(chunk))))
                found.update((item.video_id, item) for item in items)
            return found

    def stream(self, stage: str) -> Generator[Item, None, None]:
        """All states of a stage in the order of their video_ids' characters, few in memory.

        They are those of one moment: a transaction is open until the last one is taken or it is
        closed, which keeps no writer waiting.
        """
        order: sa.ColumnElement[str] = ITEMS.c.video_id
        if self._url.get_backend_name() == "postgresql":
            order = sa.collate(ITEMS.c.video_id, "C")  # else that of the database's language
        with self._begin() as connection:
            connection.execution_options(yield_per=ROWS_FETCHED)
            yield from item_rows.read(connection.execute(self._states(stage).order_by(order)))

    def columns(
        self, stage: str, video_ids: Collection[str], *names: str
    ) -> dict[str, tuple[Any, ...]]:
        """Some fields of the states asked for, by video_id: a fraction of the cost of `rows`.

        Args:
            stage: Of which stage.
            video_ids: Of which clips; those without a state are left out.
            names: Fields of `Item`, in the order wanted; `details` as JSON.
        """
        query = sa.select(ITEMS.c.video_id, *(ITEMS.c[name] for name in names)).where(
            ITEMS.c.store_id == self._store_id, ITEMS.c.stage == stage
        )
        found: dict[str, tuple[Any, ...]] = {}
        with self._begin() as connection:
            for chunk in _chunks(video_ids, _IDS_PER_QUERY):
                rows = connection.execute(query.where(self._among(chunk)))
                found.update((row[0], row[1:]) for row in item_rows.fetched(rows))
        return found

    def commit(
        self, stage: str, items: Iterable[Item], *, lease: leases.Lease | None = None
    ) -> None:
        """Write states, replacing older ones of the same clips: all of them or none.

        Only that a clip is forgotten is not replaced: a run may not have known it yet.

        Args:
            stage: Of which stage.
            items: The states.
            lease: What the work was done under: nothing is written if somebody has taken it since.

        Raises:
            ValueError: Two states of one clip, text that PostgreSQL cannot hold, or a number in
                the details that JSON cannot.
            LeaseLost: Another run has the lease now.
        """
        rows = item_rows.rows_of(self._store_id, stage, items)
        if not rows:
            return
        insert = self._insert(ITEMS)
        excluded = {name: insert.excluded[name] for name in FIELDS}
        statement = insert.on_conflict_do_update(
            index_elements=KEY, set_=excluded, where=ITEMS.c.status != _FORGOTTEN
        )
        self._execute(statement, rows, lease)

    def commit_newer(
        self,
        stage: str,
        items: Iterable[Item],
        *,
        instead_of: str | None = None,
        lease: leases.Lease | None = None,
    ) -> int:
        """Write the states that are newer than those kept (`rules.newest`); their number.

        A state that another process commits meanwhile is overwritten only by one as new.

        Args:
            stage: Of which stage.
            items: The states.
            instead_of: Replace only states that have this ``artifact_key`` at that moment.
            lease: As in `commit`.

        Raises:
            ValueError, LeaseLost: See `commit`.
        """
        offered = list(items)
        known = self.rows(stage, [item.video_id for item in offered])
        newer = [
            item
            for item in offered
            if (old := known.get(item.video_id)) is None
            or (item != old and newest(old, item) is item)
        ]
        rows = item_rows.rows_of(self._store_id, stage, newer)
        if not rows:
            return 0
        insert = self._insert(ITEMS)
        excluded = {name: insert.excluded[name] for name in FIELDS}
        is_newer = insert.excluded.processed_us >= ITEMS.c.processed_us
        where = (is_newer & (ITEMS.c.status != _FORGOTTEN)) | (insert.excluded.status == _FORGOTTEN)
        names = COLUMNS
        if instead_of is not None:
            where &= ITEMS.c.artifact_key == sa.bindparam("instead_of", type_=sa.Text)
            names, rows = (*COLUMNS, "instead_of"), [(*row, instead_of) for row in rows]
        statement = insert.on_conflict_do_update(index_elements=KEY, set_=excluded, where=where)
        self._execute(statement, rows, lease, names)
        return len(newer)

    def lease(
        self,
        scope: str,
        *,
        ttl_seconds: float = leases.TTL_SECONDS,
        wait_seconds: float = leases.WAIT_SECONDS,
        say: Callable[[str], None] | None = None,
        run_id: str = "",
    ) -> AbstractContextManager[leases.Lease]:
        """For the time of a ``with`` block, to be the only one who works on `scope`.

        Args:
            scope: What is worked on, e.g. ``video_embedding/2026-02-05``; any text.
            ttl_seconds: Others may take it so long after this process was last heard of. A process
                of this machine that is no more is found out at once.
            wait_seconds: How long to wait for whoever has it; 0 for not at all.
            say: Told once, if it has to be waited for, who has it, since when and until when.
            run_id: Named to those who wait.

        Raises:
            LeaseHeld: Somebody else has it, for longer than `wait_seconds`.
        """
        place = leases.Place(self._begin, self._store_id, scope)
        return leases.hold(place, ttl_seconds, wait_seconds, say or _silent, run_id)

    def held_leases(self) -> list[leases.HeldLease]:
        """The leases that somebody has at the moment, sorted by scope."""
        with self._begin() as connection:
            return leases.held(connection, self._store_id)

    def counts(self, stage: str) -> dict[str, int]:
        """Number of items by status, sorted by status."""
        query = (
            sa.select(ITEMS.c.status, sa.func.count())
            .where(ITEMS.c.store_id == self._store_id, ITEMS.c.stage == stage)
            .group_by(ITEMS.c.status)
        )
        with self._begin() as connection:
            return dict(sorted((status, n) for status, n in connection.execute(query)))

    def stages(self) -> list[str]:
        """The stages that have items, sorted."""
        query = sa.select(ITEMS.c.stage).where(ITEMS.c.store_id == self._store_id).distinct()
        with self._begin() as connection:
            return sorted(connection.execute(query).scalars())

    def latest(self, stage: str, status: str) -> Item | None:
        """The item of that status that was processed last; on a tie the one of the greatest id."""
        query = (
            self._states(stage, ITEMS.c.status == status)
            .order_by(ITEMS.c.processed_us.desc(), ITEMS.c.video_id.desc())
            .limit(1)
        )
        with self._begin() as connection:
            return next(item_rows.read(connection.execute(query)), None)

    def ids_of_status(self, stage: str, statuses: Collection[str]) -> list[str]:
        """The clips whose state is one of those statuses, sorted."""
        query = sa.select(ITEMS.c.video_id).where(
            ITEMS.c.store_id == self._store_id,
            ITEMS.c.stage == stage,
            ITEMS.c.status.in_(sorted(statuses)),
        )
        with self._begin() as connection:
            return sorted(connection.execute(query).scalars())

    def unversioned(self, stage: str, status: str, limit: int) -> list[str]:
        """The smallest ids of items of that status made by something that recorded no version."""
        query = (
            sa.select(ITEMS.c.video_id)
            .where(
                ITEMS.c.store_id == self._store_id,
                ITEMS.c.stage == stage,
                ITEMS.c.status == status,
                ITEMS.c.version.is_(None),
            )
            .order_by(ITEMS.c.video_id)
            .limit(limit)
        )
        with self._begin() as connection:
            return list(connection.execute(query).scalars())

    def mark(self, stage: str) -> str:
        """What a stage's rows are at now: any commit changes it. Cheaper than reading them."""
        moment = ITEMS.c.processed_us
        query = sa.select(
            sa.func.count(), sa.func.max(moment), sa.func.sum(moment % _MARK_MODULUS)
        ).where(ITEMS.c.store_id == self._store_id, ITEMS.c.stage == stage)
        with self._begin() as connection:
            return ":".join(str(value) for value in connection.execute(query).one())

    def merged_version(self, stage: str, key: str) -> str | None:
        """Which version of the published object `key` the rows were last taken from."""
        return self._noted(MERGED.c.object_version, stage, key)

    def set_merged_version(self, stage: str, key: str, version: str) -> None:
        """Remember that all rows of that version of `key` have been taken."""
        self._note(MERGED.c.object_version, stage, key, version)

    def published_mark(self, stage: str, key: str) -> str | None:
        """The stage's `mark` when its rows were last published to `key`."""
        return self._noted(PUBLISHED.c.mark, stage, key)

    def set_published_mark(self, stage: str, key: str, mark: str) -> None:
        """Remember that the rows that had that `mark` are all in `key`."""
        self._note(PUBLISHED.c.mark, stage, key, mark)

    def _noted(self, column: sa.Column[str], stage: str, key: str) -> str | None:
        """What is noted of a published object in one of the tables about those."""
        of = column.table.c
        query = sa.select(column).where(
            of.store_id == self._store_id, of.stage == stage, of.object_key == key
        )
        with self._begin() as connection:
            return connection.execute(query).scalar_one_or_none()

    def _note(self, column: sa.Column[str], stage: str, key: str, value: str) -> None:
        table = METADATA.tables[str(column.table)]
        insert = self._insert(table).values(
            store_id=self._store_id, stage=stage, object_key=key, **{column.name: value}
        )
        statement = insert.on_conflict_do_update(
            index_elements=("store_id", "stage", "object_key"),
            set_={column.name: insert.excluded[column.name]},
        )
        with self._begin() as connection:
            connection.execute(statement)

    def _execute(
        self,
        statement: postgresql.Insert | sqlite.Insert,
        rows: Sequence[tuple[Any, ...]],
        lease: leases.Lease | None = None,
        names: Sequence[str] = COLUMNS,
    ) -> None:
        """Once a row, in one transaction; `names` are its parameters, in their order in the text.

        The driver gets them as they are: SQLAlchemy looks at each value of each row, which takes as
        long as writing it.
        """
        with self._begin() as connection:
            if lease is not None:
                lease.confirm(connection)
            dialect = connection.dialect
            sql = str(statement.compile(dialect=dialect, column_keys=COLUMNS))
            for chunk in _chunks(rows, _ROWS_PER_STATEMENT):
                if dialect.positional:
                    connection.exec_driver_sql(sql, chunk)
                else:
                    named = [dict(zip(names, row, strict=True)) for row in chunk]
                    connection.exec_driver_sql(sql, named)

    def _states(self, stage: str, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """The query for a stage's states."""
        return sa.select(*ITEM_COLUMNS).where(
            ITEMS.c.store_id == self._store_id, ITEMS.c.stage == stage, *conditions
        )

    def _among(self, video_ids: Sequence[str]) -> sa.ColumnElement[bool]:
        """Whether a row is of one of the clips.

        All ids are one parameter: one each costs more than finding the rows.
        """
        if self._url.get_backend_name() == "postgresql":
            ids = sa.literal(list(video_ids), postgresql.ARRAY(sa.Text))
            return ITEMS.c.video_id == sa.any_(ids)
        each = sa.func.json_each(json.dumps(list(video_ids))).table_valued("value")
        return ITEMS.c.video_id.in_(sa.select(each.c.value))

    def _insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        if self._url.get_backend_name() == "postgresql":
            return postgresql.insert(table)
        return sqlite.insert(table)

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """A transaction."""
        with self._lock:
            if self._engine is not None and self._pid != os.getpid():
                self._engine.dispose(close=False)  # the connections are the parent's
                self._engine = None
            if self._engine is None:
                self._engine = engine.open_engine(self._url)
                self._pid = os.getpid()
            opened = self._engine
        with told_in_a_sentence(), opened.begin() as connection:
            yield connection


def _silent(_line: str) -> None:
    """Say nothing."""


def _chunks(values: Iterable[_T], size: int) -> Iterator[Sequence[_T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
