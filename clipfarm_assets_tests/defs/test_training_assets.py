"""Datasets, snapshots and their checks, by runs of the real definitions."""

import json

import dagster as dg
import pytest

from clipfarm_assets.defs.clips import common
from clipfarm_assets.defs.clips.training import SuiteRun, TrainingDatasetConfig, suite_config
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.settings import BadSettings
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets_tests.defs.kit import check_results, materialisations, materialised
from clipfarm_assets_tests.defs.training_kit import CLIPS, FAMILIES, KEYS, TrainingBench

CHECKS = {
    "training_dataset": ("features_declared", "no_leaky_feature", "splits_hold"),
    "model_snapshots": ("snapshot_intact", "beats_mean", "interval_coverage"),
}
KEY = "7|concat"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return TrainingBench(tmp_path_factory.mktemp("planted") / "bench").make()


@pytest.fixture(scope="module")
def ranged(planted, tmp_path_factory):
    """Both horizons trained in one run, and the instance that knows of it."""
    bench = planted.copy(tmp_path_factory.mktemp("ranged") / "bench")
    with dg.DagsterInstance.ephemeral() as instance:
        bench.train(instance, run_id="r1")
        yield bench, instance


@pytest.fixture
def fresh(planted, tmp_path):
    return planted.copy(tmp_path / "bench")


def test_a_range_in_one_run_equals_a_run_a_partition(ranged, fresh, instance):
    bench, of_range = ranged
    for key in KEYS:
        fresh.train(instance, key, run_id="r1")
    times = ("snapshot.json",)
    assert bench.objects(but=times) == fresh.objects(but=times)
    for asset, checks in CHECKS.items():
        one, other = materialisations(of_range, asset), materialisations(instance, asset)
        assert set(one) == set(other) == set(KEYS)
        for key in KEYS:
            assert data_version(one[key]) == data_version(other[key])
            shown, single = dict(one[key].metadata), dict(other[key].metadata)
            for metadata in (shown, single):
                metadata.pop("seconds", None)
            assert shown == single
        for check in checks:
            results, singles = (check_results(i, asset, check) for i in (of_range, instance))
            assert {key: results[key] for key in KEYS} == singles
    assert data_version(one[KEYS[0]]) != data_version(one[KEYS[1]])


def data_version(materialisation):
    return materialisation.tags["dagster/data_version"]


def test_a_dataset_shows_rows_splits_features_and_target(ranged):
    shown = materialised(ranged[1], "training_dataset")[KEY]
    assert shown["dagster/row_count"].value == CLIPS
    splits = {r.data["split"]: r.data for r in shown["splits"].records}
    assert set(splits) == {"random", "chronological", "grouped", "chronological_grouped"}
    for counts in splits.values():
        assert sum(counts[p] for p in ("train", "val", "test", "excluded")) == CLIPS
    uses = {r.data["column"]: r.data for r in shown["features"].records}
    assert uses["duration_seconds"]["use"] == "numeric"
    assert uses["channel_country"]["use"] == "categorical"
    assert uses["view_count"]["use"] == "dropped"
    assert uses["view_count"]["why"]
    counts = {r.data["count"]: r.data for r in shown["counts"].records}
    assert counts["manifest_rows"]["n"] == CLIPS
    assert all(row["of"] for row in counts.values())
    target = {r.data["target"]: r.data for r in shown["target"].records}
    assert target["target_log"]["sd"] > 0
    assert len(shown["preview"].records) == 10


def test_a_snapshot_shows_leaderboard_metrics_and_plots(ranged):
    bench, instance = ranged
    shown = materialised(instance, "model_snapshots")[KEY]
    board = [r.data for r in shown["leaderboard"].records]
    assert sorted(row["family"] for row in board) == sorted(FAMILIES)
    errors = [row["val_rmse_log"] for row in board]
    assert errors == sorted(errors)
    assert all("chronological_test_rmse_log" in row for row in board)
    assert shown["best_model"].value == board[0]["family"]
    assert shown["run_id"].value == "r1"
    assert shown["feature_set"].value == "v2"
    root = shown["snapshot"].value
    assert bench.store.exists(f"{root}leaderboard.csv")
    for plot in ("predictions", "residuals", "importance", "coverage"):
        assert "data:image/png;base64," in shown[f"plot/{plot}"].md_str
    for row in shown["plot_files"].records:
        data = bench.store.get(root + row.data["file"])
        assert data.startswith(b"\x89PNG")
        assert len(data) == row.data["bytes"]


