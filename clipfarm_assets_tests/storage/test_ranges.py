"""Some bytes of an object, and nothing else of it: of a folder as of S3."""

import os

import pytest

from clipfarm_assets.storage.objects import ObjectChanged, OutsideStore

READS = [("head", ()), ("get_range", (0, 1))]


def test_ranges_are_the_bytes_of_the_object(store):
    store.put("a/ten", b"0123456789")
    parts = [store.get_range("a/ten", *part) for part in ((0, 1), (3, 4), (0, 10), (9, 1))]
    assert parts == [b"0", b"3456", b"0123456789", b"9"]


@pytest.mark.parametrize("part", [(9, 2), (10, 1), (99, 1), (0, 1 << 40)])
def test_a_range_beyond_the_end_is_refused_and_never_shortened(store, part):
    store.put("ten", b"0123456789")
    with pytest.raises(EOFError, match=f"ten in .* ends before the bytes {part[0]} to"):
        store.get_range("ten", *part)


def test_an_empty_object_has_a_head_and_no_range(store):
    store.put("empty", b"")
    assert store.head("empty").size == 0
    with pytest.raises(EOFError):
        store.get_range("empty", 0, 1)


@pytest.mark.parametrize("part", [(-1, 2), (0, 0), (3, -1)])
def test_what_is_no_range_is_refused(store, part):
    with pytest.raises(ValueError, match="begins at 0 or later and has 1 byte or more"):
        store.get_range("ten", *part)


@pytest.mark.parametrize(("read", "arguments"), READS)
@pytest.mark.parametrize("key", ["a/none.npy", "a", "a/b.bin/c"])
def test_not_found_names_store_and_key(store, read, arguments, key):
    store.put("a/b.bin", b"x")
    with pytest.raises(FileNotFoundError) as caught:
        getattr(store, read)(key, *arguments)
    assert str(caught.value) == f"no object {key} in {store.url}"


def test_ranges_are_of_the_object_that_was_looked_at(store):
    """Or of none: parts of two objects are never put together."""
    store.put("k", b"0123456789")
    head = store.head("k")
    assert head.size == 10
    assert head == store.head("k")
    assert store.get_range("k", 2, 3, head.mark) == b"234"
    store.put("k", b"abcdefghij")
    assert store.head("k").mark != head.mark
    with pytest.raises(ObjectChanged, match="written again while it was read"):
        store.get_range("k", 2, 3, head.mark)
    assert store.get_range("k", 2, 3, store.head("k").mark) == b"cde"


@pytest.mark.parametrize(("read", "arguments"), READS)
def test_nothing_outside_a_folder_is_read(folder, tmp_path, read, arguments):
    (tmp_path / "secret").write_bytes(b"secret")
    folder.put("here", b"x")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "store" / "pipe")
    with pytest.raises(OutsideStore, match="outside the store"):
        getattr(folder, read)("link", *arguments)
    with pytest.raises(OutsideStore):
        getattr(folder, read)("../secret", *arguments)
    with pytest.raises(FileNotFoundError):  # and nobody waits for a writer
        getattr(folder, read)("pipe", *arguments)


def test_a_file_that_is_cut_off_while_it_is_read_is_told(folder, tmp_path):
    folder.put("k", bytes(100))
    os.truncate(tmp_path / "store" / "k", 40)
    with pytest.raises(EOFError):
        folder.get_range("k", 20, 80)
