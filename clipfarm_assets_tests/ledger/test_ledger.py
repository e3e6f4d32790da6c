import json
import os
import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from clipfarm_assets.ledger.leases import LeaseLost, Place
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets_tests.ledger.conftest import item

FULL = item(
    "-_çđ",
    status="fail",
    error="line\nbreak 🎵",
    artifact_key="clipfarm/x.npy",
    vector_id="fused:concat:-_x",
    retry_count=3,
    version="video-1",
    content_sha256="00ff",
    details={"tokens_cut": 3, "share": 0.1, "cut": True, "why": "ç", "none": None},
)


def test_rows_come_back_as_committed(ledger):
    ledger.commit("stage", [FULL, item("b")])
    assert ledger.rows("stage") == {"-_çđ": FULL, "b": item("b")}
    assert ledger.rows("stage", ["b", "none"]) == {"b": item("b")}
    assert ledger.rows("stage", []) == {}
    assert ledger.rows("other") == {}


def test_columns_are_fields_of_the_rows_asked_for(ledger):
    ledger.commit("stage", [FULL, item("b"), item("c")])
    ledger.commit("other", [item("b", status="fail")])
    found = ledger.columns("stage", ["b", FULL.video_id, "none"], "status", "version", "details")
    assert found == {
        "b": ("success", None, "{}"),
        FULL.video_id: (FULL.status, "video-1", json.dumps(dict(FULL.details), sort_keys=True)),
    }
    assert ledger.columns("stage", [], "status") == {}


@pytest.mark.parametrize("name", ["'", '"', "\\", "{}", "%s", ":x", "?", "ç🎵", "1", "null"])
def test_ids_are_found_as_they_are_written(ledger, name):
    ledger.commit("stage", [item(name), item("other")])
    assert list(ledger.rows("stage", [name])) == [name]


def test_a_commit_replaces_every_field(ledger):
    ledger.commit("stage", [FULL])
    bare = Item(FULL.video_id, "h2", FULL.processed_at, "success")
    ledger.commit("stage", [bare])
    assert ledger.rows("stage") == {FULL.video_id: bare}


def test_a_commit_is_all_or_nothing(ledger):
    ledger.commit("stage", [item("a")])
    with pytest.raises(Exception, match="source_hash"):
        ledger.commit("stage", [item("a", status="fail"), item("b", source_hash=None)])
    assert ledger.rows("stage") == {"a": item("a")}


def test_many_ids(ledger):
    items = [item(f"id{n:05}") for n in range(12_000)]
    ledger.commit("stage", items)
    asked = [one.video_id for one in items[::2]] + ["none"]
    assert sorted(ledger.rows("stage", asked)) == asked[:-1]
    assert ledger.counts("stage") == {"success": 12_000}


def test_counts_and_stages(ledger):
    ledger.commit("b", [item("1"), item("2", status="fail"), item("3")])
    ledger.commit("a", [item("1", status="missing_raw_object")])
    assert ledger.counts("b") == {"fail": 1, "success": 2}
    assert ledger.counts("none") == {}
    assert ledger.stages() == ["a", "b"]


def test_stores_in_one_database_do_not_meet(database_url):
    names = [uuid.uuid4().hex for _ in range(2)]
    with Ledger.open(database_url, names[0]) as one, Ledger.open(database_url, names[1]) as two:
        one.commit("stage", [item("a", status="fail")])
        two.commit("stage", [item("a")])
        one.set_merged_version("stage", "key", "v")
        assert one.rows("stage")["a"].status == "fail"
        assert two.rows("stage")["a"].status == "success"
        assert two.counts("stage") == {"success": 1}
        assert (one.merged_version("stage", "key"), two.merged_version("stage", "key")) == (
            "v",
            None,
        )


def test_a_ledger_survives_closing(database_url):
    name = uuid.uuid4().hex
    with Ledger.open(database_url, name) as ledger:
        ledger.commit("stage", [FULL])
    with Ledger.open(database_url, name) as ledger:
        assert ledger.rows("stage") == {FULL.video_id: FULL}
        ledger.close()
        assert ledger.rows("stage") == {FULL.video_id: FULL}


@pytest.mark.parametrize(
    "bad",
    [
        [item("a"), item("a", status="fail")],
        [item("a", error="nul\0")],
        [item("a", error="\ud800")],
        [item("a\0")],
        [item("a", details={"x": float("nan")})],
    ],
)
def test_states_that_not_every_database_can_hold_are_refused(ledger, bad):
    with pytest.raises(ValueError, match=r"which one holds|NUL|JSON"):
        ledger.commit("stage", [item("z"), *bad])
    assert ledger.rows("stage") == {}


def test_commit_newer_takes_only_what_is_newer(ledger):
    ledger.commit("stage", [item("old", 0), item("new", 9), item("same", 5), item("odd", 3)])
    offered = [
        item("old", 5, status="fail"),
        item("new", 5, status="fail"),
        item("same", 5),
        item("odd", processed_at="yesterday", status="fail"),
        item("unknown", processed_at="yesterday"),
    ]
    assert ledger.commit_newer("stage", offered) == 2
    assert ledger.rows("stage") == {
        "old": offered[0],
        "new": item("new", 9),
        "same": item("same", 5),
        "odd": item("odd", 3),
        "unknown": offered[4],
    }
    assert ledger.commit_newer("stage", offered) == 0


def test_processes_that_start_together_lose_no_row(database_url, run_workers):
    name = uuid.uuid4().hex
    run_workers("commit_batches", *[[database_url, name, f"w{n}"] for n in range(3)])
    with Ledger.open(database_url, name) as ledger:
        rows = ledger.rows("stage")
    own = {f"w{n}-{b}-{i}" for n in range(3) for b in range(20) for i in range(10)}
    assert set(rows) == own | {f"shared-{n}" for n in range(5)}


