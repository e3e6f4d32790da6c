"""What the code location shows: a change here is a change of what users and their schedules see."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest

from clipfarm_assets.definitions import defs
from clipfarm_assets.orchestration import partitions

HEAVY = ("torch", "transformers", "sentence_transformers", "librosa", "sklearn", "matplotlib")

ASSETS = {
    "clips/audio_embeddings": "date",
    "clips/clip_index": "date",
    "clips/clip_predictions": "date",
    "clips/embedding_manifest": "date",
    "clips/fused_manifest": "strategy",
    "clips/fused_shards": "date|strategy",
    "clips/metadata_horizon": "none",
    "clips/model_comparison": "none",
    "clips/model_registry": "horizon",
    "clips/model_snapshots": "horizon|strategy",
    "clips/schema_lock": "strategy",
    "clips/text_embeddings": "date",
    "clips/training_dataset": "horizon|strategy",
    "clips/video_embeddings": "date",
}
CHECKS = {
    "clips/audio_embeddings:embeddings_valid": ("date", True),
    "clips/clip_predictions:predictions_complete": ("date", False),
    "clips/embedding_manifest:index_rows_have_status": ("date", False),
    "clips/fused_manifest:manifest_unique": ("strategy", False),
    "clips/fused_manifest:placeholders_approved": ("strategy", False),
    "clips/fused_manifest:pointers_resolve": ("strategy", True),
    "clips/fused_manifest:required_modalities_present": ("strategy", False),
    "clips/fused_shards:lock_matches_shards": ("date|strategy", True),
    "clips/model_registry:binding_resolves": ("horizon", True),
    "clips/model_snapshots:beats_mean": ("horizon|strategy", False),
    "clips/model_snapshots:interval_coverage": ("horizon|strategy", False),
    "clips/model_snapshots:snapshot_intact": ("horizon|strategy", True),
    "clips/text_embeddings:embeddings_valid": ("date", True),
    "clips/training_dataset:features_declared": ("horizon|strategy", True),
    "clips/training_dataset:no_leaky_feature": ("horizon|strategy", True),
    "clips/training_dataset:splits_hold": ("horizon|strategy", True),
    "clips/video_embeddings:embeddings_valid": ("date", True),
}
MEME_ASSETS = {
    "memes/evaluation": "label",
    "memes/fusion_model": "label",
    "memes/manifest": "none",
    "memes/shards": "split",
    "memes/splits": "none",
    "memes/text_expert": "label",
    "memes/vision_expert": "label",
}
MEME_CHECKS = {
    "memes/evaluation:binding_resolves": ("label", True),
    "memes/evaluation:fusion_beats_unimodal": ("label", False),
    "memes/fusion_model:snapshot_intact": ("label", True),
    "memes/shards:shards_match_splits": ("split", True),
    "memes/splits:splits_are_grouped": ("none", True),
    "memes/text_expert:expert_intact": ("label", True),
    "memes/vision_expert:expert_intact": ("label", True),
}
SONG_ASSETS = {
    "songs/alignment": "album",
    "songs/features": "album",
    "songs/fusion_models": "fusion strategy",
    "songs/segments_media": "none",
    "songs/segments_metadata": "none",
    "songs/splits": "none",
    "songs/strategy_comparison": "none",
}
SONG_CHECKS = {
    "songs/alignment:segments_aligned": ("album", False),
    "songs/fusion_models:gradients_balanced": ("fusion strategy", False),
    "songs/fusion_models:snapshot_intact": ("fusion strategy", True),
    "songs/segments_media:files_agree": ("none", True),
    "songs/segments_metadata:modalities_cover": ("none", False),
    "songs/splits:songs_in_one_split": ("none", True),
    "songs/strategy_comparison:degrades_gracefully": ("none", False),
    "songs/strategy_comparison:fusion_beats_single": ("none", False),
}
SONGS_TRAINED = [dg.AssetKey(["songs", n]) for n in ("fusion_models", "strategy_comparison")]
DEPENDENCIES = {
    "clips/audio_embeddings": {"clips/clip_index"},
    "clips/clip_index": {"clips/metadata_horizon"},
    "clips/clip_predictions": {
        "clips/clip_index",
        "clips/fused_manifest",
        "clips/model_registry",
    },
    "clips/embedding_manifest": {
        "clips/audio_embeddings",
        "clips/clip_index",
        "clips/text_embeddings",
        "clips/video_embeddings",
    },
    "clips/fused_manifest": {"clips/fused_shards"},
    "clips/fused_shards": {
        "clips/audio_embeddings",
        "clips/clip_index",
        "clips/schema_lock",
        "clips/text_embeddings",
        "clips/video_embeddings",
    },
    "clips/metadata_horizon": set(),
    "clips/model_comparison": {"clips/model_snapshots"},
    "clips/model_registry": {"clips/model_snapshots"},
    "clips/model_snapshots": {"clips/training_dataset"},
    "clips/schema_lock": {
        "clips/audio_embeddings",
        "clips/text_embeddings",
        "clips/video_embeddings",
    },
    "clips/text_embeddings": {"clips/clip_index"},
    "clips/training_dataset": {"clips/fused_manifest", "clips/metadata_horizon"},
    "clips/video_embeddings": {"clips/clip_index"},
    "memes/evaluation": {
        "memes/fusion_model",
        "memes/shards",
        "memes/text_expert",
        "memes/vision_expert",
    },
    "memes/fusion_model": {"memes/shards", "memes/text_expert", "memes/vision_expert"},
    "memes/manifest": set(),
    "memes/shards": {"memes/splits"},
    "memes/splits": {"memes/manifest"},
    "memes/text_expert": {"memes/shards"},
    "memes/vision_expert": {"memes/shards"},
    "songs/alignment": {"songs/segments_media", "songs/segments_metadata"},
    "songs/features": {"songs/segments_media", "songs/segments_metadata"},
    "songs/fusion_models": {"songs/alignment", "songs/features", "songs/splits"},
    "songs/segments_media": set(),
    "songs/segments_metadata": set(),
    "songs/splits": {"songs/segments_metadata"},
    "songs/strategy_comparison": {
        "songs/alignment",
        "songs/features",
        "songs/fusion_models",
        "songs/splits",
    },
}
JOBS = {
    "clips_compare",
    "clips_daily",
    "clips_fuse",
    "clips_lock",
    "clips_observe",
    "clips_promote",
    "clips_publish",
    "clips_score",
    "clips_train",
    "memes_evaluate",
    "memes_observe",
    "memes_pack",
    "memes_split",
    "memes_train",
    "songs_align",
    "songs_compare",
    "songs_features",
    "songs_observe",
    "songs_split",
    "songs_train",
}
SENSORS = {
    "clips_automation",
    "clips_csv_changed",
    "clips_raw_arrived",
    "clips_text_settled",
    "report_failed_runs",
    "report_data_health",
}


def kind(partitions_def):
    if partitions_def is None:
        return "none"
    if partitions_def == partitions.dates:
        return "date"
    if partitions_def == partitions.strategies:
        return "strategy"
    if partitions_def == partitions.horizons:
        return "horizon"
    if partitions_def == partitions.strategy_by_horizon:
        return "horizon|strategy"
    if partitions_def == partitions.meme_splits:
        return "split"
    if partitions_def == partitions.meme_labels:
        return "label"
    if partitions_def == partitions.song_albums:
        return "album"
    if partitions_def == partitions.fusion_strategies:
        return "fusion strategy"
    assert partitions_def == partitions.dates_by_strategy
    return "date|strategy"


@pytest.fixture(scope="module")
def graph():
    return defs.resolve_asset_graph()


def test_assets_and_their_partitions(graph):
    found = {
        key.to_user_string(): kind(graph.get(key).partitions_def)
        for key in graph.get_all_asset_keys()
    }
    assert found == {**ASSETS, **MEME_ASSETS, **SONG_ASSETS}


def test_dependencies(graph):
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert found == DEPENDENCIES


def test_checks_are_partitioned_like_their_assets_and_block_where_they_must():
    found = {
        f"{spec.asset_key.to_user_string()}:{spec.name}": (kind(spec.partitions_def), spec.blocking)
        for check in defs.asset_checks
        for spec in check.check_specs
    }
    assert found == {**CHECKS, **MEME_CHECKS, **SONG_CHECKS}


def test_jobs_schedule_and_sensor():
    repository = defs.get_repository_def()
    assert {n for n in repository.job_names if not n.startswith("__")} == JOBS
    assert [s.name for s in repository.schedule_defs] == ["clips_nightly"]
    assert {s.name for s in repository.sensor_defs} == SENSORS
    assert {s.default_status for s in repository.sensor_defs} == {dg.DefaultSensorStatus.STOPPED}


def test_every_asset_says_what_it_is(graph):
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name == key.path[0]
        assert node.description
        assert node.owners == ["team:clipfarm"], key
        assert node.kinds, key
        assert node.code_version, key
        assert {"writes", "reads"} & set(node.metadata), key


def test_training_and_scoring_share_a_pool(graph):
    clips = [dg.AssetKey(["clips", name]) for name in ("model_snapshots", "clip_predictions")]
    names = ("text_expert", "vision_expert", "fusion_model", "evaluation")
    memes = [dg.AssetKey(["memes", name]) for name in names]
    for key in (*clips, *memes, *SONGS_TRAINED):
        assert graph.get(key).pools == {"training"}, key


def test_training_backfills_make_a_run_a_partition(graph):
    clips = [dg.AssetKey(["clips", name]) for name in ("training_dataset", "model_snapshots")]
    names = ("text_expert", "vision_expert", "fusion_model", "evaluation")
    memes = [dg.AssetKey(["memes", name]) for name in names]
    for key in (*clips, *memes, SONGS_TRAINED[0]):
        assert graph.get(key).backfill_policy.max_partitions_per_run == 1, key


def test_encoders_share_a_pool(graph):
    for modality in ("video", "audio", "text"):
        assert graph.get(dg.AssetKey(["clips", f"{modality}_embeddings"])).pools == {"encoders"}


@pytest.mark.parametrize(
    ("asset", "upstream", "key", "expected"),
    [
        ("fused_shards", "video_embeddings", "2026-02-05|concat", {"2026-02-05"}),
        ("fused_shards", "clip_index", "2026-02-06|max_pool", {"2026-02-06"}),
        ("fused_shards", "schema_lock", "2026-02-06|max_pool", {"max_pool"}),
        ("embedding_manifest", "text_embeddings", "2026-02-07", {"2026-02-07"}),
        ("training_dataset", "fused_manifest", "30|sum_pool", {"sum_pool"}),
        ("model_snapshots", "training_dataset", "30|sum_pool", {"30|sum_pool"}),
        (
            "model_registry",
            "model_snapshots",
            "30",
            {"30|concat", "30|sum_pool", "30|max_pool"},
        ),
        ("clip_predictions", "clip_index", "2026-02-07", {"2026-02-07"}),
        ("clip_predictions", "model_registry", "2026-02-07", {"7", "30"}),
        ("clip_predictions", "fused_manifest", "2026-02-07", {"concat", "sum_pool", "max_pool"}),
        ("memes/text_expert", "shards", "abuse_hate", {"train", "val", "test"}),
        ("memes/fusion_model", "vision_expert", "abuse_hate", {"abuse_hate"}),
        ("memes/fusion_model", "shards", "abuse_hate", {"train", "val", "test"}),
        ("memes/evaluation", "fusion_model", "abuse_hate", {"abuse_hate"}),
    ],
)
def test_partition_mappings(graph, asset, upstream, key, expected):
    group, _, asset = asset.rpartition("/")
    group = group or "clips"
    asset_key, upstream_key = dg.AssetKey([group, asset]), dg.AssetKey([group, upstream])
    mapping = graph.get_partition_mapping(asset_key, upstream_key)
    definition = graph.get(asset_key).partitions_def
    subset = definition.subset_with_partition_keys([key])
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        subset, definition, graph.get(upstream_key).partitions_def
    )
    assert set(found.partitions_subset.get_partition_keys()) == expected


def test_the_manifest_folds_all_dates_of_its_strategy(graph):
    key, upstream = dg.AssetKey(["clips", "fused_manifest"]), dg.AssetKey(["clips", "fused_shards"])
    mapping = graph.get_partition_mapping(key, upstream)
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        partitions.strategies.subset_with_partition_keys(["concat"]),
        partitions.strategies,
        partitions.dates_by_strategy,
    ).partitions_subset.get_partition_keys()
    assert {"2026-02-05|concat", "2026-02-06|concat"} <= set(found)
    assert {key.split("|")[1] for key in found} == {"concat"}


def test_the_nightly_run_covers_the_last_days_in_one_run():
    moment = datetime(2026, 2, 10, 2, 15, tzinfo=UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=moment,
            repository_def=defs.get_repository_def(),
        )
        tick = defs.resolve_schedule_def("clips_nightly").evaluate_tick(context)
    (request,) = tick.run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "2026-02-03"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-02-10"


def test_loading_the_definitions_loads_no_model_library():
    """Nor does it where backfills make a run a partition."""
    code = (
        "import sys, clipfarm_assets.definitions\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CLIPFARM_BACKFILL": "per_partition"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CLIPFARM_ENCODERS", "tiny", "pretrained, demo"),
        ("CLIPFARM_BACKFILL", "all", "'range' or 'per_partition'"),
    ],
)
def test_a_wrong_variable_names_the_choices(monkeypatch, name, value, says):
    from clipfarm_assets.defs.resources import resources_from

    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name) as caught:
        resources_from() if name == "CLIPFARM_ENCODERS" else partitions.backfill_policy()
    assert says in str(caught.value)


def test_backfills_can_run_a_partition_each(monkeypatch):
    assert partitions.backfill_policy().max_partitions_per_run is None
    monkeypatch.setenv("CLIPFARM_BACKFILL", "per_partition")
    assert partitions.backfill_policy().max_partitions_per_run == 1
