"""From shards by way of small real experts to a model that serves, frozen and trained along."""

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.pipelines.memes.evaluation import evaluate
from clipfarm_assets.pipelines.memes.experts import train_expert
from clipfarm_assets.pipelines.memes.fusion import load_fusion, train_fusion
from clipfarm_assets.pipelines.memes.fusion_rows import open_rows
from clipfarm_assets.pipelines.memes.shards import ShardOptions, write_shards
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.environment import GIT_SHA_VARIABLE
from clipfarm_assets.training.experts.fusion_head import FusionModel
from clipfarm_assets.training.meme_config import MemeEvaluationConfig, MemeFusionConfig
from clipfarm_assets.training.meme_snapshot import open_fusion
from clipfarm_assets_tests.pipelines.memes.expert_kit import (
    LABEL,
    LAYOUT,
    SIZES,
    TAXONOMY,
    fill,
    meme_rows,
    stored,
)
from clipfarm_assets_tests.training.experts import kit
from clipfarm_assets_tests.training.stores import DisturbedStore, Killed, kill

FIT = FitConfig(learning_rate=3e-3, batch_size=8, max_epochs=3, patience=3)
FROZEN = MemeFusionConfig(hidden=16, fit=FIT)
ALONG = MemeFusionConfig(hidden=16, fit=FIT, unfreeze_top_layers=1, expert_learning_rate=1e-3)
ROOT = LAYOUT.fusion_model(LABEL)


@pytest.fixture(autouse=True)
def _known_commit(monkeypatch):
    monkeypatch.setenv(GIT_SHA_VARIABLE, "test")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Shards and two experts, one of them fine-tuned."""
    folder = tmp_path_factory.mktemp("memes")
    store = ObjectStore.open(str(folder / "store"))
    fill(store)
    for modality, base in (
        ("text", kit.text_folder(folder)),
        ("vision", kit.vision_folder(folder)),
    ):
        config = kit.quick_config(base=str(base), top_layers=0)
        train_expert(store, LAYOUT, modality, LABEL, config)
    return stored(store, "memes")


@pytest.fixture
def store(filled, tmp_path):
    store = ObjectStore.open(str(tmp_path / "store"))
    for key, data in filled.items():
        store.put(key, data)
    return store


def weights(store):
    return {k: v for k, v in stored(store, ROOT).items() if not k.endswith("snapshot.json")}


def test_features_that_are_missing_are_computed_once(store, tmp_path):
    report = train_fusion(store, LAYOUT, LABEL, FROZEN, cache_dir=tmp_path / "cache")
    features = stored(store, "memes/features")
    assert {key.split("/")[4] for key in features} == {"train", "val"}
    assert report.rows["train"].keys() == set(kit.CLASSES)
    assert sum(report.rows["train"].values()) + report.unlabelled["train"] == SIZES["train"]
    assert report.experts["text"].endswith("(stand-in)")
    found = evaluate(store, LAYOUT, LABEL, MemeEvaluationConfig(resamples=50))
    assert features.items() < stored(store, "memes/features").items()
    assert len(found.splits["test"].labels) == 9


def test_shards_that_are_made_anew_under_old_names_have_features_of_their_own(store, tmp_path):
    """Whoever removes a split's folder, index and all, gets part 0 of another set."""

    def found():
        rows = open_rows(store, LAYOUT, LABEL, ("test",), tmp_path / "cache", print)
        return sorted(str(each) for part in rows.parts("test") for each in part.ids)

    before = found()
    for key in stored(store, LAYOUT.shards_prefix("test")):
        store.delete(key)
    rows, splits = meme_rows()
    options = ShardOptions(shard_rows=9, workers=1)
    write_shards(store, LAYOUT, "test", rows, splits, TAXONOMY, options)
    assert store.exists(LAYOUT.shard("test", 0))
    assert found() == before
    assert len(before) == SIZES["test"]


def test_experts_that_are_trained_along_are_seen_through_the_shards(store, tmp_path):
    cache = tmp_path / "cache"
    report = train_fusion(store, LAYOUT, LABEL, ALONG, cache_dir=cache)
    assert report.loss_falls
    rows = open_rows(store, LAYOUT, LABEL, ("val", "test"), cache, print)
    found = open_fusion(store, LAYOUT, LABEL)
    logits = [
        rows.fused("test", load_fusion(store, LAYOUT, found, cache, rows.records)) for _ in range(2)
    ]
    assert logits[0].shape == (9, 2)
    assert (logits[0] == logits[1]).all()
    with pytest.raises(ValueError, match="give `encoders`"):
        FusionModel.load(found.read)
    told = evaluate(store, LAYOUT, LABEL, MemeEvaluationConfig(resamples=50), cache_dir=cache)
    frame = pl.from_arrow(
        parquet_to_table(store.get(f"{LAYOUT.evaluation(LABEL)}predictions.parquet"))
    )
    test = frame.filter((pl.col("split") == "test") & (pl.col("system") == "fusion"))
    expected = told.calibration["fusion"].probabilities(logits[0])
    assert (np.array(test["probabilities"].to_list()) == expected).all()


def test_a_killed_fit_of_experts_goes_on_to_the_same_bytes(store, tmp_path):
    cache = tmp_path / "cache"
    other = ObjectStore.open(str(tmp_path / "other"))
    for key, data in stored(store, "memes").items():
        other.put(key, data)
    train_fusion(store, LAYOUT, LABEL, ALONG, cache_dir=cache)
    with pytest.raises(Killed):  # with the first epoch's checkpoint stored
        train_fusion(DisturbedStore(other.url, 2, kill), LAYOUT, LABEL, ALONG, cache_dir=cache)
    report = train_fusion(other, LAYOUT, LABEL, ALONG, cache_dir=cache)
    assert report.resumed_after == 1
    assert weights(other) == weights(store)
