import json
from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.features import Column, FeatureContract
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training import dataset_file
from clipfarm_assets.training.data import SPLIT_KINDS, ClipBatch, Provenance, TrainingData
from clipfarm_assets.training.dataset_file import (
    BadDataset,
    NoDataset,
    dataset_sha256,
    read_dataset,
    write_dataset,
)
from clipfarm_assets_tests.training.stores import DisturbedStore, Killed, kill

LAYOUT = Layout()
KEY = LAYOUT.training_dataset("concat", 7)


def dataset(n=30, seed=0, *, strategy="concat", as_slices=True):
    """Data with everything that is awkward to store: nulls, NaN, NaT, other scripts."""
    rng = np.random.default_rng(seed)
    video, audio, text = (rng.normal(size=(n, d)).astype(np.float32) for d in (5, 3, 4))
    present = rng.random(n) < 0.8
    text[~present] = 0
    fused = np.concatenate([video, audio, text, present[:, None].astype(np.float32)], axis=1)
    if strategy != "concat":
        fused = fused[:, :6].copy()
    elif as_slices:
        video, audio, text = fused[:, :5], fused[:, 5:8], fused[:, 8:12]
    moments = np.datetime64("2026-02-05T17:34:41.595562", "us") + np.arange(n)
    published = moments.copy()
    published[::7] = np.datetime64("NaT")
    numbers = rng.normal(size=n).tolist()
    numbers[0], numbers[1] = None, float("nan")
    parts = rng.choice(["train", "val", "test", "excluded"], size=n)
    return TrainingData(
        clips=ClipBatch(
            video_ids=np.array([f"-id_{i:04d}" for i in range(n)]),
            fused=fused,
            video=video,
            audio=audio,
            text=text,
            text_present=present,
            metadata=pl.DataFrame(
                {"duration_seconds": numbers, "query": ['होली, "x"\n', None] * (n // 2)},
                schema={"duration_seconds": pl.Float64, "query": pl.String},
            ),
            channel_id=np.array(["", "UCé"] * (n // 2)),
            published_at=published,
        ),
        target_raw=rng.integers(0, 10**9, n).astype(np.float64),
        captured_at=moments,
        source_hash=np.array([f"{i:064x}" for i in range(n)]),
        splits={"random": parts, "chronological": np.sort(parts)},
        unavailable_splits={"grouped": "one channel only"},
        duplicate_groups=np.arange(n, dtype=np.int64) // 2,
        contract=FeatureContract(
            "v2",
            ("duration_seconds",),
            ("query",),
            {"view_count": "known only after the outcome"},
            {"mood": Column("at_publish", "numeric")},
        ),
        outcomes=pl.DataFrame({"view_count": numbers}, schema={"view_count": pl.Float64}),
        counts={"rows": n, "views_missing": 0},
        provenance=Provenance(
            strategy,
            7,
            3,
            "a" * 64,
            {"video": "v1", "audio": "a1", "text": "t1"},
            "b" * 64,
            "c" * 64,
        ),
    )


def assert_same(ours, theirs):
    for clip_field in fields(ClipBatch):
        same_values(getattr(ours.clips, clip_field.name), getattr(theirs.clips, clip_field.name))
    for name in ("target_raw", "captured_at", "source_hash", "duplicate_groups", "outcomes"):
        same_values(getattr(ours, name), getattr(theirs, name))
    assert ours.splits.keys() == theirs.splits.keys()
    for kind, parts in ours.splits.items():
        same_values(parts, theirs.splits[kind])
    for name in ("contract", "counts", "provenance", "unavailable_splits"):
        assert getattr(ours, name) == getattr(theirs, name)


def same_values(one, other):
    if isinstance(one, pl.DataFrame):
        assert one.equals(other, null_equal=True)
        assert one.schema == other.schema
    else:
        np.testing.assert_array_equal(one, other)
        assert one.dtype.kind == other.dtype.kind
        assert one.dtype.kind == "U" or one.dtype == other.dtype


def everything(store):
    return {info.key: store.get(info.key) for info in store.list("")}


def test_what_is_written_is_read(store):
    data = dataset()
    sha256 = write_dataset(store, LAYOUT, data)
    found = read_dataset(store, LAYOUT, "concat", 7)
    assert_same(found, data)
    assert sha256 == dataset_sha256(data) == dataset_sha256(found)
    assert sha256 == json.loads(store.get(KEY))["sha256"]


def test_parts_that_are_removed_before_it_is_current_are_put_again(folder, monkeypatch):
    """It was made before, and replaced: its parts are there, and nothing refers to them."""
    data = dataset()
    sha256 = write_dataset(folder, LAYOUT, data)
    write_dataset(folder, LAYOUT, dataset(n=12))
    parts = [info.key for info in folder.list("") if sha256 in info.key]
    put = ObjectStore.put

    def removed_first(store, key, data):
        assert key == KEY
        for part in parts:
            store.delete(part)
        put(store, key, data)

    monkeypatch.setattr(ObjectStore, "put", removed_first)
    assert write_dataset(folder, LAYOUT, data) == sha256
    assert len(parts) == 2
    assert_same(read_dataset(folder, LAYOUT, "concat", 7), data)


def test_data_of_many_parts_is_read_in_order(folder, monkeypatch):
    data = dataset(n=50)
    monkeypatch.setattr(dataset_file, "PART_ROWS", 8)
    write_dataset(folder, LAYOUT, data)
    names = [key.rsplit("/", 1)[-1] for key in everything(folder)]
    assert sum(name.startswith("vectors-") for name in names) == 7
    assert_same(read_dataset(folder, LAYOUT, "concat", 7), data)


@pytest.mark.parametrize("strategy", ["sum_pool", "max_pool"])
def test_vectors_that_are_no_slices_are_stored_beside(folder, strategy):
    data = dataset(strategy=strategy)
    write_dataset(folder, LAYOUT, data)
    assert_same(read_dataset(folder, LAYOUT, strategy, 7), data)


def test_slices_are_stored_once_and_read_as_slices(folder):
    data = dataset()
    write_dataset(folder, LAYOUT, data)
    clips = read_dataset(folder, LAYOUT, "concat", 7).clips
    assert np.shares_memory(clips.text, clips.fused)
    part = next(data for key, data in everything(folder).items() if key.endswith(".npz"))
    assert len(part) < clips.fused.nbytes + 1000


def test_a_text_vector_that_departs_from_the_fused_one_is_kept(folder):
    """A clip whose text was lost has a fused vector that still holds it."""
    data = dataset(as_slices=False)
    text, present = data.clips.text.copy(), data.clips.text_present.copy()
    at = int(np.flatnonzero(present)[0])
    text[at], present[at] = 0, False
    data = replace(data, clips=replace(data.clips, text=text, text_present=present))
    write_dataset(folder, LAYOUT, data)
    assert_same(read_dataset(folder, LAYOUT, "concat", 7), data)


def test_the_same_data_give_the_same_bytes(tmp_path):
    stores = [ObjectStore.open(str(tmp_path / name)) for name in "ab"]
    for store, as_slices in zip(stores, (True, False), strict=True):
        write_dataset(store, LAYOUT, dataset(as_slices=as_slices))
    assert everything(stores[0]) == everything(stores[1])
    before = everything(stores[0])
    write_dataset(stores[0], LAYOUT, read_dataset(stores[0], LAYOUT, "concat", 7))
    assert everything(stores[0]) == before


def changes():
    data = dataset()
    clips = data.clips
    yield "vector", replace(data, clips=replace(clips, fused=-clips.fused))
    yield "id", replace(data, clips=replace(clips, video_ids=np.char.add(clips.video_ids, "x")))
    yield "metadata", replace(data, clips=replace(clips, metadata=clips.metadata.reverse()))
    yield "target", replace(data, target_raw=data.target_raw + 1)
    yield "split", replace(data, splits={"random": data.splits["random"][::-1]})
    yield "counts", replace(data, counts={"rows": 1})
    yield "unavailable", replace(data, unavailable_splits={})
    yield "lock", replace(data, provenance=replace(data.provenance, lock_version=4))
    yield "contract", replace(data, contract=replace(data.contract, feature_set="v1"))
    yield "outcomes", replace(data, outcomes=data.outcomes * 2)


@pytest.mark.parametrize("changed", [pytest.param(d, id=name) for name, d in changes()])
def test_any_change_is_another_dataset(changed):
    assert dataset_sha256(changed) != dataset_sha256(dataset())


def test_a_writer_killed_at_any_write_leaves_the_old_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_file, "PART_ROWS", 10)
    old, new = dataset(), dataset(seed=1)
    undisturbed = ObjectStore.open(str(tmp_path / "undisturbed"))
    for data in (old, new):
        write_dataset(undisturbed, LAYOUT, data)
    writes = 5  # rows, three parts, dataset.json
    for nth in range(1, writes + 1):
        dying = DisturbedStore(str(tmp_path / str(nth)), nth, kill)
        store = ObjectStore.open(str(tmp_path / str(nth)))
        write_dataset(store, LAYOUT, old)
        with pytest.raises(Killed):
            write_dataset(dying, LAYOUT, new)
        assert_same(read_dataset(store, LAYOUT, "concat", 7), old)
        write_dataset(store, LAYOUT, new)
        assert_same(read_dataset(store, LAYOUT, "concat", 7), new)
        assert everything(store) == everything(undisturbed)
    # There is no further write after which it could be killed.
    write_dataset(DisturbedStore(str(tmp_path / "whole"), writes + 1, kill), LAYOUT, new)


def test_a_reader_that_began_before_a_swap_reads_the_old_dataset_whole(folder):
    old, new = dataset(), dataset(seed=1)
    write_dataset(folder, LAYOUT, old)

    class Swapped:
        """A rival replaces the dataset as soon as its name has been read."""

        def get(self, key):
            data = folder.get(key)
            if key == KEY:
                write_dataset(folder, LAYOUT, new)
            return data

    assert_same(read_dataset(Swapped(), LAYOUT, "concat", 7), old)
    assert_same(read_dataset(folder, LAYOUT, "concat", 7), new)


def test_no_dataset_says_what_to_materialise(folder):
    write_dataset(folder, LAYOUT, dataset())
    with pytest.raises(NoDataset, match=r"clips/training_dataset for 'max_pool' at 30 days first"):
        read_dataset(folder, LAYOUT, "max_pool", 30)
    assert issubclass(NoDataset, FileNotFoundError)


def parts(store):
    return [key for key in everything(store) if key != KEY]


@pytest.mark.parametrize("which", [0, 1])
def test_a_part_with_one_bit_flipped_or_gone_is_refused(folder, which):
    write_dataset(folder, LAYOUT, dataset())
    key = parts(folder)[which]
    data = bytearray(folder.get(key))
    data[len(data) // 2] ^= 1
    folder.put(key, bytes(data))
    with pytest.raises(BadDataset, match=r"its sha256 must be .* found .*materialise"):
        read_dataset(folder, LAYOUT, "concat", 7)
    folder.delete(key)
    with pytest.raises(BadDataset, match="it does not exist"):
        read_dataset(folder, LAYOUT, "concat", 7)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda body: body["counts"].update(rows=31), "not what its own sha256"),
        (lambda body: body["parts"].reverse(), "not what its own sha256"),
        (lambda body: body.update(sha256="../../../etc"), "not what its own sha256"),
        (lambda body: body.pop("sha256"), "a JSON object with a sha256"),
    ],
)
def test_a_header_edited_by_hand_is_refused(folder, edit, problem):
    write_dataset(folder, LAYOUT, dataset())
    body = json.loads(folder.get(KEY))
    edit(body)
    folder.put(KEY, json.dumps(body).encode())
    with pytest.raises(BadDataset, match=problem):
        read_dataset(folder, LAYOUT, "concat", 7)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"[" * 100_000, b'{"sha256": 3}'])
