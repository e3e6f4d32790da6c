"""Principal component analysis with plain arrays, which can be stored as such."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PrincipalComponents:
    """The directions in which N vectors of D values vary most.

    Attributes:
        mean: float64 ``(D,)``.
        axes: float64 ``(D, k)``, orthonormal columns, most variance first. The largest value of an
            axis by magnitude is positive: an axis' sign is arbitrary.
    """

    mean: NDArray[np.float64]
    axes: Matrix

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], count: int) -> "PrincipalComponents":
        """The first ``min(count, N - 1, D)`` components of vectors ``(N, D)``; none of no vectors.

        By the eigenvectors of the covariance matrix: its squared condition number costs digits of
        the smallest components, which nobody asks for.
        """
        rows, dim = vectors.shape
        kept = max(0, min(count, rows - 1, dim))
        if not kept:
            return cls(np.zeros(dim), np.zeros((dim, 0)))
        values = vectors.astype(np.float64)
        mean = values.mean(axis=0)
        values -= mean
        axes = np.linalg.eigh(values.T @ values)[1][:, ::-1][:, :kept]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(kept)]
        return cls(mean, np.ascontiguousarray(axes * np.where(largest < 0, -1.0, 1.0)))

    def transform(self, vectors: NDArray[np.float32]) -> Matrix:
        """Coordinates of vectors ``(M, D)`` along the axes: float64 ``(M, k)`` of float32 values.

        A matrix product's last bits depend on how many rows there are. Trees put a threshold on
        the very value of a train row, so those bits could send the same clip down another branch;
        rounding them off makes a row's result its own.
        """
        coordinates = (vectors.astype(np.float64) - self.mean) @ self.axes
        return coordinates.astype(np.float32).astype(np.float64)
