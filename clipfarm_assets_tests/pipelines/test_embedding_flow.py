"""How an embedding run moves: what is under way at once, what is written when, how it ends."""

import threading
import time

import pytest

from clipfarm_assets.encoders.base import Equivalence, ModelMismatch
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.embed import EncoderBroken
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import CORRUPT, DAY_1, NAN, REFUSED, Clip, clips, door

STAGE = "video_embedding"
MIB = 2**20


def run(world, by=None, **options):
    return world.embed("video", by=by or door("video"), **options)[DAY_1]


def workers_alive():
    return [t for t in threading.enumerate() if t.name.startswith("clipfarm")]


@pytest.fixture
def written(monkeypatch):
    """Every vector stored and every row committed, in their order."""
    found, put, commit = [], ObjectStore.put, Ledger.commit

    def counted_put(store, key, data):
        put(store, key, data)
        if "/embeddings/" in key:
            found.append(("put", key.rpartition("/")[2].removesuffix(".npy")))

    def counted_commit(ledger, stage, items, **options):
        items = list(items)
        found.extend(("begin", item.video_id) for item in items)
        commit(ledger, stage, items, **options)
        found.extend(("row", item.video_id) for item in items)

    monkeypatch.setattr(ObjectStore, "put", counted_put)
    monkeypatch.setattr(Ledger, "commit", counted_commit)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
@pytest.mark.parametrize("put_workers", [1, 4, 16])
def test_a_batch_at_most_is_stored_and_not_on_record(world, written, batch_size, put_workers):
    world.fill([*clips(20), Clip("x-absent", video=None), Clip("x-bad", video=CORRUPT), Clip("y")])

    run(world, batch_size=batch_size, put_workers=put_workers)

    stored, committed, most = set(), [], 0
    for what, video_id in written:
        if what == "put":
            stored.add(video_id)
        elif what == "begin":
            assert video_id in stored or video_id.startswith("x-")  # the object is first
        else:
            committed.append(video_id)
        most = max(most, len(stored - set(committed)))
    assert committed == sorted(committed)  # rows are in the order of the clips
    assert len(committed) == 23
    assert most <= batch_size


def test_rows_are_committed_a_batch_at_a_time(world, monkeypatch):
    world.fill(clips(20))
    sizes, commit = [], Ledger.commit

    def counted(ledger, stage, items, **options):
        items = list(items)
        sizes.append(len(items))
        commit(ledger, stage, items, **options)

    monkeypatch.setattr(Ledger, "commit", counted)
    run(world, batch_size=8)
    assert [size for size in sizes if size] == [8, 8, 4]


def test_vectors_are_stored_several_at_once(world, monkeypatch):
    world.fill(clips(8))
    put, together = ObjectStore.put, threading.Barrier(4)

    def waits(store, key, data):
        if "/embeddings/" in key:
            together.wait(20)  # returns only when four are here
        put(store, key, data)

    monkeypatch.setattr(ObjectStore, "put", waits)
    assert run(world, batch_size=8, put_workers=4).statuses == {"success": 8}


def test_groups_are_encoded_several_at_once(world):
    world.fill(clips(14))
    by, together = door("video", group_size=2), threading.Barrier(3)
    honest = by.encoder.encode

    def encode(prepared):
        if by.encoder.batches:  # the first group is alone
            together.wait(20)
        return honest(prepared)

    by.encoder.encode = encode
    assert run(world, by, encode_workers=3).statuses == {"success": 14}
    assert by.encoder.batches == [2] * 7


@pytest.mark.parametrize(
    ("clips_there", "encode_workers", "expected"),
    [(5, 1, [5]), (130, 1, [64, 64, 2]), (5, 2, [2, 3]), (5, 8, [1] * 5)],
)
def test_a_small_delta_waits_for_no_full_group_and_is_shared(
    world, clips_there, encode_workers, expected
):
    world.fill(clips(clips_there))
    by = door("video", group_size=64)
    run(world, by, encode_workers=encode_workers)
    assert sorted(by.encoder.batches) == sorted(expected)


