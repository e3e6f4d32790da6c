"""Writing a split's shards: the same bytes, what is left out is told, sets follow each other."""

from collections import Counter

import numpy as np
import pytest

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_TAXONOMY
from clipfarm_assets.contracts.meme_splits import MemeSplits
from clipfarm_assets.pipelines.memes.rows import (
    NoShards,
    read_index,
)
from clipfarm_assets.pipelines.memes.shards import (
    PROBLEMS,
    ShardOptions,
    write_shards,
)
from clipfarm_assets.storage.images import ImageLimits, decode_rgb
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tar_shards import stored_bytes
from clipfarm_assets_tests.pipelines.memes.shard_kit import (
    INDEX,
    LAYOUT,
    SMALL,
    check_whole,
    everything,
    fill,
    ids,
    image,
    meme,
    memes,
    read,
    splits_of,
    tars,
    write,
)
from clipfarm_assets_tests.stores import CountingStore
from clipfarm_assets_tests.webdataset_oracle import decoded_samples


def test_a_second_run_finds_the_same_and_writes_nothing(tmp_path):
    store = CountingStore(str(tmp_path))
    rows = memes(10)
    fill(store, rows)
    first = write(store, rows)
    assert (first.rows, first.written, first.kept, first.removed) == (10, 3, 0, 0)
    before = everything(store)
    store.reset()
    again = write(store, rows)
    assert (again.rows, again.written, again.kept, again.removed) == (10, 0, 3, 0)
    assert again.index == first.index
    assert store.count("put") == store.count("delete") == 0
    assert everything(store) == before
    assert sorted(tars(store)) == [f"shard-00000{n}.tar" for n in range(3)]


def test_bytes_do_not_depend_on_place_order_threads_or_the_moment(tmp_path):
    rows = memes(9)
    found = []
    for name, order, workers in [("a", 1, 1), ("b", -1, 4)]:
        store = ObjectStore.open(str(tmp_path / name))
        fill(store, rows)
        write(store, rows[::order], ShardOptions(shard_rows=4, workers=workers))
        found.append(everything(store))
    assert found[0] == found[1]


def test_both_kinds_of_store_hold_the_same(store):
    rows = memes(5)
    fill(store, rows)
    write(store, rows)
    assert write(store, rows).written == 0
    assert ids(store) == {row.id for row in rows}
    write(store, rows[:3])
    assert ids(store) == {row.id for row in rows[:3]}
    assert len(tars(store)) == 1


