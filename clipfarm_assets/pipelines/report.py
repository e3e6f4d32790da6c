"""What a stage says of itself when it is done: counts by status with sample ids, and rates."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from clipfarm_assets.pipelines.roofline import Roofline

SAMPLE_IDS: Final = 5


@dataclass
class StageReport:
    """Counts of one stage on one partition.

    Attributes:
        stage: The ledger's stage name.
        partition: E.g. a date.
        considered: Clips of the partition.
        reasons: Why clips were in the delta: new, source_changed, unfinished, version_changed, ….
        reason_samples: Up to `SAMPLE_IDS` ids of each reason.
        statuses: Status of every clip worked on in this run.
        samples: Up to `SAMPLE_IDS` ids of each status, with the error or reason if there is one.
        totals: Sums of the notes of the items, e.g. ``tokens_cut``; and ``outdated_index_rows``,
            rows of an earlier capture than the one processed last, which were left alone; and
            ``forgotten``, rows of clips that were removed for good.
        seconds: Wall time.
        version: Id of the embedding version or lock it worked with.
        roofline: How near it came to what the machine can do, if it was measured.
        equivalence: Why the numeric precision in use is used, where another than the exact one
            was asked for.
        computed: What of the model was computed, and why that way.
        engine: Where it was computed, if not on this machine, and what was not measured there.
    """

    stage: str
    partition: str
    considered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    reason_samples: dict[str, list[str]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    version: str = ""
    roofline: Roofline | None = None
    equivalence: str = ""
    computed: str = ""
    engine: str = ""

    @property
    def worked_on(self) -> int:
        """Clips that were in the delta."""
        return sum(self.reasons.values())

    @property
    def unchanged(self) -> int:
        """Clips that were left alone."""
        return self.considered - self.worked_on

    @property
    def per_second(self) -> float:
        """Items worked on a second."""
        return self.worked_on / self.seconds if self.seconds else 0.0

    def take_up(self, video_id: str, reason: str) -> None:
        """Count an item that is to be worked on, and keep its id if there are few of its kind."""
        self.reasons[reason] += 1
        samples = self.reason_samples.setdefault(reason, [])
        if len(samples) < SAMPLE_IDS:
            samples.append(video_id)

    def count(self, video_id: str, status: str, why: str | None = None) -> None:
        """Count one item's outcome, and keep it as a sample if there are few of its kind."""
        self.statuses[status] += 1
        samples = self.samples.setdefault(status, [])
        if len(samples) < SAMPLE_IDS:
            samples.append((video_id, why or ""))
