"""Which rows belong together, when some pairs do and belonging is transitive."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


class Components:
    """Connected components of N rows, at first one a row (union-find with path halving).

    The root of a component is its first row, so that the outcome doesn't depend on the order in
    which pairs come.
    """

    def __init__(self, n: int) -> None:
        """N rows, none joined."""
        self._parent = list(range(n))

    def join(self, left: Integers, right: Integers) -> None:
        """Join the rows ``left[k]`` and ``right[k]``, for every k."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted((self._root(a), self._root(b)))
            self._parent[second] = first

    def join_equal(self, keys: NDArray[Any]) -> None:
        """Join rows of equal keys, ``(N,)``; a row with an empty key is joined to none."""
        known = np.flatnonzero(keys != "") if keys.dtype.kind == "U" else np.arange(len(keys))
        _, first, number = np.unique(keys[known], return_index=True, return_inverse=True)
        earlier = known[first[number]]
        again = earlier != known
        self.join(earlier[again], known[again])

    def roots(self) -> Integers:
        """int64 ``(N,)``: the first row of each row's component."""
        roots = np.array(self._parent, dtype=np.int64)
        while not np.array_equal(higher := roots[roots], roots):
            roots = higher
        return roots

    def labels(self) -> Integers:
        """int64 ``(N,)``: the number of each row's component, counted by their first rows."""
        labels: Integers = np.unique(self.roots(), return_inverse=True)[1].astype(np.int64)
        return labels

    def _root(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row
