"""What the manifest's asset shows, and its settings."""

import dagster as dg
import pytest

from clipfarm_assets.contracts.fused_manifest import COLUMNS
from clipfarm_assets.defs.clips.fusion import ManifestConfig, fused_manifest
from clipfarm_assets.pipelines.manifest import ManifestOptions, load_manifest
from clipfarm_assets_tests.contracts.builders import make_lock, make_shard
from clipfarm_assets_tests.defs import kit


@pytest.fixture
def fused(tmp_path):
    """A store with a lock and no shard yet, and no ledger rows."""
    bench = kit.Bench(tmp_path)
    bench.store.put(bench.layout.schema_lock("concat"), make_lock().to_json())
    return bench


def put_shard(bench, part, *ids):
    key = bench.layout.shard("concat", "2026-02-05", part)
    bench.store.put(key, make_shard(ids, ids[:1]).to_npz())
    return key


def update(bench, instance, **config):
    done = dg.materialize(
        [fused_manifest],
        partition_key="concat",
        instance=instance,
        resources={"deployment": bench.resource()},
        run_config={**kit.QUIET, "ops": {"clips__fused_manifest": {"config": config}}},
    )
    assert done.success
    return kit.materialised(instance, "fused_manifest")["concat"]


def test_a_manifest_in_one_file_is_shown_whole(fused, instance):
    put_shard(fused, 0, "a", "b")
    update(fused, instance)
    key = put_shard(fused, 1, "c")
    shown = update(fused, instance)

    assert shown["dagster/row_count"].value == shown["rows_in_file"].value == 3
    assert (shown["shards"].value, shown["new_shards"].value) == (2, 1)
    assert (shown["deltas"].value, shown["published_delta"].value) == (0, "none")
    counts = {r.data["fusion_status"]: r.data["clips"] for r in shown["counts"].records}
    assert counts == {"success_full": 1, "success_text_placeholder": 2}
    assert [r.data["video_id"] for r in shown["preview"].records] == ["a", "b", "c"]
    assert [r.data["pointer"] for r in shown["read_back"].records] == [f"c -> {key}[0]"]


def test_beside_a_large_manifest_what_is_new_is_shown(fused, instance):
    put_shard(fused, 0, "a", "b")
    update(fused, instance)
    put_shard(fused, 1, "b", "c", "d")
    shown = update(fused, instance, whole_rows=0, delta_share=2.0)

    # How many rows there are only merging would tell.
    assert "dagster/row_count" not in shown
    assert (shown["rows_in_file"].value, shown["rows_in_deltas"].value) == (2, 3)
    (delta,) = (info.key for info in fused.store.list("clipfarm/fused/concat/manifest_deltas"))
    assert (shown["deltas"].value, shown["published_delta"].value) == (1, delta)
    counts = {r.data["fusion_status"]: r.data["clips"] for r in shown["new_counts"].records}
    assert counts == {"success_full": 2, "success_text_placeholder": 1}
    assert [r.data["video_id"] for r in shown["new_preview"].records] == ["b", "c", "d"]
    rows = load_manifest(fused.deployment(), "concat").rows
    assert rows["video_id"].to_pylist() == ["a", "b", "c", "d"]
    assert tuple(rows.column_names) == COLUMNS

    shown = update(fused, instance, compact="always")
    assert (shown["dagster/row_count"].value, shown["deltas"].value) == (4, 0)


def test_the_launchpads_defaults_are_those_of_the_pipeline():
    assert ManifestOptions(**ManifestConfig().model_dump()) == ManifestOptions()
    for name, field in ManifestConfig.model_fields.items():
        assert field.description, name
