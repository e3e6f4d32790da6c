"""What a fit's gradients were like, epoch by epoch and modality by modality, as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clipfarm_assets.fusion.learned.gradients import SHARED, imbalance

Series = Mapping[str, Sequence[float]]

JSON: Final = "gradients.json"
CSV: Final = "gradients.csv"


@dataclass(frozen=True)
class GradientHistory:
    """Gradient norms of a fit.

    Attributes:
        norms: Modality, or ``shared``, to the norm in each epoch: see `GradientWatch`.
        ratio: From which on the strongest modality's norm is too large for the weakest's.
        advice: Epoch, from 1, to what was advised after it; epochs in balance are not there.
    """

    norms: Series
    ratio: float
    advice: Mapping[int, str]

    @classmethod
    def of(cls, norms: Series, ratio: float, *, clipped: bool = False) -> "GradientHistory":
        """That of a fit's series, each as long as the others; see `imbalance`."""
        epochs = max(map(len, norms.values()), default=0)
        told = {
            epoch + 1: imbalance(
                {name: values[epoch] for name, values in norms.items()}, ratio, clipped=clipped
            )
            for epoch in range(epochs)
        }
        return cls(norms, ratio, {epoch: advice for epoch, advice in told.items() if advice})

    @property
    def epochs(self) -> int:
        """How many there were."""
        return max(map(len, self.norms.values()), default=0)

    def strongest(self, epoch: int) -> float | None:
        """How many times the weakest modality's norm the strongest one's is; `epoch` from 1.

        None of fewer than two modalities with a gradient.
        """
        found = [
            values[epoch - 1]
            for name, values in self.norms.items()
            if name != SHARED and values[epoch - 1] > 0
        ]
        return max(found) / min(found) if len(found) > 1 else None

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "ratio": self.ratio,
            "norms": {name: list(values) for name, values in self.norms.items()},
            "strongest_to_weakest": [self.strongest(n + 1) for n in range(self.epochs)],
            "advice": {str(epoch): advice for epoch, advice in self.advice.items()},
        }

    def to_csv(self) -> str:
        """Columns ``epoch, modality, norm``, a row an epoch and modality."""
        rows = [
            f"{epoch + 1},{name},{values[epoch]!r}"
            for epoch in range(self.epochs)
            for name, values in self.norms.items()
        ]
        return "\n".join(["epoch,modality,norm", *rows]) + "\n"
