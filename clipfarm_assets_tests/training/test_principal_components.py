"""Principal components, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from clipfarm_assets.training.principal_components import PrincipalComponents


def vectors(n, dim, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) * np.linspace(3, 0.1, dim) + 5).astype(np.float32)


@pytest.mark.parametrize(("n", "dim", "count"), [(200, 12, 5), (9, 40, 32), (50, 4, 32)])
def test_equal_those_of_scikit_learn(n, dim, count):
    x = vectors(n, dim)
    kept = min(count, n - 1, dim)
    found = PrincipalComponents.fit(x, count)
    expected = PCA(kept, svd_solver="full").fit(x.astype(np.float64))

    assert found.axes.shape == (dim, kept)
    signs = np.sign((found.axes * expected.components_.T).sum(axis=0))
    np.testing.assert_allclose(found.axes * signs, expected.components_.T, atol=1e-7)
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(kept), atol=1e-12)
    other = vectors(20, dim, seed=1)
    np.testing.assert_allclose(
        found.transform(other) * signs, expected.transform(other.astype(np.float64)), atol=1e-5
    )


def test_signs_are_settled():
    axes = PrincipalComponents.fit(vectors(60, 8), 8).axes
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(8)] > 0).all()


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_have_no_components(n):
    components = PrincipalComponents.fit(vectors(n, 6), 4)
    assert components.transform(vectors(3, 6)).shape == (3, 0)


def test_a_row_does_not_depend_on_the_others():
    x = vectors(500, 96)
    components = PrincipalComponents.fit(x, 32)
    together = components.transform(x)
    alone = np.concatenate([components.transform(x[row : row + 1]) for row in range(len(x))])
    assert np.array_equal(together, alone)
