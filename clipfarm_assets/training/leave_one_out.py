"""Ridge regression and its leave-one-out errors, for every strength and every scale of a block.

With centred inputs ``X`` and target ``y``, ``H = X (X'X + alpha I)^-1 X'`` and an intercept that is
not penalised, the model fitted without row i misses it by ``(y - Hy)_i / (1 - H_ii - 1/N)``. With
``Q = XV``, ``V`` the eigenvectors of ``X'X`` and ``l`` its eigenvalues, ``H`` is
``Q diag(1 / (l + alpha)) Q'``, so that one decomposition a scale serves all alphas, and gives the
coefficients too.

Source: Rifkin and Lippert (2007), "Notes on Regularized Least Squares", section 3. scikit-learn's
RidgeCV does the same for one scale, but multiplies the whole matrix for each alpha where there are
more rows than columns.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_BLOCK_ROWS: Final = 4096


class RidgePath(NamedTuple):
    """All models of one scale.

    Attributes:
        scale: Of the block.
        errors: float64 ``(N, alphas)``: what each row is missed by when it is left out.
        coefficients: float64 ``(k + D, alphas)`` of the models fitted on all rows. Those of the
            block have the scale in them: they are for the block as it is, not scaled.
    """

    scale: float
    errors: Matrix
    coefficients: Matrix


class _Decomposition(NamedTuple):
    """Eigenvalues l of ``X'X``, ``Q'y``, and how to get some rows of Q, and coefficients."""

    eigenvalues: Vector
    projection: Vector
    rotated: Callable[[slice], Matrix]
    coefficients: Callable[[Matrix], Matrix]


def ridge_paths(
    columns: Matrix, block: Matrix, target: Vector, scales: Sequence[float], alphas: Sequence[float]
) -> Iterator[RidgePath]:
    """Fit the target on ``[columns | scale * block]`` and an intercept.

    Args:
        columns: float64 ``(N, k)``.
        block: float64 ``(N, D)``, centred: it may be large, and isn't copied.
        target: float64 ``(N,)``, N >= 2.
        scales: What the block is multiplied by.
        alphas: Strengths of the penalty, positive.

    Yields:
        One path a scale.
    """
    columns = columns - columns.mean(axis=0)
    centred = target - target.mean()
    is_wide = len(target) <= columns.shape[1] + block.shape[1]
    decompositions = (_wide if is_wide else _long)(columns, block, centred, scales)
    for scale, found in zip(scales, decompositions, strict=True):
        weights = 1.0 / (found.eigenvalues[:, None] + np.asarray(alphas))
        yield RidgePath(scale, _errors(found, centred, weights), found.coefficients(weights))


def mean_errors(target: Vector) -> Vector:
    """Leave-one-out errors, ``(N,)``, of the mean of the other rows."""
    errors: Vector = (target - target.mean()) * len(target) / (len(target) - 1)
    return errors


def _wide(
    columns: Matrix, block: Matrix, y: Vector, scales: Sequence[float]
) -> Iterator[_Decomposition]:
    """By the eigenvectors U of ``XX'``, ``(N, N)``: ``Q = U sqrt(l)``."""
    of_columns, of_block = columns @ columns.T, block @ block.T
    for scale in scales:
        values, vectors = np.linalg.eigh(of_columns + scale**2 * of_block)
        values = np.maximum(values, 0.0)
        rotated = vectors * np.sqrt(values)

        def coefficients(
            weights: Matrix, vectors: Matrix = vectors, scale: float = scale
        ) -> Matrix:
            dual = vectors @ ((y @ vectors)[:, None] * weights)
            return np.concatenate([columns.T @ dual, scale**2 * (block.T @ dual)])

        yield _Decomposition(values, y @ rotated, rotated.__getitem__, coefficients)


def _long(
    columns: Matrix, block: Matrix, y: Vector, scales: Sequence[float]
) -> Iterator[_Decomposition]:
    """By the eigenvectors V of ``X'X``, ``(k + D, k + D)``; Q as large as X, a part at a time."""
    k = columns.shape[1]
    across = columns.T @ block
    inner = np.block([[columns.T @ columns, across], [across.T, block.T @ block]])
    x_y = np.concatenate([y @ columns, y @ block])
    for scale in scales:
        factor = np.concatenate([np.ones(k), np.full(block.shape[1], scale)])
        values, vectors = np.linalg.eigh(inner * factor * factor[:, None])
        turn = vectors * factor[:, None]
        projection = x_y @ turn

        def rotated(part: slice, turn: Matrix = turn) -> Matrix:
            return columns[part] @ turn[:k] + block[part] @ turn[k:]

        def coefficients(
            weights: Matrix, turn: Matrix = turn, projection: Vector = projection
        ) -> Matrix:
            return turn @ (projection[:, None] * weights)

        yield _Decomposition(np.maximum(values, 0.0), projection, rotated, coefficients)


def _errors(found: _Decomposition, y: Vector, weights: Matrix) -> Matrix:
    coordinates = found.projection[:, None] * weights
    errors = np.empty((len(y), weights.shape[1]))
    for start in range(0, len(y), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        rotated = found.rotated(part)
        residual = y[part, None] - rotated @ coordinates
        leverage = rotated**2 @ weights + 1.0 / len(y)
        errors[part] = residual / (1.0 - leverage)
    return errors
