"""Ridge and its leave-one-out errors, against models that are really fitted without the row."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from clipfarm_assets.training.leave_one_out import mean_errors, ridge_paths

SCALES = (0.5, 4.0)
ALPHAS = (0.1, 3.0, 1e5)
SHAPES = pytest.mark.parametrize(
    ("n", "k", "dim"), [(30, 3, 8), (20, 4, 60), (12, 0, 3), (9, 2, 7)]
)


def make(n, k, dim):
    rng = np.random.default_rng(0)
    columns, block = rng.normal(size=(n, k)) + 3, rng.normal(size=(n, dim))
    return columns, block - block.mean(axis=0), rng.normal(size=n) + 7


def plain(columns, block, scale):
    return np.hstack([columns, scale * block])


@SHAPES
def test_errors_are_those_of_refitting_without_each_row(n, k, dim):
    columns, block, target = make(n, k, dim)
    paths = list(ridge_paths(columns, block, target, SCALES, ALPHAS))
    assert [path.scale for path in paths] == list(SCALES)
    for path in paths:
        inputs = plain(columns, block, path.scale)
        for index, alpha in enumerate(ALPHAS):
            for row in range(n):
                rest = np.arange(n) != row
                model = Ridge(alpha=alpha, solver="cholesky").fit(inputs[rest], target[rest])
                missed = target[row] - model.predict(inputs[[row]])[0]
                assert path.errors[row, index] == pytest.approx(missed, rel=1e-6, abs=1e-9)


@SHAPES
def test_coefficients_are_those_of_all_rows(n, k, dim):
    columns, block, target = make(n, k, dim)
    for path in ridge_paths(columns, block, target, SCALES, ALPHAS):
        for index, alpha in enumerate(ALPHAS):
            model = Ridge(alpha=alpha, solver="cholesky").fit(
                plain(columns, block, path.scale), target
            )
            model.coef_[k:] *= path.scale
            np.testing.assert_allclose(
                path.coefficients[:, index], model.coef_, rtol=1e-7, atol=1e-10
            )


@pytest.mark.parametrize(("n", "k", "dim"), [(30, 3, 8), (20, 4, 60), (9000, 2, 3)])
def test_errors_are_those_of_ridge_cv(n, k, dim):
    columns, block, target = make(n, k, dim)
    for path in ridge_paths(columns, block, target, SCALES, ALPHAS):
        searched = RidgeCV(alphas=list(ALPHAS), store_cv_results=True)
        searched.fit(plain(columns, block, path.scale), target)
        np.testing.assert_allclose(path.errors**2, searched.cv_results_, rtol=1e-6)


def test_of_the_mean():
    target = np.array([1.0, 2.0, 6.0, 11.0])
    expected = [value - np.delete(target, row).mean() for row, value in enumerate(target)]
    np.testing.assert_allclose(mean_errors(target), expected)
