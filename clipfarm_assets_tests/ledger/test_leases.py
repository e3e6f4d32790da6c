"""One has the lease; the others wait, and take it when it ends however that comes about."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from clipfarm_assets.ledger import holder
from clipfarm_assets.ledger.leases import Lease, LeaseHeld, LeaseLost, Place
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets_tests.ledger.conftest import WORKERS, item

SCOPE = "video_embedding/2026-02-05"
SHORT = 0.05
LONG = 30.0


@pytest.fixture
def pair(database_url):
    """Two runs' ledgers of one store."""
    name = uuid.uuid4().hex
    with Ledger.open(database_url, name) as one, Ledger.open(database_url, name) as two:
        yield one, two


@pytest.fixture
def unheard_of(monkeypatch):
    """Runs that are suspended as soon as they have a lease: nothing renews it."""
    monkeypatch.setattr(Lease, "keep", lambda _lease: None)


def is_free(ledger, scope=SCOPE):
    try:
        with ledger.lease(scope, wait_seconds=0):
            return True
    except LeaseHeld:
        return False


def test_one_run_has_it_at_a_time(pair):
    one, two = pair
    with one.lease(SCOPE, run_id="2cbaaf30") as lease:
        with pytest.raises(LeaseHeld, match=rf"{SCOPE} is worked on by .* run 2cbaaf30, which has"):
            two.lease(SCOPE, wait_seconds=0).__enter__()
        assert is_free(two, "video_embedding/2026-02-06")
        (held,) = two.held_leases()
        assert (held.scope, held.token) == (SCOPE, lease.token)
        assert held.holder == holder.this_process("2cbaaf30")
        assert 59e6 < held.expires_us - held.taken_us < 61e6
    assert one.held_leases() == []
    assert is_free(two)


def test_stores_in_one_database_do_not_wait_for_each_other(pair, database_url):
    with pair[0].lease(SCOPE), Ledger.open(database_url, uuid.uuid4().hex) as other:
        assert is_free(other)
        assert other.held_leases() == []


def test_its_token_grows_with_every_taking(pair):
    tokens = []
    for ledger in (*pair, *pair):
        with ledger.lease(SCOPE) as lease:
            tokens.append(lease.token)
    assert tokens == [1, 2, 3, 4]


def test_an_error_gives_it_back(pair):
    one, two = pair
    with pytest.raises(OSError, match="disk"), one.lease(SCOPE):
        raise OSError("disk full")
    assert is_free(two)


def test_whoever_waits_is_told_once_for_whom_and_gets_it(pair):
    one, two = pair
    said, told, entered = [], threading.Event(), threading.Event()

    def say(line):
        said.append(line)
        told.set()

    def wait():
        with two.lease(SCOPE, wait_seconds=LONG, say=say):
            entered.set()

    with ThreadPoolExecutor(1) as pool:
        with one.lease(SCOPE):
            waiting = pool.submit(wait)
            assert told.wait(LONG)
            time.sleep(0.2)
            assert not entered.is_set()
        waiting.result(LONG)
    (line,) = said
    assert line.startswith(f"{SCOPE}: waiting for {holder.this_process()}, which has worked on it")
    assert line.endswith("+00:00 at least")


def test_waiting_is_bounded(pair):
    one, two = pair
    with one.lease(SCOPE), pytest.raises(LeaseHeld, match=r"still, after 0\.1 s, worked on by"):
        two.lease(SCOPE, wait_seconds=0.1).__enter__()


def test_many_that_want_it_have_it_one_after_the_other(database_url):
    name, inside, tokens = uuid.uuid4().hex, threading.Lock(), []

    def work(_n):
        with Ledger.open(database_url, name) as ledger:
            for _ in range(3):
                with ledger.lease(SCOPE, wait_seconds=LONG) as lease:
                    assert inside.acquire(blocking=False)
                    tokens.append(lease.token)
                    inside.release()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert tokens == list(range(1, 13))


def test_it_is_renewed_while_the_work_goes_on(pair, monkeypatch):
    """Also when the database was away for a moment."""
    one, two = pair
    renew, failures = Place.renew, iter([True, True])

    def away_at_first(*args):
        if next(failures, False):
            raise sa.exc.OperationalError("update", {}, OSError("no route to host"))
        return renew(*args)

    monkeypatch.setattr(Place, "renew", away_at_first)
    with one.lease(SCOPE, ttl_seconds=0.6) as lease:
        end = time.monotonic() + LONG
        while not any(held.expires_us - held.taken_us > 0.7e6 for held in two.held_leases()):
            assert time.monotonic() < end, "never renewed"
            time.sleep(0.02)
        lease.check()
    with two.lease(SCOPE) as after:
        assert after.token == lease.token + 1


def test_who_was_overtaken_cannot_write(pair, unheard_of):
    one, two = pair
    with one.lease(SCOPE, ttl_seconds=SHORT) as old:
        one.commit("stage", [item("a"), item("b")], lease=old)
        with two.lease(SCOPE, wait_seconds=LONG) as new:
            two.commit("stage", [item("a", 1, status="fail")], lease=new)
            with pytest.raises(LeaseLost, match=r"was taken by .* nothing more is written"):
                one.commit("stage", [item("a", 2), item("c")], lease=old)
            with pytest.raises(LeaseLost, match="was taken by"):
                old.check()
            new.check()
            two.commit("stage", [item("d")], lease=new)
    expected = {"a": item("a", 1, status="fail"), "b": item("b"), "d": item("d")}
    assert one.rows("stage") == expected


