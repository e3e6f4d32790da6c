import pickle
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.published import (
    BadState,
    items_to_sqlite,
    publish,
    restore,
    sqlite_to_items,
)
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets_tests.ledger.conftest import item

KEY = "clipfarm/state/stage.sqlite"
FULL = item("f", error="e", artifact_key="k", vector_id="v", retry_count=2, version="video-1",
            content_sha256="00", details={"n": 1, "x": None})  # fmt: skip
# The deployed pipeline's table, as its own tools create it.
OLD = """CREATE TABLE processed_items (video_id TEXT PRIMARY KEY, source_hash TEXT NOT NULL,
    processed_at TEXT NOT NULL, status TEXT NOT NULL, error TEXT, artifact_key TEXT,
    vector_id TEXT)"""


def sqlite_file(*statements, path=":memory:") -> bytes:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.serialize()


def query(data: bytes, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(data)
        return connection.execute(sql).fetchall()


def test_the_published_table_is_the_documented_one(folder, open_ledger):
    with open_ledger("a") as ledger:
        ledger.commit("stage", [FULL, item("b")])
        assert publish(ledger, folder, KEY, "stage") == 2
    data = folder.get(KEY)
    assert query(data, "PRAGMA table_info(processed_items)") == [
        (0, "video_id", "TEXT", 0, None, 1),
        (1, "source_hash", "TEXT", 1, None, 0),
        (2, "processed_at", "TEXT", 1, None, 0),
        (3, "status", "TEXT", 1, None, 0),
        (4, "error", "TEXT", 0, None, 0),
        (5, "artifact_key", "TEXT", 0, None, 0),
        (6, "vector_id", "TEXT", 0, None, 0),
        (7, "retry_count", "INTEGER", 1, "0", 0),
    ]
    assert query(data, "SELECT * FROM processed_items") == [
        ("b", "h", item("b").processed_at, "success", None, None, None, 0),
        ("f", "h", FULL.processed_at, "success", "e", "k", "v", 2),
    ]
    assert query(data, "SELECT * FROM item_provenance") == [
        ("f", "h", FULL.processed_at, "video-1", "00", '{"n": 1, "x": null}')
    ]
    assert query(data, "PRAGMA integrity_check") == [("ok",)]


def test_equal_rows_give_equal_bytes():
    items = {name: item(name, version=name) for name in "abc"}
    assert items_to_sqlite(items) == items_to_sqlite(dict(reversed(items.items())))
    assert sqlite_to_items(items_to_sqlite(items), KEY) == items


def test_a_new_machine_restores_what_was_published(store, open_ledger):
    old, new = open_ledger("old"), open_ledger("new")
    assert restore(new, store, KEY, "stage") == 0
    old.commit("stage", [FULL, item("b", status="fail", error="x", retry_count=1)])
    publish(old, store, KEY, "stage")
    assert restore(new, store, KEY, "stage") == 2
    assert new.rows("stage") == old.rows("stage")
    assert restore(new, store, KEY, "stage") == 0


def test_restore_reads_an_unchanged_object_once(folder, open_ledger, monkeypatch):
    ledger = open_ledger("a")
    folder.put(KEY, items_to_sqlite({"a": item("a")}))
    assert restore(ledger, folder, KEY, "stage") == 1
    monkeypatch.setattr(folder, "get_versioned", lambda _: pytest.fail("read again"))
    assert restore(ledger, folder, KEY, "stage") == 0


def test_restore_takes_only_newer_rows(folder, open_ledger):
    ledger = open_ledger("a")
    ledger.commit("stage", [item("old", 0), item("new", 9)])
    remote = {name: item(name, 5, status="fail") for name in ("old", "new", "other")}
    folder.put(KEY, items_to_sqlite(remote))
    assert restore(ledger, folder, KEY, "stage") == 2
    found = ledger.rows("stage")
    assert found == {"old": remote["old"], "new": item("new", 9), "other": remote["other"]}


def test_publishing_keeps_newer_rows_of_others_and_skips_a_write_without_change(store, open_ledger):
    one, two = open_ledger("one"), open_ledger("two")
    one.commit("stage", [item("a", 1), item("b", 9), item("c")])
    two.commit("stage", [item("a", 5, status="fail"), item("b", 5, status="fail"), item("d")])
    assert publish(one, store, KEY, "stage") == 3
    assert publish(two, store, KEY, "stage") == 2
    expected = {"a": item("a", 5, status="fail"), "b": item("b", 9), "c": item("c"), "d": item("d")}
    assert sqlite_to_items(store.get(KEY), KEY) == expected
    version = store.version(KEY)
    assert publish(one, store, KEY, "stage") == 0
    assert publish(two, store, KEY, "stage") == 0
    assert store.version(KEY) == version
    for ledger in (one, two):
        restore(ledger, store, KEY, "stage")
        assert ledger.rows("stage") == expected


def test_what_was_just_published_is_not_read_again(folder, open_ledger, monkeypatch):
    ledger = open_ledger("a")
    ledger.commit("stage", [item("a")])
    publish(ledger, folder, KEY, "stage")
    ledger.commit("stage", [item("b")])
    publish(ledger, folder, KEY, "stage")

    for reading in ("get", "get_versioned"):
        monkeypatch.setattr(folder, reading, lambda _: pytest.fail("read again"))
    assert restore(ledger, folder, KEY, "stage") == 0
    assert publish(ledger, folder, KEY, "stage") == 0
    monkeypatch.undo()
    assert set(sqlite_to_items(folder.get(KEY), KEY)) == {"a", "b"}


def test_rows_of_others_found_while_publishing_are_still_restored(store, open_ledger):
    one, two = open_ledger("one"), open_ledger("two")
    two.commit("stage", [item("theirs")])
    publish(two, store, KEY, "stage")
    one.commit("stage", [item("mine")])
    publish(one, store, KEY, "stage")
    assert restore(one, store, KEY, "stage") == 1
    assert set(one.rows("stage")) == {"mine", "theirs"}


def test_a_rival_between_reading_and_writing_is_merged_and_restored(
    folder, open_ledger, monkeypatch
):
    one, two = open_ledger("one"), open_ledger("two")
    one.commit("stage", [item("mine")])
    two.commit("stage", [item("theirs")])
    swap, raced = folder.swap, []

    def rival_first(key, data, expected):
        if not raced:
            raced.append(key)
            publish(two, folder, KEY, "stage")
        return swap(key, data, expected)

    monkeypatch.setattr(folder, "swap", rival_first)
    publish(one, folder, KEY, "stage")
    assert set(sqlite_to_items(folder.get(KEY), KEY)) == {"mine", "theirs"}
    assert restore(one, folder, KEY, "stage") == 1


def test_rows_that_a_killed_run_left_unpublished_are_published(folder, open_ledger):
    ledger = open_ledger("a")
    ledger.commit("stage", [item("a")])
    publish(ledger, folder, KEY, "stage")
    ledger.commit("stage", [item("a", 1, status="fail"), item("b")])
    ledger.close()
    assert publish(open_ledger("a"), folder, KEY, "stage") == 2


def test_a_published_object_that_is_gone_or_was_replaced_is_mended(folder, open_ledger):
    ledger = open_ledger("a")
    ledger.commit("stage", [item("a")])
    publish(ledger, folder, KEY, "stage")
    whole = folder.get(KEY)
    folder.delete(KEY)
    assert publish(ledger, folder, KEY, "stage") == 1
    folder.put(KEY, items_to_sqlite({}))
    assert publish(ledger, folder, KEY, "stage") == 1
    assert folder.get(KEY) == whole


def test_nothing_is_published_of_an_empty_stage(folder, open_ledger):
    assert publish(open_ledger("a"), folder, KEY, "stage") == 0
    assert not folder.exists(KEY)


def test_two_publishers_lose_no_row(store, run_workers, tmp_path):
    pickled = pickle.dumps(store).hex()
    calls = [[f"sqlite:///{tmp_path}/{name}.sqlite", pickled, name] for name in ("x", "y")]
    run_workers("publish_batches", *calls)
    found = sqlite_to_items(store.get(KEY), KEY)
    assert set(found) == {f"{w}-{b}-{n}" for w in "xy" for b in range(8) for n in range(5)}


def test_a_file_of_an_older_deployment_is_taken_over(folder, open_ledger):
    data = sqlite_file(
        OLD,
        "INSERT INTO processed_items VALUES ('-a','h','2026-02-05T17:34:41.595562+00:00',"
        "'success',NULL,'clipfarm/embeddings/video/-a.npy',NULL)",
        "INSERT INTO processed_items VALUES ('b','h','2026-02-05 10:00:00','fail','x',NULL,NULL)",
    )
    folder.put(KEY, data)
    ledger = open_ledger("a")
    assert restore(ledger, folder, KEY, "stage") == 2
    assert ledger.rows("stage") == {
        "-a": Item("-a", "h", "2026-02-05T17:34:41.595562+00:00", "success",
                   artifact_key="clipfarm/embeddings/video/-a.npy"),
        "b": Item("b", "h", "2026-02-05 10:00:00", "fail", error="x"),
    }  # fmt: skip
    assert publish(ledger, folder, KEY, "stage") == 0
    assert folder.get(KEY) == data


def test_provenance_counts_only_for_the_row_it_was_written_with():
    data = items_to_sqlite({"a": item("a", version="v1"), "b": item("b", version="v1")})
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(data)
        # what a tool does that knows processed_items only
        connection.execute("UPDATE processed_items SET processed_at = '2027' WHERE video_id = 'a'")
        found = sqlite_to_items(connection.serialize(), KEY)
    assert (found["a"].version, found["b"].version) == (None, "v1")


def test_wal_mode_files_are_read(tmp_path):
    path = tmp_path / "wal.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(OLD)
    connection.execute(
        "INSERT INTO processed_items VALUES ('a','h','2026','success',NULL,NULL,NULL)"
    )
    connection.close()
    data = path.read_bytes()
    assert data[18:20] == b"\x02\x02"
    assert list(sqlite_to_items(data, KEY)) == ["a"]


def test_a_null_in_an_error_text_is_no_reason_to_refuse_a_file():
    data = sqlite_file(OLD, "INSERT INTO processed_items VALUES ('a','h','t','fail',"
                            "'x' || char(0) || 'y',NULL,NULL)")  # fmt: skip
    assert sqlite_to_items(data, KEY)["a"].error == "x\\x00y"


PLAIN = "CREATE TABLE processed_items (video_id, source_hash, processed_at, status)"
COUNTED = PLAIN.replace("status)", "status, retry_count)")
PROVENANCE = (
    "CREATE TABLE item_provenance"
    " (video_id, source_hash, processed_at, version, content_sha256, details)"
)
HOSTILE = {
    "no table": ["CREATE TABLE other (x)"],
    "view": [
        PLAIN.replace("processed_items", "behind"),
        "INSERT INTO behind VALUES ('a', 'h', 't', 's')",
        "CREATE VIEW processed_items AS SELECT * FROM behind",
    ],
    "virtual table": [PLAIN.replace("TABLE", "VIRTUAL TABLE").replace("items", "items USING fts4")],
    "view called a table": [
        PLAIN,
        "PRAGMA writable_schema=ON",
        "CREATE VIEW other AS SELECT 'a' video_id, 'h' source_hash, 't' processed_at, 's' status",
        "UPDATE sqlite_master SET sql = replace(sql, 'processed_items', 'hidden')",
        "UPDATE sqlite_master SET sql = replace(sql, 'VIEW other', 'VIEW processed_items')",
    ],
    "generated column": [
        PLAIN.replace("status", "status AS (hex(source_hash))"),
        "INSERT INTO processed_items VALUES ('a', 'h', 't')",
    ],
    "missing column": ["CREATE TABLE processed_items (video_id TEXT, processed_at, status)"],
    "null": [PLAIN, "INSERT INTO processed_items VALUES ('a', 'h', NULL, 's')"],
    "empty id": [PLAIN, "INSERT INTO processed_items VALUES ('', 'h', 't', 's')"],
    "null id": [PLAIN, "INSERT INTO processed_items VALUES (NULL, 'h', 't', 's')"],
    "blob": [PLAIN, "INSERT INTO processed_items VALUES ('a', 'h', 't', x'00ff')"],
    "nul": [PLAIN, "INSERT INTO processed_items VALUES ('a', 'h', 't', 's' || char(0))"],
    "not utf-8": [PLAIN, "INSERT INTO processed_items VALUES ('a', 'h', 't', CAST(x'ff' AS TEXT))"],
    "two rows": [PLAIN, *["INSERT INTO processed_items VALUES ('a', 'h', 't', 's')"] * 2],
    "count": [COUNTED, "INSERT INTO processed_items VALUES ('a', 'h', 't', 's', 'many')"],
    "huge count": [COUNTED, "INSERT INTO processed_items VALUES ('a', 'h', 't', 's', 1 << 40)"],
    "details": [
        PLAIN,
        "INSERT INTO processed_items VALUES ('a', 'h', 't', 's')",
        PROVENANCE,
        "INSERT INTO item_provenance VALUES ('a', 'h', 't', NULL, NULL, '{\"x\": NaN}')",
    ],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_malformed_and_hostile_files_are_refused_by_name(folder, open_ledger, name):
    data = sqlite_file(*HOSTILE[name])
    folder.put(KEY, data)
    ledger = open_ledger("a")
    ledger.commit("stage", [item("mine")])
    for call in (restore, publish):
        with pytest.raises(BadState, match=KEY):
            call(ledger, folder, KEY, "stage")
    assert folder.get(KEY) == data
    assert ledger.rows("stage") == {"mine": item("mine")}


def test_triggers_are_not_run_and_the_file_is_not_written():
    data = sqlite_file(
        OLD,
        "INSERT INTO processed_items VALUES ('a','h','t','s',NULL,NULL,NULL)",
        "CREATE TRIGGER t AFTER INSERT ON processed_items BEGIN DELETE FROM processed_items; END",
        "CREATE INDEX i ON processed_items (hex(video_id))",
    )
    assert list(sqlite_to_items(data, KEY)) == ["a"]


@pytest.mark.parametrize(
    "data", [b"", b"SQLite format 3\0", b"x" * 5000, b"SQLite format 3\0" * 999]
)
def test_what_is_no_sqlite_file_is_refused(data):
    with pytest.raises(BadState, match=KEY):
        sqlite_to_items(data, KEY)


PUBLISHED = items_to_sqlite({f"id{n}": item(f"id{n}", version="v") for n in range(50)})


@given(st.lists(st.tuples(st.integers(0, len(PUBLISHED) - 1), st.integers(1, 255)), min_size=1))
def test_damage_is_refused_or_reads_as_text(damage):
    data = bytearray(PUBLISHED)
    for at, flip in damage:
        data[at] ^= flip
    try:
        found = sqlite_to_items(bytes(data), KEY)
    except BadState:
        return
    assert all(isinstance(one.status, str) for one in found.values())


def test_truncated_files_are_refused():
    for length in (100, 4096, 8192, len(PUBLISHED) - 4096):
        with pytest.raises(BadState, match=KEY):
            sqlite_to_items(PUBLISHED[:length], KEY)


def test_large_ledgers_round_trip():
    items = {f"id{n:05}": item(f"id{n:05}", n, error="x" * (n % 50)) for n in range(5000)}
    assert sqlite_to_items(items_to_sqlite(items), KEY) == items


def test_a_page_cited_again_and_again_is_refused():
    """An interior page whose every child is the same leaf would multiply rows without end."""
    rows = {f"id{n:04}": item(f"id{n:04}", error="x" * 400) for n in range(400)}
    data = bytearray(items_to_sqlite(rows))
    (root,) = query(bytes(data), "SELECT rootpage FROM sqlite_master WHERE name='processed_items'")[
        0
    ]
    page = (root - 1) * 4096
    assert data[page] == 5  # an interior page of a table
    cells = int.from_bytes(data[page + 3 : page + 5], "big")
    first = int.from_bytes(data[page + 12 : page + 14], "big")
    for cell in range(cells):
        pointer = int.from_bytes(data[page + 12 + 2 * cell : page + 14 + 2 * cell], "big")
        data[page + pointer : page + pointer + 4] = data[page + first : page + first + 4]
    with pytest.raises(BadState, match="two rows"):
        sqlite_to_items(bytes(data), KEY)


def test_ledgers_with_no_database_file_yet_can_be_published_from(folder, tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path}/deep/er/x.sqlite", folder.url) as ledger:
        assert publish(ledger, folder, KEY, "stage") == 0
