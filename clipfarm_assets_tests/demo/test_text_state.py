import hashlib
import sqlite3
from contextlib import closing

import pytest

from clipfarm_assets.demo.text_state import TextStateRow, text_state_sqlite

ROW = TextStateRow("abc", "h" * 64, "2026-02-04T00:00:00+00:00", "no_captions", "none found")


def query(path, sql):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_the_sample_file_has_the_documented_schema_and_rows(sample):
    path = sample.folder / "clipfarm/state/text_downloader.sqlite"
    columns = [row[1:4] for row in query(path, "PRAGMA table_info(processed_items)")]
    assert columns == [
        ("video_id", "TEXT", 0),
        ("source_hash", "TEXT", 1),
        ("processed_at", "TEXT", 1),
        ("status", "TEXT", 1),
        ("error", "TEXT", 0),
        ("artifact_key", "TEXT", 0),
        ("vector_id", "TEXT", 0),
        ("retry_count", "INTEGER", 1),
    ]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    rows = dict(query(path, "SELECT video_id, status FROM processed_items"))
    assert rows["noCaptions0"] == rows["textOldHash"] == rows["noCaptHash_"] == "no_captions"
    assert rows["emptyWords0"] == "fail_empty_transcript_terminal"
    assert rows["textPending"] == "fail"
    assert rows.keys() == sample.clips.keys() - {"textNoState", "noRawAtAll0"}


def test_hashes_are_those_of_the_clips_urls_but_for_two_cases(sample):
    path = sample.folder / "clipfarm/state/text_downloader.sqlite"
    found = dict(query(path, "SELECT video_id, source_hash FROM processed_items"))
    other = {
        video_id
        for video_id, value in found.items()
        if value != hashlib.sha256(sample.clips[video_id].url.encode()).hexdigest()
    }
    assert other == {"textOldHash", "noCaptHash_"}
    assert found["noCaptHash_"] == ""


@pytest.mark.parametrize("with_source_hash", [True, False])
def test_rows_come_back_and_bytes_repeat(tmp_path, with_source_hash):
    data = text_state_sqlite([ROW], with_source_hash=with_source_hash)
    assert data == text_state_sqlite([ROW], with_source_hash=with_source_hash)
    path = tmp_path / "state.sqlite"
    path.write_bytes(data)
    names = [row[1] for row in query(path, "PRAGMA table_info(processed_items)")]
    assert ("source_hash" in names) is with_source_hash
    [row] = query(path, "SELECT video_id, status, error, retry_count FROM processed_items")
    assert row == ("abc", "no_captions", "none found", 0)


def test_a_clip_twice_is_refused():
    with pytest.raises(sqlite3.IntegrityError):
        text_state_sqlite([ROW, ROW])