def test_features_of_publish_time_warn_of_nothing(ranged):
    (run,) = ranged[1].get_runs()
    lines = [event.user_message for event in ranged[1].all_logs(run.run_id)]
    assert not any("feature set" in line for line in lines)


def test_every_check_holds_on_honest_data(ranged):
    for asset, checks in CHECKS.items():
        for check in checks:
            results = check_results(ranged[1], asset, check)
            assert all(results[key][1]["examined"].value > 0 for key in KEYS)
            if check != "beats_mean":  # so few rows do not always allow that
                assert {key: results[key][0] for key in KEYS} == dict.fromkeys(KEYS, True), check


def test_beats_mean_says_what_the_metrics_say(ranged):
    results = check_results(ranged[1], "model_snapshots", "beats_mean")
    for key, shown in materialised(ranged[1], "model_snapshots").items():
        metrics = ranged[0].store.get(f"{shown['snapshot'].value}metrics_summary.json")
        models = json.loads(metrics)["models"]
        errors = {family: scores["test"]["rmse_log"] for family, scores in models.items()}
        floor = errors.pop("mean")
        worse = {family for family, error in errors.items() if error >= floor}
        findings = results[key][1].get("first_findings")
        found = {r.data["subject"] for r in findings.records} if findings else set()
        assert found == worse
        assert results[key][0] is not bool(worse)


def test_snapshots_are_immutable_and_their_data_version_is_their_content(fresh, instance):
    cheap = {"families": ["mean"]}
    fresh.train(instance, KEY, run_id="r1", **cheap)
    first = data_version(materialisations(instance, "model_snapshots")[KEY])
    before = fresh.objects()
    with pytest.raises(dg.Failure, match=r"run_id=r1/.*exists and is immutable.*another run_id"):
        fresh.train(instance, KEY, run_id="r1", **cheap)
    assert fresh.objects() == before
    fresh.train(instance, KEY, run_id="r2", **cheap)
    assert data_version(materialisations(instance, "model_snapshots")[KEY]) == first
    fresh.train(instance, KEY, run_id="r3", seed=7, **cheap)
    assert data_version(materialisations(instance, "model_snapshots")[KEY]) != first


def test_an_unnamed_run_is_named_after_its_backfill_or_itself(fresh, instance):
    fresh.train(instance, KEY, families=["mean"], tags={"dagster/backfill": "abcdefgh"})
    assert materialised(instance, "model_snapshots")[KEY]["run_id"].value == "abcdefgh"
    result = fresh.train(instance, KEY, only=common.SNAPSHOTS, families=["mean"])
    assert materialised(instance, "model_snapshots")[KEY]["run_id"].value == result.run_id


def test_one_family_is_a_snapshot_of_its_own(fresh, instance):
    fresh.train(instance, KEY, run_id="r1", model="ridge", compare_splits=[])
    shown = materialised(instance, "model_snapshots")[KEY]
    assert shown["snapshot"].value.endswith("run_id=r1/model=ridge/strategy=concat/horizon=7/")
    assert [r.data["family"] for r in shown["leaderboard"].records] == ["ridge"]
    assert check_results(instance, "model_snapshots", "beats_mean")[KEY][0]


def with_leak(bench, name="score_of_ours"):
    """A column that copies the label, renamed and on another scale."""
    rows = bench.csv()
    copied = (rows["horizon_view_count"].cast(float) ** 0.5).cast(str)
    bench.put_csv(rows.with_columns(copied.alias(name)))
    return {"declared_columns": {name: {"availability": "at_publish", "kind": "numeric"}}}


def test_a_leaky_feature_fails_its_check_and_is_refused_by_a_later_run_alone(fresh, instance):
    dataset = with_leak(fresh)
    result = fresh.train(instance, KEY, dataset=dataset, check=False, run_id="r1")
    assert not result.success
    passed, metadata = check_results(instance, "training_dataset", "no_leaky_feature")[KEY]
    assert not passed
    assert "score_of_ours" in metadata["first_findings"].records[0].data["subject"]
    assert check_results(instance, "training_dataset", "features_declared")[KEY][0]
    started = {e.step_key for e in result.all_events if e.event_type_value == "STEP_START"}
    assert "clips__model_snapshots" not in started
    with pytest.raises(dg.Failure, match=r"refuses the dataset, no_leaky_feature.*score_of_ours"):
        fresh.train(instance, KEY, only=common.SNAPSHOTS, run_id="r1")
    assert not list(fresh.store.list(fresh.layout.snapshots_prefix()))


