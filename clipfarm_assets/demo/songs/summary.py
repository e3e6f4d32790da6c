"""What the demo of songs prints at its end: everything a person would ask first, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.contracts.song_segments import coverage_by_album
from clipfarm_assets.demo.declared import Declared, table
from clipfarm_assets.demo.songs.declared import (
    EXPECTED_VERDICTS,
    comparison_of,
    declared_of,
    pairings,
)
from clipfarm_assets.demo.songs.edge_cases import ALBUM, EDGE_CASES
from clipfarm_assets.demo.songs.findings import Outcomes, look_up
from clipfarm_assets.demo.songs.plan import SEED, Plan, plan_songs
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.songs.comparison_files import WITHOUT_DROPOUT, told_of_affected
from clipfarm_assets.pipelines.songs.judged import subset_name
from clipfarm_assets.pipelines.songs.segments import SegmentReport, read_segments
from clipfarm_assets.training.classification.subsets import subsets

_METRICS: Final = ("macro_f1", "accuracy", "nll", "ece")


def of(deployment: Deployment, seconds: Mapping[str, Mapping[str, float]]) -> tuple[str, bool]:
    """The summary of a corpus that went through the pipeline, and whether all is as declared.

    Args:
        deployment: Where it is.
        seconds: Time by job and step.
    """
    report = read_segments(deployment.store, deployment.songs, deployment.song_config.data.columns)
    plan = planned(report)
    found = comparison_of(deployment)
    judged = found["splits"][found["decided_on"]]
    bounds = deployment.song_config.evaluation.bounds()
    cases = look_up(deployment, plan)
    declared = declared_of(deployment, plan)
    right = sum(each.holds for each in declared)
    parts = [
        "Segments\n" + _coverage(report),
        "Audio and MIDI, as planted and as found\n" + _alignment(deployment, plan),
        f"Models on {found['decided_on']}, with intervals of 95%\n" + _scores(judged),
        f"Macro-F1 by what a model is shown on {found['decided_on']}, and the accuracy of whoever "
        "knows all that is planted\n" + _subsets(judged, plan),
        "Macro-F1 lost without a modality, of all segments; and of those that "
        "had it beside another, with intervals of 95%\n" + _lost(judged, bounds),
        _edge_cases(cases),
        f"Declared: {right} of {len(declared)} hold\n" + _declared(declared),
        "Seconds a step\n" + _seconds(seconds),
    ]
    return "\n\n".join(parts), right == len(declared) and cases.as_expected


def planned(report: SegmentReport) -> Plan:
    """The plan of the generated corpus that the segments are of."""
    songs = {segment.song for segment in report.segments if segment.album != ALBUM}
    segments = sum(segment.album != ALBUM for segment in report.segments)
    return plan_songs(len(songs), segments // len(songs), SEED)


def _coverage(report: SegmentReport) -> str:
    rows = [
        [album, found.segments, *(f"{found.share(modality):.0%}" for modality in MODALITIES)]
        for album, found in coverage_by_album(report.segments).items()
    ]
    return table(rows, ["album", "segments", *(f"with {m}" for m in MODALITIES)])


def _alignment(deployment: Deployment, plan: Plan) -> str:
    rows = [
        [
            pairing,
            found.pairs,
            " or ".join(sorted(EXPECTED_VERDICTS[pairing])),
            found.right,
            found.heard,
            "" if found.worst is None else f"{found.worst * 1000:.0f} ms",
        ]
        for pairing, found in pairings(deployment, plan).items()
    ]
    head = ["planted", "pairs", "must be", "are", "heard", "offset off by at most"]
    return table(rows, head)


def _scores(judged: Mapping[str, Any]) -> str:
    twins = (
        (f"{name}, {WITHOUT_DROPOUT}", model) for name, model in judged["without_dropout"].items()
    )
    rows = [
        [name, *(_score(model["metrics"][metric]) for metric in _METRICS)]
        for name, model in (*judged["models"].items(), *twins)
    ]
    return table(rows, ["model", *_METRICS])


def _score(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None:
        return "n/a"
    if interval["low"] is None:
        return f"{interval['value']:.3f}"
    return f"{interval['value']:.3f} ({interval['low']:.2f}-{interval['high']:.2f})"


def _subsets(judged: Mapping[str, Any], plan: Plan) -> str:
    every = subsets(MODALITIES)
    rows = [
        [name, *(f"{model['by_subset'][subset_name(s)]['macro_f1']:.3f}" for s in every)]
        for name, model in judged["models"].items()
        if "by_subset" in model
    ]
    rows.append(["planted", *(f"{plan.ceiling(subset):.3f}" for subset in every)])
    return table(rows, ["model", *map(subset_name, every)])


def _lost(judged: Mapping[str, Any], bounds: Mapping[str, float]) -> str:
    rows = [
        [name, f"{trained}{of_whom}", *(told(lost[modality]) for modality in MODALITIES)]
        for name, kinds in judged["degradation"].items()
        for trained, lost in kinds.items()
        for of_whom, told in (("", _of_all), (", of those that had it", told_of_affected))
    ]
    shares = [
        [name, "Shapley share", *(f"{model['shapley'][m]:+.3f}" for m in MODALITIES)]
        for name, model in judged["models"].items()
        if "shapley" in model
    ]
    most = ["all", "at most", *(f"{bounds[modality]:g}" for modality in MODALITIES)]
    return table([*rows, most, *shares], ["model", "", *MODALITIES])


def _of_all(found: Mapping[str, Any]) -> str:
    return f"{found['lost']:+.3f}"


def _edge_cases(found: Outcomes) -> str:
    rows, right = [], 0
    for case in EDGE_CASES:
        outcome, differs = found.by_case[case.name], found.differs(case)
        right += not differs
        rows.append(
            [
                case.name,
                ", ".join(sorted(outcome.problems)) or "-",
                "no segment" if outcome.present is None else " ".join(outcome.present) or "nothing",
                outcome.verdict or "-",
                differs,
            ]
        )
    head = ["case", "reported as", "has", "audio and MIDI", "differs"]
    if right == len(rows):
        rows, head = [row[:-1] for row in rows], head[:-1]  # nothing to say in the last column
    return (
        f"Edge cases: {right} of {len(rows)} as expected\n{table(rows, head)}\n"
        f"{found.rows} rows, {found.segments} segments, {found.unaccounted} unaccounted for"
    )


def _declared(declared: Sequence[Declared]) -> str:
    rows = [[d.what, d.expected, d.found, "" if d.holds else "NO"] for d in declared]
    return table(rows, ["what", "expected", "found", "differs"])


def _seconds(seconds: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [job, step.removeprefix("songs__"), f"{took:.1f}"]
        for job, steps in seconds.items()
        for step, took in steps.items()
    ]
    total = sum(took for steps in seconds.values() for took in steps.values())
    return table([*rows, ["all", "", f"{total:.1f}"]], ["job", "step", "s"])
