"""Comparison, registry and predictions, by runs of the real definitions."""

import json
import logging
from collections import Counter

import dagster as dg
import polars as pl
import pytest

from clipfarm_assets.defs.clips import common
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet
from clipfarm_assets_tests.defs.kit import check_results, materialised
from clipfarm_assets_tests.defs.training_kit import CLIPS, FAMILIES, TrainingBench

pytestmark = pytest.mark.usefixtures("undrawn")
METRICS = ("rmse_log", "mae_log", "r2_log", "rmse_raw", "mae_raw")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, undrawn):
    """Both horizons of concat, trained in one run ``r1``."""
    bench = TrainingBench(tmp_path_factory.mktemp("trained") / "bench").make()
    with dg.DagsterInstance.ephemeral() as instance:
        bench.train(instance, run_id="r1", compare_splits=[])
    return bench


@pytest.fixture
def bench(trained, tmp_path):
    return trained.copy(tmp_path / "bench")


def promote(bench, instance, horizon="7", **config):
    # Few rows: which family is best is chance, that ridge beats the mean on val is not.
    told = {"family": "ridge", **config}
    return bench.configured(instance, "clips_promote", "model_registry", horizon, **told)


def compare(bench, instance, **config):
    return bench.configured(instance, "clips_compare", "model_comparison", **config)


def test_the_newest_run_is_compared_and_what_is_missing_is_named(bench, instance):
    compare(bench, instance)
    shown = materialised(instance, "model_comparison")[None]
    assert shown["run_id"].value == "r1"
    assert shown["metric"].value == "val_mae_log"
    assert shown["dagster/row_count"].value == 2 * len(FAMILIES)
    rows = [r.data for r in shown["comparison"].records]
    assert {(r["horizon_days"], r["strategy"]) for r in rows} == {(7, "concat"), (30, "concat")}
    best = {r.data["horizon_days"]: r.data for r in shown["best"].records}
    for horizon, row in best.items():
        errors = [r["val_mae_log"] for r in rows if r["horizon_days"] == horizon]
        assert row["val_mae_log"] == min(errors)
    written = {r.data["key"].rpartition("/")[2] for r in shown["files"].records}
    assert {f"best_by_{m}.json" for m in METRICS} < written
    missing = [r.data for r in shown["missing_jobs"].records]
    assert {"family": "ridge", "strategy": "max_pool", "horizon_days": 7} in missing
    assert {"family": "gbdt", "strategy": "concat", "horizon_days": 30} in missing
    assert shown["missing"].value == 8 * 3 * 2 - 2 * len(FAMILIES)
    for record in shown["files"].records:
        assert bench.store.exists(record.data["key"])


def test_a_comparison_of_chosen_families_by_another_metric(bench, instance):
    compare(bench, instance, run_id="r1", metric="rmse_log", families=FAMILIES)
    shown = materialised(instance, "model_comparison")[None]
    assert shown["missing"].value == 2 * 2 * len(FAMILIES)
    files = [r.data["key"] for r in shown["files"].records]
    key = next(key for key in files if key.endswith("comparison/best_by_mae_log.json"))
    best = json.loads(bench.store.get(key))
    assert (best["metric"], set(best["by_horizon"])) == ("val_mae_log", {"7", "30"})
    with pytest.raises(dg.Failure, match=r"model_comparison\.families\.0 must be 'concat_mlp'"):
        compare(bench, instance, families=["xgboost"])


def test_a_run_that_is_not_there_names_those_that_are(bench, instance):
    with pytest.raises(dg.Failure, match=r"'r9'.*r1"):
        compare(bench, instance, run_id="r9")
    with pytest.raises(dg.Failure, match=r"'r9'.*r1"):
        promote(bench, instance, run_id="r9")


def test_a_promotion_binds_and_a_second_changes_nothing(bench, instance):
    promote(bench, instance)
    shown = materialised(instance, "model_registry")["7"]
    assert shown["model_version"].value == "h7-v1"
    assert shown["what"].value == "promoted"
    assert shown["previous"].value == "none"
    assert (shown["family"].value, shown["run_id"].value) == ("ridge", "r1")
    assert {r.data["modality"] for r in shown["embedding_versions"].records} == {
        "video",
        "audio",
        "text",
    }
    assert all(len(r.data["sha256"]) == 64 for r in shown["artifacts"].records)
    assert check_results(instance, "model_registry", "binding_resolves")["7"][0]
    stored = bench.store.get(shown["key"].value)
    promote(bench, instance)
    assert materialised(instance, "model_registry")["7"]["what"].value == "unchanged"
    assert bench.store.get(shown["key"].value) == stored


