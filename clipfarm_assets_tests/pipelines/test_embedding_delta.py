"""What an embedding run takes on, what it leaves alone, and what becomes of what fails."""

import threading
from dataclasses import replace

import pytest

from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.pipelines.workers import Machine, WorkerOptions, plan_work
from clipfarm_assets.storage.npy import npy_to_vector
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    BUG,
    CORRUPT,
    DAY_1,
    DAY_2,
    EMPTY,
    NAN,
    REFUSED,
    Clip,
    clips,
    door,
    hash_vector,
    version_of,
)

STAGE = "video_embedding"


def run(world, **options):
    by = options.pop("by", None) or door("video")
    return world.embed("video", by=by, **options)[DAY_1], by


def only(world):
    (item,) = world.states(STAGE).values()
    return item


def test_a_new_clip_is_embedded_and_on_record(world):
    clip = Clip("one")
    world.fill([clip])

    report, by = run(world)

    key = "clipfarm/embeddings/video/one.npy"
    vector = npy_to_vector(world.store.get(key))
    assert (vector == hash_vector(by.encoder.version, clip.raw("video"), "title of one")).all()
    item = only(world)
    assert (item.status, item.source_hash, item.artifact_key, item.retry_count, item.version) == (
        "success",
        clip.source_hash,
        key,
        0,
        by.encoder.version.id,
    )
    assert item.details == {
        "raw_bytes": len(clip.raw("video")),
        "captured_at": "2026-02-05T12:00:00+00:00",
    }
    assert (report.considered, report.worked_on, report.unchanged) == (1, 1, 0)
    assert report.reasons == {"new": 1}
    assert report.statuses == {"success": 1}
    assert report.totals == {"raw_bytes": len(clip.raw("video"))}
    assert world.deployment.models_lock().version(item.version) == by.encoder.version


def test_only_clips_of_the_date_are_looked_at(world):
    world.fill([*clips(3, DAY_1, "first"), *clips(2, DAY_2, "second")])

    world.embed("video", DAY_2)

    assert list(world.statuses(STAGE)) == ["second-000", "second-001"]


def test_an_unchanged_rerun_encodes_nothing_and_reads_no_raw_object(world, monkeypatch):
    world.fill(clips(5))
    run(world)
    before, read = world.objects(), []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda s, key: read.append(key) or get(s, key))

    report, by = run(world)

    assert report.reasons == {}
    assert (report.unchanged, report.worked_on) == (5, 0)
    assert by.encoder.prepared == by.encoder.batches == []
    assert [key for key in read if "/raw/" in key] == []
    monkeypatch.undo()
    assert world.objects() == before


def test_reasons_are_told_apart(world):
    world.fill([*clips(2), Clip("waits", video=None), Clip("moved")])
    run(world)
    world.fill([*clips(3), Clip("waits"), Clip("moved", url="https://youtu.be/elsewhere")])

    report, by = run(world)

    assert report.reasons == {"new": 1, "unfinished": 1, "source_changed": 1}
    assert sorted(by.encoder.prepared) == ["clip-002", "moved", "waits"]
    assert set(world.statuses(STAGE).values()) == {"success"}


def test_another_embedding_version_takes_everything_on_again(world):
    world.fill(clips(3))
    run(world)
    old = world.objects("clipfarm/embeddings")

    report, by = run(world, by=door("video", "r2"))

    assert report.reasons == {"version_changed": 3}
    assert {item.version for item in world.states(STAGE).values()} == {by.encoder.version.id}
    new = world.objects("clipfarm/embeddings")
    assert new.keys() == old.keys()
    assert all(new[key] != old[key] for key in new)
    assert run(world, by=door("video", "r2"))[0].reasons == {}


def test_a_version_on_record_spares_opening_the_encoder(world):
    world.fill(clips(3))
    run(world)

    report, by = run(world, known=version_of("video"))
    assert (report.worked_on, by.opened) == (0, 0)

    report, by = run(world, by=door("video", "r2"), known=version_of("video", "r2"))
    assert (report.reasons, by.opened) == ({"version_changed": 3}, 1)


def test_an_encoder_that_is_not_what_the_record_promised_embeds_nothing(world):
    world.fill(clips(3))
    run(world)
    before = world.objects("clipfarm/embeddings")
    with pytest.raises(ModelMismatch, match="expected the encoder to be of the recorded version"):
        run(world, by=door("video", "r3"), known=version_of("video", "r2"))
    assert world.objects("clipfarm/embeddings") == before
    assert {item.version for item in world.states(STAGE).values()} == {version_of("video").id}


