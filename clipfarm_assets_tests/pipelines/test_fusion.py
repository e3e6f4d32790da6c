"""Which clips are fused, with which text, and what becomes of those that are not."""

import io
from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.pipelines.lock import NoLock
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    CORRUPT,
    DAY_1,
    DAY_2,
    TERMINAL_TEXT,
    Clip,
    clips,
    fuse,
    hash_vector,
    npy_key,
    prepared,
    state,
    version_of,
)


@pytest.mark.parametrize("strategy", ["concat", "sum_pool", "max_pool"])
def test_rows_vectors_and_pointers_agree(world, strategy):
    some = [*clips(5), Clip("mute", text=None, text_state=TERMINAL_TEXT)]
    world.fill(some)
    world.embed_all()
    world.lock(strategy)
    world.fuse(strategy=strategy, shard_rows=4)
    world.merge(strategy)

    rows = world.manifest_rows(strategy)
    assert sorted(rows) == sorted(c.video_id for c in some)
    for clip in some:
        row, title = rows[clip.video_id], f"title of {clip.video_id}"
        full = clip.video_id != "mute"
        v, a, t = (
            hash_vector(version_of(m), clip.raw(m), title) if clip.raw(m) else np.zeros(4, "f4")
            for m in ("video", "audio", "text")
        )
        a6, t6 = (np.pad(x, (0, 2)) for x in (a, t))
        expected = {
            "concat": np.concatenate([v, a, t]),
            "sum_pool": v + a6 + t6,
            "max_pool": np.maximum(np.maximum(v, a6), t6),
        }[strategy]
        fused = world.fused_vector(row)
        assert fused.dtype == np.float32
        assert fused.tolist() == [*expected.tolist(), float(full)]
        assert row["fused_dim"] == len(fused)
        assert row["fusion_strategy"] == strategy
        assert (row["source_hash"], row["captured_at"]) == (clip.source_hash, clip.captured_at)
        assert row["text_emb_key"] == (npy_key("text", clip.video_id) if full else None)
        assert row["text_source"] == ("full" if full else "placeholder")
        assert row["text_missing_reason"] == (None if full else TERMINAL_TEXT)
        item = world.states(f"fusion_{strategy}")[clip.video_id]
        assert item.vector_id == f"fused:{strategy}:{clip.video_id}"
        assert (item.artifact_key, item.status) == (row["fused_key"], row["fusion_status"])


@pytest.mark.parametrize(
    ("clip", "told", "status", "reason"),
    [
        (
            Clip("one", video=None),
            None,
            "missing_required_modality",
            "video: embedding status missing_raw_object",
        ),
        (
            Clip("one", audio=CORRUPT),
            None,
            "missing_required_modality",
            "audio: embedding status fail",
        ),
        (
            Clip("one", video=None, audio=None, text=None),
            (TERMINAL_TEXT, None),
            "missing_required_modality",
            "; ".join(f"{m}: embedding status missing_raw_object" for m in ("video", "audio")),
        ),
        (Clip("one", text=None), None, "missing_text_pending", "no_text_state_row"),
        (Clip("one", text=None), ("fail", None), "missing_text_pending", "text_status:fail"),
        (
            Clip("one", text=None),
            (TERMINAL_TEXT, "f00"),
            "missing_text_pending",
            "text_hash_mismatch:f00",
        ),
        (Clip("one", text=None), (TERMINAL_TEXT, None), "success_text_placeholder", None),
        (
            Clip("one", text=None),
            (TERMINAL_TEXT, Clip("one").source_hash),
            "success_text_placeholder",
            None,
        ),
        (
            Clip("one", text=None),
            ("fail_empty_transcript_terminal", None),
            "success_text_placeholder",
            None,
        ),
        (Clip("one"), ("fail", None), "success_full", None),
        (Clip("one"), None, "success_full", None),
    ],
)
def test_the_gate(world, clip, told, status, reason):
    prepared(world, [clip])
    world.write_text_states({"one": told} if told else {})

    fuse(world)

    item = state(world)
    assert (item.status, item.error, item.retry_count) == (status, reason, 0)
    world.merge()
    assert ("one" in world.manifest_rows()) == status.startswith("success")