def test_going_back_to_an_earlier_version(bench, instance):
    bench.train(instance, "7|concat", run_id="r2", families=["ridge"], compare_splits=[], seed=1)
    promote(bench, instance, run_id="r1")
    promote(bench, instance, replace_better=True)
    shown = materialised(instance, "model_registry")["7"]
    assert (shown["model_version"].value, shown["run_id"].value) == ("h7-v2", "r2"), "the newest"
    bench.configured(instance, "clips_promote", "model_registry", "7", model_version="h7-v1")
    shown = materialised(instance, "model_registry")["7"]
    assert (shown["what"].value, shown["previous"].value) == ("back", "h7-v2")
    serves = {r.data["model_version"]: r.data["serves"] for r in shown["versions"].records}
    assert serves == {"h7-v1": True, "h7-v2": False}


@pytest.fixture
def worse(bench, instance):
    """After ``r1`` was promoted, a run ``r2`` of worse models."""
    promote(bench, instance)
    # Shrunk to hardly more than the mean, which it still beats.
    shrunk = {"ridge": {"alphas": [30.0], "block_scales": [0.5]}}
    bench.train(
        instance,
        "7|concat",
        run_id="r2",
        families=["mean", "ridge"],
        compare_splits=[],
        hyperparameters=shrunk,
    )
    return bench


def test_the_newest_run_does_not_replace_a_better_model(worse, instance):
    key = worse.layout.model_registry(7)
    before = worse.store.get(key)
    ran = promote(worse, instance)
    assert worse.store.get(key) == before
    shown = materialised(instance, "model_registry")["7"]
    assert (shown["what"].value, shown["run_id"].value) == ("kept", "r1")
    assert (shown["model_version"].value, shown["previous"].value) == ("h7-v1", "h7-v1")
    why = shown["why"].value
    values = {
        run: json.loads(
            worse.store.get(f"{worse.layout.snapshot(run, 'concat', 7)}metrics_summary.json")
        )["models"]["ridge"]["val"]["rmse_log"]
        for run in ("r1", "r2")
    }
    assert values["r1"] < values["r2"]
    assert f"has val rmse_log {values['r2']}, h7-v1 that serves" in why
    assert why.endswith(f"(ridge of run r1) has {values['r1']}")
    assert check_results(instance, "model_registry", "binding_resolves")["7"][0]
    warned = [
        event.user_message
        for event in instance.all_logs(ran.run_id)
        if event.level == logging.WARNING and "not promoted" in event.user_message
    ]
    assert warned == [f"7 days: not promoted: {why}"]


@pytest.mark.parametrize("config", [{"run_id": "r2"}, {"replace_better": True}])
def test_a_worse_model_is_promoted_where_that_is_asked_for(worse, instance, config):
    promote(worse, instance, **config)
    shown = materialised(instance, "model_registry")["7"]
    assert (shown["what"].value, shown["run_id"].value) == ("promoted", "r2")
    assert "why" not in shown


def test_a_better_model_of_the_newest_run_is_promoted(worse, instance):
    promote(worse, instance, run_id="r2")
    families = ["mean", "ridge"]
    worse.train(instance, "7|concat", run_id="r3", families=families, compare_splits=[])
    promote(worse, instance)
    shown = materialised(instance, "model_registry")["7"]
    assert (shown["what"].value, shown["run_id"].value) == ("promoted", "r3")
    assert shown["previous"].value == "h7-v2"


def test_models_of_v1_warn_and_are_not_promoted_unless_asked_for(bench, instance):
    ran = bench.train(
        instance,
        "7|concat",
        run_id="r2",
        families=["mean", "ridge"],
        compare_splits=[],
        dataset={"feature_set": "v1"},
    )
    assert materialised(instance, "model_snapshots")["7|concat"]["feature_set"].value == "v1"
    warned = [
        event.user_message
        for event in instance.all_logs(ran.run_id)
        if event.level == logging.WARNING and "feature set" in event.user_message
    ]
    assert len(warned) == 1
    assert warned[0].startswith("7|concat: feature set v1 has columns captured at the horizon")
    assert "isn't promoted unless asked for" in warned[0]
    for told in ({}, {"run_id": "r2"}, {"run_id": "r2", "replace_better": True}):
        with pytest.raises(dg.Failure, match=r"'r2' has models of feature set v1.*expected v2"):
            promote(bench, instance, **told)
    assert not bench.store.exists(bench.layout.model_registry(7))
    promote(bench, instance, feature_set="v1")
    shown = materialised(instance, "model_registry")["7"]
    assert (shown["what"].value, shown["run_id"].value) == ("promoted", "r2")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_version": "v1"}, r"model_version: bad model version 'v1'.*like h7-v3"),
        ({"model_version": "h30-v1"}, r"is of horizon 30, the partition is 7"),
        ({"model_version": "h7-v1", "run_id": "r1"}, "names the model already"),
        ({"model_version": "h7-v1"}, r"no model version 'h7-v1'.*clips/model_registry"),
        ({"family": "mean"}, "mean is the floor and never serves"),
        ({"strategy": "max_pool"}, r"max_pool.*found.*ridge of concat"),
    ],
)
def test_what_cannot_be_promoted_says_why(trained, instance, config, says):
    with pytest.raises(dg.Failure, match=says):
        trained.configured(instance, "clips_promote", "model_registry", "7", **config)