def test_a_new_column_is_refused_until_it_is_declared(fresh, instance):
    with_leak(fresh)
    with pytest.raises(dg.Failure, match=r"score_of_ours.*CLIPFARM_TRAINING_CONFIG"):
        fresh.train(instance, KEY, only=common.DATASET)
    outcome = {"score_of_ours": {"availability": "after_outcome", "kind": "numeric"}}
    fresh.train(instance, KEY, only=common.DATASET, dataset={"declared_columns": outcome})
    uses = materialised(instance, "training_dataset")[KEY]["features"].records
    (row,) = [r.data for r in uses if r.data["column"] == "score_of_ours"]
    assert row["use"] == "dropped"


def test_a_dataset_of_another_lock_is_refused(fresh, instance):
    fresh.train(instance, KEY, only=common.DATASET)
    key = fresh.layout.schema_lock("concat")
    lock = json.loads(fresh.store.get(key))
    fresh.store.put(key, json.dumps({**lock, "lock_version": 2}).encode())
    with pytest.raises(
        dg.Failure, match=r"lock_in_force.*materialise clips/training_dataset again"
    ):
        fresh.train(instance, KEY, only=common.SNAPSHOTS)


def test_training_before_assembling_says_what_to_do(fresh, instance):
    with pytest.raises(dg.Failure, match="clips/training_dataset"):
        fresh.train(instance, KEY, only=common.SNAPSHOTS)


def test_a_changed_artifact_is_found_in_its_partition(ranged, tmp_path):
    whole, instance = ranged
    bench = whole.copy(tmp_path / "bench")
    key = f"{materialised(instance, 'model_snapshots')[KEY]['snapshot'].value}leaderboard.csv"
    bench.store.put(key, bench.store.get(key) + b" ")
    for partition, holds in ((KEY, False), ("30|concat", True)):
        bench.check_alone(instance, "model_snapshots", "snapshot_intact", partition)
        passed, metadata = check_results(instance, "model_snapshots", "snapshot_intact")[partition]
        assert passed is holds
    bench.check_alone(instance, "model_snapshots", "snapshot_intact", KEY)
    _, metadata = check_results(instance, "model_snapshots", "snapshot_intact")[KEY]
    assert "leaderboard.csv" in metadata["first_findings"].records[0].data["subject"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hyperparameters": {"ridge": {"alpha": 1}}}, r"hyperparameters\.ridge\.alpha is no sett"),
        ({"hyperparameters": {"seed": 1}}, r"seed is a field of its own"),
        ({"hyperparameters": {"gbdt": {"boosting": {"max_iter": 0}}}}, "max_iter must be greater"),
        ({"families": []}, r"families must name some of concat_mlp"),
        ({"families": ["mean", "mean"]}, "families must name each once"),
        ({"families": ["xgboost"]}, r"families\.0 must be 'concat_mlp'.*found 'xgboost'"),
        ({"compare_splits": ["by_day"]}, r"compare_splits\.0 must be 'random'.*found 'by_day'"),
        ({"run_id": "../up"}, r"model_snapshots\.run_id: bad run id"),
    ],
)
def test_a_wrong_setting_is_one_sentence(ranged, instance, config, says):
    with pytest.raises(dg.Failure, match=says):
        ranged[0].train(instance, KEY, only=common.SNAPSHOTS, **config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model": "xgboost"}, r"config:model not in .*pca_gbdt.*got xgboost"),
        ({"split": "by_day"}, r"config:split not in .*chronological_grouped.*got by_day"),
        ({"rank_metric": "mape"}, r"config:rank_metric not in .*mae_log.*got mape"),
    ],
)
def test_a_wrong_choice_names_the_choices(ranged, instance, config, says):
    with pytest.raises(Exception, match=says):
        ranged[0].train(instance, KEY, only=common.SNAPSHOTS, **config)


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ({"ratios": [0.5, 0.5]}, "ratios must be of train, val and test"),
        ({"ratios": [0.5, 0.4, 0.4]}, "ratios"),
        (
            {"declared_columns": {"x": {"availability": "never", "kind": "numeric"}}},
            r"declared_columns\.x\.availability must be 'at_publish'",
        ),
        (
            {"declared_columns": {"x": {"availability": "at_publish"}}},
            r"declared_columns\.x\.kind: field required",
        ),
    ],
)
def test_a_wrong_dataset_setting_is_one_sentence(fresh, instance, dataset, says):
    with pytest.raises(dg.Failure, match=says):
        fresh.train(instance, KEY, only=common.DATASET, dataset=dataset)


