import sqlite3
from contextlib import closing

import pytest

from clipfarm_assets.ledger.text_state import BadState, TextState, read_text_state

KEY = "clipfarm/state/text_downloader.sqlite"


def put(store, *statements):
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        store.put(KEY, connection.serialize())


def test_the_downloaders_table(folder):
    put(
        folder,
        "CREATE TABLE processed_items (video_id TEXT PRIMARY KEY, source_hash TEXT NOT NULL,"
        " processed_at TEXT NOT NULL, status TEXT NOT NULL, error TEXT, artifact_key TEXT,"
        " vector_id TEXT, retry_count INTEGER NOT NULL DEFAULT 0)",
        "INSERT INTO processed_items VALUES ('a','h','t','no_captions',NULL,NULL,NULL,0)",
        "INSERT INTO processed_items VALUES ('b','','t','success','e','k',NULL,2)",
    )
    assert read_text_state(folder, KEY) == {
        "a": TextState("no_captions", "h"),
        "b": TextState("success", None),
    }


def test_a_table_without_source_hash_counts_for_any(folder):
    put(
        folder,
        "CREATE TABLE processed_items (video_id TEXT PRIMARY KEY, status TEXT NOT NULL)",
        "INSERT INTO processed_items VALUES ('a', 'fail_empty_transcript_terminal')",
    )
    expected = {"a": TextState("fail_empty_transcript_terminal", None)}
    assert read_text_state(folder, KEY) == expected


def test_absent_and_empty_are_told_apart(folder):
    with pytest.raises(FileNotFoundError, match=KEY):
        read_text_state(folder, KEY)
    put(folder, "CREATE TABLE processed_items (video_id TEXT PRIMARY KEY, status TEXT)")
    assert read_text_state(folder, KEY) == {}


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE other (x)"],
        ["CREATE VIEW processed_items AS SELECT 'a' AS video_id, 's' AS status"],
        ["CREATE TABLE processed_items (video_id TEXT)"],
        ["CREATE TABLE processed_items (video_id, status)",
         "INSERT INTO processed_items VALUES ('a', NULL)"],
        ["CREATE TABLE processed_items (video_id, status)",
         "INSERT INTO processed_items VALUES (7, 's')"],
        ["CREATE TABLE processed_items (video_id, status)",
         "INSERT INTO processed_items VALUES ('a', 's'), ('a', 't')"],
    ],
)  # fmt: skip
def test_unusable_tables_are_refused_by_name(folder, statements):
    put(folder, *statements)
    with pytest.raises(BadState, match=KEY):
        read_text_state(folder, KEY)


def test_garbage_is_refused_by_name(folder):
    folder.put(KEY, b"not a database")
    with pytest.raises(BadState, match=KEY):
        read_text_state(folder, KEY)
