"""What all families without a network of their own promise, and what trees promise beyond."""

import numpy as np
import pytest

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.families import open_family
from clipfarm_assets_tests.training import kit

TREES = {"max_iter": 60}
CONFIG = SuiteConfig.model_validate(
    {
        "metadata_only": TREES,
        "pca_gbdt": {"components": 4, "boosting": TREES},
        "gbdt": {
            "projector_dim": 4,
            "projector_hidden": 16,
            "boosting": TREES,
            "fit": {"batch_size": 32, "learning_rate": 0.01},
        },
        "stacked": {"folds": 2},
    }
)
NAMES = ("mean", "metadata_only", "ridge", "gbdt", "pca_gbdt", "stacked")
FAMILY = pytest.mark.parametrize("name", NAMES)
ARTIFACTS = {
    "mean": {"mean.json"},
    "metadata_only": {"metadata_only.joblib", "metadata_only.skops"},
    "ridge": {"ridge.joblib", "ridge.skops"},
    "gbdt": {
        "gbdt.joblib",
        "gbdt.skops",
        "gbdt_projector.pt",
        "gbdt_projector.safetensors",
        "gbdt_projector.json",
    },
    "pca_gbdt": {"pca_gbdt.joblib", "pca_gbdt.skops", "pca_gbdt.npz"},
    "stacked": {
        "stacked.json",
        "stacked/ridge/ridge.joblib",
        "stacked/ridge/ridge.skops",
        "stacked/pca_gbdt/pca_gbdt.joblib",
        "stacked/pca_gbdt/pca_gbdt.skops",
        "stacked/pca_gbdt/pca_gbdt.npz",
    },
}
# Share of the mean's error that may be left: the noise alone is 0.15 of it.
LEFT = {"metadata_only": 0.93, "ridge": 0.6, "gbdt": 0.7, "pca_gbdt": 0.7, "stacked": 0.55}


@pytest.fixture(scope="module")
def rows():
    return kit.planted(400)


@pytest.fixture(scope="module")
def models(rows):
    fitted = {}

    def model(name):
        if name not in fitted:
            fitted[name] = fit(name, rows)
        return fitted[name]

    return model


def fit(name, rows, *, train=None, seed=0):
    train = train or rows.train
    return open_family(name).fit(train, rows.val, rows.encoder, CONFIG, seed, kit.unheard)


@pytest.mark.parametrize("name", LEFT)
def test_beats_the_mean(name, rows, models):
    assert kit.rmse(models(name), rows.test) < LEFT[name] * kit.rmse(models("mean"), rows.test)


@FAMILY
def test_predictions_are_finite_float64(name, rows, models):
    prediction = models(name).predict(rows.test.clips)
    assert prediction.dtype == np.float64
    assert prediction.shape == (len(rows.test),)
    assert np.isfinite(prediction).all()
    assert models(name).predict(rows.test.clips.take(np.arange(0))).shape == (0,)


@FAMILY
def test_artifacts_are_all_that_is_needed(name, rows, models):
    model = models(name)
    assert set(model.artifacts()) == ARTIFACTS[name]
    again = kit.reopened(open_family(name), model, rows.encoder)
    for part in (rows.train, rows.test):
        assert np.array_equal(again.predict(part.clips), model.predict(part.clips))
    assert again.artifacts() == model.artifacts()
    assert again.curves == {}


@FAMILY
def test_same_rows_and_seed_give_the_same_bytes(name, rows, models):
    assert fit(name, rows).artifacts() == models(name).artifacts()


@pytest.mark.parametrize("name", ["metadata_only", "gbdt", "pca_gbdt", "stacked"])
def test_another_seed_gives_another_model(name, rows, models):
    assert fit(name, rows, seed=1).artifacts() != models(name).artifacts()


@FAMILY
def test_a_clip_does_not_depend_on_the_others(name, rows, models):
    clips = rows.test.clips
    together = models(name).predict(clips)
    alone = [models(name).predict(clips.take(np.array([row])))[0] for row in range(len(clips))]
    if name in {"ridge", "stacked"}:  # a matrix product's last bits depend on its size
        np.testing.assert_allclose(alone, together, rtol=1e-12)
    else:
        assert np.array_equal(alone, together)


@pytest.mark.parametrize("name", ["mean", "ridge"])
def test_order_of_the_train_rows_does_not_matter(name, rows, models):
    other = fit(name, rows, train=kit.shuffled(rows.train))
    found, expected = (m.predict(rows.test.clips) for m in (other, models(name)))
    if name == "mean":
        assert np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@FAMILY
def test_fits_the_fewest_rows_that_a_suite_takes(name):
    few = kit.planted(12)
    assert len(few.train) == 8
    prediction = fit(name, few).predict(few.test.clips)
    assert np.isfinite(prediction).all()


@pytest.mark.parametrize("name", ["metadata_only", "gbdt", "pca_gbdt"])
def test_trees_have_curves(name, models):
    curve = models(name).curves[name]
    assert len(curve["train_rmse"]) == len(curve["held_out_rmse"]) > 2
    assert curve["train_rmse"][-1] < curve["train_rmse"][0]


def test_the_mean_is_the_mean(rows, models):
    prediction = models("mean").predict(rows.test.clips)
    assert np.array_equal(prediction, np.full(len(rows.test), prediction[0]))
    assert prediction[0] == pytest.approx(rows.train.target_log.mean(), rel=1e-14)
