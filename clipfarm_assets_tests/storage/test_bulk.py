"""Many objects at once: the same as one by one, in order, bounded, and over when it is closed."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.storage import bulk
from clipfarm_assets.storage import keys as key_rules
from clipfarm_assets.storage.bulk import Lanes, in_order
from clipfarm_assets.storage.objects import ObjectStore, OutsideStore
from clipfarm_assets_tests.stores import CountingStore


def crew():
    """Threads of bulk transfers that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("objects")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert crew() == []


def one_by_one(store, key):
    try:
        return store.get(key)
    except FileNotFoundError as error:
        return str(error)


@pytest.mark.parametrize("workers", [None, 1, 2, 7])
def test_many_are_the_same_as_one_by_one(store, workers):
    objects = {f"a{n % 3}/{n}": os.urandom(n * 37) for n in range(30)}
    stored = list(store.put_many(objects.items(), workers))
    assert stored == list(objects)
    assert {info.key for info in store.list("")} == set(objects)
    asked = [*objects, "a0", "a0/0/below", "none/at/all", *reversed(objects), "a0/0"]
    found = list(store.get_many(asked, workers))
    assert [key for key, _ in found] == asked
    plain = [data if isinstance(data, bytes) else str(data) for _, data in found]
    assert plain == [one_by_one(store, key) for key in asked]
    assert plain[: len(objects)] == list(objects.values())


def test_of_equal_keys_the_last_object_stays(store):
    items = [(f"k/{n % 5}", str(n).encode()) for n in range(60)]
    assert list(store.put_many(items)) == [key for key, _ in items]
    assert [store.get(f"k/{n}") for n in range(5)] == [b"55", b"56", b"57", b"58", b"59"]


def test_large_objects_and_no_objects(store):
    large = os.urandom(12 << 20)
    assert list(store.put_many([("large", large), ("empty", b"")], workers=2)) == ["large", "empty"]
    assert dict(store.get_many(["large", "empty"], workers=2)) == {"large": large, "empty": b""}
    assert list(store.put_many([])) == []


def test_workers_are_one_or_more(store):
    for call in (store.get_many(["k"], 0), store.put_many([("k", b"")], -1)):
        with pytest.raises(ValueError, match="workers must be 1 or more"):
            next(call)


def test_an_error_comes_in_its_place_and_what_was_before_is_stored(store):
    items = [(f"k/{n}", b"x") for n in range(9)]
    puts = store.put_many([*items, ("../k", b"x"), ("k/late", b"x")], workers=2)
    assert [next(puts) for _ in items] == [key for key, _ in items]
    with pytest.raises(OutsideStore):
        next(puts)
    assert {key for key, _ in items} <= {info.key for info in store.list("")}


def test_an_error_of_the_source_comes_after_what_it_gave(store):
    def source():
        yield from ((f"k/{n}", b"x") for n in range(3))
        raise LookupError("the ledger is gone")

    puts = store.put_many(source())
    assert [next(puts) for _ in range(3)] == ["k/0", "k/1", "k/2"]
    with pytest.raises(LookupError, match="ledger"):
        next(puts)


def test_a_closed_transfer_begins_nothing_more(tmp_path):
    store = CountingStore(str(tmp_path / "store"))
    asked = []

    def source():
        for n in range(500):
            asked.append(n)
            yield f"k/{n}", b"x"

    puts = store.put_many(source(), workers=4)
    assert next(puts) == "k/0"
    assert crew() != []
    puts.close()
    assert crew() == []
    assert len(asked) == 8
    assert store.count("put") <= 8
    assert len(list(store.list("k"))) == store.count("put")


