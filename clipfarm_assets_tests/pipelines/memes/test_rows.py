"""Reading a split's samples: whole sets, verified, in order, one shard in memory."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.pipelines.memes.rows import (
    BadIndex,
    ShardsChanged,
    ShardsDamaged,
    iter_images,
    iter_samples,
    read_index,
)
from clipfarm_assets.storage.images import ImageLimits, decode_rgb
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.memes.shard_kit import (
    INDEX,
    LAYOUT,
    SMALL,
    everything,
    fill,
    image,
    memes,
    read,
    refuse,
    splits_of,
    write,
)


def test_a_reader_of_a_set_that_is_replaced_is_told(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(8)
    fill(store, rows)
    write(store, rows)
    samples = iter_samples(store, LAYOUT, "train", on_bad=refuse)
    given = [next(samples).json["id"]]
    write(store, rows[:2])
    with pytest.raises(ShardsChanged, match="replaced by others while they were read"):
        given.extend(sample.json["id"] for sample in samples)
    assert len(given) == 4  # the shard it had


@pytest.mark.parametrize("harm", ["lost", "rewritten", "cut"])
def test_a_harmed_shard_is_told_and_the_next_run_mends_it(harm, tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(8)
    fill(store, rows)
    write(store, rows)
    before = everything(store)
    key = LAYOUT.shard("train", 1)
    if harm == "lost":
        store.delete(key)
    else:
        data = store.get(key)
        store.put(key, data[:-512] if harm == "cut" else data.replace(b"caption", b"nothing"))
    with pytest.raises(ShardsDamaged, match=r"shard-000001.tar .*materialise memes/shards"):
        read(store)
    assert write(store, rows).written == 1
    assert everything(store) == before


def test_order_and_set_can_be_chosen(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(8)
    fill(store, rows)
    write(store, rows)
    index = read_index(store, LAYOUT, "train")
    plain = [s.key for s in read(store)]
    options = {"on_bad": refuse, "index": index}
    turned = iter_samples(store, LAYOUT, "train", order=[1, 0], **options)
    assert [s.key for s in turned] == plain[4:] + plain[:4]
    part = iter_samples(store, LAYOUT, "train", order=[1], **options)
    assert [s.key for s in part] == plain[4:]


def test_order_is_drawn_by_the_seed(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(12)
    fill(store, rows)
    orders = []
    for seed in (1, 2):
        write(store, rows, splits=replace(splits_of(rows), seed=seed))
        orders.append([s.json["id"] for s in read(store)])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) != orders[0]


def test_images_come_decoded_and_in_order(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(9)
    fill(store, rows)
    write(store, rows)
    samples = read(store)
    broken = replace(samples[4], png=samples[4].png[:-20])
    bad = []
    found = list(iter_images([*samples[:4], broken, *samples[5:]], on_bad=bad.append))
    assert [s.key for s, _ in found] == [s.key for s in samples if s.key != broken.key]
    assert [b.key for b in bad] == [broken.key]
    for sample, decoded in found:
        assert np.array_equal(np.asarray(decoded), np.asarray(decode_rgb(sample.png)[0]))


def test_an_image_is_as_large_as_it_was_packed(tmp_path):
    """Whatever the limits of another deployment, or the default's."""
    store = ObjectStore.open(str(tmp_path))
    rows = memes(1)
    store.put(LAYOUT.image(rows[0].image), image(side=1100))
    write(store, rows, replace(SMALL, limits=ImageLimits(longest_side=2000)))
    ((_, decoded),) = iter_images(read(store), on_bad=refuse)
    assert decoded.size == (1103, 1100)


def test_memory_is_that_of_one_shard(tmp_path):
    peaks = []
    for shards in (1, 12):
        store = ObjectStore.open(str(tmp_path / str(shards)))
        rows = memes(4 * shards)
        for row in rows:
            store.put(LAYOUT.image(row.image), image(side=120))
        write(store, rows)
        tracemalloc.start()
        assert sum(1 for _ in iter_samples(store, LAYOUT, "train", on_bad=refuse)) == 4 * shards
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        size = read_index(store, LAYOUT, "train").shards[0].bytes
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 2 * size


HOSTILE = {
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "no object": b"[]",
    "empty": b"{}",
    "leads out": {"name": "../../secret.tar"},
    "other name": {"name": "shard-0.tar"},
    "no hash": {"sha256": "x"},
    "hash is a list": {"sha256": []},
    "negative": {"bytes": -1},
    "true": {"rows": True},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_index_is_not_trusted(name, tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(2)
    fill(store, rows)
    write(store, rows)
    harm = HOSTILE[name]
    if isinstance(harm, dict):
        body = json.loads(store.get(INDEX))
        body["shards"][0].update(harm)
        harm = json.dumps(body).encode()
    store.put(INDEX, harm)
    for work in (lambda: read(store), lambda: write(store, rows)):
        with pytest.raises(
            BadIndex, match=r"index.json must be the index of the shards of 'train'"
        ):
            work()


@pytest.mark.parametrize("change", [{"split": "val"}, {"next_part": 0}, {"rows": 7}])
def test_an_index_that_contradicts_itself_is_refused(change, tmp_path):
    store = ObjectStore.open(str(tmp_path))
    rows = memes(2)
    fill(store, rows)
    write(store, rows)
    store.put(INDEX, json.dumps({**json.loads(store.get(INDEX)), **change}).encode())
    with pytest.raises(BadIndex):
        read(store)
