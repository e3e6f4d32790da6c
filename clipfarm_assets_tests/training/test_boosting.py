"""What every family's trees promise."""

import numpy as np
import pytest

from clipfarm_assets.training.boosting import FEWEST_TO_STOP_EARLY, fit_trees, metadata_matrix
from clipfarm_assets.training.config import BoostingConfig
from clipfarm_assets_tests.training import kit

CONFIG = BoostingConfig(max_iter=60)


def make(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x, 2 * x[:, 0] + x[:, 1]


def test_hyperparameters_reach_the_trees():
    config = BoostingConfig(
        learning_rate=0.1,
        max_depth=3,
        max_iter=7,
        min_samples_leaf=11,
        l2_regularization=0.5,
        early_stopping=False,
    )
    trees, curve = fit_trees("t", *make(300), config, 5, kit.unheard)
    assert trees.get_params() | config.model_dump() | {"random_state": 5} == trees.get_params()
    assert trees.n_iter_ == 7
    assert max(tree.get_max_depth() for (tree,) in trees._predictors) == 3
    assert min(tree.nodes["count"].min() for (tree,) in trees._predictors) >= 11
    assert curve == {}


def test_early_stopping_holds_rows_out_and_shows_the_curve():
    x, y = make(400)
    y += np.random.default_rng(1).normal(size=400)
    lines = []
    trees, curve = fit_trees("t", x, y, BoostingConfig(), 0, lines.append)
    assert trees.n_iter_ < 500
    assert len(curve["held_out_rmse"]) == len(curve["train_rmse"]) == trees.n_iter_ + 1
    assert set(curve) == {"train_rmse", "held_out_rmse"}, "val is another part"
    fitted = 360
    assert trees._predictors[0][0].nodes["count"][0] == fitted
    # The last point of the curve is what the trees do on the rows that they were fitted on.
    order = np.random.default_rng(0).permutation(400)
    for rows, name in ((order[40:], "train_rmse"), (order[:40], "held_out_rmse")):
        rmse = np.sqrt(np.mean((trees.predict(x[rows]) - y[rows]) ** 2))
        assert curve[name][-1] == pytest.approx(rmse, rel=1e-4)
    assert f"{trees.n_iter_} of 500 iterations" in lines[-1]


def test_few_rows_do_not_stop_early_and_say_so():
    lines = []
    trees, curve = fit_trees("t", *make(FEWEST_TO_STOP_EARLY - 1), CONFIG, 0, lines.append)
    assert trees.n_iter_ == 60
    assert curve == {}
    assert "without early stopping: 39 train rows are fewer than 40" in lines[0]
    assert fit_trees("t", *make(FEWEST_TO_STOP_EARLY), CONFIG, 0, kit.unheard)[1]


@pytest.mark.parametrize("observed", [0, 1, 2])
def test_a_column_with_hardly_a_value_is_no_obstacle(observed):
    x, y = make(60)
    for row in range(0, 60, 7):  # wherever the value lies, held out or not
        x[:, 2] = np.nan
        x[row : row + observed, 2] = 4.0
        trees, _ = fit_trees("t", x, y, CONFIG, 0, kit.unheard)
        changed = x.copy()
        changed[:, 2] = np.linspace(-9, 9, 60)
        assert np.array_equal(trees.predict(changed), trees.predict(x))


def test_missing_values_stay_missing():
    x, y = make(400)
    x[:, 2] = np.where(y > 0, np.nan, 0.0)  # that it is missing is what tells
    x[:, :2] = 0.0
    trees, _ = fit_trees("t", x, y, CONFIG, 0, kit.unheard)
    there, missing = trees.predict([[0, 0, 0.0], [0, 0, np.nan]])
    assert missing - there > 1.0


def test_no_features_are_an_error():
    with pytest.raises(ValueError, match="t needs at least one feature"):
        fit_trees("t", np.zeros((50, 0)), np.zeros(50), CONFIG, 0, kit.unheard)


def test_metadata_matrix_is_numeric_then_one_hot():
    rows = kit.planted(60)
    matrix = metadata_matrix(rows.encoder, rows.test.clips.metadata)
    numeric = rows.encoder.numeric(rows.test.clips.metadata)
    assert np.array_equal(matrix[:, :2], numeric, equal_nan=True)
    assert np.isnan(matrix[:, 1]).any()
    assert np.array_equal(matrix[:, 2:], rows.encoder.one_hot(rows.test.clips.metadata))
