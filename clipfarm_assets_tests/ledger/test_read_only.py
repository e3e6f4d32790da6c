"""A ledger that is looked at: whatever is asked of it, it stays as it is."""

import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa

from clipfarm_assets.ledger.head import VERSION_TABLE, NewerSchema
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.read_only import NoLedger, ReadOnlyLedger
from clipfarm_assets_tests.ledger.conftest import item
from clipfarm_assets_tests.servers import postgres_url

STAGE = "video_embedding"


def test_it_reads_what_there_is_and_writes_nothing(database_url):
    with Ledger.open(database_url, "s") as ledger:
        ledger.commit(STAGE, [item("a"), item("b", 1), item("c", 2, status="fail")])
        ledger.set_published_mark(STAGE, "key", "1")
        with ReadOnlyLedger.open(database_url, "s") as looking:
            assert looking.absent == ""
            assert looking.rows(STAGE) == ledger.rows(STAGE)
            assert list(looking.stream(STAGE)) == list(ledger.stream(STAGE))
            assert looking.counts(STAGE) == {"fail": 1, "success": 2}
            assert looking.changed_at(STAGE) == item("c", 2).processed_at
            assert looking.changed_at("other") is None
            assert looking.ids_of_status(STAGE, {"success", "none"}) == ["a", "b"]
            newest_first = looking.moments(STAGE, {"success"}, 5)
            assert [newest_first[0] - at for at in newest_first] == [0, 60_000_000]
            assert looking.published_mark(STAGE, "key") == "1"
            with ledger.lease("a date"):
                (held,) = looking.held_leases()
            assert held.scope == "a date"
            for write in (
                lambda: looking.commit(STAGE, [item("d")]),
                lambda: looking.set_published_mark(STAGE, "key", "2"),
            ):
                with pytest.raises(sa.exc.DBAPIError):
                    write()
            assert looking.counts(STAGE) == {"fail": 1, "success": 2}


def test_an_absent_file_is_told_and_not_made(tmp_path):
    path = tmp_path / "deep" / "ledger.sqlite"
    with ReadOnlyLedger.open(f"sqlite:///{path}", "s") as looking:
        assert looking.rows(STAGE) == {}
        assert looking.stages() == []
        assert f"{path} does not exist yet" in looking.absent
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_ledger_is_told(tmp_path):
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")
    before = path.read_bytes()
    with ReadOnlyLedger.open(f"sqlite:///{path}", "s") as looking:
        assert looking.counts(STAGE) == {}
        assert "holds no ledger yet" in looking.absent
    assert path.read_bytes() == before


def test_an_older_ledger_is_read_as_it_is(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(f"sqlite:///{path}", "s") as ledger:
        ledger.commit(STAGE, [item("a")])
    with closing(sqlite3.connect(path)) as connection:
        for table in (VERSION_TABLE, "clipfarm_leases", "clipfarm_published"):
            connection.execute(f"DROP TABLE {table}")
    before = path.read_bytes()
    with ReadOnlyLedger.open(f"sqlite:///{path}", "s") as looking:
        assert looking.counts(STAGE) == {"success": 1}
        assert looking.held_leases() == []
        assert looking.published_mark(STAGE, "key") is None
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_newer_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(f"sqlite:///{path}", "s") as ledger:
        ledger.commit(STAGE, [item("a")])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    with (
        ReadOnlyLedger.open(f"sqlite:///{path}", "s") as looking,
        pytest.raises(NewerSchema, match="9999"),
    ):
        looking.counts(STAGE)


@pytest.mark.postgres
def test_a_database_without_a_ledger_is_told_without_its_password():
    url = sa.make_url(postgres_url().replace("postgresql:", "postgresql+psycopg:", 1))
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE without_a_ledger")
    engine.dispose()
    other = url.set(database="without_a_ledger", drivername="postgresql")
    with (
        ReadOnlyLedger.open(other.render_as_string(hide_password=False), "s") as looking,
        pytest.raises(NoLedger, match="clipfarm migrate") as refused,
    ):
        looking.counts(STAGE)
    assert url.password is None or str(url.password) not in str(refused.value)
