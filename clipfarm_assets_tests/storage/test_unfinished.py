"""Staged files of killed writers: found by their names, never by way of a link."""

import os
from datetime import UTC, datetime, timedelta

from clipfarm_assets.storage.backend import ObjectInfo
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.unfinished import discard_unfinished, unfinished_writes

TOMORROW = datetime.now(UTC) + timedelta(days=1)


def staged(root, *names):
    for name in names:
        path = root / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")


def test_staged_files_below_the_prefix_are_found(folder, tmp_path):
    folder.put("a/x", b"whole")
    staged(tmp_path, "a/x#1", "a/b/y.npy#12", "a/#x", "a/x#1b", "c/z#1")
    found = list(unfinished_writes(folder, "a/"))
    assert found == [ObjectInfo("a/b/y.npy#12", 4), ObjectInfo("a/x#1", 4)]
    now = datetime.now(UTC)
    assert all(now - timedelta(minutes=5) < info.modified <= now for info in found)
    assert list(unfinished_writes(folder, "nowhere")) == []
    assert list(unfinished_writes(ObjectStore.open("s3://bucket"), "a")) == []


def test_links_are_neither_followed_nor_removed(folder, tmp_path):
    staged(tmp_path, "a/x#1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "y#1").write_bytes(b"precious")
    (tmp_path / "store" / "a" / "linked#1").symlink_to(outside / "y#1")
    (tmp_path / "store" / "a" / "folder").symlink_to(outside)
    (tmp_path / "store" / "b").symlink_to(tmp_path / "store" / "a")

    assert [info.key for info in unfinished_writes(folder, "a")] == ["a/x#1"]
    assert list(unfinished_writes(folder, "b")) == []
    for key in ("a/linked#1", "a/folder/y#1", "b/x#1"):
        assert not discard_unfinished(folder, ObjectInfo(key, 8), TOMORROW)
    assert (outside / "y#1").read_bytes() == b"precious"
    assert (tmp_path / "store" / "a" / "x#1").exists()


def test_only_old_ones_are_discarded_and_only_staged_ones(folder, tmp_path):
    folder.put("a/x", b"whole")
    staged(tmp_path, "a/x#1")
    (info,) = unfinished_writes(folder, "a")
    assert not discard_unfinished(folder, info, info.modified)
    assert not discard_unfinished(folder, ObjectInfo("a/x", 5), TOMORROW)
    assert discard_unfinished(folder, info, TOMORROW)
    assert not discard_unfinished(folder, info, TOMORROW), "gone already"
    assert [path.name for path in (tmp_path / "store" / "a").iterdir()] == ["x"]


def test_listings_tell_when_and_by_which_way(folder, tmp_path):
    folder.put("a/x", b"1")
    os.utime(tmp_path / "store" / "a" / "x", (1e9, 1e9))
    (tmp_path / "store" / "a" / "y").symlink_to(tmp_path / "store" / "a" / "x")
    (tmp_path / "store" / "b").symlink_to(tmp_path / "store" / "a")
    found = {info.key: info for info in folder.list("")}
    assert {key for key, info in found.items() if not info.is_linked} == {"a/x"}
    assert found["a/x"].modified == datetime.fromtimestamp(1e9, UTC)
    assert folder.head("a/x").modified == found["a/x"].modified
