"""How musical events are numbered."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAD: Final = 0
"""The token that fills sequences up."""
PITCHES: Final = 128


@dataclass(frozen=True)
class Vocabulary:
    """Tokens, numbered kind by kind and value by value, after `PAD`.

    Attributes:
        kinds: Each kind's name, and how many values it has.
    """

    kinds: tuple[tuple[str, int], ...]

    @cached_property
    def size(self) -> int:
        """How many tokens there are, with `PAD`."""
        return 1 + sum(count for _, count in self.kinds)

    @cached_property
    def first(self) -> dict[str, int]:
        """Each kind's first token."""
        starts = accumulate((count for _, count in self.kinds), initial=PAD + 1)
        return dict(zip((name for name, _ in self.kinds), starts, strict=False))

    def read(self, tokens: NDArray[np.int64]) -> list[tuple[str, int]]:
        """Kind and value of each token, `PAD` left out.

        Raises:
            ValueError: One of them is no token of this vocabulary.
        """
        starts = np.array([*self.first.values(), self.size])
        names = [name for name, _ in self.kinds]
        real = tokens[tokens != PAD]
        if len(real) and (real.min() < 0 or real.max() >= self.size):
            msg = f"expected tokens of 0 to {self.size - 1}, found {real.min()} to {real.max()}"
            raise ValueError(msg)
        which = np.searchsorted(starts, real, side="right") - 1
        values = (real - starts[which]).tolist()
        return [(names[kind], value) for kind, value in zip(which.tolist(), values, strict=True)]


def velocity_levels(bins: int) -> NDArray[np.int64]:
    """The velocities that are told apart: `bins` of 1 to 127, evenly spaced, the last one 127."""
    return np.linspace(0, 127, bins + 1).astype(np.int64)[1:]


def nearest_level(velocities: NDArray[np.int32], levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each velocity's nearest level, as its index; the louder one of two as near."""
    between = (levels[1:] + levels[:-1]) / 2
    return np.searchsorted(between, velocities, side="right")