def test_links_out_of_the_folder_are_refused_in_bulk(folder, tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "store"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    folder.put("in/x", b"x")
    (root / "door").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "in" / "file").symlink_to(outside / "secret")
    (root / "in" / "dangling").symlink_to(outside / "new")
    (root / "alias").symlink_to(root / "in")
    (root / "in" / "twin").symlink_to(root / "in" / "x")
    for key in ["door/secret", "file", "in/file", "door/new", "in/dangling", "alias/file"]:
        found = folder.get_many(["in/x", key])
        assert next(found) == ("in/x", b"x")
        with pytest.raises(OutsideStore, match="symbolic link"):
            next(found)
        stored = folder.put_many([("in/y", b"y"), (key, b"overwritten")])
        assert next(stored) == "in/y"
        with pytest.raises(OutsideStore, match="symbolic link"):
            next(stored)
    assert dict(folder.get_many(["alias/x", "in/twin"])) == {"alias/x": b"x", "in/twin": b"x"}
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_pipe_is_no_object_and_holds_nobody_up(folder, tmp_path):
    folder.put("x", b"x")
    os.mkfifo(tmp_path / "store" / "pipe")
    assert one_by_one(folder, "pipe") == f"no object pipe in {folder.url}"
    assert [type(data) for _, data in folder.get_many(["pipe", "x"])] == [FileNotFoundError, bytes]


def test_a_read_is_of_one_object_while_it_is_rewritten(folder):
    """Of other sizes, so that a read of both would show."""
    versions = {bytes([n]) * (1 + n * 70_000) for n in range(6)}
    folder.put("k", min(versions))
    over = threading.Event()

    def rewrite():
        while not over.is_set():
            list(folder.put_many(("k", data) for data in versions))

    rival = threading.Thread(target=rewrite)
    rival.start()
    try:
        found = {data for _, data in folder.get_many(["k"] * 2000, workers=4)}
    finally:
        over.set()
        rival.join()
    assert found <= versions
    assert len(found) > 1


@pytest.mark.parametrize(
    "lanes", [Lanes.of(3), Lanes.of(16, 2), Lanes.of(1), Lanes.of(16, 2, at_once=True)]
)
def test_no_more_is_held_than_the_window(lanes):
    class Data:
        """What can be counted while it is alive."""

    alive: weakref.WeakSet[Data] = weakref.WeakSet()
    most = 0

    def make():
        nonlocal most
        data = Data()
        alive.add(data)
        most = max(most, len(alive))
        return data

    gc.disable()
    try:
        # Results that are their items: both sides of the transfer at once.
        for result in in_order(lambda data: data, (make() for _ in range(100)), lanes):
            del result
    finally:
        gc.enable()
    # One more is in its maker's hands, or in the caller's.
    assert lanes.window <= most <= lanes.window + 1
    assert len(alive) == 0


def test_lanes_hold_two_chunks_a_thread():
    assert Lanes.of(96) == Lanes(threads=96, window=192, chunk=1)
    assert Lanes.of(32, 4) == Lanes(threads=4, window=64, chunk=8)
    assert Lanes.of(2, 4) == Lanes(threads=2, window=4, chunk=1)
    for workers in range(1, 70):
        lanes = Lanes.of(workers, 4)
        assert 2 * lanes.threads * lanes.chunk <= lanes.window == 2 * workers


def test_work_is_side_by_side_in_as_many_threads_as_asked_for():
    together = threading.Barrier(5, timeout=30)
    assert sorted(in_order(lambda n: together.wait() * 0 + n, range(20), Lanes.of(5))) == [
        *range(20)
    ]


AT_ONCE = Lanes.of(8, 2, at_once=True)


def threads_of_work(items, lanes=AT_ONCE):
    """Which thread works on each item, in order: whether it is the caller's."""
    caller = threading.get_ident()
    return list(in_order(lambda _: threading.get_ident() == caller, items, lanes))


