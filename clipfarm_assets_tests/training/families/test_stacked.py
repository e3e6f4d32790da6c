"""Weights come from predictions of rows that the predictor was not fitted on."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.families import open_family, ridge, stacked
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets_tests.training import kit

TREES = {"max_iter": 40}
CONFIG = SuiteConfig.model_validate({"pca_gbdt": {"components": 4, "boosting": TREES}})


def with_folds(folds):
    return SuiteConfig.model_validate({"stacked": {"folds": folds}})


@dataclass
class Watched:
    """A family that predicts by one function of the clips, and keeps a record of its fits."""

    predict: object
    fits: list = field(default_factory=list)

    def fit(self, train, val, encoder, config, seed, say):
        self.fits.append((train, val, encoder, seed))
        return WatchedModel(self.predict, set(train.clips.video_ids.tolist()))


@dataclass
class WatchedModel:
    function: object
    fitted_on: set
    predicted: list = field(default_factory=list)
    curves: dict = field(default_factory=dict)

    def predict(self, clips):
        MODELS.append((self.fitted_on, clips.video_ids.tolist()))
        return self.function(clips)

    def artifacts(self):
        return {}


MODELS = []


@pytest.fixture
def watch(monkeypatch):
    MODELS.clear()

    def use(**families):
        monkeypatch.setattr(stacked, "open_family", families.__getitem__)

    return use


def duration(clips):
    return clips.metadata["duration_seconds"].to_numpy()


def test_every_row_is_predicted_once_by_models_fitted_without_it(watch):
    rows = kit.planted(100)
    first, second = Watched(duration), Watched(lambda clips: -duration(clips))
    watch(ridge=first, pca_gbdt=second)
    stacked.fit(rows.train, rows.val, rows.encoder, with_folds(4), 3, kit.unheard)

    assert len(MODELS) == 2 * 4
    for fitted_on, predicted in MODELS:
        assert fitted_on.isdisjoint(predicted)
        assert fitted_on | set(predicted) == set(rows.train.clips.video_ids.tolist())
    everything = sorted(clip for _, predicted in MODELS for clip in predicted)
    assert everything == sorted(2 * rows.train.clips.video_ids.tolist())

    assert len(first.fits) == len(second.fits) == 5, "four folds, and all of train"
    for train, val, encoder, seed in first.fits[:4]:
        assert encoder == MetadataEncoder.fit(train.clips.metadata, kit.CONTRACT)
        assert val is rows.val
        assert seed == 3
    assert first.fits[4][0] is rows.train
    assert first.fits[4][2] is rows.encoder


@pytest.mark.parametrize(
    "second",
    [lambda clips: clips.video[:, 0] * 9.0, lambda clips: clips.video[:, 1] - duration(clips)],
)
def test_weights_are_non_negative_least_squares(watch, second):
    rows = kit.planted(200)
    watch(ridge=Watched(duration), pca_gbdt=Watched(second))
    model = stacked.fit(rows.train, rows.val, rows.encoder, with_folds(5), 0, kit.unheard)
    clips = rows.train.clips
    x = np.stack([duration(clips), second(clips), np.ones(len(clips))], axis=1)
    bounds = ([0, 0, -np.inf], np.inf)
    expected = lsq_linear(x, rows.train.target_log, bounds=bounds, tol=1e-14).x
    found = [*model.weights.values(), model.intercept]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert model.weights["ridge"] > 0


def test_a_base_that_points_the_wrong_way_has_no_weight(watch):
    rows = kit.planted(200)
    watch(ridge=Watched(duration), pca_gbdt=Watched(lambda clips: -duration(clips)))
    model = stacked.fit(rows.train, rows.val, rows.encoder, with_folds(5), 0, kit.unheard)
    slope, level = np.polyfit(duration(rows.train.clips), rows.train.target_log, 1)
    assert model.weights == {"ridge": pytest.approx(slope), "pca_gbdt": 0.0}
    assert model.intercept == pytest.approx(level)


def test_predicts_the_weighted_sum_of_bases_fitted_on_all_of_train():
    rows = kit.planted(200)
    model = stacked.fit(rows.train, rows.val, rows.encoder, CONFIG, 0, kit.unheard)
    expected = np.full(len(rows.test), model.intercept)
    for name, weight in model.weights.items():
        base = open_family(name).fit(rows.train, rows.val, rows.encoder, CONFIG, 0, kit.unheard)
        expected += weight * base.predict(rows.test.clips)
    np.testing.assert_allclose(model.predict(rows.test.clips), expected, rtol=1e-12)
    assert set(model.curves) == {"stacked_pca_gbdt"}


def test_noise_leaves_the_mean():
    rows = kit.planted(200, weights={})
    model = stacked.fit(rows.train, rows.val, rows.encoder, CONFIG, 0, kit.unheard)
    spread = np.ptp(model.predict(rows.test.clips))
    assert spread < 0.3 * rows.train.target_log.std()


@pytest.mark.parametrize(("n", "folds"), [(28, 4), (14, 2), (12, 0)])
def test_few_rows_have_fewer_folds_or_equal_weights(watch, n, folds):
    rows = kit.planted(n)
    watch(ridge=Watched(duration), pca_gbdt=Watched(lambda clips: clips.video[:, 0]))
    lines = []
    model = stacked.fit(rows.train, rows.val, rows.encoder, with_folds(5), 0, lines.append)
    assert len(MODELS) == 2 * folds
    if folds:
        assert f"{folds} folds instead of 5" in lines[0]
    else:
        assert "equal weights" in lines[0]
        assert model.weights == {"ridge": 0.5, "pca_gbdt": 0.5}
        assert model.intercept == 0.0


def test_bases_are_read_below_their_own_names():
    rows = kit.planted(120)
    model = stacked.fit(rows.train, rows.val, rows.encoder, CONFIG, 0, kit.unheard)
    stored, asked = dict(model.artifacts()), []

    def read(name):
        asked.append(name)
        return stored[name]

    again = stacked.load(read, rows.encoder)
    assert set(asked) <= set(stored)
    assert list(again.bases) == ["ridge", "pca_gbdt"]
    base = ridge.RidgeModel(rows.encoder, again.bases["ridge"].pipeline)
    expected = model.bases["ridge"].predict(rows.test.clips)
    assert np.array_equal(base.predict(rows.test.clips), expected)


def test_networks_may_be_bases():
    rows = kit.planted(60)
    config = SuiteConfig.model_validate(
        {
            "stacked": {"folds": 2, "base": ["ridge", "concat_mlp"]},
            "concat_mlp": {"hidden": [8], "fit": {"max_epochs": 2}},
        }
    )
    model = stacked.fit(rows.train, rows.val, rows.encoder, config, 0, kit.unheard)
    assert "stacked/concat_mlp/concat_mlp.safetensors" in model.artifacts()
    again = kit.reopened(stacked, model, rows.encoder)
    assert np.array_equal(again.predict(rows.test.clips), model.predict(rows.test.clips))
    assert replace(again, curves=model.curves).curves.keys() == {"stacked_concat_mlp"}
