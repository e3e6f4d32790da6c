"""Everything that is known of one clip, and that it is true."""

import json
from dataclasses import replace

import polars as pl
import pyarrow as pa
import pytest

from clipfarm_assets.contracts.clip_tables import CLIP_PREDICTIONS
from clipfarm_assets.pipelines.inspect.clip import UnknownClip, clip_facts, nearest
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets.training.snapshot import SnapshotId, publish
from clipfarm_assets_tests.pipelines.inspect.kit import planner
from clipfarm_assets_tests.pipelines.kit import CORRUPT, DAY_1, DAY_2, TERMINAL_TEXT, Clip, clips

SHA = "a" * 64


def facts(world, video_id, **settings):
    with planner(world, **settings) as planned:
        return clip_facts(planned, video_id)


def stages(found):
    return {s.stage: s for s in found.stages}


def objects(found):
    return {o.what: o for o in found.objects}


def test_a_clip_that_is_done(fused):
    found = facts(fused, "clip-003")
    clip = clips(5)[3]
    assert found.metadata.date == DAY_1
    assert found.metadata.source_hash == clip.source_hash
    assert found.metadata.hashed == clip.address
    assert [row["captured_at"] for row in found.metadata.rows] == [clip.captured_at]
    assert stages(found)["video_embedding"].row == fused.states("video_embedding")["clip-003"]
    assert stages(found)["fusion_concat"].row.status == "success_full"
    assert stages(found)["fusion_max_pool"].row is None
    assert stages(found)["video_embedding"].next_run == "leaves it alone: it is done"
    assert stages(found)["fusion_max_pool"].next_run == "takes it up: new; expected success_full"
    raw, vector = objects(found)["raw video"], objects(found)["video embedding"]
    assert raw.size == len(fused.store.get(raw.key))
    assert vector.verdict == "6 values, sha256 as recorded"
    (pointer,) = found.pointers
    row = fused.manifest_rows()["clip-003"]
    assert (pointer.key, pointer.row) == (row["fused_key"], row["shard_idx"])
    assert pointer.verdict == "resolves, 15 values"
    assert (found.uses.datasets, found.uses.snapshots, found.uses.predictions) == ((), (), ())


def test_a_clip_that_failed_and_one_that_waits(world):
    world.fill([Clip("one", video=CORRUPT), Clip("two", audio=None, text=None)])
    world.all_of_it(DAY_1)
    one = stages(facts(world, "one"))["video_embedding"]
    assert (one.row.status, one.row.retry_count) == ("fail", 1)
    assert "corrupt on purpose" in one.row.error
    assert one.next_run == "takes it up: unfinished; expected fail"
    two = facts(world, "two")
    assert stages(two)["audio_embedding"].next_run.endswith("expected missing_raw_object")
    assert stages(two)["fusion_concat"].next_run.endswith("expected missing_required_modality")
    assert objects(two)["raw audio"].verdict == "absent"
    assert two.pointers == []


def test_what_is_damaged_is_told(fused):
    def damage(key):
        data = fused.store.get(key)
        fused.store.put(key, data[:-1] + bytes([data[-1] ^ 1]))

    damage(fused.layout.embedding("video", "clip-000"))
    fused.store.delete(fused.layout.embedding("audio", "clip-000"))
    key = fused.manifest_rows()["clip-000"]["fused_key"]
    fused.store.delete(key)
    found = facts(fused, "clip-000")
    assert objects(found)["video embedding"].verdict.endswith("sha256 is not the one recorded")
    assert objects(found)["audio embedding"].verdict == "absent, though recorded"
    assert [p.verdict for p in found.pointers] == ["the shard does not exist"]
    fused.store.put(key, b"no shard")
    assert key in facts(fused, "clip-000").pointers[0].verdict


def test_a_fused_clip_that_no_manifest_has_yet(world):
    world.fill(clips(3))
    world.embed_all(DAY_1)
    world.lock()
    world.fuse(DAY_1)
    (pointer,) = facts(world, "clip-001").pointers
    assert (pointer.named_by, pointer.row) == ("ledger", 1)
    assert pointer.verdict == "resolves, 15 values"


