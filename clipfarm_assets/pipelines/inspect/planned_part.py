"""What a run would do in one stage on one date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from clipfarm_assets.contracts.statuses import FAIL, FAIL_TERMINAL
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.inspect.retry import ASKED_AT
from clipfarm_assets.pipelines.report import StageReport


@dataclass(frozen=True)
class PlannedPart:
    """One stage's part of a run.

    Attributes:
        stage: The ledger's name of it.
        date: ISO.
        clips: Of the date.
        reasons: Reason -> how many clips are taken up for it.
        samples: Reason -> the ids of some of them.
        expected: Status -> how many clips end so, if what failed fails again and the rest goes
            well.
        outdated: Clips left alone because a later capture of them was processed.
        forgotten: Clips left alone because they were removed for good.
    """

    stage: str
    date: str
    clips: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    expected: Mapping[str, int] = field(default_factory=dict)
    outdated: int = 0
    forgotten: int = 0

    @classmethod
    def of(
        cls, stage: str, date: str, clips: int, report: StageReport, expected: Mapping[str, int]
    ) -> Self:
        """What the run's own planning put into a report."""
        return cls(
            stage=stage,
            date=date,
            clips=clips,
            reasons=dict(sorted(report.reasons.items())),
            samples=report.reason_samples,
            expected=dict(sorted(expected.items())),
            outdated=report.totals["outdated_index_rows"],
            forgotten=report.totals["forgotten"],
        )

    @property
    def taken_up(self) -> int:
        """Clips that are worked on."""
        return sum(self.reasons.values())


def failed_so(before: Item | None, source_hash: str, version: str) -> Item | None:
    """A clip's state, if it failed on this very source under this very version.

    Not if somebody asked for another try since: who does takes the cause to be gone.
    """
    if before is None or before.status not in {FAIL, FAIL_TERMINAL} or ASKED_AT in before.details:
        return None
    same = before.source_hash == source_hash and before.version in {None, version}
    return before if same else None
