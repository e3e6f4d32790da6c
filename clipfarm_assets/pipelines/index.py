"""From the metadata CSV to the latest row of every clip, by date."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts.clip_tables import CLIP_INDEX
from clipfarm_assets.contracts.horizon_csv import (
    HorizonCsv,
    LatestRows,
    latest_rows,
    read_horizon_csv,
    skip_table,
)
from clipfarm_assets.pipelines.deployment import Deployment


@dataclass(frozen=True)
class ClipIndex:
    """The index of the asked dates, and what was found on the way.

    Attributes:
        by_date: Date -> table of `CLIP_INDEX`; the skip counts are in the table's own metadata.
        csv: The file as read.
        latest: All clips, of any date, and what was skipped.
    """

    by_date: dict[str, pa.Table]
    csv: HorizonCsv
    latest: LatestRows


def build_index(
    deployment: Deployment, dates: Iterable[str], *, include_captured_at_in_hash: bool = False
) -> ClipIndex:
    """Read the CSV once and index the clips of `dates` (ISO, UTC).

    Raises:
        FileNotFoundError: The store has no metadata CSV at the configured key.
        HorizonCsvError: It is no metadata CSV.
    """
    key = deployment.layout.metadata()
    csv = read_horizon_csv(deployment.store.get(key), key)
    latest = latest_rows(csv, include_captured_at_in_hash=include_captured_at_in_hash)
    skips = {
        "clipfarm.skipped": json.dumps(latest.skip_counts(), sort_keys=True),
        "clipfarm.skipped_rows": json.dumps(skip_table(latest.skipped), sort_keys=True),
        "clipfarm.superseded_rows": str(latest.superseded),
    }
    by_date = {
        date: latest.rows.filter(pl.col("date") == date)
        .to_arrow()
        .cast(CLIP_INDEX)
        .replace_schema_metadata(skips)
        for date in dates
    }
    return ClipIndex(by_date, csv, latest)
