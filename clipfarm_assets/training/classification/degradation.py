"""What a model of several modalities loses where one of them is taken away."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.training.classification.confidence import (
    LEVEL,
    RESAMPLES,
    Difference,
    Groups,
    paired_macro_f1,
)
from clipfarm_assets.training.classification.metrics import macro_f1
from clipfarm_assets.training.classification.subsets import Subset
from clipfarm_assets.training.classification.values import Labels


@dataclass(frozen=True, slots=True)
class Degradation:
    """A model with all its modalities against the same one without one of them.

    Attributes:
        removed: Which one.
        macro_f1: Without it, of all rows.
        lost: Macro-F1 with it minus that without it, of all rows.
        affected: Rows that had it beside another one, so that something is left to go by.
        lost_of_affected: As `lost`, of those rows alone; None if there are none.
    """

    removed: str
    macro_f1: float
    lost: Difference
    affected: int
    lost_of_affected: Difference | None

    def is_within(self, bound: float) -> bool:
        """Whether no more than `bound` is lost of all rows."""
        return self.lost.value <= bound

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def degradations(
    labels: Labels,
    predicted: Mapping[Subset, Labels],
    present: NDArray[np.bool_],
    modalities: Sequence[str],
    groups: Groups = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Degradation]:
    """Take each modality away in turn.

    Args:
        labels: ``(N,)``.
        predicted: Classes ``(N,)`` by the modalities that the model was shown: all, and all but
            each one.
        present: bool ``(N, M)``, in the order of `modalities`.
        modalities: M >= 2 names.
        groups: ``(N,)``, see `confidence.paired_macro_f1`; so are `resamples`, `seed` and `level`.
        resamples: R.
        seed: Of the draws.
        level: Of the intervals.

    Raises:
        ValueError: As `confidence.paired_macro_f1`.
    """
    names = tuple(modalities)
    drawn: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    found = {}
    for column, name in enumerate(names):
        without = predicted[tuple(other for other in names if other != name)]
        affected = present[:, column] & (present.sum(axis=1) > 1)
        own = (
            None if groups is None else [g for g, has in zip(groups, affected, strict=True) if has]
        )
        found[name] = Degradation(
            removed=name,
            macro_f1=macro_f1(labels, without),
            lost=paired_macro_f1(labels, predicted[names], without, groups, **drawn),
            affected=int(affected.sum()),
            lost_of_affected=paired_macro_f1(
                labels[affected], predicted[names][affected], without[affected], own, **drawn
            )
            if affected.any()
            else None,
        )
    return found