@pytest.mark.parametrize("file", [None, b"not a database"])
def test_without_the_text_state_nothing_is_taken_for_final(world, file):
    prepared(world, [Clip("one", text=None)])
    key = world.layout.text_downloader_state()
    world.store.delete(key)
    if file is not None:
        world.store.put(key, file)

    fuse(world)

    assert state(world).status == "missing_text_state_unavailable"
    # The reason says which of the two it is.
    assert state(world).error.startswith("text_state_unavailable: " + key)
    assert state(world, "aaa").status == "success_full"


def test_which_text_statuses_are_final_is_a_choice(world):
    prepared(world, [Clip("one", text=None, text_state="gave_up")])
    fuse(world)
    assert state(world).status == "missing_text_pending"
    fuse(world, terminal_text_statuses=["gave_up"])
    assert state(world).status == "success_text_placeholder"


def test_an_unchanged_rerun_writes_nothing(world):
    prepared(world, clips(5))
    fuse(world)
    world.merge()
    before = world.objects()

    report = fuse(world)
    update = world.merge()

    assert (report.considered, report.worked_on) == (6, 0)
    assert update.new_shards == ()
    assert world.objects() == before


def test_pending_becomes_a_placeholder_and_then_full(world):
    silent = Clip("one", text=None)
    prepared(world, [silent])
    fuse(world)
    assert state(world).status == "missing_text_pending"

    world.fill([Clip("aaa"), replace(silent, text_state=TERMINAL_TEXT)])
    report = fuse(world)
    world.merge()
    assert report.reasons == {"unfinished": 1}
    row = world.manifest_rows()["one"]
    assert (row["fusion_status"], row["text_state_status"]) == (
        "success_text_placeholder",
        TERMINAL_TEXT,
    )
    assert world.fused_vector(row)[-5:].tolist() == [0.0] * 5
    assert fuse(world).reasons == {}

    world.fill([Clip("aaa"), Clip("one")])
    world.embed("text")
    report = fuse(world)
    world.merge()
    assert report.reasons == {"text_arrived": 1}
    row = world.manifest_rows()["one"]
    assert (row["fusion_status"], row["text_present"], row["text_missing_reason"]) == (
        "success_full",
        1,
        None,
    )
    expected = hash_vector(version_of("text"), Clip("one").raw("text"), "title of one")
    assert world.fused_vector(row)[-5:].tolist() == [*expected.tolist(), 1.0]
    assert len(world.shards()) == 3
    assert fuse(world).reasons == {}


def test_a_placeholder_stays_one_while_its_words_are_only_on_record(world):
    """The ledger knows a text vector whose object is gone: nothing to upgrade with, run by run."""
    prepared(world, [Clip("one", text=None, text_state=TERMINAL_TEXT)])
    fuse(world)
    world.fill([Clip("aaa"), Clip("one", text_state=TERMINAL_TEXT)])
    world.embed("text")
    world.store.delete(npy_key("text"))
    shards = world.shards()

    for _ in range(2):
        assert fuse(world).reasons == {}

    assert world.shards() == shards
    assert state(world).status == "success_text_placeholder"


def test_a_placeholder_stays_one_where_its_words_vanish_before_they_are_read(world, monkeypatch):
    prepared(world, [Clip("one", text=None, text_state=TERMINAL_TEXT)])
    fuse(world)
    world.fill([Clip("aaa"), Clip("one", text_state=TERMINAL_TEXT)])
    world.embed("text")
    before, shards = state(world), world.shards()
    exists = ObjectStore.exists

    def vanishing(store, key):
        there = exists(store, key)
        store.delete(npy_key("text"))
        return there

    monkeypatch.setattr(ObjectStore, "exists", vanishing)
    report = fuse(world)

    assert report.reasons == {"text_arrived": 1}
    assert report.statuses == {"success_text_placeholder": 1}
    assert (state(world), world.shards()) == (before, shards)


def test_a_placeholder_whose_words_are_broken_stays_counted(world):
    """It fails, run by run, until that is final: not a fresh failure every time."""
    prepared(world, [Clip("one", text=None, text_state=TERMINAL_TEXT)])
    fuse(world, shard_rows=1)  # so that no other row speaks for its shard
    world.merge()
    world.fill([Clip("aaa"), Clip("one", text_state=TERMINAL_TEXT)])
    world.embed("text")
    good = world.store.get(npy_key("text"))
    world.store.put(npy_key("text"), good[:-1])

    found = []
    for _ in range(3):
        fuse(world, max_fail_retries=2)
        found.append((state(world).status, state(world).retry_count))
    assert found == [("fail", 1), ("fail", 2), ("fail_terminal", 3)]
    world.merge()
    assert world.manifest_rows()["one"]["fusion_status"] == "success_text_placeholder"

    world.store.put(npy_key("text"), good)
    fuse(world, retry_terminal=True)
    world.merge()
    assert world.manifest_rows()["one"]["fusion_status"] == "success_full"
    assert world.manifest_rows()["one"]["retry_count_at_write"] == 3


