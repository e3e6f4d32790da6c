"""Moving items through threads, and saying how far it is."""

import threading
import time
from contextlib import closing

import pytest

from clipfarm_assets.pipelines.flow import (
    ByteBudget,
    batched,
    grouped,
    one_behind,
    ordered_map,
)
from clipfarm_assets.pipelines.progress import Progress


def test_requests_that_find_nothing_are_made_side_by_side():
    budget = ByteBudget(160)
    assert budget.admit(wait=False)
    assert not budget.admit(wait=False), "nothing is known of sizes yet"
    budget.arrived(0)
    budget.release(0)
    assert sum(budget.admit(wait=False) for _ in range(100)) == 16
    for _ in range(16):
        budget.arrived(0)
        budget.release(0)
    assert budget.admit(wait=False)


def workers_alive():
    return [t for t in threading.enumerate() if t.name.startswith("clipfarm")]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (1, 5), (4, 1), (4, 6), (3, 500)])
def test_results_come_in_order_whatever_finishes_first(workers, ahead):
    def later_ones_first(i):
        time.sleep(0.002 * (i % 3 == 0))
        return i * i

    found = ordered_map(later_ones_first, range(60), workers=workers, ahead=ahead)

    assert list(found) == [i * i for i in range(60)]
    assert workers_alive() == []


def test_nothing_in_gives_nothing_out():
    assert list(ordered_map(str, [], workers=2, ahead=4)) == []
    assert list(batched([], 3)) == []


def test_one_behind_makes_the_next_item_beside_the_work_and_begins_it_after_the_result():
    steps, made = [], [threading.Event() for _ in range(5)]

    def items():
        for n in range(5):
            made[n].set()
            yield n

    def work(n):
        if n < 4:
            assert made[n + 1].wait(30), "the next item is not made meanwhile"
        steps.append(("worked", n))
        return n

    for result in one_behind(work, items()):
        assert steps[-1] == ("worked", result), "the next one has begun"
        steps.append(("used", result))

    assert steps == [(step, n) for n in range(5) for step in ("worked", "used")]
    assert list(one_behind(work, [])) == []
    assert workers_alive() == []


def test_one_behind_raises_in_its_place():
    def items():
        yield from range(3)
        raise LookupError("the source is gone")

    def work(n):
        if n == 2:
            raise OSError("the disk is full")
        return n

    found = one_behind(lambda n: n, items())
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="source"):
        next(found)
    found = one_behind(work, items())
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(OSError, match="disk"):
        next(found)
    assert workers_alive() == []


def test_items_are_taken_only_as_results_are_used():
    taken, used, most = 0, 0, 0

    def items():
        nonlocal taken
        for i in range(200):
            taken += 1
            yield i

    for _ in ordered_map(lambda i: i, items(), workers=4, ahead=7):
        used += 1
        most = max(most, taken - used)

    assert taken == used == 200
    assert most == 7


def test_no_more_items_run_at_once_than_there_are_workers():
    lock = threading.Lock()
    now = most = 0
    together = threading.Barrier(3)

    def work(i):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(30)  # returns only when three are inside: they do run at once
        with lock:
            now -= 1

    assert len(list(ordered_map(work, range(30), workers=3, ahead=20))) == 30
    assert most == 3


def test_an_error_is_raised_where_its_result_would_come_and_ends_the_work():
    started = []

    def work(i):
        started.append(i)
        if i == 5:
            msg = "the fifth"
            raise OSError(msg)
        return i

    results = ordered_map(work, range(1000), workers=2, ahead=4)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="the fifth"):
        next(results)

    assert max(started) < 5 + 4
    assert workers_alive() == []


def test_closing_it_half_way_leaves_nothing_running():
    started = []

    def work(i):
        started.append(i)
        return i

    found = ordered_map(work, range(1000), workers=2, ahead=4)
    assert next(found) == 0
    found.close()

    assert len(started) <= 5
    assert workers_alive() == []


def failing_after(n):
    yield from range(n)
    msg = f"no more than {n}"
    raise OSError(msg)


def test_an_error_of_the_items_comes_after_the_results_before_it():
    found = []
    with pytest.raises(OSError, match="no more than 5"):
        found.extend(ordered_map(lambda i: i, failing_after(5), workers=2, ahead=3))
    assert found == [0, 1, 2, 3, 4]
    assert workers_alive() == []


def _until_error(items):
    with pytest.raises(OSError, match="no more than"):
        yield from items


def test_chained_stages_keep_order_and_hand_on_an_error_in_its_place():
    def work(i):
        time.sleep(0.001 * (i % 4 == 0))
        if i == 13:
            msg = "no more than thirteen"
            raise OSError(msg)
        return i

    with (
        closing(ordered_map(work, range(100), workers=3, ahead=6)) as first,
        closing(grouped(first, 4)) as groups,
        closing(ordered_map(sum, groups, workers=2, ahead=2)) as second,
    ):
        # The last group is what was left before the error.
        assert list(_until_error(second)) == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7, 8 + 9 + 10 + 11, 12]
    assert workers_alive() == []


