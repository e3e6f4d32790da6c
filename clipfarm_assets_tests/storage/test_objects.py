import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest

from clipfarm_assets.storage.objects import (
    ObjectChanged,
    ObjectExists,
    ObjectInfo,
    ObjectStore,
    OutsideStore,
    S3Settings,
    StoreUnavailable,
)
from clipfarm_assets_tests.servers import s3_settings


def test_put_get_exists_delete(store):
    assert not store.exists("a/b.bin")
    store.put("a/b.bin", b"one")
    store.put("a/b.bin", b"two")
    assert store.get("a/b.bin") == b"two"
    assert store.exists("a/b.bin")
    assert not store.exists("a")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")


@pytest.mark.parametrize(
    ("read", "arguments"), [("get", ()), ("get_tail", (8,)), ("get_versioned", ()), ("version", ())]
)
@pytest.mark.parametrize("key", ["a/none.npy", "a", "a/b.bin/c"])
def test_not_found_names_store_and_key(store, read, arguments, key):
    store.put("a/b.bin", b"x")
    with pytest.raises(FileNotFoundError) as caught:
        getattr(store, read)(key, *arguments)
    assert str(caught.value) == f"no object {key} in {store.url}"


def test_the_tail_of_an_object(store):
    store.put("ten", b"0123456789")
    store.put("empty", b"")
    assert [store.get_tail("ten", n) for n in (1, 4, 10, 99)] == [
        b"9",
        b"6789",
        *[b"0123456789"] * 2,
    ]
    assert store.get_tail("empty", 4) == b""
    with pytest.raises(ValueError, match="1 byte or more, not 0"):
        store.get_tail("ten", 0)


def test_empty_objects_and_large_ones(store):
    large = os.urandom(12 << 20)  # over the size from which S3 writes go in parts
    store.put("empty", b"")
    store.put("large", large)
    assert store.get("empty") == b""
    assert store.get("large") == large


def test_list_is_sorted_by_key_and_whole_segments(store):
    for key in ["a/z", "a/B", "a/b/c", "a-b", "ab/c", "b", "a/b.npy"]:
        store.put(key, key.encode())
    expected = ["a/B", "a/b.npy", "a/b/c", "a/z"]
    assert list(store.list("a")) == [ObjectInfo(key, len(key)) for key in expected]
    assert list(store.list("a/")) == list(store.list("a"))
    assert [info.key for info in store.list("")] == sorted(["a-b", "ab/c", "b", *expected])
    assert list(store.list("nowhere")) == []


def test_locks_and_unfinished_writes_are_not_listed(folder, tmp_path):
    folder.swap("state/x.sqlite", b"1", None)
    (tmp_path / "store" / ".locks").mkdir(exist_ok=True)
    (tmp_path / "store" / ".locks" / "left.lock").write_bytes(b"")
    (tmp_path / "store" / "state" / "y.sqlite#1").write_bytes(b"half")
    assert [info.key for info in folder.list("")] == ["state/x.sqlite"]
    with pytest.raises(OutsideStore, match="lock files"):
        folder.get(".locks/left.lock")


def test_put_if_absent(store):
    store.put_if_absent("part-0000.npz", b"one")
    store.put_if_absent("part-0000.npz", b"one")  # our own retry
    with pytest.raises(ObjectExists, match="never rewritten"):
        store.put_if_absent("part-0000.npz", b"two")
    assert store.get("part-0000.npz") == b"one"
    assert issubclass(ObjectExists, FileExistsError)


def test_swap(store):
    with pytest.raises(ObjectChanged):
        store.swap("k", b"0", "some version")
    assert not store.exists("k")
    first = store.swap("k", b"1", None)
    assert store.get_versioned("k") == (b"1", first)
    assert store.version("k") == first
    second = store.swap("k", b"2", first)
    for stale in (None, first):
        with pytest.raises(ObjectChanged, match="changed by someone else"):
            store.swap("k", b"3", stale)
    assert store.get_versioned("k") == (b"2", second)


def test_conditional_writes_are_checked(store):
    store.check_conditional_writes("clipfarm/state")
    assert list(store.list("")) == []


