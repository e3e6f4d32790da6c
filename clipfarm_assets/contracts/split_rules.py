"""What a split into train, val and test must keep to, as functions from its rows to findings.

The loader refuses on the findings (`assert_split_holds`), the asset checks show them. A row marked
`EXCLUDED` is in no part: it was left out so that these rules hold.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.checks import Finding, Verdict

SplitKind = Literal["random", "chronological", "grouped", "chronological_grouped"]
SPLIT_KINDS: Final[tuple[SplitKind, ...]] = get_args(SplitKind)
CHRONOLOGICAL_KINDS: Final[frozenset[SplitKind]] = frozenset(
    {"chronological", "chronological_grouped"}
)
GROUPED_KINDS: Final[frozenset[SplitKind]] = frozenset({"grouped", "chronological_grouped"})

Part = Literal["train", "val", "test"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
EXCLUDED: Final = "excluded"
"""The mark of a row that a split must leave out to keep its rule; see `training.splits`."""

Strings = NDArray[np.str_]
Moments = NDArray[np.datetime64]
Integers = NDArray[np.int64]


class SplitLeakage(RuntimeError):  # noqa: N818 - reads better where it is raised
    """A split breaks a rule of its kind: a structural fault that stops the run."""


def part_sizes(parts: Strings) -> dict[str, int]:
    """Number of rows by part, `EXCLUDED` last; a part without rows has 0."""
    return {part: int((parts == part).sum()) for part in (*PARTS, EXCLUDED)}


def parts_not_empty(parts: Strings) -> Verdict:
    """Every part has a row, and every row a known mark."""
    sizes = part_sizes(parts)
    findings = [Finding(part, "has no rows") for part in PARTS if not sizes[part]]
    unknown = np.unique(parts[~np.isin(parts, (*PARTS, EXCLUDED))])
    expected = ", ".join((*PARTS, EXCLUDED))
    findings += [
        Finding(repr(str(mark)), f"is no mark of a part: expected one of {expected}")
        for mark in unknown
    ]
    return Verdict(tuple(findings), len(parts), sizes)


def no_video_in_two_parts(video_ids: Strings, parts: Strings) -> Verdict:
    """No clip has rows in two parts.

    Args:
        video_ids: ``(N,)``.
        parts: ``(N,)`` of `PARTS` or `EXCLUDED`.
    """
    _check_lengths(parts, video_ids=video_ids)
    return _none_straddles(video_ids, parts, "video")


def no_channel_in_two_parts(channel_id: Strings, parts: Strings) -> Verdict:
    """No channel has rows in two parts.

    Args:
        channel_id: ``(N,)``; rows with an empty one are ignored, and counted in the facts.
        parts: ``(N,)`` of `PARTS` or `EXCLUDED`.
    """
    _check_lengths(parts, channel_id=channel_id)
    known = channel_id != ""
    verdict = _none_straddles(channel_id[known], parts[known], "channel")
    facts = {"rows_without_channel": int((~known).sum())}
    return Verdict(verdict.findings, verdict.examined, facts)


def no_duplicate_straddles(duplicate_groups: Integers, parts: Strings) -> Verdict:
    """No group of duplicates has rows in two parts.

    Args:
        duplicate_groups: ``(N,)`` group numbers; see `training.duplicates`.
        parts: ``(N,)`` of `PARTS` or `EXCLUDED`.
    """
    _check_lengths(parts, duplicate_groups=duplicate_groups)
    return _none_straddles(duplicate_groups, parts, "duplicate group")


def chronology_holds(captured_at: Moments, parts: Strings) -> Verdict:
    """No train row was captured after a val or test row, and no val row after a test row.

    Rows captured at the same moment may be in two parts. A row without a time is a finding.

    Args:
        captured_at: datetime64 ``(N,)``.
        parts: ``(N,)`` of `PARTS` or `EXCLUDED`.
    """
    _check_lengths(parts, captured_at=captured_at)
    findings = []
    times: dict[Part, Moments] = {}
    for part in PARTS:
        moments = captured_at[parts == part]
        unknown = int(np.isnat(moments).sum())
        if unknown:
            findings.append(Finding(part, f"{unknown} rows have no capture time"))
        times[part] = moments[~np.isnat(moments)]
    for earlier, later in combinations(PARTS, 2):
        before, after = times[earlier], times[later]
        if not len(before) or not len(after):
            continue
        late = int((before > after.min()).sum())
        if late:
            problem = f"{late} rows were captured after the first {later} row ({after.min()})"
            findings.append(Finding(earlier, problem))
    return Verdict(tuple(findings), int(np.isin(parts, PARTS).sum()))


def split_verdict(
    kind: SplitKind,
    *,
    parts: Strings,
    video_ids: Strings,
    captured_at: Moments,
    channel_id: Strings,
    duplicate_groups: Integers,
) -> Verdict:
    """All rules that apply to a split of this kind, as one verdict.

    The facts have the number of rows by part; ``examined`` is the number of rows.

    Args:
        kind: Which rules apply: the order of time and the channels, where the kind is named for it.
        parts: ``(N,)`` of `PARTS` or `EXCLUDED`.
        video_ids: ``(N,)``.
        captured_at: datetime64 ``(N,)``.
        channel_id: ``(N,)``, empty where unknown.
        duplicate_groups: ``(N,)`` group numbers.

    Raises:
        ValueError: `kind` is none of `SPLIT_KINDS`, or the arrays differ in length.
    """
    if kind not in SPLIT_KINDS:
        msg = f"unknown split {kind!r}: expected one of {', '.join(SPLIT_KINDS)}"
        raise ValueError(msg)
    verdicts = [
        parts_not_empty(parts),
        no_video_in_two_parts(video_ids, parts),
        no_duplicate_straddles(duplicate_groups, parts),
    ]
    if kind in CHRONOLOGICAL_KINDS:
        verdicts.append(chronology_holds(captured_at, parts))
    if kind in GROUPED_KINDS:
        verdicts.append(no_channel_in_two_parts(channel_id, parts))
    facts: Mapping[str, Any] = {k: v for verdict in verdicts for k, v in verdict.facts.items()}
    findings = tuple(finding for verdict in verdicts for finding in verdict.findings)
    return Verdict(findings, len(parts), facts)


def assert_split_holds(kind: SplitKind, verdict: Verdict) -> None:
    """Refuse a split whose `split_verdict` has findings.

    Raises:
        SplitLeakage: The rules that don't hold, in one sentence.
    """
    if not verdict.holds:
        msg = (
            f"the {kind} split must keep its parts apart: {verdict.summary()}; "
            "assemble the training dataset again"
        )
        raise SplitLeakage(msg)


def _none_straddles(keys: NDArray[Any], parts: Strings, noun: str) -> Verdict:
    used = np.isin(parts, PARTS)
    distinct, number = np.unique(keys[used], return_inverse=True)
    inside = np.stack(
        [np.bincount(number[parts[used] == part], minlength=len(distinct)) for part in PARTS]
    )
    findings = tuple(
        Finding(
            f"{noun} {distinct[k]}",
            "is in " + " and ".join(p for p, rows in zip(PARTS, inside[:, k], strict=True) if rows),
        )
        for k in np.flatnonzero((inside > 0).sum(axis=0) > 1)
    )
    return Verdict(findings, len(distinct))


def _check_lengths(parts: Strings, **columns: NDArray[Any]) -> None:
    for name, column in columns.items():
        if len(column) != len(parts):
            msg = f"{name} must have one value a row of the split: {len(column)}, {len(parts)} rows"
            raise ValueError(msg)
