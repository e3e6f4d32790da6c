"""Runs of the definitions: one date, a range of dates, broken data, migration."""

import json
import logging
from dataclasses import replace

import dagster as dg
import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets_tests.defs import kit
from clipfarm_assets_tests.defs.kit import check_results, materialised

DATES = ("2026-02-05", "2026-02-06", "2026-02-07")
DATED = ("clip_index", "video_embeddings", "audio_embeddings", "text_embeddings")


def objects(bench):
    """Everything in the store but published state, which holds times."""
    keys = [info.key for info in bench.store.list("clipfarm/")]
    return {
        key: bench.store.get(key)
        for key in keys
        if not key.endswith((".sqlite", "schema.json")) and "/manifests/" not in key
    }


def test_a_range_in_one_run_equals_a_run_a_date(tmp_path, finished):
    bench, ranged, opened = finished
    assert sorted(opened) == ["audio", "text", "video"], "each model once for the range"
    other = kit.nine_clips(tmp_path / "other")
    with dg.DagsterInstance.ephemeral() as single:
        for date in DATES:
            other.run(single, "clips_daily", date)
        for strategy in statuses.STRATEGIES:
            other.run(single, "clips_lock", strategy)
            for date in DATES:
                other.run(single, "clips_fuse", f"{date}|{strategy}")
            other.run(single, "clips_publish", strategy)
        assert objects(bench) == objects(other)
        for name in (*DATED, "embedding_manifest"):
            of_range, of_single = materialised(ranged, name), materialised(single, name)
            assert set(of_range) == set(of_single) == set(DATES)
            for date in DATES:
                assert set(of_range[date]) == set(of_single[date])
        for modality in statuses.MODALITIES:
            asset = f"{modality}_embeddings"
            results = check_results(ranged, asset, "embeddings_valid")
            assert {results[date][0] for date in DATES} == {True}
            examined = {date: results[date][1]["examined"].value for date in DATES}
            assert examined == {"2026-02-05": 4, "2026-02-06": 3, "2026-02-07": 2}
            assert check_results(single, asset, "embeddings_valid").keys() == set(DATES)
        shards = check_results(ranged, "fused_shards", "lock_matches_shards")
        assert {f"{d}|{s}" for d in DATES for s in statuses.STRATEGIES} <= shards.keys()
        for name in ("pointers_resolve", "manifest_unique"):
            results = check_results(ranged, "fused_manifest", name)
            assert {results[s][1]["examined"].value for s in statuses.STRATEGIES} == {9}


def test_metadata_counts_each_date_by_itself(bench, instance):
    bench.store.put(bench.layout.raw("video", "clip6-1"), b"corrupt")
    bench.store.delete(bench.layout.raw("video", "clip5-0"))
    bench.run(instance, "clips_daily", span=(DATES[0], DATES[-1]))
    bench.run(instance, "clips_lock", "concat")
    bench.run(instance, "clips_fuse", "2026-02-05|concat")
    by_date = materialised(instance, "video_embeddings")
    assert by_date["2026-02-05"]["all_clips/success"].value == 3
    assert by_date["2026-02-05"]["all_clips/missing_raw_object"].value == 1
    assert by_date["2026-02-06"]["all_clips/fail"].value == 1
    samples = by_date["2026-02-06"]["samples"].records
    assert ("clip6-1", "corrupt on purpose") in {
        (r.data["video_id"], r.data["why"]) for r in samples
    }
    assert by_date["2026-02-07"]["all_clips/success"].value == 2
    assert "data:image/png;base64," in by_date["2026-02-05"]["map"].md_str
    assert bench.store.get(by_date["2026-02-05"]["map_file"].value).startswith(b"\x89PNG")
    fused = materialised(instance, "fused_shards")
    assert fused["2026-02-05|concat"]["all_clips/missing_required_modality"].value == 1
    assert fused["2026-02-05|concat"]["all_clips/success_full"].value == 3


def test_a_second_run_works_on_nothing_and_loads_no_raw_object(done, instance):
    before = objects(done)
    for modality in statuses.MODALITIES:
        for info in list(done.store.list(f"clipfarm/raw/{modality}/")):
            done.store.delete(info.key)
    done.everything(instance)
    assert kit.OPENED == [], "nothing to do: no model is loaded"
    for date in DATES:
        assert materialised(instance, "video_embeddings")[date]["worked_on"].value == 0
        assert materialised(instance, "fused_shards")[f"{date}|concat"]["worked_on"].value == 0
    after = objects(done)
    assert {k: v for k, v in before.items() if "/raw/" not in k} == after