def test_a_folder_version_is_the_contents_sha256(folder):
    assert folder.swap("k", b"1", None) == hashlib.sha256(b"1").hexdigest()


def test_the_same_bytes_of_a_rival_are_not_our_success(store):
    """Two counters at 4 both write 5: one of them must lose, or a count is lost."""
    version = store.swap("k", b"4", None)
    store.swap("k", b"5", version)
    with pytest.raises(ObjectChanged):
        store.swap("k", b"5", version)
    with pytest.raises(ObjectChanged):
        store.swap("k", b"5", None)


def test_update(store, monkeypatch):
    assert store.update("k", lambda _: None) is None
    assert store.update("k", lambda data: b"1" if data is None else b"bad") == b"1"
    monkeypatch.setattr(store, "swap", lambda *_: pytest.fail("written without a change"))
    assert store.update("k", lambda data: data) == b"1"
    assert store.update("k", lambda _: None) == b"1"


def test_update_retries_on_a_rival_and_gives_up_in_the_end(store):
    seen = []

    def change(data):
        seen.append(data)
        if len(seen) == 1:
            store.put("k", b"rival")
        return b"mine"

    assert store.update("k", change) == b"mine"
    assert seen == [None, b"rival"]

    def always_late(data):
        store.put("k", os.urandom(8))
        return b"never"

    with pytest.raises(ObjectChanged, match="3 attempts"):
        store.update("k", always_late, attempts=3)


def test_two_processes_lose_no_increment(store, start_worker):
    racers = [start_worker("increment", store, "count", 25) for _ in range(2)]
    assert [racer.wait(60) for racer in racers] == [0, 0]
    for racer in racers:
        racer.stdout.close()
    assert store.get("count") == b"50"