def test_one_run_over_many_dates_opens_one_encoder(world):
    world.fill([*clips(3, DAY_1, "first"), *clips(3, DAY_2, "second")])
    by = door("video")
    world.embed("video", DAY_1, DAY_2, by=by)
    assert by.opened == 1


def test_failures_are_counted_until_they_are_terminal(world):
    world.fill([Clip("bad", video=CORRUPT)])
    found = []
    for _ in range(3):
        run(world, max_fail_retries=2)
        found.append((only(world).status, only(world).retry_count))
    assert found == [("fail", 1), ("fail", 2), ("fail_terminal", 3)]
    assert only(world).error == "corrupt on purpose"
    assert only(world).artifact_key is None

    report, by = run(world, max_fail_retries=2)
    assert by.encoder.prepared == []
    assert report.reasons == {}

    report, by = run(world, max_fail_retries=2, retry_terminal=True)
    assert by.encoder.prepared == ["bad"]
    assert report.reasons == {"unfinished": 1}
    assert only(world).status == "fail_terminal"


def test_a_terminal_failure_that_is_mended_succeeds_when_asked_again(world):
    world.fill([Clip("bad", video=CORRUPT)])
    run(world, max_fail_retries=0)
    assert only(world).status == "fail_terminal"
    world.fill([Clip("bad")])

    run(world)
    assert only(world).status == "fail_terminal"
    run(world, retry_terminal=True)
    assert (only(world).status, only(world).error) == ("success", None)


def test_a_changed_source_is_a_new_story(world):
    world.fill([Clip("bad", video=CORRUPT)])
    run(world, max_fail_retries=1)
    run(world, max_fail_retries=1)
    assert (only(world).status, only(world).retry_count) == ("fail_terminal", 2)
    world.fill([Clip("bad", video=CORRUPT, url="https://youtu.be/elsewhere")])

    report, _ = run(world, max_fail_retries=1)

    assert report.reasons == {"source_changed": 1}
    assert (only(world).status, only(world).retry_count) == ("fail", 1)


def test_waiting_is_no_failure_and_forgets_those_before(world):
    world.fill([Clip("bad", video=CORRUPT)])
    run(world, max_fail_retries=1)
    assert only(world).retry_count == 1
    world.fill([Clip("bad", video=None)])
    for _ in range(4):
        run(world, max_fail_retries=1)
        assert (only(world).status, only(world).retry_count) == ("missing_raw_object", 0)
    assert only(world).error == "clipfarm/raw/video/bad.mp4 does not exist"

    world.fill([Clip("bad", video=CORRUPT)])
    run(world, max_fail_retries=1)
    assert (only(world).status, only(world).retry_count) == ("fail", 1)


def test_an_object_with_nothing_in_it_yet_is_waited_for(world):
    world.fill([Clip("early", video=EMPTY)])
    run(world)
    assert (only(world).status, only(world).error) == ("missing_raw_object", "nothing to embed yet")

    world.fill([Clip("early")])
    run(world)
    assert only(world).status == "success"


def test_one_bad_item_is_one_bad_item(world):
    bad = {"bug": BUG, "corrupt": CORRUPT, "nan": NAN, "refused": REFUSED}
    some = [Clip(name, video=mark) for name, mark in bad.items()]
    world.fill([*clips(7, prefix="a"), *some, *clips(7, prefix="z")])

    report, by = run(world, batch_size=18)

    assert report.statuses == {"success": 14, "fail": 4}
    errors = {i: item.error for i, item in world.states(STAGE).items() if item.status == "fail"}
    assert errors == {
        "bug": 'KeyError: "a decoder\'s surprise"',
        "corrupt": "corrupt on purpose",
        "nan": "embedding unusable: 6 of 6 values are not finite",
        "refused": "the model refused an item",
    }
    assert dict(report.samples["fail"]) == errors
    assert not any(world.store.exists(f"clipfarm/embeddings/video/{name}.npy") for name in bad)
    for clip in clips(7, prefix="z"):
        stored = npy_to_vector(world.store.get(f"clipfarm/embeddings/video/{clip.video_id}.npy"))
        title = f"title of {clip.video_id}"
        assert (stored == hash_vector(by.encoder.version, clip.raw("video"), title)).all()


