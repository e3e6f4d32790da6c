"""Every operation of a store on S3 under every fault: the very bytes, or one sentence in time."""

import logging
import os
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from clipfarm_assets.storage import s3 as s3_module
from clipfarm_assets.storage import s3_retries
from clipfarm_assets.storage.objects import (
    ObjectChanged,
    ObjectExists,
    ObjectInfo,
    ObjectStore,
    S3Settings,
    StoreUnavailable,
)
from clipfarm_assets_tests import faulty_proxy as fp
from clipfarm_assets_tests.faulty_proxy import Fault
from clipfarm_assets_tests.s3_policies import refused
from clipfarm_assets_tests.servers import BUCKET, free_port, s3_settings

pytestmark = pytest.mark.s3

SECRET, TOKEN = "wJalrXUtnFEMI-SECRET", "FwoGZXIvYXdz-TOKEN"
# Faults that end by a timeout cost it; nothing comes near the long one, however busy the machine.
SHORT, LONG = 1.0, 30.0
OLD, NEW = b"old bytes" * 40, b"new bytes" * 40


class Site:
    """A store behind a proxy, and the same store without one."""

    def __init__(self, proxy, **settings):
        self.proxy = proxy
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        own = {"secret_access_key": SECRET, "session_token": TOKEN, "timeout_seconds": LONG}
        self.store = ObjectStore.open(url, replace(proxy.settings, **(own | settings)))
        self.direct = ObjectStore.open(url, s3_settings())


@pytest.fixture(scope="module")
def proxy():
    with fp.faulty_proxy(s3_settings()) as running:
        yield running


