"""Whether fusion is better than the best of its parts alone, beyond chance."""

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import ArrayLike

from clipfarm_assets.training.classification.confidence import (
    LEVEL,
    RESAMPLES,
    Difference,
    Groups,
    paired_macro_f1,
)
from clipfarm_assets.training.classification.metrics import macro_f1


@dataclass(frozen=True, slots=True)
class FusionVerdict:
    """Fusion against the best single modality, on the same rows.

    Attributes:
        best_unimodal: The modality whose expert has the best macro-F1.
        fusion, unimodal: The macro-F1 of either.
        difference: Fusion minus unimodal, by the paired bootstrap.
        judged_on: Which rows, e.g. ``test``.
    """

    best_unimodal: str
    fusion: float
    unimodal: float
    difference: Difference
    judged_on: str

    @property
    def fusion_wins(self) -> bool:
        """Whether the interval of the difference is above 0 as a whole; a draw is no win."""
        return self.difference.is_better

    def __str__(self) -> str:
        """One sentence, with both scores and the interval."""
        found = self.difference
        claim = "is better" if self.fusion_wins else "is not shown to be better"
        return (
            f"fusion {claim} than {self.best_unimodal} alone on {self.judged_on}: macro-F1 "
            f"{self.fusion:.4f} against {self.unimodal:.4f}, difference {found.value:+.4f}, "
            f"{found.level:.0%} interval {found.low:+.4f} to {found.high:+.4f} of "
            f"{found.groups} groups"
        )


def judge_fusion(
    labels: ArrayLike,
    fusion: ArrayLike,
    unimodal: Mapping[str, ArrayLike],
    groups: Groups = None,
    *,
    judged_on: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> FusionVerdict:
    """Compare fusion with the best modality alone.

    That one is the best on the very rows of the comparison, of equal ones the first: another way of
    choosing it could only make it easier for fusion.

    Args:
        labels: ``(N,)``.
        fusion: Predicted classes ``(N,)``.
        unimodal: The same by modality.
        groups: ``(N,)``, see `confidence.paired_macro_f1`; so are `resamples`, `seed` and `level`.
        judged_on: Name of the rows.
        resamples: R.
        seed: Of the draws.
        level: Of the interval.

    Raises:
        ValueError: There is no modality; or as `confidence.paired_macro_f1`.
    """
    if not unimodal:
        msg = "fusion is compared with single modalities: found none"
        raise ValueError(msg)
    scores = {modality: macro_f1(labels, predicted) for modality, predicted in unimodal.items()}
    best = max(scores, key=lambda modality: scores[modality])
    difference = paired_macro_f1(
        labels, fusion, unimodal[best], groups, resamples=resamples, seed=seed, level=level
    )
    return FusionVerdict(best, macro_f1(labels, fusion), scores[best], difference, judged_on)
