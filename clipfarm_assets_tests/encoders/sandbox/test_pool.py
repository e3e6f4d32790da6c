"""Decoders that hang, crash and blow up: what becomes of their items, of others, and of them."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import clipfarm_assets
from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.sandbox import fork_server
from clipfarm_assets.encoders.sandbox import pool as pool_module
from clipfarm_assets.encoders.sandbox.fork_server import ForkServer
from clipfarm_assets.encoders.sandbox.memory import SharedBytes
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers, DecodingFailed
from clipfarm_assets_tests.encoders import planted_jobs

PLANTED = planted_jobs.__name__
REPOSITORY = Path(clipfarm_assets.__file__).parents[1]
MIB = 2**20
FOR_EVER = 10_000.0
SHORT = 0.3


@pytest.fixture(scope="module", autouse=True)
def _jobs_are_found():
    """Decoders look for modules where this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY))
        yield


@pytest.fixture(scope="module")
def workers(_jobs_are_found):
    with closing(DecodeWorkers(256 * MIB, PLANTED)) as pool:
        yield pool


def do(pool, raw, seconds=60.0):
    """One item; the bytes it gave, and what it told."""
    given, told = pool.run(planted_jobs.TASK, raw, Deadline.after(seconds), bytes)
    return b"".join(given), told


def pid_of_a_worker(pool):
    return do(pool, b"give")[1]["pid"]


def open_files():
    return list(Path("/proc/self/fd").iterdir())


