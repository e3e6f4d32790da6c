"""Bringing a ledger's database to the schema that this code knows.

A new database gets the tables as `schema` says they are now; an older one is migrated. Both ways
lead to the same tables, which a test holds them to. Either is one transaction under a lock: of
processes that open a database at once one does it, and one that is killed has done nothing.
"""

import threading
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from clipfarm_assets.ledger.schema import ITEMS, METADATA

#: Every schema there ever was, the first one first.
REVISIONS: Final = ("0001", "0002", "0003")
HEAD: Final = REVISIONS[-1]
#: Not alembic's usual name, which is taken where Dagster's tables are in the same database.
VERSION_TABLE: Final = "clipfarm_schema_version"

# As alembic makes it.
_VERSION = sa.Table(
    VERSION_TABLE,
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
# Any constant: it keeps two processes from changing the tables at once.
_LOCK: Final = 0x636C6970
_ALEMBIC = threading.Lock()  # it keeps what it works on in global variables

_UNDEFINED_TABLE: Final = "42P01"
_MAY_NOT: Final = frozenset({"42501", "25006"})  # insufficient privilege, read-only transaction


class NewerSchema(RuntimeError):  # noqa: N818 - a state of the database
    """The database was made by a later version of this code."""


class OutdatedSchema(RuntimeError):  # noqa: N818
    """The database has to be migrated, and not by this role."""


@dataclass(frozen=True)
class Migration:
    """What became of a database.

    Attributes:
        before: The schema it had; None if it had no tables of ours. Tables of before there were
            migrations count as the first schema.
        after: The schema it has.
    """

    before: str | None
    after: str


def bring_to_head(engine: sa.Engine) -> Migration:
    """Create or migrate the tables, where they aren't at head: of those that are, one query.

    Raises:
        NewerSchema: They are past it.
        OutdatedSchema: They have to be changed, and the role may not.
    """
    with engine.connect() as connection:
        version = _recorded(connection)
    if version == HEAD:
        return Migration(HEAD, HEAD)
    before: str | None = None
    try:
        with engine.begin() as connection:
            _keep_others_out(connection)
            before = found(connection)  # anew: another process may just have done it
            if before is None:
                _create(connection)
            elif before not in REVISIONS:
                raise _newer(before)
            elif before != HEAD:
                _migrate(connection)
    except sa.exc.DBAPIError as error:
        if not _is_refusal(error):
            raise
        msg = (
            f"the ledger's database is at schema {before or 'none'} and has to be at {HEAD}, but "
            "this role may not change tables: run `clipfarm migrate` with one that may"
        )
        raise OutdatedSchema(msg) from error
    return Migration(before, HEAD)


def found(connection: sa.Connection) -> str | None:
    """The schema of a database; None where it has no tables of ours."""
    inspector = sa.inspect(connection)
    if inspector.has_table(VERSION_TABLE):
        versions = connection.execute(sa.select(_VERSION.c.version_num)).scalars()
        if version := "+".join(sorted(versions)):
            return version
    return REVISIONS[0] if inspector.has_table(ITEMS.name) else None


def _recorded(connection: sa.Connection) -> str | None:
    """The version on record, in one query; None where none is."""
    try:
        versions = connection.execute(sa.select(_VERSION.c.version_num)).scalars().all()
    except sa.exc.DBAPIError as error:
        absent = getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE
        if not absent and "no such table" not in str(error.orig):
            raise
        return None
    return versions[0] if len(versions) == 1 else None


def _keep_others_out(connection: sa.Connection) -> None:
    """Begin a transaction that no second one runs beside."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    else:
        # By itself the driver would begin none before tables are created.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _create(connection: sa.Connection) -> None:
    for table in (*METADATA.sorted_tables, _VERSION):
        connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(sa.insert(_VERSION).values(version_num=HEAD))


def _migrate(connection: sa.Connection) -> None:
    # Late: nearly no run needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "clipfarm_assets.ledger:migrations")
    config.attributes["connection"] = connection
    with _ALEMBIC:
        command.upgrade(config, HEAD)


def _newer(version: str) -> NewerSchema:
    msg = (
        f"the ledger's database was made by a newer clipfarm: it is at schema {version}, this one "
        f"knows those up to {HEAD}; update clipfarm here, or use another database"
    )
    return NewerSchema(msg)


def _is_refusal(error: sa.exc.DBAPIError) -> bool:
    """Whether the database says that one may not write, or not create."""
    state = getattr(error.orig, "sqlstate", None)
    return state in _MAY_NOT or "readonly database" in str(error.orig)
