"""What the UI shows of a stage: counts, rates, samples, previews."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa

from clipfarm_assets.pipelines.report import StageReport

Metadata = dict[str, Any]

_PREVIEW_ROWS = 10
_CELL = 80


def stage_metadata(report: StageReport, standing: Mapping[str, int]) -> Metadata:
    """Counts by status with sample ids, why items were in the delta, throughput and its limits.

    Args:
        report: What the run did.
        standing: How all clips of the partition stand after it, by status.
    """
    samples = [
        {"status": status, "video_id": video_id, "why": _cell(why)}
        for status, found in sorted(report.samples.items())
        for video_id, why in found
    ]
    metadata: Metadata = {
        "clips": report.considered,
        **{f"all_clips/{status}": n for status, n in sorted(standing.items())},
        "worked_on": report.worked_on,
        "unchanged": report.unchanged,
        "seconds": round(report.seconds, 3),
        "clips_per_second": round(report.per_second, 3),
        **{f"this_run/{status}": n for status, n in sorted(report.statuses.items())},
        **{f"delta/{reason}": n for reason, n in sorted(report.reasons.items())},
        **{f"total/{name}": n for name, n in sorted(report.totals.items())},
    }
    if report.version:
        metadata["version"] = report.version
    if report.equivalence:
        metadata["precision"] = report.equivalence
    if report.computed:
        metadata["computed"] = report.computed
    if report.roofline:
        metadata["roofline"] = records(report.roofline.records())
        metadata["bound_by"] = report.roofline.sentence()
    if samples:
        metadata["samples"] = records(samples)
    return metadata


def preview(table: pa.Table, columns: Sequence[str] | None = None) -> dg.TableMetadataValue:
    """The first rows of a table."""
    shown = table.select(columns) if columns else table
    return records(shown.slice(0, _PREVIEW_ROWS).to_pylist())


def frame(rows: pl.DataFrame) -> dg.TableMetadataValue:
    """A short table as a whole, its numbers to four digits."""
    return records([{n: rounded(v) for n, v in row.items()} for row in rows.to_dicts()])


def rounded(value: Any) -> Any:
    """A number to four significant digits; None as ``n/a``; anything else as it is."""
    if value is None:
        return "n/a"
    return float(f"{value:.4g}") if isinstance(value, float) else value


def records(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Records as a table; long cells end in an ellipsis."""
    if not rows:
        return dg.MetadataValue.table([], dg.TableSchema(columns=[]))
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows]
    )


def _cell(value: Any) -> str | int | float | bool:
    if isinstance(value, (bool, int, float)):
        return value
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
