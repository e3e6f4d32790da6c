"""The metadata CSV: one row a (video, horizon) observation; and the latest row of every clip.

Rules (source: the deployed pipeline's record):

* an empty ``video_id`` is taken from the url; a row with neither is skipped and counted, and so is
  one with fewer fields than the header (a file cut off while it was written);
* the latest row of a clip has the greatest ``captured_at``; one that can't be parsed loses to one
  that can; on a tie the later row in the file wins;
* ``source_hash = sha256(url.strip())``, or of ``url.strip() + "|" + captured_at`` on request.
"""

import csv as csv_format
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import polars as pl

from clipfarm_assets.contracts.csv_columns import read_columns
from clipfarm_assets.storage.layout import BadVideoId, check_video_id

# fmt: off
COLUMNS: Final = (
    "video_id", "url", "query", "category_type", "collector_version", "captured_at", "channel_id",
    "channel_title", "channel_custom_url", "channel_country", "channel_created_at",
    "channel_description_length", "channel_subscriber_count", "channel_video_count",
    "channel_view_count", "channel_hidden_subscriber_count", "channel_age_days", "title",
    "description", "title_length", "description_length", "emoji_count", "has_hashtags",
    "has_shorts_hashtag", "has_clickbait_words", "hashtag_count", "published_at", "duration",
    "duration_seconds", "default_language", "default_audio_language", "dimension", "definition",
    "projection", "caption_available", "licensed_content", "thumbnail_url", "thumb_width",
    "thumb_height", "thumb_aspect_ratio", "is_vertical_thumb", "view_count", "like_count",
    "comment_count", "age_days", "views_per_day", "likes_per_day", "comments_per_day",
    "likes_per_view", "comments_per_view", "views_per_hour", "shorts_by_duration",
    "shorts_by_hashtag", "is_short", "topic_categories", "privacy_status", "upload_status",
    "embeddable", "license", "madeForKids", "publicStatsViewable", "likes_hidden",
    "comments_disabled", "stats_hidden", "too_new_for_rates", "virality_score", "horizon_days",
    "horizon_view_count", "horizon_label_type", "channel_median_shorts_view_count",
)
# fmt: on
REQUIRED: Final = ("video_id", "url", "captured_at", "title", "description", "query")

SHORT_ROW: Final = "short_row"
NO_VIDEO_ID: Final = "no_video_id"
BAD_VIDEO_ID: Final = "bad_video_id"
NO_CAPTURE_DATE: Final = "no_capture_date"

# Up to the next delimiter, not the next odd character: half of a hostile id is another clip's id.
_ID_IN_URL = re.compile(r"(?:[?&]v=|/shorts/|/embed/|/v/|youtu\.be/)([^?&#/\s]+)")


class HorizonCsvError(ValueError):
    """The file is not a metadata CSV: a structural fault that stops the run."""


@dataclass(frozen=True)
class HorizonCsv:
    """The file as read: every value a string, rows in file order.

    Attributes:
        rows: Columns of the file, all `pl.String`; empty values are empty strings, and null is what
            a row with fewer fields than the header lacks.
        missing_columns: Columns of the contract that this (older) file lacks.
        undeclared_columns: Columns of the file that the contract doesn't know.
    """

    rows: pl.DataFrame
    missing_columns: tuple[str, ...]
    undeclared_columns: tuple[str, ...]


@dataclass(frozen=True)
class SkippedRow:
    """A row or clip left out of the index: why, where, and what it said."""

    reason: str
    csv_row: int
    video_id: str
    url: str


@dataclass(frozen=True)
class LatestRows:
    """The latest row of every clip.

    Attributes:
        rows: One row a clip, sorted by video_id: ``video_id, source_hash, captured_at, date, url,
            title, description, query, csv_row``; ``date`` is the UTC day of ``captured_at``.
        skipped: What is not in `rows`, and why.
        superseded: Rows that lost to a later one of the same clip.
        naive_timestamps: Timestamps without a zone, which were read as UTC.
    """

    rows: pl.DataFrame
    skipped: tuple[SkippedRow, ...]
    superseded: int
    naive_timestamps: int

    def skip_counts(self) -> dict[str, int]:
        """Number of skipped rows by reason."""
        counts: dict[str, int] = {}
        for row in self.skipped:
            counts[row.reason] = counts.get(row.reason, 0) + 1
        return counts


def read_horizon_csv(data: bytes, name: str = "the metadata CSV") -> HorizonCsv:
    """Parse the CSV (UTF-8, RFC 4180 quoting), keeping every value as text.

    A byte order mark is left out, and so are blank lines: they are no rows.

    Raises:
        HorizonCsvError: Not UTF-8, not a table, a column is missing or there twice, or a row has
            more fields than the header, so that nobody can tell which field is whose.
    """
    rows = read_columns(data)
    if rows is None:
        rows = _read_rows(data, name)
    header = rows.columns
    _check_header(header, name)
    return HorizonCsv(
        rows=rows,
        missing_columns=tuple(column for column in COLUMNS if column not in header),
        undeclared_columns=tuple(column for column in header if column not in COLUMNS),
    )


