"""Sensors on what others write: the metadata CSV, raw objects, the text downloader's state.

`clips_automation` sees what Dagster itself materialised, and nothing else. These look at the store.
They write nothing, load no model, and ask for each run once: a run is named by what was seen, so
that a tick which is repeated, or whose cursor was lost, asks for the same run again. Where the
store or the ledger doesn't answer, the tick fails with its sentence and the cursor stays.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import Final

import dagster as dg

from clipfarm_assets.contracts import statuses
from clipfarm_assets.defs.clips.fusion import FuseConfig
from clipfarm_assets.defs.clips.index import IndexConfig
from clipfarm_assets.defs.clips.jobs import clips_daily, clips_fuse
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.requests import DateRange, asked_for, date_ranges, range_request
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.watch.new_csv import csv_changes
from clipfarm_assets.pipelines.watch.raw_arrivals import Arrival, dates_of, sweep
from clipfarm_assets.pipelines.watch.text_settled import settled_texts
from clipfarm_assets.storage.objects import ObjectHead

LOOKED_FOR: Final = 500
"""Requests that a tick of `clips_raw_arrived` makes at most for objects that may not be there."""

_INTERVAL_SECONDS: Final = 60
# Dagster gives a tick a minute.
_REQUEST_SECONDS: Final = 20


def _written(head: ObjectHead) -> str:
    """A mark of one writing of an object: another one for each, also of equal bytes."""
    moment = head.modified.isoformat() if head.modified else ""
    return f"{head.mark} {head.size} {moment}"


def _result(
    requests: list[dg.RunRequest],
    cursor: str | None,
    what: str,
    context: dg.SensorEvaluationContext,
) -> dg.SensorResult:
    """The requests; without any, what was looked at as the reason to skip."""
    if requests:
        context.log.info("%s", what)
    return dg.SensorResult(
        run_requests=requests,
        cursor=cursor,
        skip_reason=None if requests else dg.SkipReason(what),
    )


def _shown(ranges: Collection[DateRange]) -> str:
    some = [str(dates) for dates in ranges]
    return ", ".join(some[:5]) + (f" and {len(some) - 5} more" if some[5:] else "")


@dg.sensor(
    job=clips_daily,
    minimum_interval_seconds=_INTERVAL_SECONDS,
    description="Looks whether the metadata CSV was written, and indexes and embeds the dates "
    "whose clips it changes. One request a look; the CSV and the stored indexes are read when it "
    "was.",
)
def clips_csv_changed(
    context: dg.SensorEvaluationContext, deployment: DeploymentResource
) -> dg.SensorResult:
    """A run for each range of dates whose stored index isn't what the CSV says."""
    key, dates = deployment.layout.metadata(), partitions.dates.get_partition_keys()
    if not dates:
        return _result([], context.cursor, "there is no date partition yet", context)
    with deployment.reading(_REQUEST_SECONDS) as (opened, _):
        try:
            written = _written(opened.store.head(key))
        except FileNotFoundError:
            return _result([], context.cursor, f"there is no {key} in {opened.store.url}", context)
        if written == context.cursor:
            return _result([], written, f"{key} was not written since: {written}", context)
        changes = csv_changes(
            opened,
            first_date=dates[0],
            last_date=dates[-1],
            include_captured_at_in_hash=IndexConfig().include_captured_at_in_hash,
        )
    ranges = date_ranges(changes.dates, dates)
    what = (
        f"{key} was written: of its {changes.clips} clips on {changes.compared} dates, those of "
        f"{len(changes.dates)} dates differ from the stored indexes"
    )
    requests = [range_request(each, [written], clips_daily.name) for each in ranges]
    if ranges:
        what += f": {_shown(ranges)}"
    return _result(requests, written, what, context)


