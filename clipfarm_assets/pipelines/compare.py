"""All models of a run side by side, and the jobs that are missing."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import polars as pl

from clipfarm_assets.contracts.horizons import HORIZONS, Horizon
from clipfarm_assets.contracts.statuses import STRATEGIES, Strategy
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.config import RANK_METRICS, RankMetric
from clipfarm_assets.training.families import FAMILIES, FamilyName
from clipfarm_assets.training.metrics import rank_key
from clipfarm_assets.training.snapshot_reader import Snapshot, snapshots_of_run

Row = dict[str, Any]

_PARTS: Final = ("val", "test")
_SCHEMA: Final[dict[str, Any]] = {
    "rank": pl.Int64,
    "horizon_days": pl.Int64,
    "strategy": pl.String,
    "family": pl.String,
    "snapshot": pl.String,
    **{f"{part}_{metric}": pl.Float64 for part in _PARTS for metric in RANK_METRICS},
}


@dataclass(frozen=True)
class Comparison:
    """The models of one run.

    Attributes:
        run_id: Which.
        metric: What they are ranked by, on val.
        rows: One a model, by horizon and then best first: ``rank`` within the horizon,
            ``horizon_days, strategy, family, snapshot`` (its folder), and ``val_<metric>`` and
            ``test_<metric>`` for every metric.
        missing: Jobs that were asked for and that no snapshot of the run has: ``family, strategy,
            horizon_days``.
        files: Keys of what was written.
    """

    run_id: str
    metric: RankMetric
    rows: tuple[Row, ...]
    missing: tuple[Row, ...]
    files: tuple[str, ...]

    @property
    def best(self) -> tuple[Row, ...]:
        """The best row of each horizon."""
        return _best(self.rows)


def compare(
    store: ObjectStore,
    layout: Layout,
    run_id: str,
    metric: RankMetric = "mae_log",
    families: Sequence[FamilyName] = FAMILIES,
    strategies: Sequence[Strategy] = STRATEGIES,
    horizons: Sequence[Horizon] = HORIZONS,
) -> Comparison:
    """Compare every model of a run's snapshots, all-model and single-model ones, and write that.

    What is written is a function of the snapshots there are; a later call replaces it.

    Args:
        store: Where.
        layout: Where in it.
        run_id: Which run.
        metric: Ranks by its value on val; test is shown beside it.
        families: Of the jobs that should be there. What is there beyond is compared, too.
        strategies: Likewise.
        horizons: Likewise.

    Raises:
        NoSnapshot: The run has none; names runs that there are.
        BadSnapshot: One has files that are not as published.
    """
    snapshots = snapshots_of_run(store, layout, run_id)
    models = [row for snapshot in snapshots for row in _models(snapshot)]
    rows = _ranked(models, metric)
    there = {(row["family"], row["strategy"], row["horizon_days"]) for row in rows}
    missing = tuple(
        {"family": family, "strategy": strategy, "horizon_days": horizon}
        for horizon, strategy, family in product(horizons, strategies, families)
        if (family, strategy, horizon) not in there
    )
    best = {by: _best_by(run_id, _ranked(models, by), by) for by in RANK_METRICS}
    table = {
        "run_id": run_id,
        "rank_metric": f"val_{metric}",
        "models": rows,
        "best": best[metric],
        "missing_jobs": missing,
    }
    written = {
        layout.comparison(run_id, name): data
        for name, data in {
            "metrics_comparison.json": _json(table),
            "metrics_comparison.csv": pl.DataFrame(rows, _SCHEMA).write_csv().encode(),
            **{f"best_by_{by}.json": _json(found) for by, found in best.items()},
            "missing_jobs.json": _json(missing),
        }.items()
    }
    for key, data in written.items():
        store.put(key, data)
    return Comparison(run_id, metric, rows, missing, tuple(written))


def _models(snapshot: Snapshot) -> Iterator[Row]:
    """One row a model of the snapshot."""
    for family in snapshot.families:
        row: Row = {
            "horizon_days": snapshot.id.horizon,
            "strategy": snapshot.id.strategy,
            "family": family,
            "snapshot": snapshot.id.root(snapshot.layout),
        }
        for part in _PARTS:
            scores = snapshot.scores(family, part)
            row |= {f"{part}_{metric}": scores.get(metric) for metric in RANK_METRICS}
        yield row


def _ranked(rows: Sequence[Row], metric: RankMetric) -> tuple[Row, ...]:
    """By horizon, then best first; equal ones by name."""
    key = rank_key(metric)
    ranked: list[Row] = []
    for horizon in sorted({row["horizon_days"] for row in rows}):
        of_horizon = sorted(
            (row for row in rows if row["horizon_days"] == horizon),
            key=lambda row: (key(row[f"val_{metric}"]), row["strategy"], row["family"]),
        )
        ranked += [{"rank": rank, **row} for rank, row in enumerate(of_horizon, start=1)]
    return tuple(ranked)


def _best(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row["rank"] == 1)


def _best_by(run_id: str, rows: Sequence[Row], metric: RankMetric) -> dict[str, Any]:
    """The best of each horizon: errors of different targets don't compare."""
    by_horizon = {str(row["horizon_days"]): row for row in _best(rows)}
    return {"run_id": run_id, "metric": f"val_{metric}", "by_horizon": by_horizon}


def _json(fields: Any) -> bytes:
    return (json.dumps(fields, indent=2, allow_nan=False) + "\n").encode()
