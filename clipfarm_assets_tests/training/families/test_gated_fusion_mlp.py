import math
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.training.config import FitConfig, GatedConfig, SuiteConfig
from clipfarm_assets.training.families import gated_fusion_mlp, mean, open_family
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.clip_inputs import WrongVectors
from clipfarm_assets.training.networks.weights import BadWeights
from clipfarm_assets_tests.training import kit

CONFIG = SuiteConfig(
    gated_fusion_mlp=GatedConfig(tower_dim=16, gate_hidden=16, hidden=(32, 16), fit=kit.FIT)
)
fitted = partial(kit.fitted, gated_fusion_mlp, config=CONFIG)


@pytest.fixture(scope="module")
def model(planted):
    return fitted(planted)


def test_is_the_family_of_its_name():
    assert open_family("gated_fusion_mlp") is gated_fusion_mlp


def test_beats_the_mean(planted, model):
    floor = kit.fitted(mean, planted, config=CONFIG)
    assert kit.rmse(model, planted.test) < 0.8 * kit.rmse(floor, planted.test)


def test_is_built_as_configured(planted):
    config = SuiteConfig(gated_fusion_mlp=GatedConfig(fit=FitConfig(max_epochs=1)))
    architecture = fitted(planted, config=config).architecture
    assert architecture.dims == (8, 8, 8)
    assert architecture.cardinalities == planted.encoder.cardinalities
    assert (architecture.tower_dim, architecture.gate_hidden) == (256, 128)
    assert (architecture.hidden, architecture.dropout) == ((256, 128), 0.15)


def test_does_not_read_the_fused_vector(planted, model):
    """So that a strategy decides which clips it sees and nothing else."""
    clips = planted.test.clips
    other = replace(clips, fused=np.full((len(clips), 3), math.nan, dtype=np.float32))
    assert np.array_equal(model.predict(other), model.predict(clips))


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_absent_text_does_not_matter(planted, model, garbage):
    clips = planted.test.clips
    assert not clips.text_present.all()
    dirty = kit.with_absent_text(clips, garbage)
    assert np.array_equal(model.predict(dirty), model.predict(clips))
    assert np.array_equal(model.gate_weights(dirty), model.gate_weights(clips))


def test_absent_text_does_not_matter_in_training(planted, model):
    parts = {
        part: replace(rows, clips=kit.with_absent_text(rows.clips, math.nan))
        for part, rows in (("train", planted.train), ("val", planted.val))
    }
    assert fitted(replace(planted, **parts)).artifacts() == model.artifacts()


def test_present_text_matters(planted, model):
    clips = planted.test.clips
    other = model.predict(replace(clips, text=clips.text[::-1].copy()))
    changed = other != model.predict(clips)
    assert changed[clips.text_present].all()


def test_gate_weights(planted, model):
    clips = planted.test.clips
    weights = model.gate_weights(clips)
    assert weights.dtype == np.float64
    assert weights.shape == (len(clips), 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=0, atol=1e-6)
    assert (weights[~clips.text_present, 2] == 0).all()
    assert (weights[clips.text_present] > 0).all()
    assert (weights[:, :2] > 0).all()


def test_a_clip_is_predicted_alike_in_any_company(planted, model):
    clips = planted.test.clips
    together, weights = model.predict(clips), model.gate_weights(clips)
    for row in range(0, len(clips), 7):
        alone = clips.take(np.array([row]))
        assert model.predict(alone)[0] == together[row]
        assert np.array_equal(model.gate_weights(alone)[0], weights[row])


def test_same_seed_same_bytes(planted, model):
    again = fitted(planted)
    assert again.artifacts() == model.artifacts()
    assert again.curves == model.curves
    other = fitted(planted, seed=1)
    assert not np.array_equal(other.predict(planted.test.clips), model.predict(planted.test.clips))


def test_reloads_to_equal_bits(planted, model):
    loaded = kit.reopened(gated_fusion_mlp, model, planted.encoder)
    clips = planted.test.clips
    predictions = loaded.predict(clips)
    assert predictions.dtype == np.float64
    assert np.array_equal(predictions, model.predict(clips))
    assert np.array_equal(loaded.gate_weights(clips), model.gate_weights(clips))
    assert loaded.artifacts() == model.artifacts()
    assert set(model.artifacts()) == {
        f"gated_fusion_mlp.{suffix}" for suffix in ("pt", "safetensors", "json")
    }


def test_curve(planted, model):
    curve = model.curves["gated_fusion_mlp"]
    assert kit.rmse(model, planted.val) == pytest.approx(min(curve["val_rmse"]), rel=1e-5)
    assert len(curve["train_loss"]) == len(curve["val_rmse"])


@pytest.mark.parametrize("modality", ["video", "audio", "text"])
def test_vectors_of_another_length_are_refused(planted, model, modality):
    clips = planted.test.clips
    shorter = {modality: clips.modality(modality)[:, :-1]}
    with pytest.raises(WrongVectors, match=rf"{modality} vectors must be of 8 numbers"):
        model.predict(replace(clips, **shorter))


def test_an_encoder_of_other_features_is_refused(planted, model):
    metadata = planted.train.clips.metadata.with_columns(channel_country=pl.lit("IN"))
    other = MetadataEncoder.fit(metadata, kit.CONTRACT)
    with pytest.raises(BadWeights, match=r"load both from one snapshot"):
        kit.reopened(gated_fusion_mlp, model, other)
