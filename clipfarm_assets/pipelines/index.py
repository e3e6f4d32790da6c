"""From the metadata CSV to the latest row of every clip, by date."""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts.clip_tables import CLIP_INDEX
from clipfarm_assets.contracts.horizon_csv import (
    HorizonCsv,
    LatestRows,
    SkippedRow,
    latest_rows,
    read_horizon_csv,
    skip_table,
)
from clipfarm_assets.pipelines.deployment import Deployment

BEFORE_FIRST_PARTITION: Final = "before_first_partition"
AFTER_LAST_PARTITION: Final = "after_last_partition"
FORGOTTEN: Final = "forgotten"
SKIPPED_ROWS: Final = "clipfarm.skipped_rows"
"""Key of an index table's own metadata: the rows left out, as JSON records."""


class NoMetadata(FileNotFoundError):  # noqa: N818 - a state of the store
    """The store has no metadata CSV where it is looked for."""


@dataclass(frozen=True)
class ClipIndex:
    """The index of the asked dates, and what was found on the way.

    Attributes:
        by_date: Date -> table of `CLIP_INDEX`; the skip counts are in the table's own metadata.
        csv: The file as read.
        latest: All clips, of any date, and the rows that are none.
        before_first: Clips captured before the first partition, by date: no partition has them.
        earliest: The date of the first of these.
        after_last: Clips captured after the last partition, e.g. by a wrong clock.
        forgotten: How many clips are left out because they were removed for good. Nothing more is
            told of them.
    """

    by_date: dict[str, pa.Table]
    csv: HorizonCsv
    latest: LatestRows
    before_first: tuple[SkippedRow, ...]
    earliest: str | None
    after_last: tuple[SkippedRow, ...] = ()
    forgotten: int = 0

    def table(self, date: str) -> pa.Table:
        """One date's clips, table of `CLIP_INDEX`; what was skipped is in its own metadata."""
        rows = self.latest.rows.filter(pl.col("date") == date)
        return rows.to_arrow().cast(CLIP_INDEX).replace_schema_metadata(self._skips)

    @cached_property
    def _skips(self) -> dict[str, str]:
        return {
            "clipfarm.skipped": json.dumps(self.skip_counts(), sort_keys=True),
            SKIPPED_ROWS: json.dumps(self.skipped_rows(), sort_keys=True),
            "clipfarm.superseded_rows": str(self.latest.superseded),
        }

    def skip_counts(self) -> dict[str, int]:
        """Number of rows and clips in no partition, by reason."""
        rows = (*self.latest.skipped, *self.before_first, *self.after_last)
        counts = Counter(row.reason for row in rows)
        return dict(counts) | ({FORGOTTEN: self.forgotten} if self.forgotten else {})

    def skipped_rows(self) -> list[dict[str, str | int]]:
        """The first of them as plain records."""
        # Each kind by itself: many of one must not hide the other.
        kinds = (self.latest.skipped, self.before_first, self.after_last)
        return [record for kind in kinds for record in skip_table(kind)]


def build_index(
    deployment: Deployment,
    dates: Iterable[str],
    *,
    first_date: str | None = None,
    last_date: str | None = None,
    include_captured_at_in_hash: bool = False,
) -> ClipIndex:
    """Read the CSV once and index the clips of `dates` (ISO, UTC).

    Args:
        deployment: Where the CSV is.
        dates: The partitions wanted.
        first_date: The first partition there is; clips captured before it are counted as skipped.
        last_date: The last one; likewise.
        include_captured_at_in_hash: Make the capture time a part of `source_hash`.

    Raises:
        NoMetadata: The store has no metadata CSV at the configured key.
        HorizonCsvError: It is no metadata CSV.
    """
    key = deployment.layout.metadata()
    csv = read_horizon_csv(read_metadata(deployment), key)
    found = latest_rows(csv, include_captured_at_in_hash=include_captured_at_in_hash)
    latest = _without(found, deployment.forgotten())
    early = latest.rows.filter(pl.col("date") < (first_date or "")).sort("date", "video_id")
    late = latest.rows.filter(pl.col("date") > (last_date or "9999-12-31")).sort("date", "video_id")
    before_first, after_last = (
        tuple(
            SkippedRow(reason, row["csv_row"], row["video_id"], row["url"])
            for row in rows.to_dicts()
        )
        for reason, rows in ((BEFORE_FIRST_PARTITION, early), (AFTER_LAST_PARTITION, late))
    )
    earliest = early["date"][0] if before_first else None
    forgotten = found.rows.height - latest.rows.height
    index = ClipIndex({}, csv, latest, before_first, earliest, after_last, forgotten)
    return replace(index, by_date={date: index.table(date) for date in dates})


def _without(found: LatestRows, forgotten: Collection[str]) -> LatestRows:
    """What is left of the clips, and of what is told of rows that are none."""
    if not forgotten:
        return found
    kept = found.rows.filter(~pl.col("video_id").is_in(list(forgotten)))
    skipped = tuple(row for row in found.skipped if row.video_id not in forgotten)
    return replace(found, rows=kept, skipped=skipped)


def read_metadata(deployment: Deployment) -> bytes:
    """The metadata CSV's bytes.

    Raises:
        NoMetadata: There is none; says where it was looked for and what names the place.
    """
    key = deployment.layout.metadata()
    try:
        return deployment.store.get(key)
    except FileNotFoundError:
        first = next(iter(deployment.store.list(f"{deployment.layout.prefix}/")), None)
        there = f"but other objects, such as {first.key}" if first else "and holds nothing of ours"
        msg = (
            f"the store {deployment.store.url} must hold the metadata CSV at {key}: it does not, "
            f"{there}; set CLIPFARM_STORE to the right store, or CLIPFARM_METADATA_KEY to the key"
        )
        raise NoMetadata(msg) from None