def test_lost_and_damaged_vectors_are_made_again_when_the_run_is_told_to_look(done, instance):
    before = objects(done)
    done.store.delete(done.layout.embedding("video", "clip5-0"))
    done.store.put(done.layout.embedding("video", "clip5-1"), b"damaged")
    look = {"ops": {"clips__video_embeddings": {"config": {"verify_objects": True}}}}
    done.run(instance, "clips_daily", "2026-02-05", config=look)
    shown = materialised(instance, "video_embeddings")["2026-02-05"]
    assert shown["worked_on"].value == 2
    assert shown["embeddings_on_the_map"].value == 4
    assert objects(done) == before


def vector_keys(bench, modality="video"):
    return [info.key for info in bench.store.list(bench.layout.embeddings_prefix(modality))]


def test_a_run_with_nothing_to_do_shows_the_stored_maps_and_reads_no_vector(finished, instance):
    bench, ranged, _ = finished
    before = materialised(ranged, "video_embeddings")["2026-02-05"]
    for key in vector_keys(bench):
        bench.store.delete(key)
    bench.run(instance, "clips_daily", span=(DATES[0], DATES[-1]), check=False)
    after = materialised(instance, "video_embeddings")["2026-02-05"]
    assert after["embeddings_on_the_map"].value == 4
    assert after["map_file"] == before["map_file"]
    assert after["map"] == before["map"]


def test_a_map_is_drawn_again_when_it_is_lost_or_its_clips_changed(done, instance):
    lost = done.layout.report("video_embeddings", "2026-02-05", "map.png")
    picture = done.store.get(lost)
    done.store.delete(lost)
    done.add_clips(
        *((f"clip5-{i}", "2026-02-05") for i in range(4)),
        *((f"clip6-{i}", "2026-02-06") for i in range(2)),
        *((f"clip{i}", "2026-02-07") for i in ("6-2", "7-0", "7-1")),  # one captured again
    )
    done.run(instance, "clips_daily", span=(DATES[0], DATES[-1]))
    shown = materialised(instance, "video_embeddings")
    assert {shown[date]["worked_on"].value for date in DATES} == {0}
    assert [shown[date]["embeddings_on_the_map"].value for date in DATES] == [4, 2, 3]
    assert done.store.get(lost) == picture


def test_clips_from_before_the_first_partition_are_counted_and_named(bench, instance):
    bench.add_clips(("early-2", "2025-12-30"), ("early-1", "2025-12-31"), ("a", "2026-02-05"))
    result = bench.run(instance, "clips_daily", "2026-02-05")
    shown = materialised(instance, "clip_index")["2026-02-05"]
    assert shown["skipped/before_first_partition"].value == 2
    rows = [record.data for record in shown["skipped_rows"].records]
    assert [(row["reason"], row["video_id"], row["csv_row"]) for row in rows] == [
        ("before_first_partition", "early-2", 1),
        ("before_first_partition", "early-1", 2),
    ]
    stored = parquet_to_table(bench.store.get(bench.layout.clip_index("2026-02-05")))
    assert stored["video_id"].to_pylist() == ["a"]
    assert json.loads(stored.schema.metadata[b"clipfarm.skipped"]) == {"before_first_partition": 2}
    (warning,) = [
        entry.user_message
        for entry in instance.all_logs(result.run_id)
        if entry.level == logging.WARNING
    ]
    assert warning.startswith("2 clips were captured before the first partition")
    assert "CLIPFARM_START_DATE to 2025-12-30" in warning


def test_a_broken_embedding_fails_its_dates_check_and_blocks_the_run(done, instance):
    bad = np.full(kit.DIM, np.nan, dtype=np.float32)
    header_and_data = vector_to_npy(np.ones(kit.DIM, dtype=np.float32))[: -bad.nbytes]
    key = done.layout.embedding("audio", "clip6-2")
    done.store.put(key, header_and_data + bad.tobytes())
    result = done.run(instance, "clips_daily", span=(DATES[0], DATES[-1]), check=False)
    assert not result.success
    results = check_results(instance, "audio_embeddings", "embeddings_valid")
    assert {date: results[date][0] for date in DATES} == dict(
        zip(DATES, (True, False, True), strict=True)
    )
    finding = results["2026-02-06"][1]["first_findings"].records[0].data
    assert finding["subject"] == key
    assert "finite" in finding["problem"]
    started = {e.step_key for e in result.all_events if e.event_type_value == "STEP_START"}
    assert "clips__audio_embeddings" in started
    assert "clips__embedding_manifest" not in started