def test_hyperparameters_reach_the_models(fresh, instance):
    fresh.train(
        instance,
        KEY,
        run_id="r1",
        families=["mean", "ridge"],
        compare_splits=[],
        hyperparameters={"ridge": {"alphas": [3.5]}, "gbdt": {"fit": {"patience": 2}}},
        max_epochs=3,
        patience=9,
        interval_coverage=0.8,
    )
    root = fresh.layout.snapshot("r1", "concat", 7)
    settings = json.loads(fresh.store.get(f"{root}config_used.json"))["settings"]
    assert settings["ridge"]["alphas"] == [3.5]
    assert settings["interval_coverage"] == 0.8
    fits = {name: settings[name]["fit"] for name in ("concat_mlp", "gated_fusion_mlp", "gbdt")}
    assert {fit["max_epochs"] for fit in fits.values()} == {3}
    assert {n: f["patience"] for n, f in fits.items()} == {
        "concat_mlp": 9,
        "gated_fusion_mlp": 9,
        "gbdt": 2,
    }, "what is told of one family goes before what is told of all"
    assert settings["gated_fusion_mlp"]["fit"]["learning_rate"] == 7e-4


def test_a_hyperparameter_leaves_its_family_the_others():
    nested = {
        "gated_fusion_mlp": {"fit": {"max_epochs": 3}},
        "pca_gbdt": {"boosting": {"max_iter": 20}},
    }
    found, own = suite_config(SuiteRun(hyperparameters=nested)), SuiteConfig()
    fit = own.gated_fusion_mlp.fit
    assert found.gated_fusion_mlp.fit == fit.model_copy(update={"max_epochs": 3})
    boosting = own.pca_gbdt.boosting
    assert found.pca_gbdt.boosting == boosting.model_copy(update={"max_iter": 20})
    assert (boosting.max_depth, fit.learning_rate) == (3, 7e-4), "where the classes say otherwise"


def test_what_is_a_field_of_its_own_is_not_offered_among_hyperparameters():
    with pytest.raises(BadSettings) as caught:
        suite_config(SuiteRun(hyperparameters={"rigde": {}}))
    offered = str(caught.value).partition("expected some of ")[2].partition(":")[0].split(", ")
    assert {"ridge", "gbdt", "gated_fusion_mlp"} <= set(offered)
    assert not {"seed", "rank_metric", "interval_coverage"} & set(offered)
    for name in set(SuiteConfig.model_fields) - set(offered):
        with pytest.raises(BadSettings, match=rf"{name} is a field of its own"):
            suite_config(SuiteRun(hyperparameters={name: 1}))


def test_a_deployment_sets_defaults():
    variable = "CLIPFARM_SUITE_CONFIG"
    fields = {"families": ["mean"], "hyperparameters": {"ridge": {"alphas": [1]}}, "max_epochs": 2}
    found = defaults_from(variable, {variable: json.dumps(fields)})(SuiteRun)()
    assert found.families == ["mean"]
    assert found.max_epochs == 2
    assert found.hyperparameters == {"ridge": {"alphas": [1]}}
    with pytest.raises(ValueError, match="CLIPFARM_SUITE_CONFIG: field 'model'"):
        defaults_from(variable, {variable: '{"model": "xgboost"}'})(SuiteRun)
    declared = {"x": {"availability": "at_publish", "kind": "numeric"}}
    told = {"CLIPFARM_TRAINING_CONFIG": json.dumps({"declared_columns": declared})}
    dataset = defaults_from("CLIPFARM_TRAINING_CONFIG", told)(TrainingDatasetConfig)()
    assert dataset.declared_columns == declared


def test_a_partition_that_cannot_be_trained_leaves_the_others(fresh, instance):
    rows = fresh.csv()
    few = rows["horizon_days"].eq("7") & (rows["video_id"].rank("dense") > 5)
    fresh.put_csv(rows.filter(~few))
    with pytest.raises(dg.Failure, match="12"):
        fresh.train(instance, KEY)
    fresh.train(instance, "30|concat", families=["mean"])
    assert set(materialised(instance, "model_snapshots")) == {"30|concat"}