def test_writers_that_meet_on_a_new_database_all_find_its_tables(request, database_url):
    if "postgres" in request.node.callspec.id:
        name = f"new_{uuid.uuid4().hex}"
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        database_url = database_url.replace("/postgres", f"/{name}")
    together = threading.Barrier(6)

    def write(n):
        with Ledger.open(database_url, "store") as ledger:
            together.wait(30)
            ledger.commit("stage", [item(f"id{n}")])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    with Ledger.open(database_url, "store") as ledger:
        assert ledger.counts("stage") == {"success": 6}


def test_commit_newer_yields_to_what_came_between_its_reading_and_its_writing(ledger, monkeypatch):
    ledger.commit("stage", [item("a", 9)])
    with monkeypatch.context() as stale:
        stale.setattr(ledger, "rows", lambda *_: {})
        ledger.commit_newer("stage", [item("a", 5, status="fail")])
    assert ledger.rows("stage") == {"a": item("a", 9)}


def test_commit_newer_replaces_only_states_of_the_artifact_that_is_to_be_replaced(ledger):
    states = [item("a", artifact_key="old's"), item("b", artifact_key="newer"), item("c")]
    ledger.commit("stage", [*states, item("d", artifact_key="old's", status="forgotten")])
    led = [item(i, 5, artifact_key="led") for i in "abcd"]
    ledger.commit_newer("stage", led, instead_of="old's")
    found = ledger.rows("stage")
    assert [found[i].artifact_key for i in "abcd"] == ["led", "newer", None, "old's"]


def test_commit_newer_writes_nothing_under_a_lease_that_was_lost(ledger):
    ledger.commit("stage", [item("a")])
    with ledger.lease("scope") as lease:
        place = Place(ledger._begin, ledger._store_id, "scope")
        assert place.take("a rival", 60_000_000, over=lease.token)
        with pytest.raises(LeaseLost):
            ledger.commit_newer("stage", [item("a", 5, status="fail")], lease=lease)
    assert ledger.rows("stage") == {"a": item("a")}


def test_a_forked_child_makes_its_own_connections(ledger):
    """Parent and child on one PostgreSQL connection would read each other's answers."""

    def commit(name):
        for n in range(30):
            ledger.commit("stage", [item(f"{name}{n}")])
            assert set(ledger.rows("stage", [f"{name}{n}"])) == {f"{name}{n}"}

    ledger.commit("stage", [item("first")])
    child = os.fork()
    if not child:
        try:
            commit("child")
        except BaseException:
            os._exit(1)
        os._exit(0)
    try:
        commit("parent")
    finally:
        status = os.waitpid(child, 0)[1]
    assert status == 0
    assert ledger.counts("stage") == {"success": 61}


def test_sqlite_is_in_wal_mode(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/x.sqlite", "store") as ledger:
        ledger.commit("stage", [item("a")])
    with sqlite3.connect(tmp_path / "x.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_opening_touches_nothing(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/a/x.sqlite", "store"):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://u:hunter2@h/d", "not in 'mysql'"),
        ("hunter2", "expected sqlite"),
        ("", "expected sqlite"),
        ("postgresql://h/d?user=u&password=hunter2", r"has password among its parameters"),
        ("postgresql://u@h/d?sslpassword=hunter2&passfile=p", "has passfile, sslpassword among"),
    ],
)
def test_other_databases_are_refused(url, message):
    with pytest.raises(ValueError, match=message) as caught:
        Ledger.open(url, "store")
    assert "hunter2" not in str(caught.value)


def test_repr_hides_the_password():
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        ledger = Ledger.open(f"{scheme}://user:hunter2@host/db", "s3://b")
        assert repr(ledger) == "Ledger('postgresql+psycopg://user:***@host/db', 's3://b')"


def test_unversioned_ids_are_the_smallest_of_that_status(ledger):
    ledger.commit(
        "stage",
        [item("c"), item("a", version="v"), item("d"), item("b"), item("0", status="fail")],
    )
    ledger.commit("other", [item("A")])
    assert ledger.unversioned("stage", "success", 2) == ["b", "c"]
    assert ledger.unversioned("stage", "success", 9) == ["b", "c", "d"]
    assert ledger.unversioned("none", "success", 9) == []


def test_every_commit_changes_the_mark(ledger):
    ledger.commit("other", [item("a")])
    marks = [ledger.mark("stage")]
    for states in (
        [item("a"), item("old", -1e9)],
        [item("b")],
        [item("a", 5)],
        [item("b", 1e-7)],  # neither the number nor the latest moment changes
        [item("b", processed_at="not a time")],
    ):
        ledger.commit("stage", states)
        marks.append(ledger.mark("stage"))
        assert ledger.mark("stage") == marks[-1]
    assert len(set(marks)) == len(marks)


def test_a_stage_is_streamed_in_the_order_of_characters(ledger):
    ids = ["b", "a", "B", "\u00e4", "\U0001f3ac", "a b", "a-b", "ab", "\uffff"]
    states = [item(video_id, minute, details={"n": minute}) for minute, video_id in enumerate(ids)]
    ledger.commit("stage", states)
    ledger.commit("other", [item("c")])
    assert list(ledger.stream("stage")) == sorted(states, key=lambda one: one.video_id)
    assert list(ledger.stream("none")) == []


def test_a_stream_is_of_one_moment_and_keeps_no_writer_waiting(ledger):
    ledger.commit("stage", [item(f"{n:04}") for n in range(3000)])
    stream = ledger.stream("stage")
    first = next(stream)
    ledger.commit("stage", [item("0500", status="fail"), item("9999")])
    assert [first, *stream] == [item(f"{n:04}") for n in range(3000)]