def test_a_vector_of_another_length_than_declared_is_not_stored(world):
    world.fill([Clip("one")])
    lying = door("video")
    honest = lying.encoder.encode
    lying.encoder.encode = lambda prepared: [
        replace(one, vector=one.vector[:-1]) for one in honest(prepared)
    ]

    run(world, by=lying)

    assert only(world).status == "fail"
    assert only(world).error == "embedding unusable: expected 6 values, found 5"


def test_a_store_that_fails_stops_the_run_and_is_nobodys_failure(world, monkeypatch):
    world.fill(clips(12))
    get = ObjectStore.get

    def broken(store, key):
        if key == "clipfarm/raw/video/clip-007.mp4":
            msg = "connection reset by peer"
            raise OSError(msg)
        return get(store, key)

    monkeypatch.setattr(ObjectStore, "get", broken)
    with pytest.raises(OSError, match="connection reset by peer"):
        run(world, batch_size=3, workers=2)
    done = world.statuses(STAGE)
    # Two batches, and what was stored of the third.
    assert done == {f"clip-{i:03d}": "success" for i in range(7)}

    monkeypatch.undo()
    report, by = run(world, batch_size=3)
    assert report.reasons == {"new": 5}
    assert sorted(by.encoder.prepared) == [f"clip-{i:03d}" for i in range(7, 12)]
    assert len(world.statuses(STAGE)) == 12


def test_a_store_that_takes_no_more_leaves_no_worker_behind(world, monkeypatch):
    world.fill(clips(40))

    def full(store, key, data):
        msg = "no space left on device"
        raise OSError(msg)

    monkeypatch.setattr(ObjectStore, "put", full)
    # The error is kept, and with it the frames it came through: none may still own threads.
    with pytest.raises(OSError, match="no space left") as kept:
        run(world, batch_size=4)

    assert kept.tb is not None
    assert [t for t in threading.enumerate() if t.name.startswith("clipfarm")] == []


@pytest.mark.parametrize(("group_size", "encode_workers"), [(1, 1), (1, 2), (4, 2)])
def test_no_more_clips_are_held_than_queues_and_batch_ask_for(world, group_size, encode_workers):
    """Memory is bounded by counting prepared items that no ledger row stands for yet."""
    world.fill(clips(120))
    by, lock = door("video", group_size=group_size), threading.Lock()
    most = committed = 0
    commit = world.ledger.commit

    def watched_prepare(source, deadline):
        nonlocal most
        with lock:
            by.encoder.prepared.append(source.video_id)
            most = max(most, len(by.encoder.prepared) - committed)
        return source.raw, source.metadata["title"]

    def watched_commit(stage, items, **options):
        nonlocal committed
        items = list(items)
        commit(stage, items, **options)
        committed += len(items)

    by.encoder.prepare = watched_prepare
    object.__setattr__(world.deployment, "ledger", _Committing(world.ledger, watched_commit))
    run(world, by=by, batch_size=5, workers=3, encode_workers=encode_workers)

    assert committed == 120
    plan = plan_work(WorkerOptions(None, 3, encode_workers), "video", Machine(2, 2**34))
    groups = plan.encode_ahead + 1  # one is being put together or taken apart
    assert 5 <= most <= plan.decode_ahead + groups * group_size + 5


class _Committing:
    """A ledger that tells of its commits."""

    def __init__(self, ledger, commit):
        self._ledger, self.commit = ledger, commit

    def __getattr__(self, name):
        return getattr(self._ledger, name)


def test_versions_are_known_before_their_first_vector(world, monkeypatch):
    """A run killed at its first vector must leave a version that the models lock explains."""
    world.fill([Clip("one")])
    put = ObjectStore.put
    known = []

    def watching(store, key, data):
        known.append(world.deployment.models_lock().version(version_of("video").id))
        put(store, key, data)

    monkeypatch.setattr(ObjectStore, "put", watching)
    run(world)

    assert known == [version_of("video")]


def test_a_stand_in_never_replaces_vectors_of_a_real_model(world):
    world.fill([Clip("one")])
    run(world)
    vector = world.store.get("clipfarm/embeddings/video/one.npy")
    stand_in = door("video", "other", is_stand_in=True)
    with pytest.raises(ModelMismatch, match=r"must not replace them: set CLIPFARM_ENCODERS"):
        run(world, by=stand_in)
    assert world.store.get("clipfarm/embeddings/video/one.npy") == vector
    run(world)
    assert only(world).version == version_of("video").id