def is_alive(pid):
    """Whether it runs; a dead one may stay listed until its parent looks."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def await_death(*pids):
    while any(map(is_alive, pids)):  # ends by the test's own time limit
        time.sleep(0.01)


def test_bytes_go_there_and_back_and_a_worker_is_used_again(workers):
    raw = os.urandom(3 * MIB).replace(b" ", b"_")
    given, told = do(workers, b"give " + raw)
    assert given == raw
    assert do(workers, b"give ")[0] == b""
    assert pid_of_a_worker(workers) == told["pid"]


@pytest.mark.parametrize("hanging", [b"sleep", b"spin"])
def test_one_that_hangs_is_killed_at_its_items_deadline_and_replaced(workers, hanging):
    before = pid_of_a_worker(workers)
    with pytest.raises(
        MediaError, match=r"gave up decoding the planted after 0\.3 s, .*raise item"
    ):
        do(workers, hanging, SHORT)
    await_death(before)
    assert pid_of_a_worker(workers) != before


def test_one_that_looks_at_its_deadline_says_so_itself(workers):
    before = pid_of_a_worker(workers)
    with pytest.raises(MediaError, match=r"gave up polling after 0\.3 s"):
        do(workers, b"poll", SHORT)
    await_death(before)


@pytest.mark.parametrize("raw", [b"grow", b"stumble", b"refuse"])
def test_one_whose_item_failed_has_no_other(workers, raw):
    before = pid_of_a_worker(workers)
    with pytest.raises((MediaError, DecodingFailed)):
        do(workers, raw)
    await_death(before)
    assert pid_of_a_worker(workers) != before


def test_one_has_so_many_items_and_no_more(monkeypatch):
    monkeypatch.setattr(pool_module, "_ITEMS", 3)
    with closing(DecodeWorkers(256 * MIB, PLANTED)) as pool:
        pids = [pid_of_a_worker(pool) for _ in range(7)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        await_death(pids[0], pids[3])


@pytest.mark.parametrize(
    ("raw", "how"),
    [
        (b"crash", r"its decoder crashed \(Segmentation fault\)"),
        (b"abort", r"its decoder crashed \(Aborted\)"),
        (b"killed", r"its decoder was killed \(SIGKILL\), as by a system that is short of memory"),
        (b"exit", r"its decoder ended by itself \(exit code 3\)"),
        (b"lie", "its decoder answered nonsense"),
    ],
)
def test_one_that_dies_or_lies_costs_its_item_and_no_other(workers, raw, how):
    with pytest.raises(MediaError, match=f"^cannot decode the planted: {how}; replace the file$"):
        do(workers, raw)
    assert do(workers, b"give on")[0] == b"on"


@pytest.mark.parametrize("raw", [b"grow", b"grow_on", b"share"])
def test_memory_is_limited(workers, raw):
    with pytest.raises(MediaError, match="more memory than decode_memory_mib allows, 256 MiB"):
        do(workers, raw)
    assert do(workers, b"give on")[0] == b"on"


def test_memory_is_limited_to_what_a_decoder_takes_beside_what_it_starts_with(workers):
    assert do(workers, b"take %d" % (200 * MIB))[1] == {"sum": 200 * MIB}


def test_what_no_medium_explains_is_no_media_error(workers):
    with pytest.raises(DecodingFailed, match="KeyError: 'what is not there'"):
        do(workers, b"stumble")
    with pytest.raises(MediaError, match=r"^cannot decode the planted: it says so$"):
        do(workers, b"refuse")


@pytest.mark.parametrize("raw", [b"open " + __file__.encode(), b"connect"])
def test_a_decoder_can_open_neither_file_nor_address(workers, raw):
    with pytest.raises(DecodingFailed, match=r"OSError: \[Errno 24\] Too many open files"):
        do(workers, raw)


def test_a_decoder_knows_no_secret_and_hears_no_interrupt(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    monkeypatch.setenv("CLIPFARM_LEDGER", "postgresql://user:planted@host/db")
    with closing(DecodeWorkers(256 * MIB, PLANTED)) as pool:
        told = do(pool, b"environment")[1]
    assert set(told["names"]) <= {
        "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "PATH", "PYTHONPATH", "TMPDIR", "TZ",
    }  # fmt: skip
    assert told["session"] != os.getsid(0), "what a terminal sends goes to a session's processes"


def test_side_by_side_each_has_its_own_and_only_the_bad_fail(workers):
    raws = [b"give 0", b"crash", b"give 2", b"sleep", b"give 4", b"exit", b"grow", b"give 7"] * 2

    def outcome(raw):
        try:
            return do(workers, raw, SHORT if raw == b"sleep" else 60.0)[0]
        except MediaError:
            return None

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(outcome, raws))
    assert found == [b"0", None, b"2", None, b"4", None, None, b"7"] * 2


def test_an_error_in_what_the_run_makes_of_an_array_ends_the_decoder_and_is_raised(workers):
    before = pid_of_a_worker(workers)

    def take(array):
        msg = "the run's own"
        raise TimeoutError(msg)

    with pytest.raises(TimeoutError, match="the run's own"):
        workers.run(planted_jobs.TASK, b"give x", Deadline.after(60), take)
    await_death(before)


def test_one_that_cannot_be_given_its_item_is_ended_and_nobody_is_charged(workers):
    before, before_open = pid_of_a_worker(workers), len(open_files())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # which holds for shared memory too
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
    try:
        with pytest.raises(DecodersUnavailable, match=r"cannot hand 3145733 bytes .* too large"):
            do(workers, b"give " + bytes(3 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await_death(before)
    assert len(open_files()) <= before_open - 2
    assert do(workers, b"give on")[0] == b"on"


def test_one_that_dies_while_it_waits_for_work_costs_no_item(workers):
    before = pid_of_a_worker(workers)
    os.kill(before, signal.SIGKILL)
    await_death(before)
    assert pid_of_a_worker(workers) != before


def test_an_item_whose_decoder_went_with_what_it_was_forked_from_is_decoded_again():
    with closing(DecodeWorkers(256 * MIB, PLANTED)) as pool, ThreadPoolExecutor(1) as thread:
        first = pid_of_a_worker(pool)
        server = _parent(first)
        os.kill(server, signal.SIGKILL)
        await_death(server)
        with pytest.raises(MediaError, match=r"its decoder crashed \(Segmentation fault\)"):
            do(pool, b"crash")
        second = pid_of_a_worker(pool)
        late = thread.submit(do, pool, b"sleep", SHORT)
        while pool._idle["planted"]:  # until it is at work
            time.sleep(0.01)
        for pid in (_parent(second), second):
            os.kill(pid, signal.SIGKILL)
        assert "gave up decoding" in str(late.exception()), "by the decoder after it"
        assert do(pool, b"give on")[0] == b"on"
    await_death(first, second)


@pytest.mark.parametrize(
    ("job", "outcome"),
    [
        ("crowded", nullcontext()),
        ("full", pytest.raises(DecodersUnavailable, match="Resource temporarily unavailable")),
    ],
)
def test_a_fork_that_fails_costs_no_other_its_decoder(monkeypatch, job, outcome):
    monkeypatch.setattr(pool_module, "_FORK_PAUSES", (0.0, 0.0, 0.0))
    with closing(DecodeWorkers(256 * MIB, PLANTED)) as pool, ThreadPoolExecutor(1) as thread:
        first = pid_of_a_worker(pool)
        other = thread.submit(do, pool, b"wait_for_word")
        while pool._idle["planted"]:  # until it is at work
            time.sleep(0.01)
        with outcome:
            pool.run(replace(planted_jobs.TASK, job=job), b"give x", Deadline.after(60), bytes)
        os.kill(first, signal.SIGUSR1)
        assert other.result()[1]["pid"] == first


def test_a_late_answer_is_nobody_elses(monkeypatch):
    server = ForkServer(PLANTED, 256 * MIB)
    with closing(server), closing(_Ends()) as ends:
        pid = server.fork("planted", ends.given)
        os.kill(server._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(fork_server, "_ANSWER_SECONDS", 0.1)
        assert server.end(pid) is None
        assert server.is_broken
        os.kill(server._process.pid, signal.SIGCONT)
        await_death(pid)
        assert server.end(pid) is None, "and is not asked"
        with pytest.raises(DecodersUnavailable, match="failed before"):
            server.fork("planted", ends.given)


def test_only_workers_are_ended():
    with closing(ForkServer(PLANTED, 256 * MIB)) as server, closing(_Ends()) as ends:
        assert server.end(os.getpid()) is None
        assert not server.is_broken
        assert server.end(server.fork("planted", ends.given)) == -signal.SIGKILL


def test_processor_time_is_counted_where_it_is_used(workers):
    before = workers.cpu_seconds
    with pytest.raises(MediaError):
        do(workers, b"poll", SHORT)
    do(workers, b"give " + bytes(MIB))
    assert workers.cpu_seconds > before


def test_none_that_can_be_started_is_a_structural_fault(monkeypatch):
    message = "^cannot start a process that decodes media: .*{}.*decode_isolation=thread$"
    for jobs, job, reason in (
        ("no_such_module", "planted", "No module named 'no_such_module'"),
        (PLANTED, "uninstalled", "what this job needs"),
    ):
        with (
            closing(DecodeWorkers(256 * MIB, jobs)) as pool,
            pytest.raises(DecodersUnavailable, match=message.format(reason)),
        ):
            pool.run(replace(planted_jobs.TASK, job=job), b"give", Deadline.after(60), bytes)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(DecodersUnavailable, match=message.format("No such file")):
        ForkServer(PLANTED, MIB)


def test_closing_ends_also_those_at_work():
    pool = DecodeWorkers(256 * MIB, PLANTED)
    pid = pid_of_a_worker(pool)
    server = _parent(pid)
    found = []

    def hang():
        with pytest.raises(DecodersUnavailable, match="the run is over") as raised:
            do(pool, b"sleep", FOR_EVER)
        found.append(raised.value)

    thread = threading.Thread(target=hang)
    thread.start()
    while pool._idle["planted"]:  # until it is at work
        time.sleep(0.01)
    pool.close()
    thread.join()
    assert found
    await_death(pid, server)
    with pytest.raises(DecodersUnavailable, match="the run is over"):
        do(pool, b"give")
    pool.close()


PARENT = """
import sys, threading, time
from clipfarm_assets.encoders.base import Deadline
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers
from clipfarm_assets_tests.encoders.planted_jobs import TASK

pool = DecodeWorkers(2**28, sys.argv[1])

def do(raw):
    return pool.run(TASK, raw, Deadline.after(10_000), bytes)[1]

threads = [threading.Thread(target=do, args=[b"sleep"], daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
print(do(b"give")["pid"], flush=True)
time.sleep(10_000)
"""


@pytest.mark.kills
def test_a_run_that_is_killed_leaves_no_process(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, PLANTED],
        stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
    ) as run:  # fmt: skip
        assert run.stdout.readline()
        (server,) = _children(run.pid)
        while len(workers := _children(server)) < 3:
            time.sleep(0.01)
        run.kill()
    await_death(server, *workers)


class _Ends:
    """What a worker is given, and what stays here."""

    def __init__(self):
        self._sockets, self._memory = socket.socketpair(), SharedBytes.create()
        self.given = [self._sockets[1].fileno(), self._memory.descriptor]

    def close(self):
        for each in (*self._sockets, self._memory):
            each.close()


def _parent(pid):
    """The process that this one was forked from."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _children(pid):
    """The processes that were started or forked by this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may be gone by now
            found += [int(folder.name)] * (_parent(folder.name) == pid)
    return found
