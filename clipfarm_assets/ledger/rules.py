"""What is to be done again, and what a result means for an item. Pure functions.

Rules of the published pipeline: an item is done again if it is new, its source changed, or its
status is not terminal. Only an exception counts as a retry; waiting for something upstream does
not, and never becomes terminal.
"""

import datetime as dt
import json
from collections.abc import Collection, Mapping

from clipfarm_assets.contracts.statuses import FAIL, FAIL_TERMINAL, FORGOTTEN, WAITING
from clipfarm_assets.ledger.schema import Item, Scalar, microseconds, timestamp

MAX_ERROR_LENGTH = 2000
CAPTURED_AT = "captured_at"
"""The detail that says of which capture of the clip an item's state is."""


def delta_reason(
    previous: Item | None,
    source_hash: str,
    terminal: Collection[str],
    version: str | None = None,
) -> str | None:
    """Why an item is to be processed; None if it is not.

    Args:
        previous: Its state, if any.
        source_hash: Hash of its present source.
        terminal: The stage's terminal statuses.
        version: What it would be made with now. Compared only if both sides have one; what an
            item without a version counts as is the caller's decision.

    Returns:
        ``new``, ``source_changed``, ``unfinished``, ``version_changed`` or None. Of a forgotten
        item always None.
    """
    if previous is None:
        return "new"
    if is_forgotten(previous):
        return None
    if previous.source_hash != source_hash:
        return "source_changed"
    if previous.status not in terminal:
        return "unfinished"
    if version is not None and previous.version is not None and previous.version != version:
        return "version_changed"
    return None


def is_forgotten(previous: Item | None) -> bool:
    """Whether the item's clip was removed for good."""
    return previous is not None and previous.status == FORGOTTEN


def is_outdated(previous: Item | None, captured_at: str) -> bool:
    """Whether an index row is of an earlier capture than the one that was processed last.

    A day's index stays as it is when a clip is captured again on a later day: acting on it would
    turn the clip's state back to what it used to be. States without `CAPTURED_AT` say nothing.
    """
    last = previous.details.get(CAPTURED_AT) if previous else None
    return isinstance(last, str) and microseconds(captured_at) < microseconds(last)


def settle_failure(
    previous: Item | None,
    source_hash: str,
    error: str,
    max_fail_retries: int,
    now: dt.datetime,
    *,
    video_id: str,
    version: str | None = None,
    details: Mapping[str, Scalar] | None = None,
) -> Item:
    """The state after an exception: `fail`, or `fail_terminal` past `max_fail_retries` repeats."""
    count = _count(previous, source_hash) + 1
    return Item(
        video_id,
        source_hash,
        timestamp(now),
        FAIL if count <= max_fail_retries else FAIL_TERMINAL,
        error=clean_error(error),
        retry_count=count,
        version=version,
        details=details or {},
    )


def settle_waiting(
    previous: Item | None,  # noqa: ARG001 - the same call as its siblings; waiting forgets the past
    source_hash: str,
    status: str,
    reason: str,
    now: dt.datetime,
    *,
    video_id: str,
    details: Mapping[str, Scalar] | None = None,
) -> Item:
    """The state while something upstream is missing: no failure, so the count is 0 again.

    Raises:
        ValueError: `status` is not a waiting one.
    """
    if status not in WAITING:
        msg = f"{status!r} is not a waiting status; those are {', '.join(sorted(WAITING))}"
        raise ValueError(msg)
    return Item(
        video_id,
        source_hash,
        timestamp(now),
        status,
        error=clean_error(reason),
        details=details or {},
    )


def settle_success(
    previous: Item | None,
    source_hash: str,
    status: str,
    now: dt.datetime,
    *,
    video_id: str,
    artifact_key: str | None = None,
    vector_id: str | None = None,
    version: str | None = None,
    content_sha256: str | None = None,
    details: Mapping[str, Scalar] | None = None,
) -> Item:
    """The state after success. The count of earlier failures with this source stays readable."""
    return Item(
        video_id,
        source_hash,
        timestamp(now),
        status,
        artifact_key=artifact_key,
        vector_id=vector_id,
        retry_count=_count(previous, source_hash),
        version=version,
        content_sha256=content_sha256,
        details=details or {},
    )


def newest(first: Item, second: Item) -> Item:
    """The later of two states of one item.

    Order by `processed_at` as a time, one that cannot be parsed being oldest. On a tie the order
    of the remaining fields decides, so that everyone who merges comes to the same result. A
    forgotten item stays so, whatever a run that did not know it yet wrote later.
    """
    if is_forgotten(first) != is_forgotten(second):
        return first if is_forgotten(first) else second
    one, other = microseconds(first.processed_at), microseconds(second.processed_at)
    if one != other:
        return first if one > other else second
    # The text tells 1 from 1.0 and true, which Python calls equal and the rank does not.
    if first == second and str(first.details) == str(second.details):
        return first
    return max(first, second, key=_rank)


def clean_error(error: str) -> str:
    """`error` as every database can hold it, cut to `MAX_ERROR_LENGTH` with a visible mark."""
    text = error.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_ERROR_LENGTH:
        return text
    room = MAX_ERROR_LENGTH - len(_mark(len(text)))
    return text[:room] + _mark(len(text) - room)


def _mark(cut: int) -> str:
    return f"… [{cut} more characters]"


def _count(previous: Item | None, source_hash: str) -> int:
    same = previous is not None and previous.source_hash == source_hash
    return previous.retry_count if previous is not None and same else 0


def _rank(item: Item) -> tuple[int, str, str]:
    fields = [
        item.source_hash,
        item.status,
        item.error,
        item.artifact_key,
        item.vector_id,
        item.retry_count,
        item.version,
        item.content_sha256,
        dict(item.details),
    ]
    rest = json.dumps(fields, sort_keys=True)
    return microseconds(item.processed_at), item.processed_at, rest
