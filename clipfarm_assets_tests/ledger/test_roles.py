"""The roles of deploy/postgres-roles.sql on a real PostgreSQL: what each may, and no more."""

import uuid
from pathlib import Path

import psycopg
import pytest

from clipfarm_assets.ledger.head import OutdatedSchema
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.refusals import LedgerDenied
from clipfarm_assets_tests.ledger.conftest import item
from clipfarm_assets_tests.servers import postgres_url

pytestmark = pytest.mark.postgres

SQL = (Path(__file__).parents[2] / "deploy" / "postgres-roles.sql").read_text()


class Database:
    """A new database, and what its roles do there."""

    def __init__(self, name):
        self.name = name

    def url(self, role="clipfarm"):
        address = postgres_url().partition("@")[2].rpartition("/")[0]
        return f"postgresql://{role}@{address}/{self.name}"

    def execute(self, sql, role="clipfarm"):
        with psycopg.connect(self.url(role), autocommit=True) as connection:
            connection.execute(sql)

    def ledger(self, role):
        return Ledger.open(self.url(role), "store")


def new_database():
    """With its roles, and no tables."""
    made = Database(f"roles_{uuid.uuid4().hex}")
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {made.name}")
    made.execute(SQL)
    return made


@pytest.fixture(scope="module")
def migrated():
    """With the tables that the owner made, and a row."""
    database = new_database()
    with database.ledger("clipfarm_owner") as opened:
        opened.commit("stage", [item("a")])
    database.execute(SQL)
    return database


def test_without_tables_only_the_owner_makes_them():
    database = new_database()
    for role in ("clipfarm_worker", "clipfarm_reader"):
        with (
            database.ledger(role) as opened,
            pytest.raises(OutdatedSchema, match="run `clipfarm migrate` with one that may"),
        ):
            opened.counts("stage")


def test_a_worker_writes_rows_and_leases(migrated):
    with migrated.ledger("clipfarm_worker") as opened:
        opened.commit("stage", [item("b"), item("a", 1)])
        opened.set_published_mark("stage", "key", "mark")
        opened.set_merged_version("stage", "key", "version")
        with opened.lease("scope", wait_seconds=0) as lease:
            opened.commit("stage", [item("c")], lease=lease)
        assert opened.counts("stage") == {"success": 3}


def test_a_reader_reads_and_is_told_when_it_writes(migrated):
    with migrated.ledger("clipfarm_reader") as opened:
        assert "a" in opened.rows("stage")
        denied = "permission denied for table clipfarm_items; a run needs the rights of"
        with pytest.raises(LedgerDenied, match=denied) as caught:
            opened.commit("stage", [item("z")])
        assert len(str(caught.value).splitlines()) == 1
        assert "z" not in opened.rows("stage")


FORBIDDEN = {
    "clipfarm_worker": (
        "CREATE TABLE mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "DROP TABLE clipfarm_items",
        "TRUNCATE clipfarm_items",
        "ALTER TABLE clipfarm_items ADD COLUMN x int",
        "CREATE INDEX ON clipfarm_items (status)",
        "UPDATE clipfarm_schema_version SET version_num = '9999'",
        "CREATE ROLE mine",
        "GRANT ALL ON clipfarm_items TO PUBLIC",
    ),
    "clipfarm_reader": (
        "INSERT INTO clipfarm_merged VALUES ('s', 't', 'k', 'v')",
        "UPDATE clipfarm_items SET status = ''",
        "DELETE FROM clipfarm_items",
        "CREATE TABLE mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "SELECT 1 FROM clipfarm_items FOR UPDATE",
    ),
    "clipfarm_owner": ("CREATE ROLE mine", "COPY clipfarm_items TO PROGRAM 'true'"),
}


@pytest.mark.parametrize(
    ("role", "sql"), [(role, sql) for role, all_of_it in FORBIDDEN.items() for sql in all_of_it]
)
def test_more_is_refused(migrated, role, sql):
    if sql.startswith("GRANT"):
        # PostgreSQL grants what the role may grant: nothing, with a warning.
        migrated.execute(sql, role)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            migrated.execute("DELETE FROM clipfarm_items", "clipfarm_reader")
        return
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        migrated.execute(sql, role)


def test_tables_of_later_migrations_have_the_same_rights(migrated):
    migrated.execute("CREATE TABLE clipfarm_later (x int)", "clipfarm_owner")
    migrated.execute("INSERT INTO clipfarm_later VALUES (1)", "clipfarm_worker")
    migrated.execute("SELECT * FROM clipfarm_later", "clipfarm_reader")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        migrated.execute("INSERT INTO clipfarm_later VALUES (2)", "clipfarm_reader")
    migrated.execute("DROP TABLE clipfarm_later", "clipfarm_owner")
