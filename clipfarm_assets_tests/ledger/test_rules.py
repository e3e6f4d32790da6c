import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.statuses import (
    EMBEDDING_TERMINAL,
    FUSION_TERMINAL,
    WAITING,
)
from clipfarm_assets.ledger.rules import (
    MAX_ERROR_LENGTH,
    clean_error,
    delta_reason,
    newest,
    settle_failure,
    settle_success,
    settle_waiting,
)
from clipfarm_assets.ledger.schema import NO_TIME, Item, microseconds, timestamp
from clipfarm_assets_tests.ledger.conftest import item

NOW = dt.datetime(2026, 2, 5, 17, 34, 41, 595562, tzinfo=dt.UTC)
STAMP = "2026-02-05T17:34:41.595562+00:00"


@pytest.mark.parametrize(
    ("previous", "version", "reason"),
    [
        (None, None, "new"),
        (item("a"), None, None),
        (item("a", source_hash="other"), None, "source_changed"),
        (item("a", source_hash="other", status="fail"), None, "source_changed"),
        (item("a", status="fail"), None, "unfinished"),
        (item("a", status="fail", version="v1"), "v2", "unfinished"),
        (item("a", status="fail_terminal"), None, None),
        (item("a", status="missing_raw_object"), None, "unfinished"),
        (item("a", status="success_full"), None, "unfinished"),
        (item("a", version="v1"), "v1", None),
        (item("a", version="v1"), "v2", "version_changed"),
        (item("a", version=None), "v2", None),
        (item("a", version="v1"), None, None),
    ],
)
def test_delta_reason(previous, version, reason):
    assert delta_reason(previous, "h", EMBEDDING_TERMINAL, version) == reason


def test_no_waiting_status_is_terminal():
    for status in WAITING:
        for terminal in (EMBEDDING_TERMINAL, FUSION_TERMINAL):
            assert delta_reason(item("a", status=status), "h", terminal) == "unfinished"


def test_failures_are_counted_up_to_the_terminal_one():
    state, seen = None, []
    for _ in range(5):
        state = settle_failure(state, "h", "boom", 3, NOW, video_id="a")
        seen.append((state.status, state.retry_count))
    assert seen == [
        ("fail", 1), ("fail", 2), ("fail", 3), ("fail_terminal", 4), ("fail_terminal", 5),
    ]  # fmt: skip
    assert state == Item("a", "h", STAMP, "fail_terminal", error="boom", retry_count=5)


def test_another_source_starts_counting_anew():
    before = item("a", status="fail_terminal", retry_count=4)
    after = settle_failure(before, "new", "boom", 3, NOW, video_id="a")
    assert (after.status, after.retry_count, after.source_hash) == ("fail", 1, "new")
    assert settle_failure(None, "h", "boom", 0, NOW, video_id="a").status == "fail_terminal"


def test_waiting_forgets_failures_and_never_ends():
    state = item("a", status="fail", retry_count=3)
    for _ in range(20):
        state = settle_waiting(state, "h", "missing_raw_object", "no mp4", NOW, video_id="a")
    assert state == Item("a", "h", STAMP, "missing_raw_object", error="no mp4")
    assert settle_failure(state, "h", "boom", 3, NOW, video_id="a").retry_count == 1
    with pytest.raises(ValueError, match="'fail' is not a waiting status"):
        settle_waiting(None, "h", "fail", "", NOW, video_id="a")


def test_success_keeps_the_count_of_its_own_source():
    before = item("a", status="fail", retry_count=2)
    after = settle_success(
        before, "h", "success", NOW, video_id="a", artifact_key="k", vector_id="v",
        version="v1", content_sha256="00", details={"n": 1},
    )  # fmt: skip
    assert after == Item("a", "h", STAMP, "success", None, "k", "v", 2, "v1", "00", {"n": 1})
    assert settle_success(before, "new", "success", NOW, video_id="a").retry_count == 0
    assert settle_success(None, "h", "success", NOW, video_id="a").retry_count == 0


@given(st.text(max_size=100), st.integers(0, 100))
def test_errors_are_trimmed_with_a_visible_mark(text, times):
    error = text * times
    found = clean_error(error)
    found.encode()
    assert "\0" not in found
    assert len(found) <= MAX_ERROR_LENGTH
    if error.isalnum() and len(error) <= MAX_ERROR_LENGTH:
        assert found == error


def test_the_mark_counts_what_was_cut():
    found = clean_error("x" * 5000)
    kept = found.count("x")
    assert found == "x" * kept + f"… [{5000 - kept} more characters]"
    assert len(found) == MAX_ERROR_LENGTH
    assert clean_error("x" * MAX_ERROR_LENGTH) == "x" * MAX_ERROR_LENGTH
    assert clean_error("a\0b\udcff") == "a\\x00b\\udcff"


def test_timestamps_are_utc_with_microseconds():
    assert timestamp(NOW) == STAMP
    kolkata = dt.timezone(dt.timedelta(hours=5, minutes=30))
    assert timestamp(NOW.astimezone(kolkata).replace(microsecond=0)).startswith(
        "2026-02-05T17:34:41.000000+00:00"
    )
    with pytest.raises(ValueError, match="zone"):
        timestamp(dt.datetime(2026, 2, 5))  # noqa: DTZ001 - the refused case


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-02-05T17:34:41Z", "2026-02-05T17:34:41.000000+00:00"),
        ("2026-02-05T17:34:41", "2026-02-05T17:34:41.000000+00:00"),
        ("2026-02-05 23:04:41+05:30", "2026-02-05T17:34:41.000000+00:00"),
        ("2026-02-05", "2026-02-05T00:00:00.000000+00:00"),
    ],
)
def test_times_are_compared_as_moments(text, same):
    assert microseconds(text) == microseconds(same)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30T00:00:00Z", "\ud800"])
def test_what_is_no_time_is_older_than_any(text):
    assert microseconds(text) == NO_TIME
    assert microseconds("0001-01-01T00:00:00Z") > NO_TIME


ITEMS = st.builds(
    Item,
    video_id=st.just("a"),
    source_hash=st.sampled_from("gh"),
    processed_at=st.sampled_from(
        ["2026-02-05T17:34:41Z", "2026-02-05T17:34:41+00:00", "2026-02-06", "x", ""]
    ),
    status=st.sampled_from(["fail", "success"]),
    error=st.sampled_from([None, "", "boom"]),
    details=st.sampled_from([{}, {"a": 1}, {"a": "1"}]),
)


@given(st.lists(ITEMS, min_size=2, max_size=4), st.randoms())
def test_everyone_who_merges_comes_to_the_same_result(items, random):
    def merged(order):
        result = order[0]
        for other in order[1:]:
            result = newest(result, other)
        return result

    shuffled = list(items)
    random.shuffle(shuffled)
    assert merged(items) == merged(shuffled)
    assert merged(items) in items


def test_an_unparseable_time_loses():
    odd, old = item("a", processed_at="9999-99-99"), item("a", processed_at="1999-01-01")
    assert newest(odd, old) is newest(old, odd) is old


def test_newest_tells_numbers_that_python_calls_equal():
    """Of equal states any is the newest; these are not, and all who merge must agree."""
    whole, real = item("a", details={"n": 1}), item("a", details={"n": 1.0})
    truth = item("a", details={"n": True})
    for one, other in itertools.permutations((whole, real, truth), 2):
        assert newest(one, other) is newest(other, one)
