"""The files of a snapshot where the rows are unusual."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.training.artifacts import (
    json_bytes,
    metrics_summary,
    predictions,
    snapshot_artifacts,
    split_counts,
    split_manifest,
    split_sha256,
)
from clipfarm_assets.training.suite import fit_split, leaderboard
from clipfarm_assets_tests.training.bench import (  # noqa: F401 - quiet is a fixture
    QUICK,
    Bench,
    quiet,
)
from clipfarm_assets_tests.training.kit import unheard

FAMILIES = ("mean", "ridge")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("artifacts")).assemble()


def written(data, families=FAMILIES):
    main = fit_split(data, "random", families, QUICK, unheard)
    return main, snapshot_artifacts(data, main, [], QUICK, {"run_id": "r1"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_holds_numbers_only(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"r2": [value]})


def test_equal_fields_give_equal_bytes():
    one = json_bytes({"b": 1, "a": {"d": None, "c": 0.1}})
    assert one == json_bytes({"a": {"c": 0.1, "d": None}, "b": 1})
    assert one == b'{\n  "a": {\n    "c": 0.1,\n    "d": null\n  },\n  "b": 1\n}\n'


def test_a_target_without_variance_has_no_r2_and_every_file(data):
    main, files = written(replace(data, target_raw=np.full(len(data), 12.0)))
    summary = json.loads(files["metrics_summary.json"])
    for model in summary["models"].values():
        assert model["test"]["r2_log"] is None
        assert model["test"]["rmse_log"] == pytest.approx(0.0, abs=1e-6)
    board = list(csv.DictReader(io.StringIO(files["leaderboard.csv"].decode())))
    assert [row["test_r2_log"] for row in board] == ["", ""]
    assert leaderboard(main, [], "r2_log")["family"].to_list() == ["mean", "ridge"]


def test_a_slice_that_no_clip_is_in_is_there_and_empty(data):
    clips = replace(data.clips, text_present=np.ones(len(data), np.bool_))
    _, files = written(replace(data, clips=clips))
    slices = json.loads(files["slice_metrics_text_present.json"])
    for family in FAMILIES:
        absent = slices[family]["test"]["text_present_0"]
        assert absent.pop("n") == 0
        assert set(absent.values()) == {None}
        assert slices[family]["test"]["text_present_1"]["rmse_log"] > 0


def test_rows_that_a_split_leaves_out_are_marked_and_counted(data):
    parts = data.splits["random"].astype("U8")
    left_out = np.flatnonzero(parts == "train")[:5]
    parts[left_out] = "excluded"
    changed = replace(data, splits={**data.splits, "random": parts})
    assert split_counts(changed, "random") == {
        **split_counts(data, "random"),
        "train": (parts == "train").sum(),
        "excluded": 5,
    }
    manifest = split_manifest(changed, "random")
    ids = data.clips.video_ids[left_out].tolist()
    assert manifest.filter(split="excluded")["video_id"].to_list() == ids
    main, files = written(changed)
    said = pl.concat([predictions(main, part) for part in ("train", "val", "test")])
    assert not set(ids) & set(said["video_id"])
    assert said.height == len(FAMILIES) * (len(data) - 5)
    assert json.loads(files["data_summary.json"])["splits"]["random"]["excluded"] == 5


def test_the_splits_hash_is_of_who_is_where(data):
    base = split_sha256(data, "random")
    assert base == split_sha256(replace(data, target_raw=data.target_raw + 1), "random")
    kinds = {split_sha256(data, kind) for kind in data.splits}
    assert len(kinds) == len(data.splits)
    parts = data.splits["random"].copy()
    one, other = np.argmax(parts == "train"), np.argmax(parts == "test")
    parts[[one, other]] = parts[[other, one]]
    assert split_sha256(replace(data, splits={"random": parts}), "random") != base
    ids = data.clips.video_ids.copy()
    ids[0] = "another"
    renamed = replace(data, clips=replace(data.clips, video_ids=ids))
    assert split_sha256(renamed, "random") != base


def test_the_best_is_chosen_by_val_whatever_test_says(data):
    main = fit_split(data, "random", FAMILIES, QUICK, unheard)
    worst = {"rmse_log": 99.0}
    families = {
        name: replace(f, scores={**f.scores, "test": {**f.scores["test"], **worst}})
        if name == main.ranked("rmse_log")[0].name
        else f
        for name, f in main.families.items()
    }
    changed = replace(main, families=families)
    one, two = (metrics_summary(m, [], QUICK)["best_model"] for m in (main, changed))
    assert one == two
    assert one["val_rmse_log"] == min(f.scores["val"]["rmse_log"] for f in families.values())
