import csv
import io
from collections import Counter
from datetime import UTC, datetime

import polars as pl
import pytest

from clipfarm_assets.contracts.horizon_csv import COLUMNS
from clipfarm_assets.demo.edge_cases import DATES
from clipfarm_assets.demo.horizon_csv import OLDER_COLUMNS, iso_duration, older_csv, to_csv
from clipfarm_assets.demo.plan import plan_sample
from clipfarm_assets.demo.stray_rows import EXPECTED_CSV_SKIPS, STRAY_ROWS


def parsed(data):
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


@pytest.fixture(scope="module")
def rows():
    return parsed(to_csv(plan_sample().rows()))


def test_all_columns_in_order_and_every_row_full(rows):
    header, *lines = csv.reader(io.StringIO(to_csv(plan_sample().rows()).decode(), newline=""))
    assert tuple(header) == COLUMNS
    assert len(header) == 70
    assert {len(line) for line in lines} == {70}
    # Every column is filled somewhere: no name is misspelled in the rows.
    assert all(any(row[column] for row in rows) for column in COLUMNS)


def test_python_and_polars_read_the_values_that_were_written(rows):
    written = plan_sample().rows()
    table = pl.read_csv(to_csv(written), infer_schema=False)
    assert table.columns == list(COLUMNS)
    for row, read, frame in zip(written, rows, table.iter_rows(named=True), strict=True):
        expected = {column: str(row[column]) for column in COLUMNS}
        assert read == expected
        assert {column: value or "" for column, value in frame.items()} == expected


def plain_latest(rows):
    """The facts page's rule, read aloud: (winning row by id)."""
    latest = {}
    for row in rows:
        video_id = row["video_id"] or row["url"].rsplit("/", 1)[-1].removeprefix("watch?v=")
        try:
            moment = datetime.fromisoformat(row["captured_at"])
        except ValueError:
            moment = datetime.min.replace(tzinfo=UTC)
        if video_id not in latest or moment >= latest[video_id][0]:
            latest[video_id] = (moment, row)
    return {video_id: row for video_id, (_, row) in latest.items()}


def test_the_plan_knows_each_clips_day_and_winning_url(rows):
    latest = plain_latest(rows)
    clips = plan_sample().clips
    for clip in clips:
        row = latest[clip.video_id]
        assert row["captured_at"][:10] == clip.date
        assert row["url"].strip() == clip.url
    assert Counter(clip.date for clip in clips) == dict.fromkeys(DATES, 20)


def test_hard_rows_are_what_they_claim(rows):
    def of(video_id):
        return [row for row in rows if video_id in (row["video_id"], row["url"][-11:])]

    same = of("recaptured0")
    assert [row["captured_at"][:10] for row in same] == ["2026-01-12", "2026-02-06", "2026-02-05"]
    assert len({row["url"] for row in same}) == 1

    moved = of("recaptured1")
    assert [row["captured_at"][:10] for row in moved] == ["2026-01-12", "2026-02-05", "2026-02-07"]
    assert moved[1]["url"] != moved[2]["url"]
    assert float(moved[2]["age_days"]) > float(moved[1]["age_days"]) == 30.2
    assert int(moved[2]["view_count"]) > int(moved[1]["view_count"])

    tie = of("sameMoment0")[-2:]
    assert tie[0]["captured_at"] == tie[1]["captured_at"]
    assert tie[0]["url"] != tie[1]["url"]

    unreadable = of("unreadable0")[-1]
    with pytest.raises(ValueError, match="Invalid isoformat"):
        datetime.fromisoformat(unreadable["captured_at"])

    assert all(row["video_id"] == "" for row in of("idOnlyInUrl"))
    assert of("paddedUrl00")[0]["url"] == "  https://www.youtube.com/watch?v=paddedUrl00 "
    assert {row["like_count"] for row in of("hiddenLikes")} == {""}
    assert {row["likes_hidden"] for row in of("hiddenLikes")} == {"True"}


def test_quirks_of_real_rows_occur(rows):
    for column in ("description", "channel_country", "default_language", "like_count"):
        assert 0 < sum(row[column] == "" for row in rows) < len(rows), column
    empty_last = sum(row["channel_median_shorts_view_count"] == "" for row in rows)
    assert len(rows) / 2 < empty_last < len(rows)
    assert Counter(row["horizon_days"] for row in rows).keys() == {"7", "30"}
    only_early = Counter(row["video_id"] for row in rows).values()
    assert 1 in only_early  # the later label isn't known of every clip
    assert {row["is_short"] for row in rows} == {"True"}
    assert any(row["url"].startswith("https://youtu.be/") for row in rows)
    assert any("/shorts/" in row["url"] for row in rows)
    assert any("/embed/" in row["url"] for row in rows)
    assert any("/v/" in row["url"] for row in rows)


def test_labels_are_the_planted_views(rows):
    by_id = {clip.video_id: clip for clip in plan_sample().clips}
    checked = 0
    for row in rows:
        if row["video_id"] in by_id:
            views = by_id[row["video_id"]].views.at(int(row["horizon_days"]))
            assert int(row["horizon_view_count"]) == views
            checked += 1
    assert checked > 100


def test_strays_are_counted_as_stated_and_are_in_the_file(rows):
    assert Counter(stray.reason for stray in STRAY_ROWS) == EXPECTED_CSV_SKIPS
    written = Counter((row["video_id"], row["url"]) for row in rows)
    assert all(written[stray.video_id, stray.url] == 1 for stray in STRAY_ROWS)
    known = {clip.video_id for clip in plan_sample().clips}
    assert known.isdisjoint(stray.video_id for stray in STRAY_ROWS)


def test_an_older_file_lacks_the_newest_columns():
    clips = plan_sample().clips[:5]
    older = parsed(older_csv(clips))
    assert tuple(older[0]) == OLDER_COLUMNS
    assert set(COLUMNS) - set(OLDER_COLUMNS) >= {
        "virality_score", "horizon_label_type", "channel_median_shorts_view_count",
    }  # fmt: skip
    assert [row["video_id"] for row in older] == [clip.video_id for clip in clips]
    assert {row["captured_at"][:4] for row in older} == {"2025"}


@pytest.mark.parametrize(("seconds", "text"), [(18, "PT18S"), (60, "PT1M0S"), (61, "PT1M1S")])
def test_durations_are_written_as_the_platform_does(seconds, text):
    assert iso_duration(seconds) == text
