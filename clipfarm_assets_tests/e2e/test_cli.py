"""The command line, as docs and cron jobs use it."""

import hashlib
import json
import sqlite3
from collections import Counter

import dagster as dg
import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets_tests.defs.kit import check_results, materialised
from clipfarm_assets_tests.defs.training_kit import CLIPS, DIMS
from clipfarm_assets_tests.e2e import kit

MODULE = ("-m", "clipfarm_assets.definitions")
DAY_1, DAY_2 = kit.DAYS
EMBEDDINGS = tuple(f"{modality}_embeddings" for modality in statuses.MODALITIES)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = kit.Site(tmp_path_factory.mktemp("site"))
    made.prepare()
    kit.fill(made.store, kit.small_sample())
    return made


@pytest.fixture
def instance(site):
    with opened(site) as found:
        yield found


def opened(site):
    return dg.DagsterInstance.from_config(str(site.root / "dagster"))


def materialize(site, selection, *options):
    done = site.call("dagster", "asset", "materialize", *MODULE, "--select", selection, *options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def times(instance, name):
    """Partition -> how often the asset was materialised."""
    records = instance.fetch_materializations(dg.AssetKey(["clips", name]), limit=1000).records
    return Counter(record.partition_key for record in records)


def test_definitions_are_valid(site):
    done = site.call("dagster", "definitions", "validate", *MODULE)
    assert done.returncode == 0, done.stdout
    assert "Validation successful" in done.stdout


# The tests below are one story, in this order: each step needs what the one before made.


def test_the_source_is_observed(site, instance):
    materialize(site, "clips/metadata_horizon")
    records = instance.fetch_observations(dg.AssetKey(["clips", "metadata_horizon"]), 10).records
    digest = hashlib.sha256(site.store.get(Layout().metadata())).hexdigest()
    assert [record.asset_observation.data_version for record in records] == [digest]


def test_one_dated_asset_for_one_date(site, instance):
    materialize(site, "clips/clip_index", "--partition", DAY_1)
    assert times(instance, "clip_index") == {DAY_1: 1}
    assert materialised(instance, "clip_index")[DAY_1]["dagster/row_count"].value == kit.CLIPS_A_DAY


def test_dated_assets_for_a_range_of_dates(site, instance):
    selection = "+clips/embedding_manifest"
    said = materialize(site, selection, "--partition-range", f"{DAY_1}...{DAY_2}")
    assert "video 2026-02-05: 3/3" in said
    assert times(instance, "clip_index") == {DAY_1: 2, DAY_2: 1}
    for name in EMBEDDINGS:
        shown = materialised(instance, name)
        assert set(shown) == {DAY_1, DAY_2}
        for day in shown:
            assert shown[day]["delta/new"].value == kit.CLIPS_A_DAY
            assert shown[day]["all_clips/success"].value == kit.CLIPS_A_DAY
        results = check_results(instance, name, "embeddings_valid")
        assert results[DAY_1][0]
        assert results[DAY_2][0]
    manifest = materialised(instance, "embedding_manifest")
    for day in (DAY_1, DAY_2):
        assert manifest[day]["dagster/row_count"].value == 3 * kit.CLIPS_A_DAY
    assert len(site.embeddings()) == 3 * 2 * kit.CLIPS_A_DAY


def test_lock_shards_and_manifest_of_a_strategy(site, instance):
    materialize(site, 'key:"clips/schema_lock"', "--partition", "concat")
    span = f"{DAY_1}|concat...{DAY_2}|concat"
    materialize(site, "clips/fused_shards", "--partition-range", span)
    shown = materialised(instance, "fused_shards")
    assert set(shown) == {f"{DAY_1}|concat", f"{DAY_2}|concat"}
    for made in shown.values():
        assert made["all_clips/success_full"].value == kit.CLIPS_A_DAY
    results = check_results(instance, "fused_shards", "lock_matches_shards")
    assert {key: results[key][0] for key in shown} == dict.fromkeys(shown, True)
    materialize(site, 'key:"clips/fused_manifest"', "--partition", "concat")
    shown = materialised(instance, "fused_manifest")
    assert set(shown) == {"concat"}
    assert shown["concat"]["dagster/row_count"].value == 2 * kit.CLIPS_A_DAY


def test_a_partition_that_does_not_exist_is_refused(site):
    done = site.call(
        "dagster",
        *("asset", "materialize", *MODULE),
        *("--select", "clips/clip_index", "--partition", "2020-01-01"),
    )
    assert done.returncode != 0
    assert "2020-01-01" in done.stdout


def test_published_state_is_plain_sqlite(site):
    path = site.root / "store" / "clipfarm" / "state" / "video_embedding.sqlite"
    with sqlite3.connect(path) as state:
        rows = state.execute("SELECT status, count(*) FROM processed_items GROUP BY 1").fetchall()
    assert rows == [("success", 2 * kit.CLIPS_A_DAY)]


def test_training_comparing_and_promoting(tmp_path):
    site = kit.Site(tmp_path)
    site.prepare()
    make_planted_store(site.store, Layout(), clips=CLIPS, dims=DIMS, strategies=["concat"])
    suite = {"run_id": "by-hand", "families": ["mean", "ridge"], "compare_splits": []}
    config = {"ops": {"clips__model_snapshots": {"config": suite}}}
    materialize(
        site,
        "clips/training_dataset,clips/model_snapshots",
        *("--partition", "7|concat", "--config-json", json.dumps(config)),
    )
    materialize(site, "clips/model_comparison")
    materialize(site, "clips/model_registry", "--partition", "7")
    with opened(site) as instance:
        (dataset,) = materialised(instance, "training_dataset").values()
        assert dataset["dagster/row_count"].value == CLIPS
        assert set(materialised(instance, "model_snapshots")) == {"7|concat"}
        assert check_results(instance, "model_snapshots", "snapshot_intact")["7|concat"][0]
        (compared,) = materialised(instance, "model_comparison").values()
        assert compared["run_id"].value == "by-hand"
        promoted = materialised(instance, "model_registry")["7"]
        assert (promoted["run_id"].value, promoted["family"].value) == ("by-hand", "ridge")