def test_a_plain_webdataset_loop_reads_what_we_wrote(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = [
        *memes(6),
        meme("a.dotted.id"),
        meme("bez textu", caption="", ocr=""),
        meme("ž", ocr="č"),
    ]
    fill(store, rows)
    report = write(store, rows)
    theirs = decoded_samples(sorted(tmp_path.glob("memes/shards/train/*.tar")))
    ours = read(store)
    assert len(theirs) == len(ours) == report.rows == len(rows)
    for (key, txt, png, fields), sample in zip(theirs, ours, strict=True):
        assert (key, txt, fields) == (sample.key, sample.txt, sample.json)
        assert np.array_equal(png, np.asarray(decode_rgb(sample.png)[0]))
    assert {fields["id"] for _, _, _, fields in theirs} == {row.id for row in rows}


def test_a_sample_says_what_is_known(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    row = meme("one", image="deep/one.jpg", ocr="READ", labels={"abuse_hate": 1, "other": 2})
    store.put(LAYOUT.image(row.image), image(kind="JPEG"))
    write(store, [row])
    (sample,) = read(store)
    assert sample.txt == "READ\ncaption of one"
    assert sample.json == {
        "id": "one", "labels": {"abuse_hate": 1, "other": 2}, "group": "g-one", "source": "test",
        "caption": "caption of one", "ocr": "READ", "image": "deep/one.jpg", "width": 15,
        "height": 12,
    }  # fmt: skip
    index = read_index(store, LAYOUT, "train")
    assert index.labels == {"abuse_hate": {1: 1}, "other": {2: 1}}


def test_shards_are_cut_by_rows_and_by_bytes(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(7)
    fill(store, rows)
    assert [s.rows for s in write(store, rows, ShardOptions(shard_rows=3)).index.shards] == [
        3,
        3,
        1,
    ]
    each = [stored_bytes(sample) for sample in read(store)]
    report = write(store, rows, ShardOptions(shard_bytes=sum(each[:2])))
    assert report.index.shards[0].rows == 2
    assert all(s.bytes - 10240 <= sum(each[:2]) for s in report.index.shards)
    assert [s.rows for s in write(store, rows, ShardOptions(shard_bytes=1)).index.shards] == [1] * 7
    assert [s.key for s in read(store)] == [s.key for s in read(store)]
    for wrong in ({"shard_rows": 0}, {"shard_bytes": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            ShardOptions(**wrong)


def test_only_the_rows_of_the_split_are_in_it(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(8)
    fill(store, rows)
    of = {row.id: ("train", "val", "test")[n % 3] for n, row in enumerate(rows)}
    splits = MemeSplits(of, {row.id: row.id for row in rows})
    for split in ("train", "val", "test"):
        write_shards(store, LAYOUT, split, rows, splits, DEFAULT_TAXONOMY, SMALL)
        assert {s.json["id"] for s in read(store, split)} == set(splits.ids(split))


def test_what_is_left_out_is_told_with_its_reason(tmp_path):
    store = ObjectStore.open(str(tmp_path / "store"))
    good = memes(3)
    bad = [meme(name) for name in ("absent", "corrupt", "cut", "bomb", "heavy")]
    long = meme("long", caption="x" * (1 << 20))
    escaping = meme("escaping", image="../../secret.png")
    stray = meme("stray")
    fill(store, [*good, long, stray])
    store.put(LAYOUT.image("corrupt.png"), b"no image")
    store.put(LAYOUT.image("cut.png"), image()[:-30])
    store.put(LAYOUT.image("bomb.png"), image(side=60))
    store.put(LAYOUT.image("heavy.png"), bytes(20_001))
    (tmp_path / "secret.png").write_bytes(image())
    rows = [*good, *bad, long, escaping]
    splits = splits_of([*rows, meme("gone")])
    limits = ImageLimits(file_bytes=20_000, pixels=60 * 62)
    report = write(store, [*rows, stray], ShardOptions(limits=limits, workers=2), splits=splits)
    assert report.rows == 3
    assert report.problem_counts == {
        "bad_image_path": 1, "image_corrupt": 3, "image_not_found": 1, "image_too_large": 1,
        "no_row": 1, "no_split": 1, "unstorable": 1,
    }  # fmt: skip
    told = {problem.where: problem for problem in read_index(store, LAYOUT, "train").problems}
    assert told == {problem.where: problem for problem in report.index.problems}
    assert told["image bomb.png, id bomb"].detail == "it has 63 x 60 pixels, of 3720 at most"
    assert told["image heavy.png, id heavy"].detail == "it has 20001 bytes, of 20000 at most"
    assert "none of PNG" in told["image corrupt.png, id corrupt"].detail
    assert report.problem_counts.keys() <= PROBLEMS.keys()
    assert str(tmp_path) not in store.get(INDEX).decode()


def test_a_link_out_of_the_store_is_not_followed(tmp_path):
    store = ObjectStore.open(str(tmp_path / "store"))
    rows = memes(2)
    fill(store, rows[:1])
    (tmp_path / "secret.png").write_bytes(image())
    (tmp_path / "store" / LAYOUT.image("m1.png")).symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match="symbolic link"):
        write(store, rows)  # the whole folder is not to be trusted


def test_changes_of_images_are_counted(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(4)
    fill(store, rows)
    store.put(LAYOUT.image("m3.png"), image(kind="GIF"))
    report = write(store, rows, ShardOptions(limits=ImageLimits(longest_side=14)))
    assert report.index.changes == {"palette": 1, "shrunk": 4}
    assert {s.json["width"] for s in read(store)} == {14}


def test_rows_that_share_a_key_are_refused(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    for twins in ([meme("a"), meme("a")], [meme("a"), meme("b", key="a")]):
        with pytest.raises(ValueError, match="different ids and keys"):
            write(store, twins)


def test_no_rows_are_a_set_of_no_shards(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    with pytest.raises(NoShards, match=r"materialise memes/shards for 'train' first"):
        read(store)
    report = write(store, [])
    assert (report.rows, report.index.shards) == (0, ())
    assert read(store) == []


def test_a_changed_meme_replaces_its_shard_alone(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(12)
    fill(store, rows)
    before = write(store, rows).index
    store.put(LAYOUT.image("m5.png"), image(seed=99))
    report = write(store, rows)
    assert (report.written, report.kept, report.removed) == (1, 2, 1)
    assert len({s.sha256 for s in before.shards} & {s.sha256 for s in report.index.shards}) == 2
    assert report.index.version != before.version
    check_whole(store)
    # Whoever goes by the names alone sees exactly the set.
    assert len(decoded_samples(sorted(tmp_path.glob("memes/shards/train/*.tar")))) == 12


def test_back_to_the_set_before_gives_its_shards_again(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(6)
    fill(store, rows)
    first, first_bytes = write(store, rows).index, Counter(tars(store).values())
    write(store, rows[:3])
    again = write(store, rows).index
    assert again.version == first.version
    assert Counter(tars(store).values()) == first_bytes
    names = {s.part for s in first.shards} & {s.part for s in again.shards}
    assert not names  # a name is never given twice: nobody reads one thing for another