def test_admission_limits_what_is_under_way_and_loses_nothing():
    under_way, most = 0, 0

    def admit(wait):
        nonlocal under_way, most
        if under_way == 3:
            assert not wait  # the consumer gave back everything
            return False
        under_way += 1
        most = max(most, under_way)
        return True

    found, kept = [], 0
    for i in ordered_map(lambda i: i, range(50), workers=4, ahead=10, admit=admit):
        found.append(i)
        kept += 1
        if kept == 3:  # gives back only by threes
            under_way, kept = under_way - 3, 0

    assert found == list(range(50))
    assert most == 3


def test_an_admission_that_never_comes_is_an_error_and_no_silent_end():
    with pytest.raises(RuntimeError, match="answered no"):
        list(ordered_map(str, range(3), workers=1, ahead=1, admit=lambda _wait: False))


@pytest.mark.parametrize("before", [0, 3, 4, 6])
def test_a_group_is_full_or_the_last_or_followed_by_an_error(before):
    groups = []
    with pytest.raises(OSError, match="no more than"):
        groups.extend(grouped(failing_after(before), 3))
    assert groups == list(batched(range(before), 3))
    assert list(grouped(range(before), 3)) == list(batched(range(before), 3))


class Counted:
    """Objects of given sizes that are made and used up in threads, their bytes counted."""

    def __init__(self, limit):
        self.budget, self.lock = ByteBudget(limit), threading.Lock()
        self.now = self.most = self.together = self.most_together = 0

    def fetch(self, size):
        with self.lock:
            self.now += size
            self.together += 1
            self.most = max(self.most, self.now)
            self.most_together = max(self.most_together, self.together)
        self.budget.arrived(size)
        return size

    def use(self, size):
        time.sleep(0.0005)
        with self.lock:
            self.now -= size
            self.together -= 1
        self.budget.release(size)
        return size

    def run(self, sizes):
        fetched = ordered_map(self.fetch, sizes, workers=4, ahead=8, admit=self.budget.admit)
        with closing(fetched), closing(ordered_map(self.use, fetched, workers=2, ahead=4)) as used:
            assert list(used) == sizes
        assert self.now == 0


@pytest.mark.parametrize(
    "sizes",
    [
        [30] * 60,
        [100] * 20,
        [400] * 10,  # every one above the limit
        [90, *[7, 60, 1, 33] * 20],
        [400, *[1] * 100, 399],
        [0, 0, 50, 0, *[50] * 30],
    ],
)
def test_bytes_in_flight_exceed_the_budget_by_one_object_at_most(sizes):
    counted = Counted(100)
    counted.run(sizes)
    assert counted.most <= 100 + max(sizes)


def test_a_budget_that_suffices_lets_objects_travel_together():
    counted = Counted(1000)
    counted.run([1] * 200)
    assert counted.most_together > 2


def test_an_object_above_the_budget_travels_alone():
    counted = Counted(100)
    counted.run([101] * 12)
    assert counted.most_together == 1


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_batches_are_full_but_the_last(size):
    batches = list(batched(iter(range(10)), size))

    assert [i for batch in batches for i in batch] == list(range(10))
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_progress_speaks_now_and_then_and_at_the_end():
    clock, said = Clock(), []
    progress = Progress("video 2026-02-05", 20, said.append, every_seconds=5.0, clock=clock)
    for _ in range(20):
        clock.now += 1.0
        progress.step()

    assert said == [
        "video 2026-02-05: 5/20, 1.0/s, 15 s left",
        "video 2026-02-05: 10/20, 1.0/s, 10 s left",
        "video 2026-02-05: 15/20, 1.0/s, 5 s left",
        "video 2026-02-05: 20/20, 1.0/s",
    ]
    assert progress.seconds == 20.0


def test_a_short_piece_of_work_says_one_line():
    clock, said = Clock(), []
    progress = Progress("text", 6, said.append, clock=clock)
    clock.now += 2.0
    progress.step(3)
    progress.step(3)

    assert said == ["text: 6/6, 3.0/s"]


def test_progress_without_elapsed_time_or_work_divides_by_nothing():
    assert Progress("audio", 4, clock=Clock()).line() == "audio: 0/4, 0.0/s"


def test_time_left_follows_from_the_last_minute_and_the_end_tells_of_the_whole():
    """A model that took 100 s to load says nothing of the clips to come."""
    clock, said = Clock(), []
    progress = Progress("video", 400, said.append, every_seconds=50.0, clock=clock)
    clock.now += 100.0
    for _ in range(40):
        clock.now += 5.0
        progress.step(10)

    assert said[2] == "video: 210/400, 2.0/s, 95 s left"
    assert said[-1] == "video: 400/400, 1.3/s"


def test_progress_names_the_stages_and_speaks_while_no_step_is_done():
    clock, said = Clock(), []
    counts = {"fetched": 20, "decoded": 16, "encoded": 13, "stored": 12}
    progress = Progress("video 2026-02-05", 20, said.append, clock=clock, stages=lambda: counts)
    clock.now += 4.0
    progress.step(12)
    progress.tick()
    assert said == []
    clock.now += 2.0
    progress.tick()
    progress.tick()

    assert said == [
        "video 2026-02-05: 12/20, 2.0/s, 4 s left (fetched 20, decoded 16, encoded 13, stored 12)"
    ]
