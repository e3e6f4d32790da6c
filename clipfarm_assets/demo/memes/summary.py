"""What the demo of memes prints at its end: everything a person would ask first, as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_LABEL
from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.demo.declared import Declared, table
from clipfarm_assets.demo.memes.declared import declared_of, metrics_of
from clipfarm_assets.demo.memes.edge_cases import EDGE_CASES
from clipfarm_assets.demo.memes.findings import Outcomes, look_up
from clipfarm_assets.demo.memes.plan import Kind
from clipfarm_assets.pipelines.memes.rows import read_index
from clipfarm_assets.serving.meme_registry import MemeVersion, find_version
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore

FIRST_ID: Final = "meme-00000-00"
"""Id of the first meme of a set of quads."""

_METRICS: Final = ("accuracy", "macro_f1", "auroc", "ece")


@dataclass(frozen=True)
class SetOutcome:
    """What came of a set.

    Attributes:
        kind: Which.
        splits: A row a split.
        metrics: ``metrics.json`` of the evaluation.
        declared: What had to come of it, and what did.
        edge_cases: What became of these; None if it has none.
        serving: What serves.
        seconds: By job and step.
    """

    kind: Kind
    splits: Sequence[Sequence[object]]
    metrics: Mapping[str, Any]
    declared: Sequence[Declared]
    edge_cases: Outcomes | None
    serving: MemeVersion
    seconds: Mapping[str, Mapping[str, float]]


def outcome_of(
    kind: Kind,
    store: ObjectStore,
    layout: MemeLayout,
    seconds: Mapping[str, Mapping[str, float]],
) -> SetOutcome:
    """Look up what came of a set.

    Args:
        kind: Which set.
        store: Where it is.
        layout: Where there.
        seconds: Time by job and step.
    """
    return SetOutcome(
        kind,
        [_split_row(kind, store, layout, split) for split in SPLITS],
        metrics_of(store, layout),
        declared_of(kind, store, layout),
        look_up(store, layout, FIRST_ID) if kind == "xor" else None,
        find_version(store, layout, DEFAULT_LABEL),
        seconds,
    )


def of(outcomes: Sequence[SetOutcome]) -> tuple[str, bool]:
    """The summary of all sets, and whether all is as declared."""
    parts = [
        "Memes in shards\n"
        + table(
            [row for each in outcomes for row in each.splits],
            ["set", "split", "memes", "of class 0", "of class 1", "shards", "left out"],
        ),
        "Scores, with intervals of 95%\n"
        + table(
            [row for each in outcomes for row in _scores(each)],
            ["set", "split", "system", *_METRICS],
        ),
    ]
    holds = True
    for each in outcomes:
        if each.edge_cases is not None:
            parts.append(_edge_cases(each.edge_cases))
            holds &= each.edge_cases.as_expected
    all_declared = [declared for each in outcomes for declared in each.declared]
    right = sum(declared.holds for declared in all_declared)
    holds &= right == len(all_declared)
    rows = [
        [each.kind, d.what, d.expected, d.found, "" if d.holds else "NO"]
        for each in outcomes
        for d in each.declared
    ]
    parts += [
        f"Declared: {right} of {len(all_declared)} hold\n"
        + table(rows, ["set", "what", "expected", "found", "differs"]),
        "Serving\n"
        + table(
            [
                [each.kind, each.serving.model_version, each.serving.system, _experts(each)]
                for each in outcomes
            ],
            ["set", "version", "system", "experts"],
        ),
        "Seconds a step\n" + _seconds(outcomes),
    ]
    return "\n\n".join(parts), holds


def _split_row(kind: Kind, store: ObjectStore, layout: MemeLayout, split: Any) -> list[object]:
    index = read_index(store, layout, split)
    classes = index.labels.get(DEFAULT_LABEL, {})
    counts = [classes.get(number, 0) for number in (0, 1)]
    return [kind, split, index.rows, *counts, len(index.shards), len(index.problems)]


def _scores(each: SetOutcome) -> list[list[object]]:
    return [
        [each.kind, split, system, *(_score(found[name]) for name in _METRICS)]
        for split, judged in each.metrics["splits"].items()
        for system, found in judged["systems"].items()
    ]


def _score(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None:
        return "n/a"
    if interval["low"] is None:
        return f"{interval['value']:.3f}"
    return f"{interval['value']:.3f} ({interval['low']:.2f}-{interval['high']:.2f})"


def _edge_cases(found: Outcomes) -> str:
    rows, right = [], 0
    for case in EDGE_CASES:
        outcome, differs = found.by_case[case.name], found.differs(case)
        right += not differs
        rows.append(
            [case.name, ", ".join(sorted(outcome.problems)) or "-", outcome.split or "-", differs]
        )
    head = ["case", "reported as", "in shards of", "differs"]
    if right == len(rows):
        rows, head = [row[:-1] for row in rows], head[:-1]  # nothing to say in the last column
    done = ", ".join(f"{n} {change}" for change, n in sorted(found.changes.items()))
    return (
        f"Edge cases: {right} of {len(rows)} as expected\n{table(rows, head)}\n"
        f"{found.lines} lines, {found.rows} rows, {found.samples} in shards, "
        f"{found.unaccounted} unaccounted for; images: {done}"
    )


def _experts(each: SetOutcome) -> str:
    return ", ".join(f"{name}: {title}" for name, title in each.serving.facts["experts"].items())


def _seconds(outcomes: Sequence[SetOutcome]) -> str:
    rows = [
        [each.kind, job, step.removeprefix("memes__"), f"{took:.1f}"]
        for each in outcomes
        for job, steps in each.seconds.items()
        for step, took in steps.items()
    ]
    total = sum(
        took for each in outcomes for steps in each.seconds.values() for took in steps.values()
    )
    return table([*rows, ["all", "", "", f"{total:.1f}"]], ["set", "job", "step", "s"])
