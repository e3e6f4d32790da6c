"""Which texts share a forward. Pure planning: no model, no torch."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

LEAST_ROWS: Final = 16
"""Fewer rows take other kernels of the matrix product, whose sums round otherwise."""
ROWS_STEP: Final = 4 * LEAST_ROWS
"""Rows of a shared forward are a multiple."""


@dataclass(frozen=True, slots=True)
class PackShape:
    """How many token rows a forward has.

    Attributes:
        budget: Tokens that texts may fill together; 0 gives each text a forward of its own.
        fixed: Whether a forward always has `budget` rows, so that a text's bits cannot depend on
            how many tokens its neighbours have. A longer text has as many as it needs.
    """

    budget: int
    fixed: bool = False

    def rows(self, tokens: int) -> int:
        """Rows of a forward over `tokens` tokens: at least as many, the rest are dummies.

        Shared forwards come in few sizes, so that the memory one frees is what the next one asks
        for: with any number of rows, holes between blocks added 4% to a long run's peak.
        """
        if self.fixed:
            return max(tokens, self.budget)
        return -(-tokens // ROWS_STEP) * ROWS_STEP if self.budget else max(tokens, LEAST_ROWS)


def plan_packs(lengths: Sequence[int], budget: int) -> list[tuple[int, ...]]:
    """Group texts into packs of at most `budget` tokens, leaving few tokens free.

    Best-fit decreasing: longest text first, each into the fullest pack that still has room, ties
    in input order. It needs at most 11/9 of the fewest packs possible plus 4 (Johnson et al.,
    Worst-case performance bounds for simple one-dimensional packing algorithms, 1974).

    Args:
        lengths: Tokens of each text.
        budget: Tokens of a pack. A longer text is a pack of its own.

    Returns:
        The packs, as indices into `lengths`: each index exactly once.
    """
    packs: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens free, pack), sorted
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        place = bisect_left(free, (length, 0))
        if place < len(free):
            room, pack = free.pop(place)
            packs[pack].append(index)
        else:
            room, pack = budget, len(packs)
            packs.append([index])
        if room > length:
            insort(free, (room - length, pack))
    return [tuple(pack) for pack in packs]


def plan_runs(sizes: Sequence[int], limit: int) -> Iterator[slice]:
    """Divide a sequence into consecutive runs of at most `limit` in total, or of one element.

    Args:
        sizes: Size of each element.
        limit: Size of a run. A larger element is a run of its own.
    """
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and total + size > limit:
            yield slice(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))
