"""What each modality is worth: a score for every subset of them, and exact Shapley shares."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from math import factorial, isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

Subset = tuple[str, ...]
"""Modalities that are present, in the order in which all were given."""

MOST_MODALITIES: Final = 10


def subsets(modalities: Sequence[str]) -> tuple[Subset, ...]:
    """All 2^M subsets, small ones first: the empty one, ..., all modalities.

    Raises:
        ValueError: None, one twice, or more than `MOST_MODALITIES`.
    """
    names = tuple(modalities)
    if not 0 < len(names) <= MOST_MODALITIES or len(set(names)) != len(names):
        msg = (
            f"subsets are taken of 1 to {MOST_MODALITIES} modalities, each once: found "
            f"{', '.join(names) or 'none'}"
        )
        raise ValueError(msg)
    return tuple(subset for size in range(len(names) + 1) for subset in combinations(names, size))


def presence(modalities: Sequence[str], subset: Iterable[str]) -> NDArray[np.bool_]:
    """Which of the modalities are in the subset, bool ``(M,)``.

    Raises:
        ValueError: The subset names another one.
    """
    wanted = set(subset)
    strangers = sorted(wanted - set(modalities))
    if strangers:
        msg = f"unknown modality {', '.join(strangers)}: expected of {', '.join(modalities)}"
        raise ValueError(msg)
    return np.array([modality in wanted for modality in modalities], dtype=np.bool_)


def by_subset(modalities: Sequence[str], score: Callable[[Subset], float]) -> dict[Subset, float]:
    """The score of every subset, in the order of `subsets`."""
    return {subset: score(subset) for subset in subsets(modalities)}


def shapley(modalities: Sequence[str], scores: Mapping[Subset, float]) -> dict[str, float]:
    """Each modality's share of ``score(all) - score(none)``.

    The mean, over all orders in which modalities can be added, of what adding it changes: Shapley,
    "A Value for n-Person Games", 1953. Computed in fractions, so that shares sum to the difference
    but for the rounding of each to a float.

    Args:
        modalities: M names.
        scores: Of all subsets, see `by_subset`.

    Raises:
        ValueError: As `subsets`; or a subset has no score, or one that is not finite.
    """
    every = subsets(modalities)
    wrong = [s for s in every if s not in scores or not isfinite(scores[s])]
    if wrong:
        shown = ", ".join("+".join(subset) or "none" for subset in wrong[:5])
        msg = (
            f"shares need a finite score of each of {len(every)} subsets: {len(wrong)} have none "
            f"({shown})"
        )
        raise ValueError(msg)
    exact = {subset: Fraction(float(scores[subset])) for subset in every}
    count = len(modalities)
    shares: dict[str, float] = {}
    for modality in modalities:
        share = Fraction(0)
        for subset in every:
            if modality in subset:
                continue
            others = len(subset)
            orders = factorial(others) * factorial(count - others - 1)
            joined = tuple(name for name in modalities if name in subset or name == modality)
            share += orders * (exact[joined] - exact[subset])
        shares[modality] = float(share / factorial(count))
    return shares
