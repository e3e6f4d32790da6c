"""The verdict says what the rows show, decides what serves, and is the same again."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.pipelines.memes.evaluation import evaluate
from clipfarm_assets.pipelines.memes.expert_store import publish_expert, version_root
from clipfarm_assets.pipelines.memes.fusion import train_fusion
from clipfarm_assets.pipelines.memes.fusion_rows import OtherShards
from clipfarm_assets.pipelines.memes.shard_index import load_index
from clipfarm_assets.serving.meme_artifacts import artifacts_resolve
from clipfarm_assets.serving.meme_registry import find_version, load_registry
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.classification.calibrated import Calibration
from clipfarm_assets.training.classification.metrics import classification_metrics
from clipfarm_assets.training.environment import GIT_SHA_VARIABLE
from clipfarm_assets.training.meme_config import MemeEvaluationConfig
from clipfarm_assets.training.meme_snapshot import NoMemeModel
from clipfarm_assets_tests.pipelines.memes import fusion_kit as kit
from clipfarm_assets_tests.training.stores import DisturbedStore, Killed, kill

FOLDER = "memes/evaluation/label=abuse_hate/"
AT = datetime(2026, 1, 1, tzinfo=UTC)
QUICK = MemeEvaluationConfig(resamples=300)
PLOTS = {f"plots/{n}.png" for n in ("curves", "reliability", "confusion", "roc", "intervals")}


def planted(folder, kind):
    store = ObjectStore.open(str(folder))
    kit.plant(store, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GIT_SHA_VARIABLE, "test")
        train_fusion(store, kit.LAYOUT, kit.LABEL, kit.quick())
    return store


def evaluated(store, **more):
    return evaluate(store, kit.LAYOUT, kit.LABEL, QUICK, clock=lambda: AT, **more)


@pytest.fixture(scope="module")
def xor(tmp_path_factory):
    store = planted(tmp_path_factory.mktemp("xor"), "xor")
    return store, evaluated(store)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    store = planted(tmp_path_factory.mktemp("noise"), "noise")
    return store, evaluated(store)


def test_fusion_wins_where_the_label_is_in_neither_modality_alone(xor):
    store, found = xor
    for split, judged in found.splits.items():
        assert judged.metrics["fusion"]["macro_f1"].value >= 0.95, split
        for modality in ("text", "vision"):
            assert 0.4 <= judged.metrics[modality]["macro_f1"].value <= 0.6, (split, modality)
            assert 0.35 <= judged.metrics[modality]["auroc"].value <= 0.65
    assert found.title == "fusion wins"
    assert found.verdict.difference.low > 0.2
    assert found.verdict.judged_on == "test"
    assert found.served.version.system == "fusion"
    assert found.served.version == find_version(store, kit.LAYOUT, kit.LABEL)
    assert found.served.version.fusion_version == found.fusion.version


def test_fusion_does_not_win_where_one_modality_is_noise_and_the_other_serves(noise):
    store, found = noise
    assert found.title == "fusion does not win"
    assert found.verdict.difference.low <= 0
    assert found.verdict.best_unimodal == "text"
    served = find_version(store, kit.LAYOUT, kit.LABEL)
    assert (served.system, served.fusion_version) == ("text", "")
    assert served.facts["experts"] == {"text": "planted-text (stand-in)"}
    root = version_root("memes/models/text_expert/", kit.record_of(store, "text"))
    assert re.fullmatch(r"memes/models/text_expert_versions/[0-9a-f]{16}/", root)
    assert set(served.artifacts) == {
        f"{root}{n}" for n in ("config.json", "expert.json", "model.safetensors")
    }
    assert json.loads(store.get(FOLDER + "metrics.json"))["splits"]["test"]["verdict"]["title"] == (
        "fusion does not win"
    )


def test_what_serves_is_pinned_to_all_files_it_reads(xor):
    store, found = xor
    artifacts = found.served.version.artifacts
    assert {hashlib.sha256(store.get(key)).hexdigest() for key in artifacts} == {
        *artifacts.values()
    }
    root = f"memes/models/mm_fusion/versions/{found.fusion.version}/"
    assert {f"{root}{n}" for n in ("config.json", "fusion_model.safetensors")} <= set(artifacts)


def test_subsets_and_shapley_shares_add_up(xor):
    _, found = xor
    told = found.metrics["splits"]["test"]["fusion_by_modalities"]
    scores = told["macro_f1"]
    assert list(scores) == ["none", "text", "vision", "text+vision"]
    assert scores["text+vision"] == found.splits["test"].metrics["fusion"]["macro_f1"].value
    assert max(scores["none"], scores["text"], scores["vision"]) < 0.65
    assert sum(told["shapley"].values()) == pytest.approx(scores["text+vision"] - scores["none"])


def test_files_agree_with_each_other(xor):
    store, found = xor
    written = kit.contents(store, FOLDER)
    assert written.keys() == {FOLDER + n for n in {*PLOTS, "predictions.parquet", "metrics.json"}}
    metrics = json.loads(written[FOLDER + "metrics.json"])
    assert metrics == json.loads(json.dumps(found.metrics))
    for name, sha256 in metrics["files"].items():
        assert hashlib.sha256(written[FOLDER + name]).hexdigest() == sha256
    assert set(found.plots) == PLOTS
    assert all(png.startswith(b"\x89PNG") for png in found.plots.values())
    frame = pl.from_arrow(parquet_to_table(written[FOLDER + "predictions.parquet"]))
    for (split, system), rows in frame.group_by("split", "system"):
        calibration = Calibration.from_fields(metrics["calibration"][system])
        values = np.array(rows["probabilities"].to_list())
        labels = rows["label"].to_numpy()
        told = metrics["splits"][split]["systems"][system]
        assert metrics["splits"][split]["rows"] == len(rows)
        for name, value in classification_metrics(labels, values, calibration.cut).items():
            assert told[name]["value"] == pytest.approx(value)
            assert told[name]["low"] <= value <= told[name]["high"] or name == "ece"
        assert (calibration.predicted(values) == rows["predicted"].to_numpy()).all()
    assert metrics["experts"]["text"]["title"] == "planted-text (stand-in)"


def test_the_temperature_of_fusion_is_the_one_stored_with_it(xor):
    store, found = xor
    stored = json.loads(store.get("memes/models/mm_fusion/calibration.json"))
    assert found.calibration["fusion"].to_fields() == stored
    assert found.served.version.temperature == stored["temperature"]["value"]
    assert found.served.version.threshold == stored["threshold"]["value"]


def test_evaluating_again_changes_nothing(xor):
    store, _ = xor
    before = kit.contents(store, "memes")
    again = evaluated(store)
    assert again.served.what == "unchanged"
    assert kit.contents(store, "memes") == before


def test_killed_between_two_writes_the_next_one_leaves_the_same_bytes(noise, tmp_path):
    store, _ = noise
    expected = kit.contents(store, "memes")
    models = {k: v for k, v in expected.items() if not k.startswith(FOLDER) and "registry" not in k}
    folder = str(tmp_path)
    other = ObjectStore.open(folder)
    for key, data in models.items():
        other.put(key, data)
    # Amid the plots, before metrics.json, and before the registry.
    for nth in (len(PLOTS), len(PLOTS) + 2, len(PLOTS) + 3):
        with pytest.raises(Killed):
            evaluated(DisturbedStore(folder, nth, kill))
        assert load_registry(other, kit.LAYOUT).of(kit.LABEL).current == ""
    evaluated(other)
    assert kit.contents(other, "memes") == expected


@pytest.mark.parametrize("split", ["train", "val"])
def test_models_are_not_judged_on_rows_they_may_have_been_fitted_on(noise, tmp_path, split):
    """As after another split: what was in train then may be in test now."""
    store = ObjectStore.open(str(tmp_path))
    for key, data in kit.contents(noise[0], "memes").items():
        store.put(key, data)
    before = store.get(FOLDER + "metrics.json")
    index, _ = load_index(store, kit.LAYOUT, split)
    fewer = replace(index, shards=index.shards[1:])
    store.put(kit.LAYOUT.shard_index(split), fewer.to_json())
    with pytest.raises(OtherShards, match=f"shards of {split} .*materialise memes/text_expert"):
        evaluated(store)
    with pytest.raises(OtherShards, match="materialise memes/text_expert"):
        train_fusion(store, kit.LAYOUT, kit.LABEL, kit.quick())
    kit.plant_experts(store)
    with pytest.raises(OtherShards, match=f"shards of {split} .*materialise memes/fusion_model"):
        evaluated(store)
    assert store.get(FOLDER + "metrics.json") == before


def test_an_expert_that_nobody_here_fitted_is_judged_whatever_the_split(noise, tmp_path):
    store = ObjectStore.open(str(tmp_path))
    for key, data in kit.contents(noise[0], "memes").items():
        store.put(key, data)
    for modality in kit.VERSIONS:
        supplied = kit.record(store, modality).model_copy(
            update={"origin": "supplied", "shards": {}}
        )
        publish_expert(store, kit.LAYOUT.expert(modality, kit.LABEL), supplied, kit.FILES)
    assert evaluated(store).served.version.system == "text"


def test_an_expert_that_replaces_another_meanwhile_is_not_promoted_unjudged(xor, tmp_path):
    folder = str(tmp_path)
    store = ObjectStore.open(folder)
    for key, data in kit.contents(xor[0], "memes").items():
        if "registry" not in key:
            store.put(key, data)

    def replace_expert():
        newer = kit.record(store, "text").model_copy(update={"version": "text-fedcba9876543210"})
        files = {**kit.FILES, "model.safetensors": b"others"}
        publish_expert(store, kit.LAYOUT.expert("text", kit.LABEL), newer, files)

    evaluated(DisturbedStore(folder, 1, replace_expert))
    served = find_version(store, kit.LAYOUT, kit.LABEL)
    assert served.artifacts == xor[1].served.version.artifacts
    assert artifacts_resolve(store, served).holds


def test_there_must_be_a_model(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    kit.plant(store, sizes=kit.PILOT)
    with pytest.raises(NoMemeModel, match="materialise memes/fusion_model"):
        evaluated(store)
    assert not kit.contents(store, FOLDER)
