"""Marking failed clips so that the next run takes them up again."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from clipfarm_assets.contracts.statuses import FAIL, FAIL_TERMINAL
from clipfarm_assets.ledger.read_only import ReadOnlyLedger, moment_text
from clipfarm_assets.ledger.schema import NO_TIME, Item, microseconds, timestamp
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import batched

RETRYABLE: Final = (FAIL_TERMINAL, FAIL)
"""The statuses of failures; whatever else isn't done yet is taken up by every run anyway."""
ASKED_AT: Final = "retry_asked_at"
"""The detail that says when a person asked for another try."""

_ROWS_AT_ONCE: Final = 1000
_SHOWN: Final = 5


class NothingToRetry(LookupError):  # noqa: N818 - a state of the deployment
    """No clip matches; says what there is."""


@dataclass(frozen=True)
class Failures:
    """Clips to be tried again.

    Attributes:
        by_stage: Stage -> their ids, sorted; stages without any are left out.
    """

    by_stage: Mapping[str, Sequence[str]]

    @property
    def total(self) -> int:
        """Clips and stages, each counted."""
        return sum(map(len, self.by_stage.values()))


def failures(
    deployment: Deployment,
    ledger: ReadOnlyLedger,
    stages: Sequence[str],
    status: str,
    video_ids: Collection[str] = (),
) -> Failures:
    """The clips of that status, of some ids or of all.

    Args:
        deployment: Whose; its state has been restored.
        ledger: Its ledger.
        stages: Where to look.
        status: One of `RETRYABLE`.
        video_ids: Which clips; none for all.

    Raises:
        NothingToRetry: There is none, or one of the ids has no such state in any of the stages;
            says what there is.
    """
    wanted = frozenset(video_ids)
    by_stage = {
        stage: [i for i in ledger.ids_of_status(stage, {status}) if not wanted or i in wanted]
        for stage in stages
    }
    missing = sorted(wanted - {i for ids in by_stage.values() for i in ids})
    if missing:
        raise NothingToRetry("; ".join(_instead(deployment, stages, status, missing)))
    if not any(by_stage.values()):
        raise NothingToRetry(_nothing(ledger, stages, status))
    return Failures({stage: ids for stage, ids in by_stage.items() if ids})


def mark(deployment: Deployment, found: Failures, status: str) -> dict[str, int]:
    """Set the clips to `fail` with no failures counted, and publish it; how many by stage.

    A clip that a run has settled meanwhile stays as that run left it: its state is marked with the
    moment of the failure and a microsecond, so that whatever was computed after the failure, here
    or on another machine, is newer.
    """
    marked: dict[str, int] = {}
    for stage, ids in found.by_stage.items():
        deployment.restore(stage)
        marked[stage] = 0
        for some in batched(ids, _ROWS_AT_ONCE):
            again = {
                video_id: _again(item)
                for video_id, item in deployment.ledger.rows(stage, some).items()
                if item.status == status
            }
            deployment.ledger.commit_newer(stage, again.values())
            now = deployment.ledger.rows(stage, list(again))
            marked[stage] += sum(now[video_id] == item for video_id, item in again.items())
        deployment.publish(stage)
    return marked


def _again(item: Item) -> Item:
    """The state from which the next run tries again, as if for the first time."""
    asked = timestamp(datetime.now(UTC))
    failed = microseconds(item.processed_at)
    later = None if failed == NO_TIME else moment_text(failed + 1)
    return replace(
        item,
        status=FAIL,
        retry_count=0,
        processed_at=later or asked,
        details={**item.details, ASKED_AT: asked},
    )


def _instead(
    deployment: Deployment, stages: Sequence[str], status: str, video_ids: Sequence[str]
) -> Iterator[str]:
    """What the clips are that aren't of the status."""
    for video_id in video_ids[:_SHOWN]:
        states = {
            stage: item.status
            for stage in stages
            if (item := deployment.ledger.rows(stage, [video_id]).get(video_id))
        }
        told = ", ".join(f"{found} in {stage}" for stage, found in states.items())
        yield f"{video_id} is {status} in no stage asked for: it is {told or 'in none of them'}"
    if len(video_ids) > _SHOWN:
        yield f"and {len(video_ids) - _SHOWN} more"


def _nothing(ledger: ReadOnlyLedger, stages: Sequence[str], status: str) -> str:
    found: Counter[str] = Counter()
    for stage in stages:
        found.update(ledger.counts(stage))
    there = ", ".join(f"{n} {name}" for name, n in sorted(found.items())) or "no clips at all"
    where = stages[0] if len(stages) == 1 else "any stage"
    return f"no clip is {status} in {where}: there are {there}"
