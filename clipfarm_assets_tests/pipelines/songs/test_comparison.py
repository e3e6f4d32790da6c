"""Four strategies beside each modality alone: what is told agrees with what is written."""

import csv
import hashlib
import io
import json

import polars as pl
import pytest
from PIL import Image

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.pipelines.songs.comparison import OtherSegments, compare
from clipfarm_assets.pipelines.songs.comparison_files import WITH_DROPOUT, WITHOUT_DROPOUT
from clipfarm_assets.pipelines.songs.judged import subset_name
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.classification.metrics import classification_metrics
from clipfarm_assets.training.classification.subsets import subsets
from clipfarm_assets.training.environment import GIT_SHA_VARIABLE
from clipfarm_assets.training.song_snapshot import (
    MODELS,
    NoSongModel,
    current_version,
    open_song_model,
)
from clipfarm_assets_tests.pipelines.songs import fusion_kit as kit

FOLDER = "songs/comparison/"
SETTINGS = kit.settings(**kit.COMPARED)
SUBSETS = [subset_name(each) for each in subsets(MODALITIES)]
PLOTS = {
    f"plots/{name}.png"
    for name in (
        "subsets", "shapley", "degradation", "gradients", "intervals", "reliability",
        "confusion",
    )
}  # fmt: skip
FILES = {"comparison.csv", "shapley.csv", "degradation.csv", "predictions.parquet", *PLOTS}


@pytest.fixture(autouse=True)
def _known_commit(monkeypatch):
    monkeypatch.setenv(GIT_SHA_VARIABLE, "test")


def table(store, name):
    return list(csv.DictReader(io.StringIO(store.get(FOLDER + name).decode())))


def test_all_models_are_judged_on_val_and_test(compared):
    store, found, _ = compared
    assert set(found.models) == set(MODELS)
    assert set(found.splits) == {"val", "test"}
    for judged in found.splits.values():
        assert list(judged.models) == list(MODELS)
        assert set(judged.verdicts) == set(STRATEGIES)
        assert set(judged.without_dropout) == {"late"}
    assert found.best in STRATEGIES
    assert found.decided is found.splits["test"]
    for name, each in found.models.items():
        assert current_version(store, kit.LAYOUT, name) == each.version


def test_fusion_knows_more_than_chance_and_what_each_modality_is_worth(compared):
    _, found, _ = compared
    for strategy in STRATEGIES:
        model = found.decided.models[strategy]
        assert model.metrics["macro_f1"].value > 0.5, strategy
        whole = model.by_subset[MODALITIES]["macro_f1"]
        nothing = model.by_subset[()]["macro_f1"]
        assert whole == model.metrics["macro_f1"].value
        assert nothing < 0.3, "of three classes, one is always said"
        assert sum(model.shapley.values()) == pytest.approx(whole - nothing, abs=1e-12)


def test_files_agree_with_each_other(compared):
    store, found, _ = compared
    written = kit.contents(store, FOLDER)
    assert written.keys() == {FOLDER + name for name in {*FILES, "comparison.json"}}
    metrics = json.loads(written[FOLDER + "comparison.json"])
    assert metrics == json.loads(json.dumps(found.metrics))
    assert set(metrics["files"]) == FILES
    for name, sha256 in metrics["files"].items():
        assert hashlib.sha256(written[FOLDER + name]).hexdigest() == sha256
    for name in PLOTS:
        with Image.open(io.BytesIO(written[FOLDER + name])) as image:
            assert image.format == "PNG"
    told = {
        (row["split"], row["model"], row["modalities"]): row
        for row in table(store, "comparison.csv")
    }
    assert len(told) == 2 * (4 * 8 + 3)
    for split in ("val", "test"):
        for strategy in STRATEGIES:
            scores = metrics["splits"][split]["models"][strategy]["by_subset"]
            assert set(scores) == set(SUBSETS)
            for shown, each in scores.items():
                row = told[split, strategy, shown]
                assert float(row["macro_f1"]) == each["macro_f1"]
                assert (row["macro_f1_low"] != "") == (shown == SUBSETS[-1])
    shares = table(store, "shapley.csv")
    assert len(shares) == 2 * 4 * 3