def test_a_placeholder_that_was_replaced(world):
    mute = Clip("mute", text=None, text_state=TERMINAL_TEXT)
    world.fill([mute, *clips(2)])
    world.all_of_it(DAY_1)
    world.fill([replace(mute, text=b"t"), *clips(2)])
    assert "text_arrived" in stages(facts(world, "mute"))["fusion_concat"].next_run
    world.all_of_it(DAY_1)
    world.merge(compact="never", whole_rows=0)
    (pointer,) = facts(world, "mute").pointers
    assert pointer.status == "success_full"


def test_rows_that_came_later_and_earlier(world):
    moved = Clip("moved", DAY_1)
    world.fill([moved, replace(moved, date=DAY_2)])
    found = facts(world, "moved")
    assert [row["captured_at"][:10] for row in found.metadata.rows] == [DAY_1, DAY_2]
    assert found.metadata.date == DAY_2
    hashed = facts(world, "moved", include_captured_at_in_hash=True).metadata
    assert hashed.hashed == f"{moved.address}|{DAY_2}T12:00:00+00:00"


def test_a_clip_outside_of_the_partitions(world):
    world.fill([Clip("early", "2025-01-01")])
    found = facts(world, "early")
    assert "captured before the first one" in found.metadata.partition
    assert "captured before" in stages(found)["video_embedding"].next_run


def test_a_clip_that_left_the_csv_is_known_by_its_state(fused):
    fused.fill(clips(4))
    found = facts(fused, "clip-004")
    assert found.metadata is None
    assert stages(found)["video_embedding"].row.status == "success"
    assert "isn't in the metadata CSV" in stages(found)["video_embedding"].next_run
    fused.store.delete(fused.layout.metadata())
    assert "must hold the metadata CSV" in facts(fused, "clip-004").no_metadata


def test_a_new_machine_knows_it_by_the_published_state(fused):
    found = facts(fused, "clip-000", machine="second")
    assert stages(found)["video_embedding"].row.status == "success"
    assert stages(found)["video_embedding"].from_published
    assert not stages(facts(fused, "clip-000"))["video_embedding"].from_published


def test_what_was_made_with_it(fused):
    fused.store.put(
        fused.layout.training_dataset("concat", 7), json.dumps({"sha256": SHA}).encode()
    )
    ids = ["clip-000", "clip-001"]
    rows = pa.table({"video_id": ids, "target_raw": [1.0, 2.0]})
    part = fused.layout.training_dataset_part("concat", 7, SHA, "rows.parquet")
    fused.store.put(part, table_to_parquet(rows, {}))
    fused.store.put(fused.layout.training_dataset("concat", 30), b"no JSON")
    split = pl.DataFrame({"video_id": ids, "split": ["train", "test"]}).with_columns(
        text_present=pl.lit(1, pl.Int64), target_log=pl.lit(0.0), target_raw=pl.lit(0.0)
    )
    artifacts = {
        "config_used.json": b"{}",
        "split_manifest.parquet": table_to_parquet(split.to_arrow(), {}),
    }
    publish(fused.store, fused.layout, SnapshotId("run1", "concat", 7), artifacts, {})
    prediction = {"video_id": "clip-001", "horizon_days": 7, "model_version": "h7-v1"}
    table = pa.Table.from_pylist([prediction], schema=CLIP_PREDICTIONS)
    fused.store.put(fused.layout.clip_predictions(DAY_1), table_to_parquet(table, {}))

    uses = facts(fused, "clip-001").uses
    assert [(d.strategy, d.horizon, d.sha256) for d in uses.datasets] == [("concat", 7, SHA)]
    assert [(s.snapshot, s.split) for s in uses.snapshots] == [
        ("run_id=run1/strategy=concat/horizon=7", "test")
    ]
    assert [p["model_version"] for p in uses.predictions] == ["h7-v1"]
    (problem,) = uses.unreadable
    assert problem.startswith(fused.layout.training_dataset("concat", 30))
    assert facts(fused, "clip-002").uses.datasets == ()


def test_an_unknown_clip_is_told_with_ids_like_it(fused):
    with pytest.raises(UnknownClip, match="ids like it: clip-004"):
        facts(fused, "clip-0004")
    with pytest.raises(UnknownClip) as refused:
        facts(fused, "something-else")
    assert "ids like it" not in str(refused.value)


def test_nearest_ids():
    known = ["abc-1", "ABC-2", "xyz", "abd-1"]
    assert nearest("ABC-1", known)[0] == "abc-1"
    many = [f"id{i:06d}" for i in range(20_000)]
    assert "id012345" in nearest("id0012345", many)
    assert nearest("xx012345", many) == ["id012345"]