def test_what_is_not_waited_for_is_done_in_the_callers_thread(monkeypatch):
    monkeypatch.setattr(bulk, "_PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(bulk, "_PATIENCE_DISK_SECONDS", 60.0)
    assert threads_of_work(range(100)) == [True] * 100
    assert threads_of_work(range(3), Lanes.of(8, 2)) == [False] * 3


def test_what_is_waited_for_is_done_in_threads_from_the_second_chunk_on(monkeypatch):
    monkeypatch.setattr(bulk, "_PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(bulk, "_PATIENCE_DISK_SECONDS", -1.0)
    assert threads_of_work(range(100)) == [True] * AT_ONCE.chunk + [False] * (100 - AT_ONCE.chunk)


def test_a_disk_that_is_read_costs_patience_sooner(monkeypatch):
    monkeypatch.setattr(bulk, "_PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(bulk, "_PATIENCE_DISK_SECONDS", -1.0)
    assert threads_of_work(range(20)) == [True] * 20
    reads = iter(range(1000))
    monkeypatch.setattr(bulk, "_inputs", lambda: next(reads))
    assert threads_of_work(range(20)) == [True] * AT_ONCE.chunk + [False] * (20 - AT_ONCE.chunk)


def test_work_comes_back_when_nothing_is_waited_for_any_more(monkeypatch):
    """A chunk of a cold disk in the middle: what is under way ends in threads."""
    monkeypatch.setattr(bulk, "_PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(bulk, "_PATIENCE_DISK_SECONDS", -1.0)
    read = threading.local()
    monkeypatch.setattr(bulk, "_inputs", lambda: read.__dict__.setdefault("blocks", 0))
    caller = threading.get_ident()

    def work(n):
        if n == 40:
            read.blocks = read.__dict__.setdefault("blocks", 0) + 1
        return threading.get_ident() == caller

    places = list(in_order(work, range(200), AT_ONCE))
    assert all(places[: 40 + AT_ONCE.chunk - 40 % AT_ONCE.chunk])
    assert not all(places)
    assert all(places[-100:])


@pytest.mark.parametrize("patience", [-1.0, 60.0])
def test_errors_and_order_are_the_same_at_once(monkeypatch, patience):
    monkeypatch.setattr(bulk, "_PATIENCE_SECONDS", patience)
    monkeypatch.setattr(bulk, "_PATIENCE_DISK_SECONDS", patience)

    def work(n):
        if n == 37:
            raise LookupError(n)
        return n

    results = in_order(work, iter(range(100)), AT_ONCE)
    assert [next(results) for _ in range(37)] == [*range(37)]
    with pytest.raises(LookupError, match="37"):
        next(results)
    assert list(in_order(work, [1, 2, 2, 2], AT_ONCE, apart=lambda n: n)) == [1, 2, 2, 2]


def test_equal_items_are_never_side_by_side():
    lock, busy, clashes = threading.Lock(), set(), []
    done = []

    def work(item):
        with lock:
            clashes.extend(busy & {item[0]})
            busy.add(item[0])
        threading.Event().wait(0.0005)
        with lock:
            busy.remove(item[0])
            done.append(item)
        return item

    items = [(n * n % 7, n) for n in range(150)]
    assert list(in_order(work, items, Lanes.of(6), apart=lambda item: item[0])) == items
    assert clashes == []
    for mark in range(7):
        ours = [item for item in items if item[0] == mark]
        assert [item for item in done if item[0] == mark] == ours


def test_a_transfer_left_open_does_not_keep_the_interpreter(tmp_path):
    code = """if True:
        import sys
        from clipfarm_assets.storage.objects import ObjectStore
        store = ObjectStore.open(sys.argv[1])
        left = store.put_many((str(n), b"x") for n in range(1000))
        next(left)
        kept = store.get_many(["0"] * 1000)
        next(kept)
    """
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "s")]
    done = subprocess.run(command, timeout=300, check=True, capture_output=True)
    assert done.stderr == b""


@given(st.text("aZ0_-=.#1/\\\n\0é", max_size=30) | st.from_regex(key_rules._USUAL, fullmatch=True))
def test_the_glance_at_a_key_lets_no_bad_one_pass(key):
    if key_rules._USUAL.fullmatch(key):
        assert key_rules._fault(key) is None


def test_a_counting_store_counts_what_reaches_the_backend(tmp_path):
    store = CountingStore(str(tmp_path / "store"))
    list(store.put_many((f"a/{n}", b"x") for n in range(3)))
    list(store.get_many(["a/0", "a/none", "b/0"]))
    store.put_if_absent("b/0", b"x")
    store.update("b/0", lambda _: b"y")
    list(store.list("a"))
    store.delete("a/0")
    assert not store.exists("a/0")
    assert (store.count("put"), store.count("put", "a/")) == (5, 3)
    assert (store.count("get"), store.count("get", "b/")) == (4, 2)
    assert [store.count(kind) for kind in ("list", "delete", "head")] == [1, 1, 1]
    store.reset()
    assert store.calls == []
    assert isinstance(store, ObjectStore)