def test_predictions_make_the_same_metrics(compared):
    store, found, _ = compared
    frame = pl.from_arrow(parquet_to_table(store.get(FOLDER + "predictions.parquet")))
    rows = found.decided.rows
    assert rows.labels.tolist() == [int(name[1:4]) % len(kit.CLASSES) for name in rows.ids]
    for name in MODELS:
        own = frame.filter((pl.col("split") == "test") & (pl.col("model") == name))
        assert own["id"].to_list() == rows.ids.tolist()
        scores = classification_metrics(own["label"].to_numpy(), own["probabilities"].to_list())
        judged = found.decided.models[name].metrics
        assert scores["macro_f1"] == pytest.approx(judged["macro_f1"].value)
        assert scores["nll"] == pytest.approx(judged["nll"].value)
    assert frame["midi"].sum() < frame["audio"].sum() < len(frame)


def test_graceful_degradation(compared):
    """What is lost without each modality is told beside the bound, with dropout and without."""
    store, found, said = compared
    rows = table(store, "degradation.csv")
    assert len(rows) == 2 * (4 + 1) * 3
    bound = SETTINGS.evaluation.most_degradation
    for row in rows:
        judged = found.splits[row["split"]]
        model = (
            judged.models[row["model"]]
            if row["trained"] == WITH_DROPOUT
            else judged.without_dropout[row["model"]]
        )
        each = model.degradation[row["removed"]]
        assert float(row["lost"]) == each.lost.value
        assert row["is_within"] == str(each.lost.value <= bound).lower()
        own = each.lost_of_affected
        assert int(row["affected"]) == each.affected > 0
        assert float(row["lost_of_affected"]) == own.value
        assert float(row["lost_of_affected_low"]) == own.low
        assert float(row["lost_of_affected_high"]) == own.high
    told = found.metrics["splits"]["test"]
    twin = found.decided.without_dropout["late"].metrics["macro_f1"].value
    assert told["without_dropout"]["late"]["metrics"]["macro_f1"]["value"] == twin
    kinds = told["degradation"]
    assert set(kinds["late"]) == {WITH_DROPOUT, WITHOUT_DROPOUT}
    assert set(kinds["gated"]) == {WITH_DROPOUT}
    assert any(line.startswith("late, without modality dropout: macro-F1 lost") for line in said)


def test_a_twin_without_modality_dropout_is_no_newest_model(compared):
    store, found, _ = compared
    twin = found.metrics["without_modality_dropout"]["late"]
    assert twin != found.models["late"].version
    snapshot = open_song_model(store, kit.LAYOUT, "late", twin)
    told = snapshot.json("config_used.json")["settings"]["training"]
    assert told["modality_dropout"] == 0
    assert current_version(store, kit.LAYOUT, "late") == found.models["late"].version


def test_the_same_again_fits_nothing_and_writes_the_same_bytes(compared):
    store, found, _ = compared
    before = kit.contents(store, "songs/")
    said = []
    again = compare(store, kit.LAYOUT, SETTINGS, said.append, without_dropout=["late"])
    assert again.metrics == found.metrics
    assert kit.contents(store, "songs/") == before
    assert sum("made of the same already" in line for line in said) == 4
    assert not any(" epochs in " in line for line in said)


def test_strategies_of_other_segments_are_refused(compared):
    store, _, _ = compared
    midi = SETTINGS.preprocessing.midi.model_copy(update={"frames_per_second": 8.0})
    preprocessing = SETTINGS.preprocessing.model_copy(update={"midi": midi})
    other = SETTINGS.model_copy(update={"preprocessing": preprocessing})
    with pytest.raises(OtherSegments, match=r"late/.* fitted on other segments of train and val"):
        compare(store, kit.LAYOUT, other)


def test_strategies_of_other_settings_are_noted(compared):
    _, found, said = compared
    note = (
        "gated was fitted by other settings than single modalities are: "
        "training.auxiliary_weight 0.1, not 0.3"
    )
    assert found.notes == (note,)
    others = {"training.auxiliary_weight": {"strategy": 0.1, "single": 0.3}}
    told = found.metrics["fitted_by_other_settings"]
    assert told == {"late": {}, "early": {}, "cross_attention": {}, "gated": others}
    assert note in said


def test_a_strategy_without_a_model_is_said(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    kit.plant(store, songs=18)
    with pytest.raises(NoSongModel, match="materialise songs/fusion_models for partition 'late'"):
        compare(store, kit.LAYOUT, SETTINGS)
