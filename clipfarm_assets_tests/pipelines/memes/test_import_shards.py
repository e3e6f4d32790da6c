"""Shards of other writers become ours, and what of them does not is told."""

from pathlib import Path

import numpy as np
import pytest

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_TAXONOMY
from clipfarm_assets.pipelines.memes.rows import (
    NoShards,
    read_index,
)
from clipfarm_assets.pipelines.memes.shards import (
    import_shards,
)
from clipfarm_assets.storage.images import decode_rgb
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tar_shards import DamagedShard
from clipfarm_assets_tests.pipelines.memes.shard_kit import (
    LAYOUT,
    SMALL,
    fill,
    foreign_shard,
    image,
    memes,
    read,
    write,
)
from clipfarm_assets_tests.webdataset_oracle import decoded_samples


def test_shards_of_another_writer_become_ours(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    fields = {"labels": {"abuse_hate": 1, "unheard": 1}, "source": "there", "split": "dev", "n": 7}
    first = [
        {"__key__": "folder/a", "txt": " one ", "jpg": image(1, "JPEG"), "json": fields},
        {
            "__key__": "b",
            "txt": "two",
            "png": image(2),
            "json": {"label": 0, "id": 42, "group": "g"},
        },
        {"__key__": "c", "txt": "cut", "png": image(3)[:50], "json": {}},
        {"__key__": "d", "txt": "no image", "json": {}},
        {"__key__": "e.5", "txt": "dotted", "png": image(4), "json": {}},
    ]
    again = [{"__key__": "x", "txt": "twin", "png": image(5), "json": {"id": "42"}}]
    keys = ["theirs/0.tar", "theirs/1.tar"]
    store.put(keys[0], foreign_shard(first))
    store.put(keys[1], foreign_shard(again, mtime=0))
    report = import_shards(store, LAYOUT, "train", keys, DEFAULT_TAXONOMY, SMALL)
    assert report.problem_counts == {
        "bad_sample": 2, "dotted_id": 1, "duplicate_sample": 1, "image_corrupt": 1,
        "unknown_label": 1, "unlabelled": 2,
    }  # fmt: skip
    one, two = read(store)
    assert (one.txt, one.json["labels"], one.json["n"]) == ("one", {"abuse_hate": 1}, 7)
    assert one.json["group"] == one.json["id"] == "folder/a"
    assert (two.key, two.json["labels"], two.json["group"]) == ("42", {"abuse_hate": 0}, "g")
    assert np.array_equal(
        np.asarray(decode_rgb(one.png)[0]), np.asarray(decode_rgb(image(1, "JPEG"))[0])
    )
    assert import_shards(store, LAYOUT, "train", keys, DEFAULT_TAXONOMY, SMALL).written == 0
    paths = sorted(Path(tmp_path).glob("memes/shards/train/*.tar"))
    assert [key for key, *_ in decoded_samples(paths)] == [one.key, two.key]


def test_our_own_shards_survive_the_way_round(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(5)
    fill(store, rows)
    write(store, rows)
    ours = read(store)
    other = ObjectStore.open(str(tmp_path / "other"))
    keys = [
        LAYOUT.shard("train", shard.part) for shard in read_index(store, LAYOUT, "train").shards
    ]
    for key in keys:
        other.put(f"theirs/{key}", store.get(key))
    theirs = [f"theirs/{key}" for key in keys]
    import_shards(other, LAYOUT, "val", theirs, DEFAULT_TAXONOMY, SMALL)
    for was, now in zip(ours, read(other, "val"), strict=True):
        assert (was.key, was.txt, was.png) == (now.key, now.txt, now.png)
        assert was.json["labels"] == now.json["labels"]
        assert was.json["group"] == now.json["group"]


def test_memes_of_another_split_are_not_taken_in(tmp_path):
    """What is in train would be examined on what it was fitted on, were it in test too."""
    store = ObjectStore.open(str(tmp_path))
    rows = memes(3)
    fill(store, rows)
    write(store, rows)
    theirs = [
        {"__key__": "a", "txt": "new", "png": image(7), "json": {"id": "new", "label": 1}},
        {"__key__": "b", "txt": "old", "png": image(8), "json": {"id": rows[1].id, "label": 1}},
    ]
    store.put("theirs/0.tar", foreign_shard(theirs))
    for split in ("val", "test"):
        store.put("theirs/0.tar", foreign_shard(theirs))
        report = import_shards(store, LAYOUT, split, ["theirs/0.tar"], DEFAULT_TAXONOMY, SMALL)
        problem = next(each for each in report.index.problems if each.kind == "in_other_split")
        assert problem.where == "image theirs/0.tar#b"
        assert problem.detail == f"the shards of train hold id {rows[1].id}"
        theirs[0]["json"]["id"] = "newer"
    assert [sample.json["id"] for sample in read(store, "val")] == ["new"]
    assert [sample.json["id"] for sample in read(store, "test")] == ["newer"]
    again = import_shards(store, LAYOUT, "test", ["theirs/0.tar"], DEFAULT_TAXONOMY, SMALL)
    assert (again.rows, again.written) == (1, 0)  # a split's own shards are no other's


def test_a_damaged_or_absent_shard_of_another_writer_stops_the_import(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    store.put("theirs/0.tar", foreign_shard([{"__key__": "a", "txt": "x"}])[:700])
    with pytest.raises(DamagedShard, match=r"theirs/0.tar"):
        import_shards(store, LAYOUT, "train", ["theirs/0.tar"], DEFAULT_TAXONOMY)
    with pytest.raises(FileNotFoundError):
        import_shards(store, LAYOUT, "train", ["theirs/1.tar"], DEFAULT_TAXONOMY)
    with pytest.raises(NoShards):
        read(store)