@dg.sensor(
    job=clips_daily,
    minimum_interval_seconds=_INTERVAL_SECONDS,
    description="Looks for raw objects that clips wait for, and embeds the dates of those that "
    f"have come, however old. The bucket is not listed: at most {LOOKED_FOR} objects are asked for "
    "a look, going round among the clips that wait.",
)
def clips_raw_arrived(
    context: dg.SensorEvaluationContext, deployment: DeploymentResource
) -> dg.SensorResult:
    """A run for each range of dates with clips whose objects have come."""
    sensor = context.sensor_name
    with deployment.reading(_REQUEST_SECONDS) as (opened, ledger):
        found = sweep(opened, ledger, context.cursor or "", LOOKED_FOR)
        what = f"looked for {found.looked_for} raw objects that clips wait for: "
        if not found.arrivals:
            return _result([], found.after, f"{what}none has come", context)
        dates = dates_of(opened, {arrival.video_id for arrival in found.arrivals})
    by_date: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in sorted(found.arrivals):
        by_date[dates.get(arrival.video_id, "")].append(arrival)
    at_work = list(asked_for(context.instance, sensor))
    later = [date for date in by_date if any(date in each for each in at_work)]
    ranges = date_ranges(by_date.keys() - set(later), partitions.dates.get_partition_keys())
    requests = [
        range_request(
            each,
            [arrival for date in sorted(by_date) if date in each for arrival in by_date[date]],
            clips_daily.name,
        )
        for each in ranges
    ]
    covered = sum(len(by_date[date]) for date in by_date if any(date in r for r in ranges))
    waiting = sum(len(by_date[date]) for date in later)
    outside = len(found.arrivals) - covered - waiting
    what += f"{len(found.arrivals)} have come"
    what += f", for {_shown(ranges)}" if ranges else ""
    what += f", {waiting} of dates that a run was asked for and has not ended" if waiting else ""
    what += f", {outside} of clips in no partition" if outside else ""
    return _result(requests, found.after, what, context)


@dg.sensor(
    job=clips_fuse,
    minimum_interval_seconds=_INTERVAL_SECONDS,
    description="Looks whether the text downloader wrote its state, and fuses clips that waited "
    "for their text and by that state may be fused without one. One request a look; the state is "
    "read when it was written.",
)
def clips_text_settled(
    context: dg.SensorEvaluationContext, deployment: DeploymentResource
) -> dg.SensorResult:
    """A run for each strategy and range of dates with clips that wait no longer."""
    key = deployment.layout.text_downloader_state()
    with deployment.reading(_REQUEST_SECONDS) as (opened, _):
        try:
            written = _written(opened.store.head(key))
        except FileNotFoundError:
            return _result([], context.cursor, f"there is no {key} in {opened.store.url}", context)
        if written == context.cursor:
            return _result([], written, f"{key} was not written since: {written}", context)
        settled = settled_texts(opened, FuseConfig().terminal_text_statuses)
        if settled.unavailable:
            # The cursor stays: whoever repairs the file by hand may leave its mark as it is.
            return _result([], context.cursor, settled.unavailable, context)
        ids = {video_id for some in settled.by_strategy.values() for video_id in some}
        dates = dates_of(opened, ids) if ids else {}
    requests: list[dg.RunRequest] = []
    for strategy in statuses.STRATEGIES:
        clips = settled.by_strategy.get(strategy, ())
        wanted = {dates[video_id] for video_id in clips if video_id in dates}
        requests += [
            range_request(each, [written], clips_fuse.name, strategy)
            for each in date_ranges(wanted, partitions.dates.get_partition_keys())
        ]
    what = (
        f"{key} was written: of {settled.waiting} clips that wait for their text, {len(ids)} may "
        "be fused now"
    )
    keys = set(partitions.dates.get_partition_keys())
    outside = sum(dates.get(video_id) not in keys for video_id in ids)
    what += f", {outside} of them in no partition" if outside else ""
    return _result(requests, written, what, context)


ALL: Final = (clips_csv_changed, clips_raw_arrived, clips_text_settled)