def test_threads_lose_no_increment(store):
    def increment():
        for _ in range(5):
            store.update("k", lambda data: str(int(data or b"0") + 1).encode(), attempts=200)

    threads = [threading.Thread(target=increment) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("k") == b"30"


@pytest.mark.kills
def test_a_kill_during_put_leaves_the_old_or_the_new_object(folder, start_worker, tmp_path):
    size = 3 << 20
    for _ in range(5):
        worker = start_worker("put_forever", folder, "a/torn", size)
        assert worker.stdout.readline() == b"writing\n"
        deadline = time.monotonic() + 30
        while not folder.exists("a/torn"):
            assert time.monotonic() < deadline
        time.sleep(int.from_bytes(os.urandom(1), "big") / 2560)
        worker.kill()
        worker.wait()
        worker.stdout.close()
        data = folder.get("a/torn")
        assert len(data) == size
        assert data == data[:1] * size
        assert [info.key for info in folder.list("")] == ["a/torn"]


def test_get_many_keeps_order_and_gives_absent_keys_as_such(store):
    for n in range(0, 40, 2):
        store.put(f"k/{n}", str(n).encode())
    keys = [f"k/{n}" for n in reversed(range(40))]
    results = list(store.get_many(keys, workers=4))
    assert [key for key, _ in results] == keys
    for key, data in results:
        n = int(key[2:])
        assert isinstance(data, FileNotFoundError) if n % 2 else data == str(n).encode()
    assert list(store.get_many([])) == []


def test_get_many_reads_keys_as_needed(folder):
    folder.put("k", b"x")
    asked = 0

    def keys():
        nonlocal asked
        for _ in range(100):
            asked += 1
            yield "k"

    results = folder.get_many(keys(), workers=3)
    next(results)
    assert asked == 6
    results.close()


def test_get_many_raises_other_errors_in_their_place(folder):
    folder.put("k", b"x")
    results = folder.get_many(["k", "../k", "k"])
    assert next(results) == ("k", b"x")
    with pytest.raises(OutsideStore):
        next(results)


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "../a", "a/../../b", ".", "a/.", "a\\b", "a\0b", "a\nb", "a#1",
     ".locks/x", "x" * 241, "a/" * 600 + "b", "\ud800"],
)  # fmt: skip
def test_keys_that_are_no_plain_paths_are_refused(store, key):
    for call in (
        lambda: store.get(key),
        lambda: store.put(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.swap(key, b"", None),
        lambda: store.exists(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(OutsideStore):
            call()


def test_keys_are_taken_literally(store):
    for key in ["-a/_b", "date=2026-02-05/x", "a b/é%41+~!", ".hidden/x"]:
        store.put(key, key.encode())
        assert store.get(key) == key.encode()
        assert key in [info.key for info in store.list(key.rpartition("/")[0])]


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    folder.put("in/x", b"x")
    root = tmp_path / "store"
    (root / "door").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "alias").symlink_to(root / "in")
    for key in ["door/secret", "file", "door/new"]:
        for call in (
            lambda key=key: folder.get(key),
            lambda key=key: folder.put(key, b"overwritten"),
            lambda key=key: folder.put_if_absent(key, b"overwritten"),
            lambda key=key: folder.swap(key, b"overwritten", None),
            lambda key=key: folder.exists(key),
            lambda key=key: folder.delete(key),
        ):
            with pytest.raises(OutsideStore, match="symbolic link"):
                call()
    for prefix in ["", "door"]:
        with pytest.raises(OutsideStore, match="symbolic link"):
            list(folder.list(prefix))
    (root / "door").unlink()
    with pytest.raises(OutsideStore, match=r"^file in .* symbolic link"):
        list(folder.list(""))
    assert folder.get("alias/x") == b"x"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_url_names_the_store(tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    expected = (tmp_path / "real").resolve().as_posix()
    for name in ["real", "./real/", "link", "real/../real", str(tmp_path / "real")]:
        assert ObjectStore.open(name).url == expected
    assert ObjectStore.open("s3://b").url == "s3://b"
    assert ObjectStore.open("s3://b/").url == "s3://b"
    assert ObjectStore.open("s3://b/p/q/").url == "s3://b/p/q"
    at = S3Settings(endpoint_url="http://127.0.0.1:9/")
    assert ObjectStore.open("s3://b/p", at).url == "s3://b/p?endpoint=http://127.0.0.1:9"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.example")
    assert ObjectStore.open("s3://b").url == "s3://b?endpoint=https://minio.example"


@pytest.mark.parametrize("url", ["", "gs://b", "s3://", "s3:///p", "s3://b/../c", "s3://u:p@b/x"])
def test_bad_urls_are_refused(url):
    with pytest.raises(ValueError, match=r"store is|bad object key"):
        ObjectStore.open(url)


def test_opening_touches_nothing(tmp_path):
    store = ObjectStore.open(str(tmp_path / "later"))
    assert not (tmp_path / "later").exists()
    store.put("k", b"x")
    assert (tmp_path / "later" / "k").read_bytes() == b"x"


def test_pickles_reopen_the_same_store(store):
    """A store travels to spawned workers so."""
    store.put("k", b"x")
    # Our own pickle, of this very line.
    again = pickle.loads(pickle.dumps(store))
    assert again.url == store.url
    assert again.get("k") == b"x"


def test_a_forked_child_is_refused_instead_of_hanging(tmp_path):
    code = """if True:
        import os, signal, sys
        from clipfarm_assets.storage.objects import ObjectStore
        store = ObjectStore.open(sys.argv[1])
        store.put("k", b"x")
        child = os.fork()
        if not child:
            signal.alarm(30)
            try:
                ObjectStore.open(sys.argv[1]).get("k")
            except RuntimeError as error:
                os._exit(7 if "spawn" in str(error) else 1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, check=True
    )
    assert done.stdout == b"7\n"


@pytest.mark.s3
def test_a_missing_bucket_is_not_a_missing_object():
    store = ObjectStore.open("s3://no-such-bucket", s3_settings())
    for call in (
        lambda: store.get("k"),
        lambda: store.put("k", b""),
        lambda: store.put_if_absent("k", b""),
        lambda: store.swap("k", b"", None),
        lambda: store.delete("k"),
        lambda: list(store.list("")),
        lambda: list(store.get_many(["k"])),
    ):
        with pytest.raises(StoreUnavailable, match="no bucket 'no-such-bucket'"):
            call()
