"""No family goes on along its slope beyond what train held."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.families import FAMILIES, open_family
from clipfarm_assets_tests.training import kit

FIT = {"learning_rate": 5e-3, "batch_size": 64, "max_epochs": 8}
TREES = {"max_iter": 20}
CONFIG = SuiteConfig.model_validate(
    {
        "concat_mlp": {"hidden": [16], "fit": FIT},
        "gated_fusion_mlp": {"tower_dim": 8, "gate_hidden": 8, "hidden": [16], "fit": FIT},
        "metadata_only": TREES,
        "pca_gbdt": {"components": 3, "boosting": TREES},
        "gbdt": {"projector_dim": 4, "projector_hidden": 16, "boosting": TREES, "fit": FIT},
        "stacked": {"folds": 2},
    }
)
FAMILY = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def rows():
    return kit.planted(150)


@pytest.fixture(scope="module")
def models(rows):
    fitted = {}

    def model(name):
        if name not in fitted:
            family = open_family(name)
            fitted[name] = family.fit(rows.train, rows.val, rows.encoder, CONFIG, 0, kit.unheard)
        return fitted[name]

    return model


def with_duration(labelled, value):
    metadata = labelled.clips.metadata.with_columns(duration_seconds=pl.lit(float(value)))
    return replace(labelled.clips, metadata=metadata)


@FAMILY
def test_an_absurd_value_is_predicted_as_the_nearest_that_train_held(name, rows, models):
    of_train = rows.train.clips.metadata["duration_seconds"]
    model = models(name)
    for absurd, nearest in ((1e9, of_train.max()), (-1e9, of_train.min())):
        found = model.predict(with_duration(rows.test, absurd))
        assert np.array_equal(found, model.predict(with_duration(rows.test, nearest)))


@pytest.mark.parametrize("name", ["ridge", "concat_mlp", "gated_fusion_mlp"])
def test_within_what_train_held_the_value_matters(name, rows, models):
    """Without which the test above could not fail."""
    low, high = rows.train.clips.metadata["duration_seconds"].quantile(0.1), 30.0
    model = models(name)
    lower, higher = (model.predict(with_duration(rows.test, value)) for value in (low, high))
    assert (higher > lower).mean() > 0.9


@FAMILY
def test_a_column_that_train_knows_nothing_of_does_not_matter(name, rows):
    def unknown(labelled, value=None):
        column = pl.lit(value, dtype=pl.Float64)
        clips = labelled.clips
        metadata = clips.metadata.with_columns(title_length=column)
        return replace(labelled, clips=replace(clips, metadata=metadata))

    train, val = unknown(rows.train), unknown(rows.val)
    encoder = type(rows.encoder).fit(train.clips.metadata, kit.CONTRACT)
    model = open_family(name).fit(train, val, encoder, CONFIG, 0, kit.unheard)
    said = [model.predict(unknown(rows.test, value).clips) for value in (0.0, 7.0, -1e9)]
    assert np.array_equal(said[0], said[1])
    assert np.array_equal(said[0], said[2])
