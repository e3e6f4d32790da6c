"""How fast a stage went lately, by the moments that its ledger rows name."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from clipfarm_assets.contracts import statuses
from clipfarm_assets.ledger.read_only import ReadOnlyLedger, moment_text

_LATEST: Final = 5000
"""Rows looked at."""
_PAUSE_US: Final = 60_000_000
"""Where nothing was done for so long, one run ended and another began."""
_FEWEST: Final = 8
"""Items of a run that tell a rate: the first of a run waits for the model."""
_SECOND: Final = 1_000_000


@dataclass(frozen=True)
class Rate:
    """The median of the latest runs' rates.

    Attributes:
        per_second: Items, from the first of a run that was done to its last.
        runs: How many runs it is the median of.
        items: Their items.
        until: When the last of them was done, ISO 8601.
    """

    per_second: float
    runs: int
    items: int
    until: str | None


def rate(ledger: ReadOnlyLedger, stage: str) -> Rate | None:
    """The rate of what a stage has succeeded with; None if too little is on record."""
    done = {statuses.SUCCESS, *statuses.FUSED}
    moments = ledger.moments(stage, done, _LATEST)
    runs = [run for run in _runs(moments) if len(run) >= _FEWEST and run[0] > run[-1]]
    if not runs:
        return None
    rates = [(len(run) - 1) * _SECOND / (run[0] - run[-1]) for run in runs]
    return Rate(median(rates), len(runs), sum(map(len, runs)), moment_text(runs[0][0]))


def _runs(moments: Sequence[int]) -> list[list[int]]:
    """Moments, newest first, in groups without a pause between."""
    runs: list[list[int]] = []
    for moment in moments:
        if not runs or runs[-1][-1] - moment > _PAUSE_US:
            runs.append([])
        runs[-1].append(moment)
    return runs
