"""Requests for runs over ranges of partitions, each made once."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg

RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"
SENSOR: Final = "dagster/sensor_name"

_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class DateRange:
    """Dates that follow each other, both ends included, ISO."""

    first: str
    last: str

    def __contains__(self, date: object) -> bool:
        """Whether the date is one of them."""
        return isinstance(date, str) and self.first <= date <= self.last

    def __str__(self) -> str:
        """As a person writes it."""
        return self.first if self.first == self.last else f"{self.first} to {self.last}"


def date_ranges(wanted: Collection[str], partitions: Sequence[str]) -> list[DateRange]:
    """The wanted dates as few ranges without any other date.

    Args:
        wanted: Those that aren't partitions are left out.
        partitions: All there are, sorted.
    """
    found: list[DateRange] = []
    is_open = False
    for date in partitions:
        if date not in wanted:
            is_open = False
        elif is_open:
            found[-1] = DateRange(found[-1].first, date)
        else:
            found.append(DateRange(date, date))
            is_open = True
    return found


def range_request(
    dates: DateRange, because: Iterable[object], job: str, strategy: str | None = None
) -> dg.RunRequest:
    """A run of a job over the dates, of one strategy if the partitions are dates x strategies.

    Args:
        dates: Which.
        because: What was seen that the run is for. The same for the same dates and job asks for
            the same run: Dagster starts it once, however often it is asked for.
        job: Its name.
        strategy: Which.
    """
    ends = [f"{date}|{strategy}" if strategy else date for date in (dates.first, dates.last)]
    seen = json.dumps([job, *ends, *map(str, because)])
    return dg.RunRequest(
        run_key=hashlib.sha256(seen.encode()).hexdigest()[:32],
        job_name=job,
        tags={RANGE_START: ends[0], RANGE_END: ends[1]},
    )


def asked_for(instance: dg.DagsterInstance, sensor: str) -> Iterator[DateRange]:
    """The dates of this sensor's runs that haven't ended yet."""
    runs = instance.get_runs(dg.RunsFilter(tags={SENSOR: sensor}, statuses=_UNFINISHED))
    for run in runs:
        if RANGE_START in run.tags:
            yield DateRange(*(run.tags[end].partition("|")[0] for end in (RANGE_START, RANGE_END)))