@pytest.fixture
def site(proxy, monkeypatch):
    monkeypatch.setattr(s3_retries, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(s3_retries, "_LONGEST_PAUSE_SECONDS", 0.01)
    proxy.reset()
    proxy.plan, proxy.after, proxy.ignored, proxy.page_size = None, lambda _call: None, (), None
    yield Site(proxy)
    proxy.plan, proxy.dead = None, False


def get(store, direct):
    assert store.get("get") == OLD


def get_range(store, direct):
    assert store.get_range("get_range", 9, 18, store.head("get_range").mark) == OLD[9:27]


def get_tail(store, direct):
    assert store.get_tail("get_tail", 9) == OLD[-9:]


def head(store, direct):
    assert store.head("head").size == len(OLD)


def get_versioned(store, direct):
    assert store.get_versioned("get_versioned") == (OLD, direct.version("get_versioned"))


def exists(store, direct):
    assert store.exists("exists")
    assert not store.exists("exists/not")


def absent(store, direct):
    with pytest.raises(FileNotFoundError, match=r"^no object absent/not in s3://"):
        store.get("absent/not")


def put(store, direct):
    store.put("put", NEW)
    assert direct.get("put") == NEW


def put_if_absent(store, direct):
    store.put_if_absent("put_if_absent/new", NEW)
    assert direct.get("put_if_absent/new") == NEW
    with pytest.raises(ObjectExists):
        store.put_if_absent("put_if_absent", NEW)
    assert direct.get("put_if_absent") == OLD


def swap(store, direct):
    version = store.swap("swap", NEW, direct.version("swap"))
    assert direct.get_versioned("swap") == (NEW, version)
    with pytest.raises(ObjectChanged):
        store.swap("swap", OLD, '"0123456789abcdef0123456789abcdef"')
    assert direct.get("swap") == NEW


def update(store, direct):
    for _ in range(3):
        store.update("update", lambda data: data + b"+")
    assert direct.get("update") == OLD + b"+++"


def listing(store, direct):
    expected = [ObjectInfo(f"listing/{n}", n) for n in range(7)]
    for info in expected:
        direct.put(info.key, OLD[: info.size])
    assert list(store.list("listing")) == expected


def delete(store, direct):
    store.delete("delete")
    assert not direct.exists("delete")
    store.delete("delete/not")


def many(store, direct):
    items = {f"many/{n}": OLD[n:] for n in range(6)}
    assert list(store.put_many(items.items(), workers=2)) == list(items)
    assert {key: direct.get(key) for key in items} == items
    assert dict(store.get_many(items, workers=2)) == items


OPERATIONS = (
    get, get_range, get_tail, head, get_versioned, exists, absent, put, put_if_absent, swap, update,
    listing, delete, many,
)  # fmt: skip


def put_olds(site):
    for operation in OPERATIONS:
        site.direct.put(operation.__name__, OLD)


def all_at_once(site, operations=OPERATIONS):
    """Run operations side by side: those that wait for a timeout wait together."""
    with ThreadPoolExecutor(len(operations)) as pool:
        done = [pool.submit(operation, site.store, site.direct) for operation in operations]
        return [each.exception() for each in done]


def once_an_operation(fault):
    """The first request of each operation suffers it."""
    met = set()

    def plan(call):
        name = call.key.split("/")[1]
        return None if name in met else met.add(name) or fault

    return plan


@pytest.mark.parametrize("fault", fp.PASSING, ids=lambda fault: fault.name)
def test_operations_outlive_a_fault_with_the_very_bytes(proxy, site, fault):
    if fault in fp.ENDLESS:
        site, plan = Site(proxy, timeout_seconds=SHORT, retries=30), once_an_operation(fault)
    else:
        plan = fp.first(fault)
    put_olds(site)
    proxy.plan, proxy.page_size = plan, 3
    failed = [error for error in all_at_once(site) if error is not None]
    assert failed == []
    assert {seen for _, seen in site.proxy.suffered} == {fault}
    asked = {(call.method, call.key.partition("/")[2]) for call, _ in site.proxy.suffered}
    assert {method for method, _ in asked} == {"GET", "HEAD", "PUT", "POST"}
    assert len(site.proxy.suffered) >= len(OPERATIONS)


def one_request(store):
    """Operations of one request each, by the key that they ask for."""
    return {
        "get": lambda: store.get("get"),
        "get_range": lambda: store.get_range("get_range", 0, 4),
        "get_tail": lambda: store.get_tail("get_tail", 4),
        "head": lambda: store.head("head"),
        "get_versioned": lambda: store.get_versioned("get_versioned"),
        "exists": lambda: store.exists("exists"),
        "put": lambda: store.put("put", NEW),
        "put_if_absent": lambda: store.put_if_absent("put_if_absent", NEW),
        "swap": lambda: store.swap("swap", NEW, '"no version"'),
        "listing": lambda: list(store.list("listing")),
        "delete": lambda: store.delete("delete"),
        "many": lambda: list(store.get_many(["many"])),
    }


WRITES = {"put", "put_if_absent", "swap", "delete"}


def told(error):
    """Everything that is ever shown of an error."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("fault", fp.PASSING, ids=lambda fault: fault.name)
def test_a_fault_that_stays_is_one_sentence_after_bounded_tries(proxy, site, fault):
    put_olds(site)
    # Those that end by a timeout are asked once, and all wait together.
    retries, seconds = (0, SHORT) if fault in fp.ENDLESS else (2, LONG)
    site = Site(proxy, retries=retries, timeout_seconds=seconds)
    calls = one_request(site.store)
    proxy.reset()
    proxy.plan = fp.always(fault)
    with ThreadPoolExecutor(len(calls)) as pool:
        found = {name: pool.submit(call) for name, call in calls.items()}
    for name, each in found.items():
        error = each.exception()
        assert type(error) is StoreUnavailable, (name, error)
        text = told(error)
        assert site.store.url in str(error)
        assert f" of {name} failed " in str(error)
        assert ("once" if retries == 0 else "3 times") in str(error)
        assert ("whether anything was written" in str(error)) == (name in WRITES)
        assert len(str(error).splitlines()) == 1
        assert SECRET not in text
        assert TOKEN not in text
        asked = sum(call.key.rstrip("/").endswith(f"/{name}") for call in proxy.calls)
        # To a whole page in the place of a part of an object, the object's size is asked for.
        more = fault is Fault.FOREIGN_PAGE and name in {"get_range", "get_tail"}
        assert asked == 1 + retries + more


@pytest.mark.parametrize("fault", fp.FINAL, ids=lambda fault: fault.name)
def test_a_final_no_is_told_once_and_not_asked_again(site, fault):
    site.proxy.plan = fp.always(fault)
    for name, call in one_request(site.store).items():
        site.proxy.reset()
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert f"{site.store.url} refuses " in str(caught.value)
        assert f" of {name}: {fault.value[0]}" in str(caught.value)
        assert ("policy" in str(caught.value)) == (fault is Fault.DENIED)
        assert TOKEN not in told(caught.value)
        # A tail and a range are asked for in another way, once.
        assert len(site.proxy.calls) <= 2


def test_no_repeat_begins_after_the_time_for_it(proxy, site):
    site = Site(proxy, retries=1000, retry_seconds=0.2)
    proxy.plan = fp.always(Fault.SLOW_DOWN)
    with pytest.raises(StoreUnavailable, match=r"failed \d+ times in 0\.[0-2] s") as caught:
        site.store.get("k")
    assert 2 < len(proxy.calls) < 200
    assert "503 SlowDown" in str(caught.value)


def test_a_dead_server_is_one_sentence(site):
    address = f"http://127.0.0.1:{free_port()}"
    settings = S3Settings(address, "us-east-1", "AKID", SECRET, retries=2)
    store = ObjectStore.open("s3://b/p", settings)
    with pytest.raises(StoreUnavailable, match="a refused connection") as caught:
        store.get("k")
    assert str(caught.value).startswith(f"s3://b/p?endpoint={address}: GET of k failed 3 times in ")
    assert SECRET not in told(caught.value)


def test_every_repeat_is_counted_and_few_are_told(site, caplog):
    caplog.set_level(logging.WARNING)
    site.proxy.plan = fp.first(Fault.SLOW_DOWN, 3)
    for n in range(3):
        site.store.put(f"k{n}", NEW)
    said = [record.getMessage() for record in caplog.records]
    assert len(site.proxy.suffered) == 9
    assert len(said) == 4
    assert said[-1] == (
        f"{site.store.url}: PUT of k2 is repeated after 503 SlowDown; requests repeated so far: 8"
    )


def test_a_counter_loses_and_doubles_nothing_where_answers_get_lost(site):
    site.proxy.plan = fp.seeded(7, 0.5, (Fault.LOST_ANSWER, Fault.LOST_AND_RESET), most=10**6)
    store = Site(site.proxy, retries=60).store
    for _ in range(20):
        store.update("counter", lambda data: b"%d" % (int(data or b"0") + 1))
    writes = [call for call, _ in site.proxy.suffered if call.method == "PUT"]
    assert len(writes) > 5
    assert store.get("counter") == b"20"


def test_a_large_object_is_read_in_parts_each_repeated_by_its_own(site, monkeypatch):
    monkeypatch.setattr(s3_module, "_PART_BYTES", 1000)
    data = os.urandom(3500)
    site.direct.put("large", data)
    broken = {1, 3}
    site.proxy.plan = lambda call: Fault.TRUNCATED if call.number in broken else None
    assert site.store.get("large") == data
    assert site.proxy.count("GET", "large") == 1 + 4 + len(broken)


def test_parts_are_never_of_two_objects(site, monkeypatch):
    monkeypatch.setattr(s3_module, "_PART_BYTES", 1000)
    site.direct.put("large", b"1" * 3500)

    def rewritten(call):
        if call.method == "GET" and call.number == 2:
            site.direct.put("large", b"2" * 2500)

    site.proxy.after = rewritten
    assert site.store.get("large") == b"2" * 2500


def test_a_large_write_repeats_the_part_that_failed(proxy, site):
    data = os.urandom(11 << 20)
    proxy.plan = lambda call: Fault.SLOW_DOWN if call.number == 2 else None
    site.store.put("large", data)
    assert proxy.suffered
    assert site.direct.get("large") == data
    # Begun, three parts and one again, finished: nothing else was sent twice.
    assert proxy.count("POST", "large") + proxy.count("PUT", "large") == 6


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.LOST_AND_RESET])
def test_a_large_write_whose_end_was_carried_out_unheard_is_written_again(proxy, site, fault):
    """Asked for its end again, and then to give it up, servers know of no such upload any more."""
    data = os.urandom(6 << 20)
    unheard = {("POST", 1): fault, ("POST", 2): Fault.NO_UPLOAD, ("DELETE", 0): Fault.NO_UPLOAD}
    proxy.plan = lambda call: unheard.get((call.method, call.number))
    site.store.put("large", data)
    assert [seen for _, seen in proxy.suffered] == list(unheard.values())
    assert site.direct.get("large") == data
    asked = {(action, "clipfarm/fused/large") for action, _ in proxy.actions()}
    assert {action for action, _ in asked} == {"s3:PutObject", "s3:AbortMultipartUpload"}
    assert refused("s3-policy.json", asked) == set()


def test_a_write_that_meets_not_found_is_a_sentence_and_no_absence(proxy, site):
    proxy.plan = fp.always(Fault.NO_KEY)
    for write in (partial(site.store.put, "k", NEW), partial(site.store.put_if_absent, "k", NEW)):
        with pytest.raises(StoreUnavailable, match=r" of k: 404 NoSuchKey$") as caught:
            write()
        assert TOKEN not in told(caught.value)
    site.store.delete("k")
    proxy.plan = fp.always(Fault.NO_BUCKET)
    with pytest.raises(StoreUnavailable, match="there is no bucket"):
        site.store.delete("k")
