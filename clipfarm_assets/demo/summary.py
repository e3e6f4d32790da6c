"""What the demo prints at its end: everything a person would ask first, as tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.demo.declared import table
from clipfarm_assets.demo.edge_cases import EDGE_CASES
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.serving.registry import load_registry
from clipfarm_assets.training.snapshot_reader import open_snapshot


def of(
    deployment: Deployment, dates: Sequence[str], seconds: Mapping[str, Mapping[str, float]]
) -> tuple[str, bool]:
    """The summary, and whether every edge case became what it should.

    Args:
        deployment: The demo's.
        dates: Its dates.
        seconds: Time by job and step.
    """
    stages = [statuses.embedding_stage(m) for m in statuses.MODALITIES]
    stages += [statuses.fusion_stage(s) for s in statuses.STRATEGIES]
    states = {stage: deployment.ledger.rows(stage) for stage in stages}
    cases, as_expected = _edge_cases(states)
    parts = [
        "Items by stage and status\n" + _statuses(states),
        cases,
        "Fused\n" + _fused(deployment),
        *_models(deployment),
        f"Seconds a stage, {dates[0]} to {dates[-1]}\n" + _seconds(seconds),
    ]
    return "\n\n".join(parts), as_expected


def _statuses(states: Mapping[str, Mapping[str, Item]]) -> str:
    rows = [
        [stage, status, n]
        for stage, items in states.items()
        for status, n in sorted(Counter(item.status for item in items.values()).items())
    ]
    return table(rows, ["stage", "status", "clips"])


def _edge_cases(states: Mapping[str, Mapping[str, Item]]) -> tuple[str, bool]:
    rows, right = [], 0
    for case in EDGE_CASES:
        expected = [case.expected.embedding[m] for m in statuses.MODALITIES]
        expected.append(case.expected.fusion)
        stages = [statuses.embedding_stage(m) for m in statuses.MODALITIES]
        stages.append(statuses.fusion_stage(statuses.STRATEGIES[0]))
        found = [
            item.status if (item := states[stage].get(case.video_id)) else "(no row)"
            for stage in stages
        ]
        # A demo run often enough uses up the retries: terminal then, and still the same failure.
        same = [s.removesuffix("_terminal") for s in found] == expected
        right += same
        verdict = "" if same else f"expected {', '.join(expected)}"
        rows.append([case.name, *found, verdict])
    head = ["case", *statuses.MODALITIES, "fusion"]
    if right == len(rows):
        rows = [row[:-1] for row in rows]  # nothing to say in the last column
    else:
        head.append("differs")
    title = f"Edge cases: {right} of {len(rows)} as expected"
    return f"{title}\n{table(rows, head)}", right == len(rows)


def _fused(deployment: Deployment) -> str:
    rows = []
    for strategy in statuses.STRATEGIES:
        lock = load_lock(deployment, strategy)
        manifest = load_manifest(deployment, strategy)
        placeholders = pl.DataFrame(manifest.rows).filter(pl.col("text_present") == 0).height
        rows.append(
            [
                strategy,
                len(manifest.shards),
                manifest.rows.num_rows,
                placeholders,
                lock.fused_dim,
                lock.lock_version,
                " ".join(lock.embedding_versions[m] for m in statuses.MODALITIES),
            ]
        )
    head = ["strategy", "shards", "manifest rows", "placeholders", "dim", "lock", "versions"]
    return table(rows, head)


def _models(deployment: Deployment) -> list[str]:
    """The leaderboard of each promoted model's snapshot, and what serves."""
    store, layout = deployment.store, deployment.layout
    boards, serving = [], []
    for horizon in HORIZONS:
        version = load_registry(store, layout, horizon).serving
        snapshot = open_snapshot(store, layout, version.snapshot_id)
        board = pl.read_csv(snapshot.read("leaderboard.csv"))
        n = dict(snapshot.split_manifest().group_by("split").len().iter_rows())
        title = (
            f"Leaderboard, {horizon} days, {version.fusion_strategy} ({n['train']} train clips, "
            f"best first by {n['val']} val clips, {n['test']} test clips)"
        )
        columns = {name: shown for name, shown in _BOARD.items() if name in board.columns}
        rows = [[_shown(v) for v in row] for row in board.select(list(columns)).iter_rows()]
        boards.append(f"{title}\n{table(rows, list(columns.values()))}")
        serving.append(
            [
                horizon,
                version.model_version,
                version.family,
                version.fusion_strategy,
                version.run_id,
            ]
        )
    head = ["days", "version", "family", "strategy", "run"]
    return [*boards, "Serving\n" + table(serving, head)]


_BOARD: Final = {
    "family": "family",
    "val_rmse_log": "val rmse",
    "test_rmse_log": "test rmse",
    "test_r2_log": "test r2",
    "interval_test_coverage": "90% interval holds",
    # There if that split was compared.
    "chronological_test_rmse_log": "rmse, by time",
    "chronological_test_r2_log": "r2, by time",
}


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _seconds(seconds: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [job, step.removeprefix("clips__"), f"{took:.1f}"]
        for job, steps in seconds.items()
        for step, took in steps.items()
    ]
    total = sum(took for steps in seconds.values() for took in steps.values())
    return table([*rows, ["all", "", f"{total:.1f}"]], ["job", "step", "s"])
