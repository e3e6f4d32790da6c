"""Whether fusion is better than each of its parts alone, beyond chance."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
        differences: Modality -> fusion minus that one alone, by the paired bootstrap.
        judged_on: Which rows, e.g. ``test``.
    """

    best_unimodal: str
    fusion: float
    unimodal: float
    differences: Mapping[str, Difference]
    judged_on: str

    @property
    def hardest(self) -> str:
        """The modality that fusion is least sure to beat; not always the best one's name."""
        found = self.differences
        return min(found, key=lambda name: (found[name].is_better, found[name].low))

    @property
    def difference(self) -> Difference:
        """Fusion minus the hardest modality: its lower end is the verdict's."""
        return self.differences[self.hardest]

    @property
    def fusion_wins(self) -> bool:
        """Whether fusion is better than every modality; see `Difference.is_better`."""
        return self.difference.is_better

    @property
    def title(self) -> str:
        """The verdict in a few words, e.g. for a list of checks."""
        return "fusion wins" if self.fusion_wins else "fusion does not win"

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object, in words too."""
        return {
            **asdict(self),
            "hardest": self.hardest,
            "difference": asdict(self.difference),
            "fusion_wins": self.fusion_wins,
            "title": self.title,
            "told": str(self),
        }

    def __str__(self) -> str:
        """One sentence, with scores, the interval and the sign test."""
        found = self.difference
        claim = "is better" if self.fusion_wins else "is not shown to be better"
        beside = "" if self.hardest == self.best_unimodal else f" to {self.hardest}, harder to beat"
        return (
            f"fusion {claim} than {self.best_unimodal} alone on {self.judged_on}: macro-F1 "
            f"{self.fusion:.4f} against {self.unimodal:.4f}, difference{beside} "
            f"{found.value:+.4f}, {found.level:.0%} interval {found.low:+.4f} to "
            f"{found.high:+.4f} of {found.groups} groups, better in {found.better} of them, worse "
            f"in {found.worse}, sign test p {found.sign_p:.2g}"
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
    """Compare fusion with every modality alone.

    The best one is that of the very rows of the comparison, of equal ones the first. Fusion wins
    only if it beats all of them: a modality of a lower score may be the harder one to beat beyond
    chance, and which is the best is chance itself where they are close.

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
    differences = {
        modality: paired_macro_f1(
            labels, fusion, predicted, groups, resamples=resamples, seed=seed, level=level
        )
        for modality, predicted in unimodal.items()
    }
    return FusionVerdict(best, macro_f1(labels, fusion), scores[best], differences, judged_on)
