"""The labelled rows of one horizon: the latest of every clip, with the views it tells."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.horizon_csv import HorizonCsvError, latest_rows, read_horizon_csv
from clipfarm_assets.contracts.horizons import HORIZONS, Horizon
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import read_metadata

_LABEL_COLUMNS: Final = ("horizon_days", "horizon_view_count")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class NoRowsAtHorizon(ValueError):  # noqa: N818 - a state of the deployment
    """No row of the metadata CSV is labelled at the horizon asked for."""


@dataclass(frozen=True)
class LabelledRows:
    """N clips with a label, sorted by video_id.

    Attributes:
        video_ids: As the rules of the CSV give them: from the url where the column is empty.
        source_hash: Of the rows' urls.
        rows: ``(N,)`` rows: the columns of the CSV, as text.
        target_raw: float64 ``(N,)``: views at the horizon.
        counts: What was left out or taken for something else, by reason.
        sha256: Of the CSV.
    """

    video_ids: list[str]
    source_hash: list[str]
    rows: pl.DataFrame
    target_raw: NDArray[np.float64]
    counts: Mapping[str, int]
    sha256: str

    def take(self, positions: NDArray[np.intp]) -> "LabelledRows":
        """The clips at these positions, in this order."""
        return replace(
            self,
            video_ids=[self.video_ids[i] for i in positions],
            source_hash=[self.source_hash[i] for i in positions],
            rows=self.rows[positions],
            target_raw=self.target_raw[positions],
        )


def labelled_rows(
    deployment: Deployment, horizon: Horizon, *, include_captured_at_in_hash: bool = False
) -> LabelledRows:
    """Read the CSV once and pick the horizon's latest row of every clip.

    Missing views count as 0 (source: the deployed pipeline's record). Views that are there but are
    no number, or negative, are no label: such a row is left out and counted; an earlier row of its
    clip doesn't replace it.

    Raises:
        NoMetadata: There is no CSV.
        HorizonCsvError: It is none, or has no labels at all.
        NoRowsAtHorizon: It has none of this horizon.
    """
    key = deployment.layout.metadata()
    data = read_metadata(deployment)
    csv = read_horizon_csv(data, key)
    lacking = [name for name in _LABEL_COLUMNS if name in csv.missing_columns]
    if lacking:
        msg = (
            f"{key} must have the columns {' and '.join(_LABEL_COLUMNS)} to train on: "
            f"{', '.join(lacking)} not found; collect labels, or set CLIPFARM_METADATA_KEY to a "
            "file that has them"
        )
        raise HorizonCsvError(msg)
    days = [horizon_of_row(text) for text in csv.rows["horizon_days"]]
    at_horizon = np.array([day == horizon for day in days], dtype=np.bool_)
    counts = Counter(
        csv_rows=len(days),
        horizon_missing=days.count("missing"),
        horizon_unparsable=days.count("unparsable"),
    )
    counts["other_horizon"] = (
        len(days)
        - int(at_horizon.sum())
        - sum(counts[name] for name in ("horizon_missing", "horizon_unparsable"))
    )
    if not at_horizon.any():
        there = {h: days.count(h) for h in HORIZONS if h in days}
        found = ", ".join(f"{n} at {h} days" for h, n in there.items()) or "none at any horizon"
        msg = (
            f"{key} must have rows with horizon_days {horizon} to train on: found {found} among "
            f"{len(days)} rows; wait until clips are old enough, or train another horizon"
        )
        raise NoRowsAtHorizon(msg)
    of_horizon = replace(csv, rows=csv.rows.filter(pl.Series(at_horizon)))
    latest = latest_rows(of_horizon, include_captured_at_in_hash=include_captured_at_in_hash)
    counts.update(latest.skip_counts())
    counts["superseded_rows"] = latest.superseded
    counts["naive_timestamps"] = latest.naive_timestamps
    found_rows = LabelledRows(
        video_ids=latest.rows["video_id"].to_list(),
        source_hash=latest.rows["source_hash"].to_list(),
        rows=of_horizon.rows[(latest.rows["csv_row"] - 1).to_numpy()],
        target_raw=np.zeros(len(latest.rows)),
        counts={},
        sha256=hashlib.sha256(data).hexdigest(),
    )
    target = np.array([_views(text, counts) for text in found_rows.rows["horizon_view_count"]])
    kept = np.flatnonzero(~np.isnan(target))
    labelled = replace(found_rows, target_raw=target, counts=dict(counts)).take(kept)
    if not len(kept):
        msg = (
            f"{key} has {int(at_horizon.sum())} rows with horizon_days {horizon}, but none of them "
            f"is a clip with a label ({_told(counts)}); mend the file"
        )
        raise NoRowsAtHorizon(msg)
    return labelled


@lru_cache(maxsize=1024)  # a column of two or three values
def horizon_of_row(text: str | None) -> Horizon | str | None:
    """The horizon of a row; ``missing``, ``unparsable``, or None for another horizon."""
    stripped = (text or "").strip()
    if not stripped:
        return "missing"
    if not _NUMBER.fullmatch(stripped):
        return "unparsable"
    return next((horizon for horizon in HORIZONS if float(stripped) == horizon), None)


def _views(text: str, counts: Counter[str]) -> float:
    """The label in views; NaN for one that is none."""
    stripped = text.strip()
    if not stripped:
        counts["views_missing"] += 1
        return 0.0
    views = float(stripped) if _NUMBER.fullmatch(stripped) else math.nan
    if not math.isfinite(views):
        counts["views_unparsable"] += 1
        return math.nan
    if views < 0:
        counts["views_negative"] += 1
        return math.nan
    return views


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()) if n)
