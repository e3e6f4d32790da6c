"""Sensors that tell a person: of failed runs, failed checks, and assets that are overdue.

Dagster's own means: run failure events, the results of asset checks, and the states of freshness
policies, which its daemon evaluates. Where no address is set, alerts are in the ticks' logs.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

import dagster as dg
from dagster import DagsterInstance
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.tags import WILL_RETRY_TAG

from clipfarm_assets.orchestration.alerts import Alert, AlertNotSent, report
from clipfarm_assets.orchestration.requests import RANGE_END, RANGE_START

_INTERVAL_SECONDS: Final = 60
_STEPS_SHOWN: Final = 5
_RESULTS_A_PAGE: Final = 25
_ALERTS_A_TICK: Final = 20
# Dagster ends a tick after 60; one that is being sent may take 10 more.
_SENDING_SECONDS: Final = 30.0
# Results are stored by workers, whose clocks may differ by so much.
_SKEW_SECONDS: Final = 600.0


@dg.run_failure_sensor(
    name="report_failed_runs",
    minimum_interval_seconds=30,
    description="Posts each failed run to CLIPFARM_ALERT_WEBHOOK, once; without that it is in the "
    "log of the tick.",
)
def report_failed_runs(context: dg.RunFailureSensorContext) -> None:
    """One alert a run."""
    run = context.dagster_run
    alert = Alert(
        what="run_failed",
        subject=run.job_name,
        message=_why(context),
        partition=_partition(run.tags),
        run_id=run.run_id,
        will_retry=run.tags.get(WILL_RETRY_TAG) == "true",
    )
    report(alert, context.log)


def _why(context: dg.RunFailureSensorContext) -> str:
    steps = list(context.get_step_failure_events())
    told = []
    for event in steps[:_STEPS_SHOWN]:
        data = event.step_failure_data
        own = data.user_failure_data.description if data.user_failure_data else None
        error = data.error.cause or data.error if data.error else None
        told.append(f"{event.step_key}: {own or (error.message.strip() if error else '')}")
    if len(steps) > _STEPS_SHOWN:
        told.append(f"and {len(steps) - _STEPS_SHOWN} steps more")
    return "\n".join(told) or context.failure_event.message or "no step failed: the run itself did"


def _partition(tags: Mapping[str, str]) -> str:
    if RANGE_START in tags:
        return f"{tags[RANGE_START]} to {tags.get(RANGE_END, '')}"
    return tags.get("dagster/partition", "")


@dg.sensor(
    name="report_data_health",
    minimum_interval_seconds=_INTERVAL_SECONDS,
    description="Posts failed asset checks, and assets that are overdue by their freshness policy "
    "or no longer so, to CLIPFARM_ALERT_WEBHOOK; without that they are in the log of the tick. "
    "What was before it was switched on is not told.",
)
def report_data_health(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Alerts for what changed since the last tick. What isn't sent, the next tick sends."""
    repository = context.repository_def
    if repository is None:
        raise RuntimeError("the sensor is evaluated without its code location")
    graph = repository.asset_graph
    now = time.time()
    before: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"since": now}
    checks = _failed_checks(context.instance, graph.asset_check_keys, before)
    policies = [key for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy]
    late, states = _overdue(context.instance, policies, before.get("states", {}))
    counts = f"{len(checks)} checks failed, {len(late)} assets changed their freshness"
    unsent, why = _send([*(each.alert for each in checks), *late.values()], context)
    if why:
        counts += f"; {unsent} alerts were not sent, which the next tick sends: {why}"
    sent = len(checks) + len(late) - unsent
    for name in list(late)[max(sent - len(checks), 0) :]:  # of which nobody heard
        states[name] = before["states"][name]
    since = max(before["since"], now - _SKEW_SECONDS)
    told = before.get("told", {}) | {each.id: each.at for each in checks[:sent]}
    # What could not be told yet must not be too old for the next tick.
    since = min([since, *(each.at for each in checks[sent:])])
    after = {
        "since": since,
        "told": {each: at for each, at in told.items() if at >= since},
        "states": states,
    }
    return dg.SensorResult(cursor=json.dumps(after), skip_reason=dg.SkipReason(counts))