def test_raw_objects_in_memory_stay_within_the_budget(world, monkeypatch):
    """Counted from being read to being decoded; one is above the budget by itself."""
    big = [Clip("big-000", video=bytes(3 * MIB)), *clips(12, prefix="some", video=bytes(MIB // 3))]
    world.fill(big)
    lock, get, by = threading.Lock(), ObjectStore.get, door("video")
    now = most = 0

    def fetched(store, key):
        nonlocal now, most
        data = get(store, key)
        if "/raw/" in key:
            with lock:
                now += len(data)
                most = max(most, now)
        return data

    def prepare(source, deadline):
        nonlocal now
        time.sleep(0.005)
        with lock:
            now -= len(source.raw)
        return source.raw[:8], source.metadata["title"]

    monkeypatch.setattr(ObjectStore, "get", fetched)
    by.encoder.prepare = prepare
    assert run(world, by, prefetch_mib=1, fetch_workers=8).statuses == {"success": 13}
    assert now == 0
    assert 3 * MIB <= most <= 4 * MIB + 100


def failing(where, monkeypatch, by):
    """Make the sixth call of one kind fail, as nothing an item could cause."""
    calls = iter(range(1000))

    def sixth(call, match=""):
        def wrapped(*args, **options):
            if match in str(args[1:2]) and next(calls) == 5:
                msg = f"{where} is down"
                raise OSError(msg)
            return call(*args, **options)

        return wrapped

    if where == "fetch":
        monkeypatch.setattr(ObjectStore, "get", sixth(ObjectStore.get, "/raw/"))
    elif where == "put":
        monkeypatch.setattr(ObjectStore, "put", sixth(ObjectStore.put, "/embeddings/"))
    elif where == "ledger":
        monkeypatch.setattr(Ledger, "commit", sixth(Ledger.commit, STAGE))


@pytest.mark.parametrize("where", ["fetch", "put", "ledger"])
def test_what_was_stored_is_on_record_when_a_run_is_stopped(world, monkeypatch, where):
    world.fill(clips(100))
    by = door("video")
    failing(where, monkeypatch, by)
    batch = 4
    with pytest.raises(OSError, match=f"{where} is down") as kept:
        run(world, by, batch_size=batch, fetch_workers=1, workers=2, encode_workers=2)

    assert kept.tb is not None
    assert workers_alive() == []
    committed = set(world.statuses(STAGE))
    stored = {
        k.rpartition("/")[2].removesuffix(".npy") for k in world.objects("clipfarm/embeddings")
    }
    assert committed <= stored
    assert len(stored - committed) <= batch
    first = {"fetch": 5, "put": None, "ledger": 5 * batch}[where]
    if first is not None:
        assert committed == {f"clip-{i:03d}" for i in range(first)}
    assert len(by.encoder.prepared) < 100  # it stopped, instead of working on


def test_a_model_of_other_weights_stops_it_and_leaves_no_thread(world):
    world.fill(clips(30))
    by = door("video")

    def prepare(source, deadline):
        if source.video_id == "clip-004":
            msg = "other weights"
            raise ModelMismatch(msg)
        return source.raw, source.metadata["title"]

    by.encoder.prepare = prepare
    with pytest.raises(ModelMismatch, match="other weights"):
        run(world, by, workers=2, encode_workers=2)
    assert set(world.statuses(STAGE)) == {f"clip-{i:03d}" for i in range(4)}
    assert workers_alive() == []


def test_a_broken_encoder_stops_it_and_leaves_no_thread(world):
    world.fill([*clips(4, prefix="a"), *clips(60, prefix="b", video=NAN)])
    by = door("video")
    with pytest.raises(EncoderBroken):
        run(world, by, workers=2, encode_workers=2)
    assert set(world.statuses(STAGE)) == {f"a-{i:03d}" for i in range(4)}
    assert workers_alive() == []
    assert len(by.encoder.prepared) < 64


def test_a_run_says_how_far_it_is_by_stage(world):
    world.fill([*clips(3), Clip("x-absent", video=None), Clip("x-bad", video=REFUSED)])
    run(world)
    assert world.said[-1].startswith(f"video {DAY_1}: 5/5, ")
    assert world.said[-1].endswith("/s (fetched 5, decoded 4, encoded 4, stored 3)")


def test_a_run_measures_itself(world):
    world.fill([*clips(6), Clip("x-absent", video=None), Clip("x-bad", video=CORRUPT)])
    by, honest = door("video"), door("video").encoder

    def busy(prepared):
        ends = time.thread_time() + 0.02
        while time.thread_time() < ends:
            pass
        return honest.encode(prepared)

    def opened():
        time.sleep(0.3)
        return by.encoder

    by.encoder.encode = busy
    report = run(world, opened, encode_workers=1)

    found = {line.stage: line for line in report.roofline.steps}
    assert {stage: line.items for stage, line in found.items()} == {
        "fetch": 8,
        "decode": 7,
        "encode": 6,
        "put": 6,
    }
    whole = report.roofline.whole
    assert (whole.items, whole.bound_by) == (8, "compute")
    assert found["encode"].limit <= report.roofline.cores / 0.02
    assert whole.limit <= 8 * report.roofline.cores / (6 * 0.02)
    assert report.roofline.seconds <= report.seconds - 0.3  # opening the model is no work


def test_objects_that_are_missing_leave_room_for_one_above_the_bound(world):
    some = clips(4)
    world.fill(some)
    world.store.delete(world.layout.raw("video", some[0].video_id))
    world.store.put(world.layout.raw("video", some[1].video_id), bytes(3 * 2**20))
    run(world, prefetch_mib=1)
    found = world.statuses("video_embedding")
    assert found[some[0].video_id] == "missing_raw_object"
    assert [found[clip.video_id] for clip in some[1:]] == ["success"] * 3


def test_a_run_without_anything_to_do_has_no_roofline(world):
    world.fill(clips(2))
    run(world)
    assert run(world).roofline is None


def test_why_a_precision_is_used_is_said_and_reported(world):
    world.fill(clips(2))
    verdict = Equivalence("bf16", True, 12, 0.99997, 0.9999, 0, "here")
    report = run(world, door("video", equivalence=verdict))
    assert report.equivalence == verdict.sentence()
    assert report.computed == "hashed"
    assert world.said.count(verdict.sentence()) == 1