def test_a_placeholder_is_not_given_up_for_words_without_pictures(world):
    """Words arrive while the video is being embedded again: what is fused stays as it is."""
    prepared(world, [Clip("one", text=None, text_state=TERMINAL_TEXT)])
    fuse(world)
    world.fill([Clip("aaa"), Clip("one", text_state=TERMINAL_TEXT)])
    world.embed("text")
    world.store.delete(npy_key("video"))

    assert fuse(world).reasons == {}
    assert state(world).status == "success_text_placeholder"


@pytest.mark.parametrize("modality", ["video", "audio", "text"])
def test_vectors_of_what_the_clip_used_to_be_are_not_fused(world, modality):
    prepared(world, [Clip("one")])
    moved = Clip("one", url="https://youtu.be/elsewhere")
    world.fill([Clip("aaa"), moved])
    for other in {"video", "audio", "text"} - {modality}:
        world.embed(other)

    fuse(world)

    item = state(world)
    assert item.source_hash == moved.source_hash
    if modality == "text":
        assert (item.status, item.error) == ("missing_text_pending", "no_text_state_row")
    else:
        old = Clip("one").source_hash
        assert item.status == "missing_required_modality"
        assert item.error == f"{modality}: embedding is of another source ({old})"

    world.embed(modality)
    fuse(world)
    world.merge()
    expected = hash_vector(version_of("video"), moved.raw("video"), "title of one")
    assert world.fused_vector(world.manifest_rows()["one"])[:6].tolist() == expected.tolist()


def test_without_a_lock_nothing_is_fused(world):
    world.fill(clips(2))
    world.embed_all()

    with pytest.raises(NoLock, match="materialise clips/schema_lock for partition 'concat'"):
        fuse(world)

    assert world.states("fusion_concat") == {}
    assert world.shards() == []


def test_failures_before_success_are_written_into_the_manifest(world):
    prepared(world, [Clip("one")])
    good = world.store.get(npy_key("video"))
    world.store.put(npy_key("video"), good[:-2])
    for _ in range(2):
        fuse(world)
    world.store.put(npy_key("video"), good)
    fuse(world)
    world.merge()

    assert world.manifest_rows()["one"]["retry_count_at_write"] == 2
    assert state(world).retry_count == 2


def test_a_date_is_fused_alone_and_a_recaptured_clip_only_once(world):
    world.fill([Clip("one"), Clip("two")])
    world.embed_all()
    world.lock()
    fuse(world)
    world.fill([Clip("one"), Clip("two", DAY_2), Clip("three", DAY_2)])
    world.embed_all(DAY_1, DAY_2)

    reports = world.fuse(DAY_2)

    assert reports[DAY_2].reasons == {"new": 1}
    world.merge()
    assert sorted(world.manifest_rows()) == ["one", "three", "two"]


@pytest.mark.parametrize("read_ahead", [1, 3, 256])
@pytest.mark.parametrize("shard_rows", [1, 4, 5, 2048])
def test_shards_are_full_but_the_last_and_in_order(world, shard_rows, read_ahead):
    some = [*clips(5), Clip("clip-002x", text=None), *clips(4, prefix="z")]
    world.fill(some)
    world.embed_all()
    world.lock()

    fuse(world, shard_rows=shard_rows, read_ahead=read_ahead)

    found = []
    for key in world.shards():
        with np.load(io.BytesIO(world.store.get(key)), allow_pickle=False) as shard:
            found.append(shard["video_ids"].tolist())
    assert [i for part in found for i in part] == [c.video_id for c in some if c.text is not None]
    assert all(len(part) == shard_rows for part in found[:-1])
    assert state(world, "clip-002x").status == "missing_text_pending"


def test_progress_names_stage_and_date(world):
    prepared(world, clips(3))
    world.said.clear()
    fuse(world)
    assert any(line.startswith(f"fuse concat {DAY_1}: 4/4") for line in world.said)