def _send(alerts: Sequence[Alert], context: dg.SensorEvaluationContext) -> tuple[int, str]:
    """Send them, and what is beyond `_ALERTS_A_TICK` as one number.

    Returns:
        How many of the last ones were not sent, and why; 0 and nothing if all were.

    Raises:
        AlertNotSent: Not even the first one was sent: the tick fails, for all to see.
    """
    until = time.monotonic() + _SENDING_SECONDS
    shown = list(alerts[:_ALERTS_A_TICK])
    if (more := len(alerts) - len(shown)) > 0:
        text = f"{more} alerts more came with these: look at the checks of the assets"
        shown.append(Alert("check_failed", "many", text))
    for sent, alert in enumerate(shown):
        if time.monotonic() > until:
            return len(alerts) - sent, f"sending took more than {_SENDING_SECONDS:g} s"
        try:
            report(alert, context.log)
        except AlertNotSent as error:
            if not sent:
                raise
            context.log.error("%s", error)  # noqa: TRY400 - a sentence, and no fault of this code
            return len(alerts) - sent, str(error)
    return 0, ""


@dataclass(frozen=True)
class _FailedCheck:
    """A result of a check: its id in Dagster's storage, and when it was stored."""

    id: str
    at: float
    alert: Alert


def _failed_checks(
    instance: DagsterInstance, keys: Iterable[dg.AssetCheckKey], before: Mapping[str, Any]
) -> list[_FailedCheck]:
    """Results that were not told yet, of each check in their order."""
    since, told = before["since"], before.get("told", {})
    found: list[_FailedCheck] = []
    for key in sorted(keys, key=str):
        # They come in the order in which they were stored, by clocks that differ.
        some = takewhile(lambda each: each.at >= since - _SKEW_SECONDS, _results(instance, key))
        found += reversed([each for each in some if each.at >= since and each.id not in told])
    return found


def _results(instance: DagsterInstance, key: dg.AssetCheckKey) -> Iterator[_FailedCheck]:
    """Failures of a check, the newest first."""
    cursor = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(
            key,
            limit=_RESULTS_A_PAGE,
            cursor=cursor,
            status={AssetCheckExecutionRecordStatus.FAILED},
        )
        for result in page:
            evaluation = result.evaluation
            alert = Alert(
                what="check_failed",
                subject=f"{key.asset_key.to_user_string()}:{key.name}",
                message=(evaluation.description if evaluation else None) or "it did not pass",
                partition=result.partition or "",
                run_id=result.run_id,
            )
            at = result.event.timestamp if result.event else result.create_timestamp
            yield _FailedCheck(str(result.id), at, alert)
        if len(page) < _RESULTS_A_PAGE:
            return
        cursor = page[-1].id


def _overdue(
    instance: DagsterInstance, keys: list[dg.AssetKey], before: Mapping[str, str]
) -> tuple[dict[str, Alert], dict[str, str]]:
    """Assets that became overdue or ceased to be, by name, and the states of all."""
    alerts: dict[str, Alert] = {}
    states: dict[str, str] = {}
    for key, record in sorted(instance.get_freshness_state_records(keys).items(), key=str):
        name, state = key.to_user_string(), record.freshness_state
        states[name] = state.value
        was = before.get(name)
        if was is None or was == state.value:
            continue
        since = f"since {record.updated_at.isoformat(timespec='seconds')}"
        if state == FreshnessState.FAIL:
            message = f"overdue by its freshness policy {since}: look at clips_nightly and its runs"
            alerts[name] = Alert("overdue", name, message)
        elif was == FreshnessState.FAIL.value:
            alerts[name] = Alert("fresh_again", name, f"{state.value.lower()} {since}")
    return alerts, states


ALL: Final = (report_failed_runs, report_data_health)