def test_giving_back_what_one_has_lost_takes_nothing_from_the_next(pair, unheard_of):
    one, two = pair
    with one.lease(SCOPE, ttl_seconds=SHORT):
        new = two.lease(SCOPE, wait_seconds=LONG)
        new.__enter__()
    assert not is_free(one)
    new.__exit__(None, None, None)
    assert is_free(one)


def test_who_wakes_up_late_finds_out(pair, unheard_of):
    one, two = pair
    with one.lease(SCOPE, ttl_seconds=SHORT) as old:
        with two.lease(SCOPE, wait_seconds=LONG):
            pass
        with pytest.raises(LeaseLost, match="was taken by"):
            old.check()


def test_what_expired_and_nobody_took_is_still_held(pair, unheard_of):
    one, two = pair
    with one.lease(SCOPE, ttl_seconds=SHORT) as lease:
        for act in (lease.check, lambda: one.commit("stage", [item("a")], lease=lease)):
            time.sleep(2 * SHORT)
            assert two.held_leases() == []
            act()
        token = lease.token
    assert one.rows("stage") == {"a": item("a")}
    with two.lease(SCOPE) as lease:
        assert lease.token == token + 1


def test_nobody_is_sure_of_a_lease_that_cannot_be_renewed(pair, unheard_of, monkeypatch):
    def away(*_args):
        raise sa.exc.OperationalError("update", {}, OSError("no route to host"))

    monkeypatch.setattr(Place, "renew", away)
    with pair[0].lease(SCOPE, ttl_seconds=SHORT) as lease:
        time.sleep(2 * SHORT)
        with pytest.raises(LeaseLost, match=r"last renewed more than 0\.05 s ago"):
            lease.check()


def test_nothing_is_written_under_a_lease_that_was_given_back(pair):
    ledger = pair[0]
    with ledger.lease(SCOPE) as lease:
        pass
    with pytest.raises(LeaseLost, match="given back"):
        ledger.commit("stage", [item("a")], lease=lease)
    assert ledger.rows("stage") == {}


def test_a_lease_from_a_clock_that_ran_ahead_is_not_waited_for(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    with Ledger.open(url, "store") as ledger:
        ledger.counts("stage")
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            ahead = time.time_ns() // 1000 + 7200 * 10**6
            row = ("store", SCOPE, "someone", 7, ahead, ahead + 60 * 10**6)
            connection.exec_driver_sql("INSERT INTO clipfarm_leases VALUES (?, ?, ?, ?, ?, ?)", row)
        engine.dispose()
        with ledger.lease(SCOPE, wait_seconds=0) as lease:
            assert lease.token == 8


@pytest.mark.parametrize(("ttl", "wait"), [(0, 1), (-1, 1), (3601, 1), (60, -1), (float("nan"), 1)])
def test_times_that_make_no_sense_are_refused(tmp_path, ttl, wait):
    with (
        Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite", "store") as ledger,
        pytest.raises(ValueError, match="a lease holds for more than 0 s"),
    ):
        ledger.lease(SCOPE, ttl_seconds=ttl, wait_seconds=wait).__enter__()


@pytest.fixture
def worker(database_url):
    """Starts another process that takes the lease of a new store, and says how its commit went."""
    started = []

    def start(ttl):
        store = uuid.uuid4().hex
        arguments = [database_url, store, SCOPE, str(ttl)]
        process = subprocess.Popen(
            [sys.executable, str(WORKERS), "work_under_lease", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process, store

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.kills
def test_a_suspended_process_loses_it_and_writes_nothing_when_it_goes_on(worker, database_url):
    process, store = worker(1.0)
    process.send_signal(signal.SIGSTOP)
    with Ledger.open(database_url, store) as ledger:
        with ledger.lease(SCOPE, wait_seconds=LONG) as lease:
            ledger.commit("stage", [item("mine")], lease=lease)
            process.send_signal(signal.SIGCONT)
            said, _ = process.communicate("go on\n", timeout=LONG)
        assert said == "LeaseLost\n"
        assert set(ledger.rows("stage")) == {"mine"}


@pytest.mark.kills
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_killed_process_is_not_waited_for_until_its_lease_ends(worker, database_url):
    process, store = worker(3600.0)
    with Ledger.open(database_url, store) as ledger:
        assert not is_free(ledger)
        process.kill()
        process.wait(LONG)
        assert is_free(ledger)


def test_only_a_process_of_this_machine_is_known_to_be_gone():
    here = holder.this_process("2cbaaf30")
    assert f":{os.getpid()}@" in here
    assert here.endswith(" run 2cbaaf30")
    assert not holder.is_gone(here)
    ended = subprocess.Popen(["true"])
    ended.wait(LONG)
    gone = here.replace(f":{os.getpid()}@", f":{ended.pid}@")
    assert holder.is_gone(gone)
    machine = here.split("@")[1].split()[0]
    elsewhere = gone.replace(machine, "0" * len(machine))
    for unknown in (elsewhere, "", "someone", f"host:{ended.pid}", gone.replace("@", "@x")):
        assert not holder.is_gone(unknown), unknown
