"""The models of a run beside each other, and what is missing."""

import csv
import io
import json

import pytest

from clipfarm_assets.pipelines.compare import compare
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import BadSnapshot, SnapshotId, publish
from clipfarm_assets.training.snapshot_reader import NoSnapshot

LAYOUT = Layout()
METRICS = ("rmse_log", "mae_log", "r2_log", "rmse_raw", "mae_raw")
FOLDER = "clipfarm/models/snapshots/run_id=r1/comparison/"


@pytest.fixture
def store(tmp_path):
    return ObjectStore.open(str(tmp_path / "store"))


def put(store, snapshot_id, **errors):
    """A snapshot whose families have these errors: val, and test a tenth above; r2 is 1 - error."""
    models = {
        family: {
            part: {m: 1 - error - more if m == "r2_log" else error + more for m in METRICS}
            for part, more in (("val", 0.0), ("test", 0.1))
        }
        for family, error in errors.items()
    }
    files = {"config_used.json": b"{}", "metrics_summary.json": json.dumps({"models": models})}
    files["metrics_summary.json"] = files["metrics_summary.json"].encode()
    publish(store, LAYOUT, snapshot_id, files, {})


def fill(store):
    put(store, SnapshotId("r1", "concat", 7), ridge=1.5, gbdt=1.2)
    put(store, SnapshotId("r1", "sum_pool", 7), ridge=1.4, gbdt=1.3)
    put(store, SnapshotId("r1", "concat", 30, "gbdt"), gbdt=1.1)
    put(store, SnapshotId("r2", "concat", 7), ridge=0.1)


def read(store, name):
    return json.loads(store.get(FOLDER + name))


def test_models_are_ranked_by_val_within_their_horizon_and_test_is_beside_it(store):
    fill(store)
    found = compare(store, LAYOUT, "r1")
    assert [
        (row["horizon_days"], row["rank"], row["strategy"], row["family"]) for row in found.rows
    ] == [
        (7, 1, "concat", "gbdt"),
        (7, 2, "sum_pool", "gbdt"),
        (7, 3, "sum_pool", "ridge"),
        (7, 4, "concat", "ridge"),
        (30, 1, "concat", "gbdt"),
    ]
    assert (found.rows[0]["val_mae_log"], found.rows[0]["test_rmse_raw"]) == (1.2, 1.2 + 0.1)
    assert found.rows[4]["snapshot"].endswith("run_id=r1/model=gbdt/strategy=concat/horizon=30/")
    assert [row["horizon_days"] for row in found.best] == [7, 30]
    assert not hasattr(found, "overall"), "errors of different targets don't compare"


def test_the_files_are_those_of_the_contract(store):
    fill(store)
    found = compare(store, LAYOUT, "r1")
    names = {i.key.removeprefix(FOLDER) for i in store.list(FOLDER)}
    assert names == {
        "metrics_comparison.json",
        "metrics_comparison.csv",
        *(f"best_by_{metric}.json" for metric in METRICS),
        "missing_jobs.json",
    }
    assert set(found.files) == {FOLDER + name for name in names}
    table = read(store, "metrics_comparison.json")
    assert table["models"] == list(found.rows)
    assert table["rank_metric"] == "val_mae_log"
    rows = list(csv.DictReader(io.StringIO(store.get(FOLDER + "metrics_comparison.csv").decode())))
    assert [row["family"] for row in rows] == [row["family"] for row in found.rows]
    assert [float(row["val_r2_log"]) for row in rows] == [r["val_r2_log"] for r in found.rows]
    best = read(store, "best_by_mae_log.json")
    assert best == {
        "run_id": "r1",
        "metric": "val_mae_log",
        "by_horizon": {"7": found.rows[0], "30": found.rows[4]},
    }
    assert table["best"] == best
    assert table["missing_jobs"] == read(store, "missing_jobs.json") == list(found.missing)


def test_every_metric_is_ranked_its_own_way_round(store):
    fill(store)
    for metric in METRICS:
        found = compare(store, LAYOUT, "r1", metric)
        assert [(row["strategy"], row["horizon_days"]) for row in found.best] == [
            ("concat", 7),
            ("concat", 30),
        ]
        assert [row["family"] for row in found.rows] == ["gbdt", "gbdt", "ridge", "ridge", "gbdt"]
        assert read(store, f"best_by_{metric}.json")["metric"] == f"val_{metric}"


