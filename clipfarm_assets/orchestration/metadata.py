"""What the UI shows of a stage: counts, rates, samples, previews."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa

from clipfarm_assets.pipelines.problems import ProblemCounts
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.split_changes import SplitChanges

Metadata = dict[str, Any]

_PREVIEW_ROWS = 10
_CELL = 80
_MOVED_SHOWN = 20


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
    if report.engine:
        metadata["engine"] = report.engine
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


def problems(found: ProblemCounts, prefix: str = "problem") -> Metadata:
    """A count a kind, and the first few of each in words."""
    samples = [
        {"kind": kind, "what": what} for kind, some in found.samples.items() for what in some
    ]
    return {
        f"{prefix}s": sum(found.counts.values()),
        **{f"{prefix}/{kind}": n for kind, n in found.counts.items()},
        f"{prefix}_samples": records(samples),
    }


def counts_by(name: str, found: Mapping[Any, Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A row a key: the key under `name`, then its counts."""
    return records([{name: str(key), **counts} for key, counts in found.items()])


def split_changes(found: SplitChanges, noun: str) -> Metadata:
    """Sizes and groups of train, val and test, and what differs from before; `noun` in plural."""
    moved = [{"id": i, "was": was, "is": now} for i, (was, now) in found.moved.items()]
    return {
        "dagster/row_count": sum(found.sizes.values()),
        **{f"{noun}/{split}": n for split, n in found.sizes.items()},
        "groups": found.groups,
        "largest_groups": records(
            [{"group": name, noun: n} for name, n in found.largest_groups.items()]
        ),
        "kept": found.kept,
        "new": found.new,
        "moved": len(found.moved),
        f"moved_{noun}": records(moved[:_MOVED_SHOWN]),
        "removed": found.removed,
        "returned": found.returned,
    }


def flat(prefix: str, fields: Mapping[str, Any]) -> Metadata:
    """Records of records as one entry a field; empty ones are left out."""
    return {
        f"{prefix}/{name}/{field}": rounded(value)
        for name, nested in fields.items()
        if nested
        for field, value in nested.items()
        if value != ""
    }


def with_interval(interval: Any) -> str:
    """A `classification.confidence.Interval` in words."""
    if interval.value is None:
        return "n/a"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _cell(value: Any) -> str | int | float | bool:
    if isinstance(value, (bool, int, float)):
        return value
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
