"""Which 64-bit hashes are near each other, without comparing all with all.

Two hashes that differ in at most d bits agree in one of d + 1 bands of their bits in full, for d
differences cannot touch d + 1 bands (the pigeonhole principle; as multi-index hashing does it,
Norouzi, Punjani and Fleet, 2012). So only hashes that share a band are compared; where very many
share one, those are told apart by bands of the bits that are left.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.intp]

BITS: Final = 64

_FEW: Final = 4096
"""Hashes that are compared all with all rather than told apart by further bands."""
_NARROWEST_BAND: Final = 8
"""Bits below which a band tells too few hashes apart to be worth its pass."""
_BLOCK: Final = 512
_WINDOW: Final = 8192
_MANY_LINKS: Final = 1 << 20


class Links:
    """Which of N things belong together, when some pairs do and belonging is transitive.

    Takes pairs as arrays, many millions in all: only those between things that are still apart are
    kept, and those not for long.
    """

    def __init__(self, n: int) -> None:
        """N things, none linked."""
        self._labels: Indices = np.arange(n)
        self._parts = n
        self._waiting: list[tuple[Indices, Indices]] = []
        self._count = 0

    def add(self, left: Indices, right: Indices) -> None:
        """Link the things ``left[k]`` and ``right[k]``, for every k."""
        a, b = self._labels[left], self._labels[right]
        apart = a != b
        if apart.any():
            self._waiting.append((a[apart], b[apart]))
            self._count += int(apart.sum())
            if self._count > _MANY_LINKS:
                self.labels()

    def labels(self) -> Indices:
        """``(N,)``: the number of each thing's group, counted by their first things."""
        if self._waiting:
            from scipy.sparse import coo_array
            from scipy.sparse.csgraph import connected_components

            a, b = (np.concatenate(side) for side in zip(*self._waiting, strict=True))
            links = coo_array((np.ones(len(a), np.bool_), (a, b)), (self._parts, self._parts))
            _, merged = connected_components(links, directed=False)
            _, first, self._labels = np.unique(
                merged[self._labels], return_index=True, return_inverse=True
            )
            self._labels = np.argsort(np.argsort(first))[self._labels]
            self._parts = len(first)
            self._waiting.clear()
            self._count = 0
        return self._labels


def near_groups(hashes: Hashes, max_distance: int) -> Indices:
    """Group hashes that are near each other, and those with a chain of near ones between them.

    Args:
        hashes: uint64 ``(N,)``.
        max_distance: Bits that two near hashes may differ in. Up to 7 the bands tell most pairs
            apart unseen; above, all pairs are compared.

    Returns:
        ``(N,)``: group numbers, counted from 0 by the first hash of each.

    Raises:
        ValueError: `max_distance` is not in 0 to 64.
    """
    if not 0 <= max_distance <= BITS:
        msg = f"a distance of {BITS}-bit hashes is 0 to {BITS}: found {max_distance}"
        raise ValueError(msg)
    distinct, place = np.unique(hashes, return_inverse=True)
    near = Links(len(distinct))
    if max_distance:
        _link(near, distinct, np.arange(len(distinct)), np.arange(BITS), max_distance)
    links = Links(len(hashes))
    links.add(*_to_first(near.labels()[place]))
    return links.labels()


def _to_first(numbers: Indices) -> tuple[Indices, Indices]:
    """Every thing, and the first one with the same number."""
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    return np.arange(len(numbers)), first[place]


def _link(near: Links, hashes: Hashes, rows: Indices, bits: Indices, max_distance: int) -> None:
    """Link the near ones of ``hashes[rows]``, which differ in `bits` alone."""
    bands = max_distance + 1
    if len(rows) <= _FEW or len(bits) < bands * _NARROWEST_BAND:
        _compare(near, hashes, rows, max_distance)
        return
    for band in np.array_split(bits, bands):
        left = np.setdiff1d(bits, band)
        for alike in _runs(hashes, rows, band):
            if len(alike) > _FEW:
                _link(near, hashes, alike, left, max_distance)
            else:
                _compare(near, hashes, alike, max_distance)


def _runs(hashes: Hashes, rows: Indices, band: Indices) -> Iterator[Indices]:
    """Rows whose hashes are equal in a band: two or more at a time."""
    mask = np.bitwise_or.reduce(np.uint64(1) << band.astype(np.uint64))
    values = hashes[rows] & mask
    order = np.argsort(values, kind="stable")
    values = values[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    ends = np.r_[starts[1:], len(values)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start > 1:
            yield rows[order[start:end]]


def _compare(near: Links, hashes: Hashes, rows: Indices, max_distance: int) -> None:
    """Compare all with all, a few megabytes at a time."""
    for start in range(0, len(rows), _BLOCK):
        left = rows[start : start + _BLOCK]
        for other in range(start, len(rows), _WINDOW):
            right = rows[other : other + _WINDOW]
            distances = np.bitwise_count(hashes[left][:, None] ^ hashes[right])
            a, b = np.nonzero(distances <= max_distance)
            near.add(left[a], right[b])