def test_a_header_that_is_none_is_refused(folder, data):
    folder.put(KEY, data)
    with pytest.raises(BadDataset, match="materialise clips/training_dataset"):
        read_dataset(folder, LAYOUT, "concat", 7)


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body.update(rows=29),
        lambda body: body.update(rows=10**15),
        lambda body: body.update(fused_dim=12),
        lambda body: body.pop("dims"),
        lambda body: body.pop("parts"),
        lambda body: body.update(parts=[]),
        lambda body: body["provenance"].update(extra=1),
        lambda body: body["contract"].pop("numeric"),
        lambda body: body.update(horizon=30),
    ],
)
def test_a_header_with_a_right_hash_and_a_wrong_content_is_refused(folder, edit):
    """As an earlier or later version of the format might be."""
    write_dataset(folder, LAYOUT, dataset())
    body = json.loads(folder.get(KEY))
    old = body.pop("sha256")
    edit(body)
    told = dataset_file._sha256_of(body)
    for key in parts(folder):
        folder.put(key.replace(old, told), folder.get(key))
    folder.put(KEY, json.dumps({**body, "sha256": told}).encode())
    with pytest.raises(BadDataset, match="materialise clips/training_dataset"):
        read_dataset(folder, LAYOUT, "concat", 7)


def test_the_kinds_of_splits_are_stored_by_name(folder):
    data = dataset()
    data = replace(data, splits=dict.fromkeys(SPLIT_KINDS, data.splits["random"]))
    write_dataset(folder, LAYOUT, data)
    assert tuple(read_dataset(folder, LAYOUT, "concat", 7).splits) == SPLIT_KINDS
