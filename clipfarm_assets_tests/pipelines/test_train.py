"""From a dataset to a snapshot: the same bytes again, and the contract's files."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.pipelines.train import TrainOptions
from clipfarm_assets.training import artifacts, environment
from clipfarm_assets.training.config import RANK_METRICS
from clipfarm_assets.training.dataset_file import dataset_sha256
from clipfarm_assets.training.families import FAMILIES
from clipfarm_assets.training.metrics import regression_metrics, to_raw
from clipfarm_assets_tests.processes import call
from clipfarm_assets_tests.training.bench import (  # noqa: F401 - quiet is a fixture
    CLIPS,
    DIMS,
    FLOOR,
    GIT_SHA,
    QUICK,
    Bench,
    quiet,
    train_in,
)

PREDICTIONS = {
    "video_id": pl.String,
    "family": pl.String,
    "text_present": pl.Int64,
    "target_log": pl.Float64,
    "target_raw": pl.Float64,
    "prediction_log": pl.Float64,
    "prediction_raw": pl.Float64,
    "interval_low_raw": pl.Float64,
    "interval_high_raw": pl.Float64,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def data(bench):
    return bench.assemble()


@pytest.fixture(scope="module")
def trained(bench, data):
    """All families under the run id r1."""
    return bench.train(data)


@pytest.fixture(scope="module")
def files(bench, trained):
    return bench.files(trained)


@pytest.fixture
def fresh(tmp_path):
    return Bench(tmp_path)


def timeless(files):
    """Without the two moments and durations that a snapshot tells."""
    told = json.loads(files["snapshot.json"])
    del told["created_at"], told["facts"]["fit_seconds"]
    return files | {"snapshot.json": told}


def frame(files, name):
    return pl.read_parquet(io.BytesIO(files[name]))


def table(files, name):
    return list(csv.DictReader(io.StringIO(files[name].decode())))


@pytest.fixture
def undrawn(monkeypatch):
    """Plots are most of what a small suite costs, and decide nothing else."""
    monkeypatch.setattr(artifacts, "_plots", lambda *_: {})


# The same inputs.


def test_another_process_writes_the_same_bytes(files, trained, tmp_path):
    """Its own store, dataset, hash seed and folder."""
    call(train_in, tmp_path)
    other = Bench(tmp_path, made=False)
    again = other.files(trained)
    assert set(again) == set(files)
    assert {n for n in files if files[n] != again[n]} == {"snapshot.json"}
    assert timeless(again) == timeless(files)


def test_another_seed_gives_other_models_where_chance_decides(bench, data, files, undrawn):
    families = ("concat_mlp", "gbdt", "ridge", "mean")
    options = TrainOptions(families=families, compare_splits=())
    changed = bench.train(data, "seed", QUICK.model_copy(update={"seed": 7}), options)
    other = bench.files(changed)
    for part in ("train", "val", "test"):
        one, two = (frame(f, f"predictions/{part}.parquet") for f in (files, other))
        for family in families:
            said = [f.filter(pl.col("family") == family)["prediction_log"] for f in (one, two)]
            assert said[0].equals(said[1]) == (family in {"ridge", "mean"}), family
    assert files["models/concat_mlp.pt"] != other["models/concat_mlp.pt"]
    assert files["split_manifest.parquet"] == other["split_manifest.parquet"]


# Every artifact of the contract.


def test_the_artifacts_and_their_names(files, trained):
    core = {
        "config_used.json",
        "data_summary.json",
        "metrics_summary.json",
        "slice_metrics_text_present.json",
        "split_manifest.parquet",
        "leaderboard.csv",
        "predictions/val.parquet",
        "predictions/test.parquet",
        "predictions/train.parquet",
        "predictions/split=chronological/test.parquet",
        "models/concat_mlp.pt",
        "models/gated_fusion_mlp.pt",
        "models/gbdt_projector.pt",
        "models/ridge.joblib",
        "models/gbdt.joblib",
        "curves/concat_mlp.json",
        "curves/gated_fusion_mlp.json",
        "curves/gbdt_projector.json",
        "models/metadata_encoder.json",
        "models/intervals.json",
        "importance.csv",
        "snapshot.json",
    }
    assert core <= set(files)
    plots = {"predictions", "residuals", "importance", "coverage", "curves", "gate_weights"}
    assert {n for n in files if n.startswith("plots/")} == {f"plots/{n}.png" for n in plots}
    assert set(trained.plots) == {f"plots/{n}.png" for n in plots}
    assert all(files[n] == png and png[:4] == b"\x89PNG" for n, png in trained.plots.items())
    boosted = {"curves/gbdt.json", "curves/metadata_only.json"}
    rest = {n for n in files if not n.startswith(("plots/", "models/"))}
    assert rest - core == boosted
    assert set(trained.manifest.artifacts) == set(files) - {"snapshot.json"}


def test_both_root_patterns(bench, data, trained):
    folder = "clipfarm/models/snapshots/run_id=r1/"
    assert trained.id.root(bench.layout) == folder + "strategy=concat/horizon=7/"
    single = bench.train(data, "r1", options=TrainOptions(model="ridge", compare_splits=()))
    assert single.id.root(bench.layout) == folder + "model=ridge/strategy=concat/horizon=7/"
    files = bench.files(single)
    assert {"models/ridge.joblib", "predictions/test.parquet"} <= set(files)
    assert not any("gbdt" in name or name.startswith("curves/") for name in files)
    told = json.loads(files["config_used.json"])
    assert (told["model"], told["families"]) == ("ridge", ["ridge"])
    both = {i.key for i in bench.store.list(folder)}
    assert {k for k in both if k.endswith("snapshot.json")} == {
        single.id.root(bench.layout) + "snapshot.json",
        trained.id.root(bench.layout) + "snapshot.json",
    }


def test_json_is_json_without_nan(files):
    def refuse(constant):
        raise AssertionError(constant)

    for name, content in files.items():
        if name.endswith(".json"):
            json.loads(content, parse_constant=refuse)


def test_the_split_manifest_is_the_contracts(files, data):
    found = frame(files, "split_manifest.parquet")
    assert dict(found.schema) == {
        "video_id": pl.String,
        "split": pl.String,
        "text_present": pl.Int64,
        "target_log": pl.Float64,
        "target_raw": pl.Float64,
    }
    assert found["video_id"].to_list() == data.clips.video_ids.tolist()
    assert found["split"].to_list() == data.splits["random"].tolist()
    assert found["target_raw"].to_list() == data.target_raw.tolist()
    assert found["target_log"].to_list() == np.log1p(data.target_raw).tolist()
    assert found["text_present"].to_list() == data.clips.text_present.tolist()


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("train", "random", "train"),
        ("val", "random", "val"),
        ("test", "random", "test"),
        ("split=chronological/test", "chronological", "test"),
    ],
)
def test_predictions_are_of_every_family_and_row(files, data, name, kind, part):
    found = frame(files, f"predictions/{name}.parquet")
    assert dict(found.schema) == PREDICTIONS
    ids = data.part(kind, part).clips.video_ids.tolist()
    targets = data.part(kind, part).target_log.tolist()
    summary = json.loads(files["metrics_summary.json"])
    models = summary["models"] if kind == "random" else summary["splits"][kind]
    assert found["family"].unique(maintain_order=True).to_list() == list(FAMILIES)
    for family, rows in found.group_by("family"):
        assert rows["video_id"].to_list() == ids
        assert rows["target_log"].to_list() == targets
        said = rows["prediction_log"].to_numpy()
        assert rows["prediction_raw"].to_list() == to_raw(said).tolist()
        assert (rows["interval_low_raw"] <= rows["prediction_raw"]).all()
        assert (rows["prediction_raw"] <= rows["interval_high_raw"]).all()
        if part != "train":
            metrics = regression_metrics(rows["target_log"].to_numpy(), said)
            assert models[family[0]][part] == metrics
    raw = dict(zip(data.clips.video_ids.tolist(), data.target_raw.tolist(), strict=True))
    assert found["target_raw"].to_list() == pytest.approx([raw[i] for i in found["video_id"]])


def test_metrics_leaderboard_and_slices_agree(files, trained):
    summary = json.loads(files["metrics_summary.json"])
    board = table(files, "leaderboard.csv")
    assert summary == json.loads(json.dumps(trained.metrics))
    assert summary["rank_metric"] == "val_rmse_log"
    assert [int(row["rank"]) for row in board] == list(range(1, len(FAMILIES) + 1))
    values = [float(row["val_rmse_log"]) for row in board]
    assert values == sorted(values)
    best = summary["best_model"]
    assert (best["family"], best["val_rmse_log"]) == (board[0]["family"], values[0])
    slices = json.loads(files["slice_metrics_text_present.json"])
    assert set(slices) == set(summary["models"]) == {r["family"] for r in board} == set(FAMILIES)
    for row in board:
        model = summary["models"][row["family"]]
        for part in ("val", "test"):
            assert {m: float(row[f"{part}_{m}"]) for m in RANK_METRICS} == model[part]
            split = slices[row["family"]][part]
            assert set(split) == {"text_present_1", "text_present_0"}
            assert all(set(s) == {*RANK_METRICS, "n"} for s in split.values())
            n = frame(files, f"predictions/{part}.parquet").height / len(FAMILIES)
            assert sum(s["n"] for s in split.values()) == n
        later = summary["splits"]["chronological"][row["family"]]["test"]
        assert float(row["chronological_test_rmse_log"]) == later["rmse_log"]
        assert float(row["interval_test_coverage"]) == model["interval"]["test_coverage"]


@pytest.mark.parametrize("metric", RANK_METRICS)
def test_the_rank_metric_decides_who_is_best(bench, data, undrawn, metric):
    config = QUICK.model_copy(update={"rank_metric": metric})
    options = TrainOptions(families=("mean", "ridge", "metadata_only"), compare_splits=())
    found = bench.files(bench.train(data, f"by-{metric}", config, options))
    board = table(found, "leaderboard.csv")
    values = [float(row[f"val_{metric}"]) for row in board]
    assert values == sorted(values, reverse=metric == "r2_log")
    summary = json.loads(found["metrics_summary.json"])
    assert summary["rank_metric"] == f"val_{metric}"
    best = {"family": board[0]["family"], f"val_{metric}": values[0]}
    assert summary["best_model"] == best


def test_the_data_summary_counts_what_is_there(files, data):
    found = json.loads(files["data_summary.json"])
    assert (found["rows"], found["strategy"], found["horizon_days"]) == (CLIPS, "concat", 7)
    for kind, counts in found["splits"].items():
        assert counts == {
            part: data.splits[kind].tolist().count(part)
            for part in ("train", "val", "test", "excluded")
        }
    assert set(found["splits"]) | set(found["unavailable_splits"]) == {
        "random",
        "chronological",
        "grouped",
        "chronological_grouped",
    }
    metadata = data.clips.metadata
    assert found["missing"] == {n: metadata[n].to_list().count(None) for n in metadata.columns}
    assert any(found["missing"].values())
    assert found["dims"] == {"fused": data.clips.fused.shape[1], **DIMS}
    assert found["text_present"] == sum(data.clips.text_present.tolist()) < CLIPS
    assert found["channels"] == len(set(data.clips.channel_id.tolist()))
    assert found["counts"] == dict(data.counts)
    views = sorted(data.target_raw.tolist())
    assert (found["target_raw"]["min"], found["target_raw"]["max"]) == (views[0], views[-1])
    assert found["target_raw"]["mean"] == pytest.approx(sum(views) / CLIPS)
    assert found["target_log"]["median"] == pytest.approx(
        np.log1p((views[CLIPS // 2 - 1] + views[CLIPS // 2]) / 2), abs=0.05
    )


def test_config_used_says_what_a_model_depends_on(bench, files, data):
    told = json.loads(files["config_used.json"])
    lock_key = bench.layout.schema_lock("concat")
    lock = SchemaLock.from_json(bench.store.get(lock_key), lock_key)
    made_of = data.provenance
    assert told["git_sha"] == GIT_SHA
    assert told["versions"] == environment.package_versions()
    assert told["features"] == json.loads(json.dumps(data.contract.to_fields()))
    assert {"numeric", "categorical", "dropped", "declared"} <= set(told["features"])
    assert told["features"]["dropped"]["view_count"]
    assert told["feature_set_version"] == "v2"
    assert told["feature_contract_sha256"] == data.contract.sha256
    assert (told["lock_version"], told["lock_sha256"]) == (lock.lock_version, lock.sha256)
    assert told["embedding_versions"] == dict(lock.embedding_versions)
    assert told["manifest_sha256"] == made_of.manifest_sha256
    assert told["metadata_sha256"] == made_of.metadata_sha256
    assert told["dataset_sha256"] == dataset_sha256(data)
    assert len(told["split_sha256"]) == 64
    assert told["settings"] == QUICK.model_dump(mode="json")
    assert (told["split"], told["compare_splits"]) == ("random", ["chronological"])
    assert (told["run_id"], told["model"], told["families"]) == ("r1", "all", list(FAMILIES))


def test_a_comparison_split_that_cannot_be_made_is_left_out_and_said(tmp_path):
    bench = Bench(tmp_path, clips=20)
    options = replace(FLOOR, compare_splits=("random", "chronological", "grouped"))
    trained = bench.train(bench.assemble(), options=options)
    reason = trained.skipped_splits["grouped"]
    assert list(trained.skipped_splits) == ["grouped"]
    assert f"grouped split: left out, {reason}" in bench.said
    files = bench.files(trained)
    assert json.loads(files["config_used.json"])["skipped_splits"] == {"grouped": reason}
    assert "predictions/split=chronological/test.parquet" in files
    assert not any("grouped" in name or "split=random" in name for name in files)


def test_the_smallest_set_trains_every_family(tmp_path):
    bench = Bench(tmp_path, clips=12)
    trained = bench.train(bench.assemble(), options=TrainOptions(compare_splits=()))
    test_json_is_json_without_nan(bench.files(trained))
    assert trained.leaderboard.height == len(FAMILIES)


# The data version.


def version(bench, data, run_id, config=QUICK, **options):
    return bench.train(data, run_id, config, replace(FLOOR, **options)).data_version


def test_the_data_version_is_of_the_inputs_and_not_of_the_run(bench, data, undrawn):
    base = version(bench, data, "v1")
    assert version(bench, data, "v2") == base
    views = data.target_raw.copy()
    views[3] += 1
    swapped = data.splits["random"].copy()
    swapped[[np.argmax(swapped == "test"), np.argmax(swapped == "val")]] = "val", "test"
    vectors = data.clips.fused.copy()
    vectors[0, 0] += 1e-3
    made_of = data.provenance
    changed = {
        "label": replace(data, target_raw=views),
        "split": replace(data, splits={**data.splits, "random": swapped}),
        "vector": replace(data, clips=replace(data.clips, fused=vectors)),
        "manifest": replace(data, provenance=replace(made_of, manifest_sha256="0" * 64)),
        "csv": replace(data, provenance=replace(made_of, metadata_sha256="0" * 64)),
        "features": bench.assemble(feature_set="v1"),
        "horizon": bench.assemble(horizon=30),
        "strategy": bench.assemble("sum_pool"),
    }
    found = {name: version(bench, d, f"v-{name}") for name, d in changed.items()}
    seed = QUICK.model_copy(update={"seed": 1})
    found["seed"] = version(bench, data, "v-seed", seed)
    found["option"] = version(bench, data, "v-option", split="chronological")
    found["family"] = version(bench, data, "v-family", families=("mean", "ridge"))
    found["single"] = version(bench, data, "v-single", model="mean")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.GIT_SHA_VARIABLE, "another")
        found["code"] = version(bench, data, "v-code")
    assert len({base, *found.values()}) == 1 + len(found), found
