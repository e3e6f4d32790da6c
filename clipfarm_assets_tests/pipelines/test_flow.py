"""Moving items through threads, and saying how far it is."""

import threading
import time

import pytest

from clipfarm_assets.pipelines.flow import batched, ordered_map
from clipfarm_assets.pipelines.progress import Progress


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
