"""Ids, capture times, hashes, and which row of a clip is its latest."""

import csv
import hashlib
import io
import re
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts.clip_tables import CLIP_INDEX
from clipfarm_assets.contracts.horizon_csv import (
    BAD_VIDEO_ID,
    NO_CAPTURE_DATE,
    NO_VIDEO_ID,
    SHORT_ROW,
    SkippedRow,
    latest_rows,
    parse_captured_at,
    read_horizon_csv,
    skip_table,
    source_hash,
    video_id_of,
)

COLUMNS = ("video_id", "url", "captured_at", "title", "description", "query")
NOON = "2026-02-05T12:00:00+00:00"


def write(*rows):
    """CSV bytes of rows given as (video_id, url, captured_at[, title])."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for video_id, url, captured_at, *title in rows:
        writer.writerow([video_id, url, captured_at, *(title or ["t"]), "d", "q"])
    return text.getvalue().encode()


def latest_of(*rows, **options):
    return latest_rows(read_horizon_csv(write(*rows)), **options)


# --- ids


@pytest.mark.parametrize(
    ("url", "video_id"),
    [
        ("https://www.youtube.com/watch?v=a1B2c3D4e5F", "a1B2c3D4e5F"),
        ("https://m.youtube.com/watch?app=desktop&v=-JSxxmtYm0A&t=3s", "-JSxxmtYm0A"),
        ("https://www.youtube.com/shorts/_3bLxxeoaoZ", "_3bLxxeoaoZ"),
        ("https://www.youtube.com/shorts/_3bLxxeoaoZ/", "_3bLxxeoaoZ"),
        ("https://youtube.com/shorts/a1B2c3D4e5F?feature=share", "a1B2c3D4e5F"),
        ("https://www.youtube.com/embed/a1B2c3D4e5F#t=1", "a1B2c3D4e5F"),
        ("https://www.youtube.com/v/a1B2c3D4e5F", "a1B2c3D4e5F"),
        ("https://youtu.be/a1B2c3D4e5F?si=x", "a1B2c3D4e5F"),
        ("  https://youtu.be/a1B2c3D4e5F \n", "a1B2c3D4e5F"),
        ("https://www.youtube.com/watch?v=&list=x", ""),
        ("https://www.youtube.com/watch?vi=abc", ""),
        ("https://www.youtube.com/feed/trending", ""),
        ("https://www.youtube.com/shorts/", ""),
        ("a1B2c3D4e5F", ""),
        ("", ""),
    ],
)
def test_an_empty_id_is_taken_from_the_url(url, video_id):
    assert video_id_of("", url) == video_id
    assert video_id_of(" \t", url) == video_id
    assert video_id_of("own", url) == "own"


def test_ids_with_odd_beginnings_are_ids():
    ids = ["-JSxxmtYm0A", "_3bLxxeoaoZ", "-", "_", "0", "a" * 64]
    found = latest_of(*((video_id, "u", NOON) for video_id in ids))
    assert found.rows["video_id"].to_list() == sorted(ids)
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("video_id", "url", "reason", "shown"),
    [
        ("", "", NO_VIDEO_ID, ""),
        ("", "https://www.youtube.com/feed/trending", NO_VIDEO_ID, ""),
        ("  ", "x", NO_VIDEO_ID, ""),
        ("../x", "https://youtu.be/a1B2c3D4e5F", BAD_VIDEO_ID, "../x"),
        ("a/b", "u", BAD_VIDEO_ID, "a/b"),
        ("a" * 65, "u", BAD_VIDEO_ID, "a" * 65),
        ("a\x00b", "u", BAD_VIDEO_ID, "a\x00b"),
        ("a\nb", "u", BAD_VIDEO_ID, "a\nb"),
        ("é", "u", BAD_VIDEO_ID, "é"),
        # A piece of a hostile id would be the id of another clip.
        ("", "https://youtu.be/abc%2F..%2Fx", BAD_VIDEO_ID, "abc%2F..%2Fx"),
        ("", "https://www.youtube.com/watch?v=abc.def", BAD_VIDEO_ID, "abc.def"),
        ("", "https://www.youtube.com/shorts/../x", BAD_VIDEO_ID, ".."),
        ("", "https://youtu.be/" + "a" * 65, BAD_VIDEO_ID, "a" * 65),
    ],
)
def test_a_row_without_a_usable_id_is_skipped_and_told(video_id, url, reason, shown):
    found = latest_of(("good", "u", NOON), (video_id, url, NOON), ("good2", "u", NOON))
    assert found.rows["video_id"].to_list() == ["good", "good2"]
    assert found.skipped == (SkippedRow(reason, 2, shown, url),)
    assert found.skip_counts() == {reason: 1}


def test_a_row_with_fewer_fields_is_skipped_however_few_it_lacks():
    whole = write(("aaa", "u", NOON)).rstrip()
    for cut in (
        "bbb",
        "bbb,u",
        f"bbb,u,{NOON}",
        f"bbb,u,{NOON},t,d",
        f",https://youtu.be/x,{NOON}",
    ):
        found = latest_rows(
            read_horizon_csv(whole + f"\r\n{cut}\r\nccc,u,{NOON},t,d,\r\n".encode())
        )
        assert found.rows["video_id"].to_list() == ["aaa", "ccc"]
        assert found.skip_counts() == {SHORT_ROW: 1}
        fields = [*cut.split(","), ""]
        assert found.skipped[0] == SkippedRow(SHORT_ROW, 2, fields[0], fields[1])


def test_a_line_break_without_quotes_ends_the_row():
    data = b"video_id,url,captured_at,title,description,query\naaa,u,2026-02-05,a\rb,d,q\n"
    assert latest_rows(read_horizon_csv(data)).skip_counts() == {SHORT_ROW: 2}


def test_a_short_row_does_not_replace_a_whole_one():
    later = write(("aaa", "u", NOON)) + b"aaa,changed,2027-01-01T00:00:00Z\n"
    found = latest_rows(read_horizon_csv(later))
    assert (found.rows["url"].to_list(), found.superseded) == (["u"], 0)


# --- capture times


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2026-02-05T17:34:41.595562+00:00", "2026-02-05"),
        ("2026-02-05T17:34:41Z", "2026-02-05"),
        ("2026-02-05 17:34:41", "2026-02-05"),
        ("2026-02-05", "2026-02-05"),
        (" 2026-02-05T00:00:00Z ", "2026-02-05"),
        # The day is the one in UTC.
        ("2026-02-06T05:29:59.999999+05:30", "2026-02-05"),
        ("2026-02-06T05:30:00+05:30", "2026-02-06"),
        ("2026-02-05T15:59:59-08:00", "2026-02-05"),
        ("2026-02-05T16:00:00-08:00", "2026-02-06"),
        ("2025-12-31T16:00:00-08:00", "2026-01-01"),
    ],
)
def test_the_date_is_the_utc_day(text, date):
    rows = latest_of(("aaa", "u", text)).rows
    assert rows["date"].to_list() == [date]
    assert rows["captured_at"].to_list() == [text]  # as written: it is a part of the identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-02-30T00:00:00Z",
        "2026-02-05T25:00:00Z",
        "1770312881",
        "nan",
        "\x00",
        # Outside of what a timestamp in UTC can hold.
        "0001-01-01T00:00:00+05:30",
        "9999-12-31T23:59:59-08:00",
    ],
)
def test_what_is_no_timestamp(text):
    assert parse_captured_at(text) is None
    found = latest_of(("aaa", "u1", text))
    assert found.rows.height == 0
    assert found.skipped == (SkippedRow(NO_CAPTURE_DATE, 1, "aaa", "u1"),)
    # It loses, wherever it stands, to one that can be parsed.
    for rows in (
        [("aaa", "bad", text), ("aaa", "good", "1999-01-01")],
        [("aaa", "good", "1999-01-01"), ("aaa", "bad", text)],
    ):
        found = latest_of(*rows)
        assert found.rows["url"].to_list() == ["good"]
        assert (found.skipped, found.superseded) == ((), 1)


def test_timestamps_without_a_zone_are_utc_and_counted():
    assert parse_captured_at("2026-02-05T10:00:00") == datetime(2026, 2, 5, 10, tzinfo=UTC)
    found = latest_of(
        ("aaa", "utc", "2026-02-05T10:00:00+00:00"),
        ("aaa", "naive", "2026-02-05T10:00:01"),
        ("bbb", "earlier", "2026-02-05T23:00:00-08:00"),
        ("bbb", "naive", "2026-02-06"),
        ("../", "u", "2026-02-06"),
    )
    assert found.rows["url"].to_list() == ["naive", "earlier"]
    assert found.naive_timestamps == 2  # of rows that count at all


def test_the_greatest_moment_wins_whatever_its_spelling():
    spelled = [
        ("aaa", "first", "2026-02-05T23:00:00Z"),
        ("aaa", "latest", "2026-02-05T20:00:00-08:00"),
        ("aaa", "second", "2026-02-06T05:00:00+05:30"),
    ]
    for rows in (spelled, spelled[::-1]):
        found = latest_of(*rows)
        assert found.rows["url"].to_list() == ["latest"]
        assert found.rows["date"].to_list() == ["2026-02-06"]
        assert found.superseded == 2


def test_on_a_tie_the_later_row_in_the_file_wins():
    # The same moment in three spellings, then two that are none.
    found = latest_of(
        ("aaa", "1", "2026-02-05T10:00:00Z"),
        ("aaa", "2", "2026-02-05T02:00:00-08:00"),
        ("aaa", "3", "2026-02-05T10:00:00.000000+00:00"),
        ("aaa", "4", "?"),
        ("bbb", "5", "?"),
        ("bbb", "6", ""),
    )
    assert found.rows.select("url", "csv_row").rows() == [("3", 3)]
    assert found.skipped == (SkippedRow(NO_CAPTURE_DATE, 6, "bbb", "6"),)


# --- identity


def test_source_hash_formulas():
    url = "https://www.youtube.com/watch?v=a1B2c3D4e5F"
    # By sha256sum.
    alone = "dab1522aa0161867ff4985ec98e44cf422bdda5f33e2ffba8c3fec87cabec841"
    at_noon = "15d3319c99f2ececfc495fe87b90fca506ba12f150bf4c3a64cecf1d98bdb84f"
    assert source_hash(url) == source_hash(f"  {url}\n") == alone
    assert source_hash(url, NOON) == source_hash(f" {url} ", NOON) == at_noon
    assert source_hash(url, "") == hashlib.sha256(f"{url}|".encode()).hexdigest()
    assert source_hash("") == hashlib.sha256(b"").hexdigest()
    assert source_hash("होली") == hashlib.sha256("होली".encode()).hexdigest()


def test_the_capture_time_counts_into_the_hash_on_request_as_written():
    written = "2026-02-06T05:29:59+05:30"
    row = ("aaa", " u ", written)
    assert latest_of(row).rows["source_hash"].to_list() == [hashlib.sha256(b"u").hexdigest()]
    dated = latest_of(row, include_captured_at_in_hash=True).rows["source_hash"].to_list()
    assert dated == [hashlib.sha256(f"u|{written}".encode()).hexdigest()]


# --- the whole


URLS = (
    "https://www.youtube.com/watch?v=aaa",
    "https://www.youtube.com/shorts/-bb",
    "https://youtu.be/_cc?si=1",
    " https://www.youtube.com/embed/aaa ",
    "https://www.youtube.com/feed",
    "https://youtu.be/a%20b",
    "",
)
TIMES = (
    "2026-02-05T23:59:59+00:00",
    "2026-02-05T15:59:59-08:00",
    "2026-02-06T05:30:00+05:30",
    "2026-02-06",
    "2026-02-05T23:59:59.5Z",
    "soon",
    "",
)


def plainly(data, with_time):
    """The facts page's rules over `csv.DictReader`: clips, and skipped rows as (reason, row)."""
    clips, skipped = {}, []
    for number, row in enumerate(csv.DictReader(io.StringIO(data.decode(), newline="")), 1):
        if None in row.values():
            skipped.append(("short_row", number))
            continue
        video_id = row["video_id"].strip()
        if not video_id:
            for mark in ("watch?v=", "/shorts/", "/embed/", "/v/", "youtu.be/"):
                if mark in row["url"]:
                    video_id = re.split(r"[?&#/\s]", row["url"].split(mark)[1])[0]
                    break
        if not re.fullmatch("[A-Za-z0-9_-]{1,64}", video_id):
            skipped.append(("bad_video_id" if video_id else "no_video_id", number))
            continue
        try:
            moment = datetime.fromisoformat(row["captured_at"])
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            moment = float("-inf")
        clips.setdefault(video_id, []).append((moment, number, row))
    expected = []
    for video_id, seen in sorted(clips.items()):
        moment, number, row = max(seen, key=lambda entry: entry[:2])
        if moment == float("-inf"):
            skipped.append(("no_capture_date", number))
            continue
        text = row["url"].strip() + (f"|{row['captured_at']}" if with_time else "")
        date = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
        expected.append(
            {
                "video_id": video_id,
                "source_hash": hashlib.sha256(text.encode()).hexdigest(),
                "captured_at": row["captured_at"],
                "date": date,
                **{name: row[name] for name in ("url", "title", "description", "query")},
                "csv_row": number,
            }
        )
    return expected, skipped


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["", "aaa", "-bb", "_cc", " aaa ", "../x"]),
            st.sampled_from(URLS),
            st.sampled_from(TIMES),
            st.text('a"\n,🥰', max_size=4),
            st.integers(0, 20),
        ),
        max_size=12,
    ),
    with_time=st.booleans(),
)
def test_equals_the_rules_applied_row_by_row(rows, with_time):
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for video_id, url, captured_at, title, fields in rows:
        writer.writerow([video_id, url, captured_at, title, "d", "q"][: fields or 3])
    data = text.getvalue().encode()

    found = latest_rows(read_horizon_csv(data), include_captured_at_in_hash=with_time)

    expected, skipped = plainly(data, with_time)
    assert found.rows.to_dicts() == expected
    assert [(row.reason, row.csv_row) for row in found.skipped] == skipped
    # Every row is accounted for.
    assert found.rows.height + len(found.skipped) + found.superseded == len(rows)


def test_rows_have_the_columns_of_the_clip_index():
    for found in (latest_of(("aaa", "u", NOON)), latest_of()):
        assert found.rows.columns == CLIP_INDEX.names
        assert found.rows.to_arrow().cast(CLIP_INDEX).schema.equals(CLIP_INDEX)
        assert found.rows.schema["csv_row"] == pl.Int64


def test_skip_table_is_the_first_rows_as_records():
    found = latest_of(*(("", f"u{k}", NOON) for k in range(60)))
    table = skip_table(found.skipped)
    assert len(table) == 50
    assert table[0] == {"reason": "no_video_id", "csv_row": 1, "video_id": "", "url": "u0"}
    assert skip_table(found.skipped, limit=2) == table[:2]
    assert found.skip_counts() == {"no_video_id": 60}
