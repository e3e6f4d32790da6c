import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from clipfarm_assets.training.config import ConcatMlpConfig, FitConfig, SuiteConfig
from clipfarm_assets.training.families import concat_mlp, mean, open_family
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.clip_inputs import WrongVectors
from clipfarm_assets.training.networks.weights import BadWeights
from clipfarm_assets_tests.training import kit

CONFIG = SuiteConfig(concat_mlp=ConcatMlpConfig(hidden=(32, 16), fit=kit.FIT))
fitted = partial(kit.fitted, concat_mlp, config=CONFIG)


@pytest.fixture(scope="module")
def model(planted):
    return fitted(planted)


def test_is_the_family_of_its_name():
    assert open_family("concat_mlp") is concat_mlp


def test_beats_the_mean(planted, model):
    floor = kit.fitted(mean, planted, config=CONFIG)
    assert kit.rmse(model, planted.test) < 0.8 * kit.rmse(floor, planted.test)


def test_is_built_as_configured(planted):
    model = fitted(
        planted, config=SuiteConfig(concat_mlp=ConcatMlpConfig(fit=FitConfig(max_epochs=1)))
    )
    assert model.architecture.hidden == (1024, 512, 256)
    assert model.architecture.dropout == 0.20
    assert model.architecture.fused_dim == planted.train.clips.fused.shape[1]
    assert model.architecture.cardinalities == planted.encoder.cardinalities == (4, 3)
    width = model.architecture.fused_dim + 2 + 2 + 2
    assert model.network.head[0].weight.shape == (1024, width)


def test_predictions_are_finite_float64(planted, model):
    predictions = model.predict(planted.test.clips)
    assert predictions.dtype == np.float64
    assert predictions.shape == (len(planted.test),)
    assert np.isfinite(predictions).all()


def test_a_clip_is_predicted_alike_in_any_company(planted, model):
    clips = planted.test.clips
    together = model.predict(clips)
    for row in range(0, len(clips), 7):
        assert model.predict(clips.take(np.array([row])))[0] == together[row]
    order = np.random.default_rng(0).permutation(len(clips))
    assert np.array_equal(model.predict(clips.take(order)), together[order])
    assert model.predict(clips.take(np.array([], dtype=np.intp))).shape == (0,)


def test_same_seed_same_bytes(planted, model):
    again = fitted(planted)
    assert again.artifacts() == model.artifacts()
    assert again.curves == model.curves
    other = fitted(planted, seed=1)
    assert other.artifacts()["concat_mlp.pt"] != model.artifacts()["concat_mlp.pt"]
    assert not np.array_equal(other.predict(planted.test.clips), model.predict(planted.test.clips))


def test_reloads_to_equal_bits(planted, model):
    loaded = kit.reopened(concat_mlp, model, planted.encoder)
    assert np.array_equal(loaded.predict(planted.test.clips), model.predict(planted.test.clips))
    assert loaded.artifacts() == model.artifacts()
    assert loaded.curves == {}


def test_artifacts(model):
    artifacts = model.artifacts()
    assert set(artifacts) == {"concat_mlp.pt", "concat_mlp.safetensors", "concat_mlp.json"}
    # Our own bytes of this test; weights_only reads tensors and runs no code.
    state = torch.load(io.BytesIO(artifacts["concat_mlp.pt"]), weights_only=True)
    model.network.load_state_dict(state)
    assert json.loads(artifacts["concat_mlp.json"]) == {
        "fused_dim": model.architecture.fused_dim,
        "numeric_dim": 2,
        "cardinalities": [4, 3],
        "hidden": [32, 16],
        "dropout": 0.2,
    }


def test_curve(planted, model):
    curve = model.curves["concat_mlp"]
    assert len(curve["train_loss"]) == len(curve["val_rmse"])
    assert curve["val_rmse"][curve["best_epoch"]] == min(curve["val_rmse"])
    assert kit.rmse(model, planted.val) == pytest.approx(min(curve["val_rmse"]), rel=1e-5)


def test_progress_is_said(planted):
    lines = []
    fitted(planted, say=lines.append)
    assert lines[-1].startswith("concat_mlp: ")


def test_unseen_categories_and_missing_values_are_predicted(planted, model):
    clips = planted.test.clips
    strange = clips.metadata.with_columns(
        channel_country=pl.lit("ZZ"), title_length=pl.lit(None, pl.Float64)
    )
    assert np.isfinite(model.predict(replace(clips, metadata=strange))).all()


def test_read_only_vectors_are_taken(planted, model):
    clips = planted.test.clips
    fused = clips.fused.copy()
    fused.flags.writeable = False
    assert np.array_equal(model.predict(replace(clips, fused=fused)), model.predict(clips))


def test_vectors_of_another_length_are_refused(planted, model):
    clips = planted.test.clips
    with pytest.raises(WrongVectors, match=r"fused vectors must be of 25 numbers.*\(60, 24\)"):
        model.predict(replace(clips, fused=clips.fused[:, :-1]))


def test_an_encoder_of_other_features_is_refused(planted, model):
    metadata = planted.train.clips.metadata.with_columns(channel_country=pl.lit("IN"))
    other = MetadataEncoder.fit(metadata, kit.CONTRACT)
    with pytest.raises(BadWeights, match=r"codes, .* load both from one snapshot"):
        kit.reopened(concat_mlp, model, other)
