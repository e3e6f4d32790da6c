"""Named automation conditions, each with its reason.

Dagster's ``eager()`` looks at the newest date alone and runs in spite of failed blocking checks:
late captures and retries touch older dates here, and a broken embedding must not be fused.

An update counts only if the sensor saw it happen. So what is missing counts too: who turns the
sensor on after embedding finds those dates fused. What is missing because its run failed waits for
the next update upstream, instead of failing at every tick.
"""

import functools
import operator

import dagster as dg

Condition = dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]


def when_upstream_is_good() -> Condition:
    """Any partition, once something upstream of it was updated and all of it is there and good."""
    condition = dg.AutomationCondition
    return (
        (_never_tried() | _updated_upstream())
        & ~condition.any_deps_missing()
        & _nothing_at_work()
        & condition.all_deps_blocking_checks_passed()
    ).with_label("when upstream is good")


def once_after_first_dates(*upstream: dg.AssetKey) -> Condition:
    """While missing: once each upstream asset has some date and none is at work.

    For an asset that maps to all dates and is made once: waiting until no date is missing would be
    waiting for ever.
    """
    condition = dg.AutomationCondition
    return (
        condition.missing()
        & (_never_tried() | _updated_upstream())
        & functools.reduce(operator.and_, (_has_some(key) for key in upstream))
        & _nothing_at_work()
    ).with_label("once after first dates")


def after_new_dates(upstream: dg.AssetKey) -> Condition:
    """Whenever upstream dates were updated and none is at work.

    For an asset that folds all dates into one and verifies each itself: dates that never had clips
    stay missing, and a broken date must not keep the others out.
    """
    return (
        (_never_tried() | _updated_upstream()) & _has_some(upstream) & _nothing_at_work()
    ).with_label("after new dates")


def _never_tried() -> Condition:
    condition = dg.AutomationCondition
    return (condition.missing() & ~condition.execution_failed()).with_label("never tried")


def _updated_upstream() -> Condition:
    return dg.AutomationCondition.any_deps_updated().since_last_handled()


def _nothing_at_work() -> Condition:
    condition = dg.AutomationCondition
    return (~condition.any_deps_in_progress() & ~condition.in_progress()).with_label(
        "nothing at work"
    )


def _has_some(upstream: dg.AssetKey) -> Condition:
    """Whether any partition of the upstream asset that maps to this one exists."""
    condition = dg.AutomationCondition
    return (
        condition.any_deps_match(~condition.missing())
        .allow(dg.AssetSelection.assets(upstream))
        .with_label(f"{upstream.to_user_string()} has some")
    )
