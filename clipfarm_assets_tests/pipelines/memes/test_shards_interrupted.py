"""Runs that are killed between any two writes, and runs at once."""

import os
import signal
import threading

import pytest

from clipfarm_assets.pipelines.memes.rows import read_index
from clipfarm_assets.storage.objects import ObjectChanged, ObjectStore
from clipfarm_assets_tests.pipelines.memes.shard_kit import (
    INDEX,
    LAYOUT,
    InterruptedStore,
    Killed,
    check_whole,
    die,
    everything,
    fill,
    ids,
    image,
    memes,
    read,
    tars,
    write,
)
from clipfarm_assets_tests.processes import ended, start

OLD, NEW, OTHER = memes(10)[:6], memes(10)[2:], memes(4, "other")


def opened(folder, *written):
    """A store with all images, and sets of shards written one after another."""
    store = ObjectStore.open(str(folder))
    fill(store, [*memes(10), *OTHER])
    for rows in written:
        write(store, rows)
    return store


def writes_of(folder, rows, *written):
    """How many writes it takes."""
    opened(folder, *written)
    counting = InterruptedStore(str(folder), 0, "", die)
    write(counting, rows)
    return counting.writes


@pytest.mark.parametrize("before", [[], [OLD]], ids=["the first set", "a set after another"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_write_the_old_set_or_the_new_is_whole(before, when, tmp_path):
    undisturbed = opened(tmp_path / "undisturbed", *before)
    write(undisturbed, NEW)
    total = writes_of(tmp_path / "count", NEW, *before)
    assert total == (5 if before else 3)  # two shards, the index, two removed
    allowed = [{row.id for row in rows} for rows in (*before, NEW)]
    for nth in range(1, total + 1):
        folder = tmp_path / f"{when}-{nth}"
        store = opened(folder, *before)
        with pytest.raises(Killed):
            write(InterruptedStore(str(folder), nth, when, die), NEW)
        if before or store.exists(INDEX):
            check_whole(store)
            assert ids(store) in allowed
        write(store, NEW)
        assert everything(store) == everything(undisturbed)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_what_a_killed_run_left_is_no_part_of_another_set(nth, tmp_path):
    """Killed with one set of memes, and the next run has others: names are all that differs."""
    store = opened(tmp_path, OLD)
    with pytest.raises(Killed):
        write(InterruptedStore(str(tmp_path), nth, "after", die), NEW)
    write(store, OTHER)
    assert ids(store) == {row.id for row in OTHER}
    assert len(tars(store)) == 1  # for those who go by the names alone
    check_whole(store)


def test_a_run_without_changes_removes_what_a_killed_one_left(tmp_path):
    store = opened(tmp_path, OLD)
    with pytest.raises(Killed):
        write(InterruptedStore(str(tmp_path), 1, "after", die), NEW)
    assert len(tars(store)) == 3
    report = write(store, OLD)
    assert (report.written, report.kept, report.removed) == (0, 2, 1)
    assert ids(store) == {row.id for row in OLD}
    assert len(tars(store)) == 2


def killed_run(folder):
    """The target of a process that does not come to its end."""
    write(InterruptedStore(folder, 2, "before", lambda: os.kill(os.getpid(), signal.SIGKILL)), NEW)


@pytest.mark.kills
def test_killed_by_the_system(tmp_path):
    """As above, by SIGKILL: nothing of the process runs any more."""
    store = opened(tmp_path / "killed", OLD)
    assert ended(start(killed_run, str(tmp_path / "killed"))) == [-signal.SIGKILL]
    assert ids(store) == {row.id for row in OLD}
    write(store, NEW)
    undisturbed = opened(tmp_path / "undisturbed", OLD)
    write(undisturbed, NEW)
    assert everything(store) == everything(undisturbed)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rows", [NEW, OTHER], ids=["the same memes", "others"])
def test_a_whole_run_inside_another_loses_nothing(when, rows, tmp_path):
    """At every write of the outer run: the set is always one of the two, and never torn."""
    total = writes_of(tmp_path / "count", NEW, OLD)
    for nth in range(1, total + 1):
        folder = tmp_path / f"{when}-{nth}"
        store = opened(folder, OLD)

        def rival(folder=folder):
            write(ObjectStore.open(str(folder)), rows)
            check_whole(ObjectStore.open(str(folder)))

        said = []
        write(InterruptedStore(str(folder), nth, when, rival), NEW, say=said.append)
        check_whole(store)
        swapped = nth > 3 or (nth, when) == (3, "after")
        again = [line for line in said if line.endswith("once more")]
        assert len(again) == (rows is OTHER and not swapped)  # for the same memes once is enough
        last = rows if swapped else NEW  # who swaps the index last
        assert ids(store) == {row.id for row in last}
        write(store, last)
        assert len(tars(store)) == len(read_index(store, LAYOUT, "train").shards)


def test_runs_at_once_in_threads(tmp_path):
    """Four writers of two sets: whichever is last, it is whole, and nothing of others stays."""
    opened(tmp_path, OLD)
    start, errors = threading.Barrier(4), []

    def run(rows):
        try:
            start.wait()
            write(ObjectStore.open(str(tmp_path)), rows)
        except ObjectChanged:
            pass  # it gave way four times over
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rows,)) for rows in (NEW, OTHER) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    store = ObjectStore.open(str(tmp_path))
    check_whole(store)
    now = ids(store)
    assert now in ({row.id for row in NEW}, {row.id for row in OTHER})
    write(store, NEW if len(now) > 4 else OTHER)
    assert len(tars(store)) == len(read_index(store, LAYOUT, "train").shards)


def test_a_writer_gives_up_where_others_never_rest(tmp_path):
    store = opened(tmp_path, OLD)
    turn = iter(range(100))

    class Busy(ObjectStore):
        def swap(self, key, data, expected):
            n = next(turn)
            other = memes(1, f"busy{n}-")
            store.put(LAYOUT.image(other[0].image), image(n))
            write(store, other)
            return super().swap(key, data, expected)

    with pytest.raises(ObjectChanged, match=r"replaced by others 5 times; end the other runs"):
        write(Busy(str(tmp_path)), NEW)
    check_whole(store)
    assert len(read(store)) == 1
