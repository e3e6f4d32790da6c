"""Which clips are duplicates of each other: one source, or vectors that are all but equal.

A model that has seen a clip's duplicate in train knows its target, so a split must not put the two
on different sides.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.split_rules import Integers, Strings
from clipfarm_assets.training.components import Components

Floats = NDArray[np.float32]

SAME_CLIP_COSINE: Final = 0.9999
"""Cosine from which two fused vectors count as one clip's.

Vectors of one model lie in a narrow cone: cosines of 0.95 between unrelated clips are common, and
belonging together is transitive, so a lax threshold chains whole channels into one group. Unit
vectors at this cosine are 0.014 apart, where unrelated ones at 0.95 are 0.32. The text mask at the
end of a vector is left in: it is equal for two uploads of one clip, and moves a cosine of 0.9999 by
less than 4e-5.
"""

_BLOCK: Final = 512
"""Rows that are compared at once with those that may be near them."""
_WINDOW: Final = 8192
"""Rows that a block is compared with at once: 16 MiB of distances."""
_DIRECTIONS: Final = 64
_SAMPLE: Final = 512
_POWER_ITERATIONS: Final = 3
_PAIRS: Final = 1024
_MANY_PAIRS: Final = 16 * _PAIRS
_SLACK: Final = 2e-5
"""What rounding in float32 may add to a squared distance of unit vectors, with room to spare."""


def duplicate_groups(
    source_hash: Strings,
    fused: Floats,
    threshold: float = SAME_CLIP_COSINE,
    media: Sequence[Floats] = (),
) -> Integers:
    """Group the rows that are duplicates.

    Two rows are, if they have the same source hash, or if the cosine of their fused vectors in
    float64 is at least `threshold`, or the mean cosine of their `media` is: the same picture and
    sound under another title. So are two rows with a chain of duplicates between them. An empty
    source hash equals none, and a zero vector, which has no direction, is like none.

    Memory beside the input is a few blocks, and with `media` as much as that once more; time is
    that of one matrix product ``(N, 64) (64, N)`` where vectors differ along their main directions,
    and at worst of ``(N, D) (D, N)``; with `media` twice that.

    Args:
        source_hash: ``(N,)``.
        fused: float32 ``(N, D)``, finite.
        threshold: In (0, 1).
        media: float32 ``(N, D_m)`` each, finite: what a clip shows and sounds like, without words.

    Returns:
        int64 ``(N,)``: group numbers, counted from 0 by the first row of each.

    Raises:
        ValueError: Row counts differ, a value is not finite, or `threshold` is not in (0, 1).
    """
    if fused.ndim != 2 or len(source_hash) != len(fused):
        msg = (
            "duplicates need one fused vector a source hash: "
            f"found {len(source_hash)} hashes and vectors of shape {fused.shape}"
        )
        raise ValueError(msg)
    for block in media:
        if block.ndim != 2 or len(block) != len(fused):
            msg = (
                "duplicates need a row of media for each fused vector: "
                f"found {block.shape} beside {fused.shape}"
            )
            raise ValueError(msg)
    if not 0 < threshold < 1:
        msg = f"the threshold of duplicates must be a cosine between 0 and 1: found {threshold}"
        raise ValueError(msg)
    found = Components(len(fused))
    found.join_equal(source_hash)
    _join_near(found, fused, threshold)
    if media:
        _join_near(found, _side_by_side(media), threshold)
    return found.labels()


def _side_by_side(blocks: Sequence[Floats]) -> Floats:
    """Unit vectors of equal weight: a cosine is their mean. Zero where one has no direction."""
    norms = [_norms(block) for block in blocks]
    known = np.all([norm > 0 for norm in norms], axis=0)
    joined = np.zeros((len(known), sum(block.shape[1] for block in blocks)), dtype=np.float32)
    rows, start = np.flatnonzero(known), 0
    for block, norm in zip(blocks, norms, strict=True):
        for some in _blocks(rows):
            joined[some, start : start + block.shape[1]] = block[some] / norm[some, None]
        start += block.shape[1]
    return joined


def _join_near(found: Components, fused: Floats, threshold: float) -> None:
    """Join the rows whose cosine is at least `threshold`.

    For unit vectors that is a distance of at most ``sqrt(2 - 2 threshold)``, and a projection to
    orthonormal directions never makes a distance longer. So pairs further apart than that in a few
    main directions are none, and only the others are looked at in full.
    """
    norms = _norms(fused)
    rows = np.flatnonzero(norms > 0)
    if len(rows) < 2:
        return
    radius_squared = 2 - 2 * threshold + _SLACK
    radius = np.sqrt(radius_squared)
    directions = _main_directions(_unit(fused, norms, rows[_spread(len(rows), _SAMPLE)]), radius)
    projected = np.concatenate([_unit(fused, norms, b) @ directions for b in _blocks(rows)])
    projected -= projected.mean(axis=0)  # smaller numbers, smaller rounding; distances stay
    order = np.argsort(projected[:, 0], kind="stable")
    rows, projected = rows[order], projected[order]
    # Sorted by it: who is further away along the first direction needs no look.
    ends = np.searchsorted(projected[:, 0], projected[:, 0] + radius, "right")
    for start in range(0, len(rows), _BLOCK):
        left = slice(start, min(start + _BLOCK, len(rows)))
        for other in range(start, int(ends[left.stop - 1]), _WINDOW):
            right = slice(other, min(other + _WINDOW, int(ends[left.stop - 1])))
            near = _squared_distances(projected[left], projected[right]) <= radius_squared
            if start == other:
                near[:, : left.stop - start] = np.triu(near[:, : left.stop - start], k=1)
            if not near.any():
                continue
            roots = found.roots()  # most pairs of a large group are joined by a few of them
            near &= roots[rows[left]][:, None] != roots[rows[right]]
            if np.count_nonzero(near) > _MANY_PAIRS:  # then all cosines of the block cost less
                cosines = _unit(fused, norms, rows[left]) @ _unit(fused, norms, rows[right]).T
                near &= cosines >= 1 - radius_squared / 2
            a, b = np.nonzero(near)
            _join_pairs(found, fused, norms, rows[left][a], rows[right][b], threshold)


def _join_pairs(
    found: Components,
    fused: Floats,
    norms: NDArray[np.float64],
    left: NDArray[np.intp],
    right: NDArray[np.intp],
    threshold: float,
) -> None:
    """Join those candidates whose cosine in float64 is at least `threshold`."""
    while len(left):
        roots = found.roots()
        apart = roots[left] != roots[right]
        left, right = left[apart], right[apart]
        a, b = left[:_PAIRS], right[:_PAIRS]
        dots = np.einsum("nd,nd->n", fused[a].astype(np.float64), fused[b].astype(np.float64))
        same = dots >= threshold * norms[a] * norms[b]
        found.join(a[same], b[same])
        left, right = left[_PAIRS:], right[_PAIRS:]


def _norms(fused: Floats) -> NDArray[np.float64]:
    norms = np.empty(len(fused))
    for block in _blocks(np.arange(len(fused))):
        norms[block] = np.linalg.norm(fused[block].astype(np.float64), axis=1)
    wrong = np.flatnonzero(~np.isfinite(norms))
    if len(wrong):
        msg = f"vectors must be finite: {len(wrong)} rows are not, the first is row {wrong[0]}"
        raise ValueError(msg)
    return norms


def _unit(fused: Floats, norms: NDArray[np.float64], rows: NDArray[np.intp]) -> Floats:
    return (fused[rows] / norms[rows, None]).astype(np.float32)


def _main_directions(sample: Floats, radius: float) -> Floats:
    """Orthonormal directions ``(D, k)`` along which a sample ``(n, D)`` differs most, about.

    The first is the one along which fewest pairs are within `radius`. That need not be the one of
    the largest spread: along that of the text mask, vectors are at one of two places.

    By a randomised range finder with power iterations (Halko, Martinsson and Tropp, 2011), at a
    hundredth of the cost of a singular value decomposition. How well they fit decides only how many
    pairs are looked at in full; that they are orthonormal, by QR, is what must hold.
    """
    centred = sample - sample.mean(axis=0)
    directions = np.random.default_rng(0).standard_normal(
        (centred.shape[1], min(_DIRECTIONS, *centred.shape)), dtype=np.float32
    )
    for _ in range(_POWER_ITERATIONS):
        directions, _ = np.linalg.qr(centred.T @ (centred @ directions))
    _, _, turned = np.linalg.svd(centred @ directions, full_matrices=False)
    directions = directions @ turned.T
    places = np.sort(centred @ directions, axis=0).T
    best = np.argmin([np.searchsorted(line, line + radius, "right").sum() for line in places])
    directions[:, [0, best]] = directions[:, [best, 0]]
    kept: Floats = np.ascontiguousarray(directions)
    return kept


def _squared_distances(left: Floats, right: Floats) -> Floats:
    found = left @ right.T
    found *= -2
    found += np.square(left).sum(axis=1)[:, None]
    found += np.square(right).sum(axis=1)
    return found


def _blocks(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _spread(n: int, at_most: int) -> NDArray[np.intp]:
    """Up to `at_most` positions, spread evenly over n."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.intp))
