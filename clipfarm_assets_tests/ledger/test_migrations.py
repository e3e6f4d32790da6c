"""A ledger of any age opens and keeps every row; one of the future, or out of reach, is refused."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from clipfarm_assets.ledger.engine import database_url as url_of
from clipfarm_assets.ledger.engine import make_engine
from clipfarm_assets.ledger.head import (
    HEAD,
    REVISIONS,
    VERSION_TABLE,
    Migration,
    NewerSchema,
    OutdatedSchema,
)
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.migrate import migrate, schema_version
from clipfarm_assets.ledger.schema import METADATA, Item
from clipfarm_assets_tests.ledger.conftest import item

# As the first ledger made its tables, and as the last one did that knew no migrations.
FIRST = [
    """CREATE TABLE clipfarm_items (
        store_id TEXT NOT NULL, stage TEXT NOT NULL, video_id TEXT NOT NULL,
        source_hash TEXT NOT NULL, processed_at TEXT NOT NULL, processed_us BIGINT NOT NULL,
        status TEXT NOT NULL, error TEXT, artifact_key TEXT, vector_id TEXT,
        retry_count INTEGER NOT NULL, version TEXT, content_sha256 TEXT, details TEXT NOT NULL,
        PRIMARY KEY (store_id, stage, video_id))""",
    """CREATE TABLE clipfarm_merged (
        store_id TEXT NOT NULL, stage TEXT NOT NULL, object_key TEXT NOT NULL,
        object_version TEXT NOT NULL, PRIMARY KEY (store_id, stage, object_key))""",
]
PUBLISHED = """CREATE TABLE clipfarm_published (
    store_id TEXT NOT NULL, stage TEXT NOT NULL, object_key TEXT NOT NULL,
    mark TEXT NOT NULL, PRIMARY KEY (store_id, stage, object_key))"""
AT = "2026-02-05T12:00:00.000000+00:00"
ROWS = [
    f"""INSERT INTO clipfarm_items VALUES
        ('store', 'stage', 'a', 'h', '{AT}', 1770292800000000, 'success', NULL, 'k.npy', 'v:a', 0,
         'video-1', '00ff', '{{"n": 1}}'),
        ('store', 'stage', 'ç', 'h', '{AT}', 1770292800000000, 'fail', 'e', NULL, NULL, 2,
         NULL, NULL, '{{}}'),
        ('other', 'stage', 'a', 'g', 'long ago', -4611686018427387904, 'success', NULL, NULL, NULL,
         0, NULL, NULL, '{{}}')""",
    "INSERT INTO clipfarm_merged VALUES ('store', 'stage', 'clipfarm/state/x.sqlite', '7')",
]
ITEMS = {
    "a": Item("a", "h", AT, "success", artifact_key="k.npy", vector_id="v:a", version="video-1",
              content_sha256="00ff", details={"n": 1}),
    "ç": Item("ç", "h", AT, "fail", error="e", retry_count=2),
}  # fmt: skip


@pytest.fixture
def empty_url(request, database_url):
    """A database with nothing in it."""
    if "postgres" not in request.node.name:
        return database_url
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return database_url.replace("/postgres", f"/{name}")


@contextmanager
def connected(url):
    engine = make_engine(url_of(url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def execute(url: str, statements: Iterable[str]) -> None:
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def tables(url):
    """What the database consists of: columns with type and need, and primary keys, by table."""
    with connected(url) as connection:
        inspector = sa.inspect(connection)
        return {
            name: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)],
                inspector.get_pk_constraint(name)["constrained_columns"],
            )
            for name in inspector.get_table_names()
        }


def differences(url):
    """What alembic would write a migration for."""
    with connected(url) as connection:
        options = {"version_table": VERSION_TABLE, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)


@pytest.mark.parametrize("made", ["first", "published", "half"])
def test_a_ledger_of_before_migrations_keeps_every_row(empty_url, made):
    later = {"first": [], "published": [PUBLISHED], "half": []}[made]
    rows = ROWS if made != "half" else ROWS[:1]
    execute(empty_url, (FIRST if made != "half" else FIRST[:1]) + later + rows)
    if later:
        execute(empty_url, ["INSERT INTO clipfarm_published VALUES ('store', 'stage', 'k', 'm')"])
    assert schema_version(empty_url) == REVISIONS[0]

    with Ledger.open(empty_url, "store") as ledger:
        assert ledger.rows("stage") == ITEMS
        merged = ledger.merged_version("stage", "clipfarm/state/x.sqlite")
        assert merged == ("7" if made != "half" else None)
        assert ledger.published_mark("stage", "k") == ("m" if later else None)
        with ledger.lease("stage/date") as lease:
            ledger.commit("stage", [item("b")], lease=lease)
        assert ledger.rows("stage") == ITEMS | {"b": item("b")}
    with Ledger.open(empty_url, "other") as ledger:
        assert [one.processed_at for one in ledger.rows("stage").values()] == ["long ago"]
    assert schema_version(empty_url) == HEAD
    assert differences(empty_url) == []


def test_migrating_says_what_it_did(empty_url):
    assert schema_version(empty_url) is None
    assert migrate(empty_url) == Migration(None, HEAD)
    assert migrate(empty_url) == Migration(HEAD, HEAD)
    assert schema_version(empty_url) == HEAD


def test_migrating_an_old_ledger_says_so_too(empty_url):
    execute(empty_url, FIRST)
    assert migrate(empty_url) == Migration(REVISIONS[0], HEAD)


def test_looking_at_a_ledger_that_is_not_there_makes_none(tmp_path):
    assert schema_version(f"sqlite:///{tmp_path}/new/ledger.sqlite") is None
    assert list(tmp_path.iterdir()) == []


def test_a_new_and_a_migrated_ledger_have_the_same_tables(empty_url, request, tmp_path):
    migrate(empty_url)
    new = tables(empty_url)
    assert differences(empty_url) == []
    execute(empty_url, [f"DROP TABLE {name}" for name in new])
    execute(empty_url, FIRST)
    migrate(empty_url)
    assert tables(empty_url) == new
    assert differences(empty_url) == []
    execute(empty_url, ["ALTER TABLE clipfarm_leases ADD COLUMN forgotten TEXT"])
    assert [difference[0] for difference in differences(empty_url)] == ["remove_column"]


def test_every_migration_is_known_by_its_number():
    config = Config()
    config.set_main_option("script_location", "clipfarm_assets.ledger:migrations")
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())
    assert tuple(script.revision for script in reversed(scripts)) == REVISIONS


def test_opening_a_ledger_at_head_is_one_query(empty_url):
    statements = []

    def count(_connection, _cursor, text, _parameters, _context, _many):
        statements.append(text.split()[0])

    migrate(empty_url)
    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        with Ledger.open(empty_url, "store") as ledger:
            ledger.counts("stage")
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    assert statements == ["SELECT", "SELECT"], "its version, and what was asked for"


def test_a_ledger_of_newer_code_is_refused_and_left_alone(empty_url):
    with Ledger.open(empty_url, "store") as ledger:
        ledger.commit("stage", [item("a")])
    execute(empty_url, [f"UPDATE {VERSION_TABLE} SET version_num = '0999'"])
    for attempt in (
        lambda: Ledger.open(empty_url, "store").rows("stage"),
        lambda: migrate(empty_url),
    ):
        with pytest.raises(NewerSchema, match=r"newer clipfarm.*0999.*up to"):
            attempt()
    assert schema_version(empty_url) == "0999"
    execute(empty_url, [f"UPDATE {VERSION_TABLE} SET version_num = '{HEAD}'"])
    with Ledger.open(empty_url, "store") as ledger:
        assert ledger.rows("stage") == {"a": item("a")}


def test_a_migration_that_fails_half_way_has_done_nothing(empty_url):
    execute(empty_url, [*FIRST, *ROWS, "CREATE TABLE clipfarm_leases (someone_elses TEXT)"])
    before = tables(empty_url)
    with pytest.raises(sa.exc.DBAPIError, match="already exists"):
        migrate(empty_url)
    assert tables(empty_url) == before
    execute(empty_url, ["DROP TABLE clipfarm_leases"])
    with Ledger.open(empty_url, "store") as ledger:
        assert ledger.rows("stage") == ITEMS


def test_writers_that_meet_on_an_old_ledger_migrate_it_once(empty_url):
    execute(empty_url, [*FIRST, *ROWS])
    together = threading.Barrier(4)

    def write(n):
        with Ledger.open(empty_url, "store") as ledger:
            together.wait(30)
            ledger.commit("stage", [item(f"id{n}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with Ledger.open(empty_url, "store") as ledger:
        assert ledger.rows("stage") == ITEMS | {f"id{n}": item(f"id{n}") for n in range(4)}


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("made", [[], [*FIRST, *ROWS]], ids=["nothing", "first"])
def test_a_worker_without_the_right_is_told_to_have_it_migrated(empty_url, made):
    """It may read and write rows, and no more; what the owner makes later it may use too."""
    role = f"worker_{uuid.uuid4().hex}"
    rights = "SELECT, INSERT, UPDATE, DELETE ON TABLES"
    execute(
        empty_url,
        [
            f"CREATE ROLE {role} LOGIN",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {rights} TO {role}",
            *made,
        ],
    )
    as_worker = empty_url.replace("clipfarm@", f"{role}@")
    with Ledger.open(as_worker, "store") as ledger:
        with pytest.raises(OutdatedSchema, match=r"run `clipfarm migrate`"):
            ledger.rows("stage")
        migrate(empty_url)
        with ledger.lease("stage/date") as lease:
            ledger.commit("stage", [item("b")], lease=lease)
        assert ledger.rows("stage") == (ITEMS if made else {}) | {"b": item("b")}


def test_opening_a_ledger_loads_no_migrations(tmp_path):
    """Neither a new one nor one at head: only one that is older needs them."""
    program = (
        "import sys; from clipfarm_assets.ledger.ledger import Ledger\n"
        "for _ in range(2):\n"
        "    with Ledger.open(sys.argv[1], 'store') as ledger: ledger.counts('stage')\n"
        "sys.exit('alembic' in sys.modules)"
    )
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    assert subprocess.run([sys.executable, "-c", program, url], check=False).returncode == 0