def _read_rows(data: bytes, name: str) -> pl.DataFrame:
    """The rows of any file that is accepted, row by row; and of any other why it isn't."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        msg = f"{name} must be UTF-8: byte {error.start} is not; re-export it as UTF-8"
        raise HorizonCsvError(msg) from None
    header, *records = _records(text, name)
    _check_header(header, name)
    rows: list[Sequence[str | None]] = []
    for number, record in enumerate(records, start=1):
        if len(record) > len(header):
            msg = (
                f"{name}: row {number} has {len(record)} fields, the header has {len(header)}: a "
                "comma in one of them needs quotes around the field"
            )
            raise HorizonCsvError(msg)
        short = len(header) - len(record)
        rows.append([*record, *[None] * short] if short else record)
    return pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row")


def _records(text: str, name: str) -> list[list[str]]:
    """Header and rows as written, blank lines left out; at least the header.

    Python's reader, because polars' fills the fields that a short row lacks with empty strings.
    """
    reader = csv_format.reader(io.StringIO(text, newline=""), strict=True)
    records: list[list[str]] = []
    ended = 0
    try:
        for record in reader:
            if record:
                records.append(record)
            ended = reader.line_num
    except csv_format.Error as error:
        msg = (
            f"{name} can't be read as a CSV with RFC 4180 quoting: the row that begins in line "
            f"{ended + 1}: {error}"
        )
        raise HorizonCsvError(msg) from None
    if not records:
        msg = f"{name} is empty: expected a header with the columns {', '.join(REQUIRED)}"
        raise HorizonCsvError(msg)
    return records


def _check_header(header: Sequence[str], name: str) -> None:
    lacking = [column for column in REQUIRED if column not in header]
    if lacking:
        msg = (
            f"{name} must have the columns {', '.join(REQUIRED)}: {', '.join(lacking)} not found "
            f"among its {len(header)} columns; is it the right file?"
        )
        raise HorizonCsvError(msg)
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        msg = f"{name} must have every column once: found {', '.join(map(repr, repeated))} again"
        raise HorizonCsvError(msg)


def video_id_of(video_id: str, url: str) -> str:
    """The row's id: the column, or else the one in its url; empty if there is neither."""
    if video_id.strip():
        return video_id.strip()
    match = _ID_IN_URL.search(url)
    return match.group(1) if match else ""


def _is_video_id(video_id: str) -> bool:
    try:
        check_video_id(video_id)
    except BadVideoId:
        return False
    return True


def source_hash(url: str, captured_at: str | None = None) -> str:
    """Identity of a clip's source: sha256 in hex of the stripped url (and of the capture time)."""
    text = url.strip() if captured_at is None else f"{url.strip()}|{captured_at}"
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=2**16)  # the same column is read for order, age, features and splits
def parse_captured_at(text: str) -> datetime | None:
    """An ISO 8601 timestamp in UTC; taken as UTC if it has no zone; None if it is no timestamp."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def latest_rows(csv: HorizonCsv, *, include_captured_at_in_hash: bool = False) -> LatestRows:
    """The latest row of every clip, by the rules at the top of this module."""
    latest: dict[str, tuple[datetime | None, int]] = {}
    skipped: list[SkippedRow] = []
    superseded = naive = 0
    ids, urls, captured = (csv.rows[name].to_list() for name in ("video_id", "url", "captured_at"))
    # Fields are lost from the end of a row, so the last column tells whether it is whole.
    whole = csv.rows[csv.rows.columns[-1]].is_not_null().to_list()
    for index, (raw_id, url, text) in enumerate(zip(ids, urls, captured, strict=True)):
        if not whole[index]:
            skipped.append(SkippedRow(SHORT_ROW, index + 1, raw_id or "", url or ""))
            continue
        video_id = video_id_of(raw_id, url)
        if not _is_video_id(video_id):
            reason = BAD_VIDEO_ID if video_id else NO_VIDEO_ID
            skipped.append(SkippedRow(reason, index + 1, video_id, url))
            continue
        moment = parse_captured_at(text)
        naive += moment is not None and datetime.fromisoformat(text.strip()).tzinfo is None
        if video_id in latest:
            superseded += 1
            if not _wins(moment, latest[video_id][0]):
                continue
        latest[video_id] = (moment, index)

    chosen: list[tuple[str, datetime, int]] = []
    for video_id, (moment, index) in sorted(latest.items()):
        if moment is None:
            skipped.append(SkippedRow(NO_CAPTURE_DATE, index + 1, video_id, urls[index]))
        else:
            chosen.append((video_id, moment, index))
    picked = csv.rows[[index for _, _, index in chosen]]
    rows = pl.DataFrame(
        {
            "video_id": [video_id for video_id, _, _ in chosen],
            "source_hash": [
                source_hash(urls[i], captured[i] if include_captured_at_in_hash else None)
                for _, _, i in chosen
            ],
            "captured_at": picked["captured_at"],
            "date": [moment.date().isoformat() for _, moment, _ in chosen],
            "url": picked["url"],
            "title": picked["title"],
            "description": picked["description"],
            "query": picked["query"],
            "csv_row": [index + 1 for _, _, index in chosen],
        },
        schema=_LATEST_SCHEMA,
    )
    return LatestRows(rows, tuple(skipped), superseded, naive)


def _wins(challenger: datetime | None, holder: datetime | None) -> bool:
    if challenger is None:
        return holder is None
    return holder is None or challenger >= holder


_LATEST_SCHEMA: Final[Mapping[str, type[pl.DataType]]] = {
    "video_id": pl.String,
    "source_hash": pl.String,
    "captured_at": pl.String,
    "date": pl.String,
    "url": pl.String,
    "title": pl.String,
    "description": pl.String,
    "query": pl.String,
    "csv_row": pl.Int64,
}


def skip_table(skipped: Sequence[SkippedRow], limit: int = 50) -> list[dict[str, str | int]]:
    """The first `limit` skipped rows as plain records, for a report."""
    return [
        {"reason": s.reason, "csv_row": s.csv_row, "video_id": s.video_id, "url": s.url}
        for s in skipped[:limit]
    ]