def test_an_ungated_embedding_object_that_vanished_is_found(done, instance):
    done.store.delete(done.layout.embedding("video", "clip7-0"))
    done.run(instance, "clips_publish", "concat", check=False)
    passed, metadata = check_results(instance, "fused_manifest", "required_modalities_present")[
        "concat"
    ]
    assert not passed
    assert "does not exist" in metadata["first_findings"].records[0].data["problem"]


def test_a_dangling_pointer_is_found_and_fails_the_run(done, instance):
    key = done.layout.shard("concat", "2026-02-05", 0)
    shard = FusedShard.from_npz(done.store.get(key), key)
    ids = shard.video_ids[[0, 2, 1, 3]]
    done.store.put(key, replace(shard, video_ids=ids).to_npz())
    result = done.run(instance, "clips_publish", "concat", check=False)
    passed, metadata = check_results(instance, "fused_manifest", "pointers_resolve")["concat"]
    assert not passed
    assert metadata["examined"].value == 9
    assert [r.data["problem"] for r in metadata["first_findings"].records] == [
        "the shard holds 'clip5-2' there",
        "the shard holds 'clip5-1' there",
    ]
    assert not result.success


def test_a_pointer_read_back_that_leads_elsewhere_stops_the_update(done, instance):
    other = done.store.get(done.layout.shard("concat", "2026-02-05", 0))
    done.store.put(done.layout.shard("concat", "2026-02-06", 0), other)
    with pytest.raises(dg.Failure, match="clip6-0"):
        done.run(instance, "clips_publish", "concat")


def test_another_encoder_stops_fusion_until_the_lock_is_migrated(done, instance):
    shards = sorted(info.key for info in done.store.list("clipfarm/fused/concat/shards/"))
    done.revision = "r2"
    done.run(instance, "clips_daily", span=(DATES[0], DATES[-1]))
    metadata = materialised(instance, "video_embeddings")["2026-02-05"]
    assert metadata["delta/version_changed"].value == 4
    with pytest.raises(dg.Failure, match=r"embedding_versions\.video is locked to .*migrate: true"):
        done.run(instance, "clips_lock", "concat")
    with pytest.raises(dg.Failure, match="archives the old lock"):
        done.run(instance, "clips_fuse", "2026-02-05|concat")
    assert sorted(info.key for info in done.store.list("clipfarm/fused/concat/shards/")) == shards

    migrate = {"ops": {"clips__schema_lock": {"config": {"migrate": True}}}}
    done.run(instance, "clips_lock", "concat", config=migrate)
    shown = materialised(instance, "schema_lock")["concat"]
    assert shown["outcome"].value == "migrated"
    assert {r.data["field"] for r in shown["diff"].records} == {
        f"embedding_versions.{m}" for m in statuses.MODALITIES
    }
    done.run(instance, "clips_fuse", span=("2026-02-05|concat", "2026-02-07|concat"), check=True)
    done.run(instance, "clips_publish", "concat")
    layout = done.layout
    assert done.store.exists(layout.schema_lock_archive("concat", 1))
    assert done.store.exists(layout.fused_manifest_archive("concat", 1))
    manifest = pl.DataFrame(parquet_to_table(done.store.get(layout.fused_manifest("concat"))))
    assert manifest["fused_key"].unique().sort().to_list() == [
        layout.shard("concat", date, 1) for date in DATES
    ]
    assert check_results(instance, "fused_manifest", "pointers_resolve")["concat"][0]


def test_a_wrong_setting_names_the_field_and_the_choices(bench, instance):
    config = {"ops": {"clips__video_embeddings": {"config": {"pooling": "cls"}}}}
    with pytest.raises(Exception, match=r"pooling[\s\S]*first_token[\s\S]*mean"):
        bench.run(instance, "clips_daily", "2026-02-05", config=config)


def test_fusing_before_locking_says_what_to_do(bench, instance):
    bench.run(instance, "clips_daily", "2026-02-05")
    with pytest.raises(dg.Failure, match="materialise clips/schema_lock for partition 'concat'"):
        bench.run(instance, "clips_fuse", "2026-02-05|concat")


def test_locking_before_embedding_says_what_to_do(bench, instance):
    with pytest.raises(dg.Failure, match="materialise clips/video_embeddings"):
        bench.run(instance, "clips_lock", "concat")


def test_the_metadata_is_observed_by_content(bench, instance):
    def observed():
        bench.run(instance, "clips_observe")
        record = instance.fetch_observations(dg.AssetKey(["clips", "metadata_horizon"]), 1).records[
            0
        ]
        return record.asset_observation.data_version

    first = observed()
    assert observed() == first
    bench.add_clips(("another", "2026-02-05"))
    assert observed() != first