def test_a_binding_whose_files_changed_is_found(bench, instance):
    promote(bench, instance)
    key = bench.layout.snapshot("r1", "concat", 7) + "models/ridge.skops"
    bench.store.put(key, bench.store.get(key) + b" ")
    bench.check_alone(instance, "model_registry", "binding_resolves", "7")
    passed, metadata = check_results(instance, "model_registry", "binding_resolves")["7"]
    assert not passed
    assert "ridge.skops" in metadata["first_findings"].records[0].data["subject"]


def busiest_date(bench):
    """The partition with the most clips."""
    rows = bench.csv().group_by("video_id").agg(pl.col("captured_at").max())
    dates = Counter(rows["captured_at"].str.slice(0, 10).to_list())
    return max((n, date) for date, n in dates.items() if date >= "2026-01-01")[1]


def score(bench, instance, date, *, check=True):
    bench.run(instance, "clips_daily", date, selection=[common.INDEX])
    return bench.run(instance, "clips_score", date, check=check)


def predictions(bench, date):
    return pl.DataFrame(parquet_to_table(bench.store.get(bench.layout.clip_predictions(date))))


def test_scoring_predicts_every_clip_for_every_promoted_horizon(bench, instance):
    promote(bench, instance)
    date = busiest_date(bench)
    score(bench, instance, date)
    shown = materialised(instance, "clip_predictions")[date]
    clips = shown["clips"].value
    assert clips > 0
    assert shown["dagster/row_count"].value == clips
    (row,) = [r.data for r in shown["by_horizon"].records]
    assert (row["horizon_days"], row["model_version"], row["clips"]) == (7, "h7-v1", clips)
    passed, metadata = check_results(instance, "clip_predictions", "predictions_complete")[date]
    assert passed
    assert metadata["examined"].value == clips

    rows = predictions(bench, date)
    table = rows.head(len(rows) - 1).to_arrow()
    bench.store.put(bench.layout.clip_predictions(date), table_to_parquet(table))
    bench.check_alone(instance, "clip_predictions", "predictions_complete", date)
    passed, metadata = check_results(instance, "clip_predictions", "predictions_complete")[date]
    assert not passed
    assert rows["video_id"][-1] in metadata["first_findings"].records[0].data["subject"]


def test_scored_rows_are_those_of_the_snapshot(bench, instance):
    """A clip of the test part is predicted from store and CSV as it was in training."""
    promote(bench, instance)
    snapshot = bench.layout.snapshot("r1", "concat", 7)
    stored = pl.concat(
        pl.DataFrame(parquet_to_table(bench.store.get(f"{snapshot}predictions/{part}.parquet")))
        for part in ("train", "val", "test")
    ).filter(pl.col("family") == "ridge")
    assert len(stored) == CLIPS
    date = busiest_date(bench)
    score(bench, instance, date)
    both = predictions(bench, date).join(stored, on="video_id", suffix="_stored")
    assert len(both) == len(predictions(bench, date)) > 0
    for name in ("prediction_log", "interval_low_raw", "interval_high_raw"):
        error = (both[name] / both[f"{name}_stored"] - 1).abs().max()
        assert error < 1e-6


def test_scoring_before_promoting_says_what_to_do(trained, instance):
    with pytest.raises(dg.Failure, match=r"no model was promoted.*clips/model_registry"):
        score(trained, instance, busiest_date(trained))


def test_vectors_of_another_encoder_are_not_scored(bench, instance):
    promote(bench, instance)
    key = bench.layout.schema_lock("concat")
    lock = json.loads(bench.store.get(key))
    lock["embedding_versions"]["video"] = "video-other"
    bench.store.put(key, json.dumps(lock).encode())
    with pytest.raises(dg.Failure, match="video"):
        score(bench, instance, busiest_date(bench))
