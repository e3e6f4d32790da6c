"""From the metadata CSV to the latest row of every clip, by date."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class ClipIndex:
    """The index of the asked dates, and what was found on the way.

    Attributes:
        by_date: Date -> table of `CLIP_INDEX`; the skip counts are in the table's own metadata.
        csv: The file as read.
        latest: All clips, of any date, and the rows that are none.
        before_first: Clips captured before the first partition, by date: no partition has them.
        earliest: The date of the first of these.
    """

    by_date: dict[str, pa.Table]
    csv: HorizonCsv
    latest: LatestRows
    before_first: tuple[SkippedRow, ...]
    earliest: str | None

    def skip_counts(self) -> dict[str, int]:
        """Number of rows and clips in no partition, by reason."""
        return dict(Counter(row.reason for row in (*self.latest.skipped, *self.before_first)))

    def skipped_rows(self) -> list[dict[str, str | int]]:
        """The first of them as plain records."""
        # Each kind by itself: many of one must not hide the other.
        return skip_table(self.latest.skipped) + skip_table(self.before_first)


def build_index(
    deployment: Deployment,
    dates: Iterable[str],
    *,
    first_date: str | None = None,
    include_captured_at_in_hash: bool = False,
) -> ClipIndex:
    """Read the CSV once and index the clips of `dates` (ISO, UTC).

    Args:
        deployment: Where the CSV is.
        dates: The partitions wanted.
        first_date: The first partition there is; clips captured before it are counted as skipped.
        include_captured_at_in_hash: Make the capture time a part of `source_hash`.

    Raises:
        FileNotFoundError: The store has no metadata CSV at the configured key.
        HorizonCsvError: It is no metadata CSV.
    """
    key = deployment.layout.metadata()
    csv = read_horizon_csv(deployment.store.get(key), key)
    latest = latest_rows(csv, include_captured_at_in_hash=include_captured_at_in_hash)
    early = latest.rows.filter(pl.col("date") < (first_date or "")).sort("date", "video_id")
    before_first = tuple(
        SkippedRow(BEFORE_FIRST_PARTITION, row["csv_row"], row["video_id"], row["url"])
        for row in early.to_dicts()
    )
    index = ClipIndex({}, csv, latest, before_first, early["date"][0] if before_first else None)
    skips = {
        "clipfarm.skipped": json.dumps(index.skip_counts(), sort_keys=True),
        "clipfarm.skipped_rows": json.dumps(index.skipped_rows(), sort_keys=True),
        "clipfarm.superseded_rows": str(latest.superseded),
    }
    by_date = {
        date: latest.rows.filter(pl.col("date") == date)
        .to_arrow()
        .cast(CLIP_INDEX)
        .replace_schema_metadata(skips)
        for date in dates
    }
    return replace(index, by_date=by_date)