def test_the_best_by_each_metric_are_told_by_whichever_one_ranks(store):
    """Another model is best by each: what ranks the table is not what ranks a file."""
    models = {
        family: {part: dict.fromkeys(METRICS, 0.5) for part in ("val", "test")}
        for family in ("gbdt", *(f"best_by_{metric}" for metric in METRICS))
    }
    for metric in METRICS:
        models[f"best_by_{metric}"]["val"][metric] = 0.9 if metric == "r2_log" else 0.1
    files = {
        "config_used.json": b"{}",
        "metrics_summary.json": json.dumps({"models": models}).encode(),
    }
    publish(store, LAYOUT, SnapshotId("r1", "concat", 7), files, {})
    written = {}
    for metric in METRICS:
        found = compare(store, LAYOUT, "r1", metric)
        for by in METRICS:
            best = read(store, f"best_by_{by}.json")
            assert set(best) == {"run_id", "metric", "by_horizon"}
            assert best["metric"] == f"val_{by}"
            assert set(best["by_horizon"]) == {"7"}
            row = best["by_horizon"]["7"]
            assert (row["family"], row["rank"]) == (f"best_by_{by}", 1)
            assert written.setdefault(by, best) == best
        assert read(store, "metrics_comparison.json")["best"] == written[metric]
        assert found.best == (written[metric]["by_horizon"]["7"],)


def test_a_metric_without_a_value_is_last(store):
    models = {
        "mean": {part: dict.fromkeys(METRICS, 1.0) | {"r2_log": None} for part in ("val", "test")},
        "ridge": {part: dict.fromkeys(METRICS, -5.0) for part in ("val", "test")},
    }
    files = {
        "config_used.json": b"{}",
        "metrics_summary.json": json.dumps({"models": models}).encode(),
    }
    publish(store, LAYOUT, SnapshotId("r1", "concat", 7), files, {})
    found = compare(store, LAYOUT, "r1", "r2_log")
    assert [row["family"] for row in found.rows] == ["ridge", "mean"]


def test_missing_jobs_are_those_that_no_snapshot_has(store):
    fill(store)
    asked = {"families": ["ridge", "gbdt"], "strategies": ["concat", "sum_pool"]}
    found = compare(store, LAYOUT, "r1", **asked)
    assert list(found.missing) == [
        {"family": "ridge", "strategy": "concat", "horizon_days": 30},
        {"family": "ridge", "strategy": "sum_pool", "horizon_days": 30},
        {"family": "gbdt", "strategy": "sum_pool", "horizon_days": 30},
    ]
    assert len(compare(store, LAYOUT, "r1").missing) == 8 * 3 * 2 - 5
    put(store, SnapshotId("r1", "sum_pool", 30), ridge=1, gbdt=1)
    put(store, SnapshotId("r1", "concat", 30, "ridge"), ridge=1)
    assert compare(store, LAYOUT, "r1", **asked).missing == ()
    assert read(store, "missing_jobs.json") == []


def test_a_comparison_is_a_function_of_the_snapshots(store):
    fill(store)
    first = {key: store.get(key) for key in compare(store, LAYOUT, "r1").files}
    assert {key: store.get(key) for key in compare(store, LAYOUT, "r1").files} == first


def test_a_run_without_snapshots_names_those_there_are(store):
    with pytest.raises(NoSnapshot, match=r"'r1' has no snapshot.*no run has published one yet"):
        compare(store, LAYOUT, "r1")
    fill(store)
    with pytest.raises(NoSnapshot, match=r"'r9' has no snapshot.*run_id r1, r2"):
        compare(store, LAYOUT, "r9")
    assert not list(store.list("clipfarm/models/snapshots/run_id=r9"))


@pytest.mark.parametrize("data", [b"{}", b'{"models": {}}', b'{"models": {"ridge": {}}}', b"[]"])
def test_metrics_that_are_none_are_refused(store, data):
    files = {"config_used.json": b"{}", "metrics_summary.json": data}
    publish(store, LAYOUT, SnapshotId("r1", "concat", 7), files, {})
    with pytest.raises(BadSnapshot, match=r"r1.*metrics_summary.json"):
        compare(store, LAYOUT, "r1")
