"""What a fit's gradients were like, epoch by epoch and modality by modality, as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        warm_start: Modality to its norms while it was fitted by itself, before; by each one's own
            epochs, and compared with nothing.
    """

    norms: Series
    ratio: float
    advice: Mapping[int, str]
    warm_start: Series = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        norms: Series,
        ratio: float,
        *,
        clipped: bool = False,
        warm_start: Series | None = None,
    ) -> "GradientHistory":
        """That of a fit's series, each as long as the others; see `imbalance`."""
        epochs = max(map(len, norms.values()), default=0)
        told = {
            epoch + 1: imbalance(
                {name: values[epoch] for name, values in norms.items()}, ratio, clipped=clipped
            )
            for epoch in range(epochs)
        }
        advice = {epoch: advice for epoch, advice in told.items() if advice}
        return cls(norms, ratio, advice, warm_start or {})

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
            "warm_start": {name: list(values) for name, values in self.warm_start.items()},
            "strongest_to_weakest": [self.strongest(n + 1) for n in range(self.epochs)],
            "advice": {str(epoch): advice for epoch, advice in self.advice.items()},
        }

    def to_csv(self) -> str:
        """Columns ``epoch, modality, norm, phase``, a row an epoch and modality.

        The phase is ``warm_start`` or ``fusion``; epochs of each are counted from 1.
        """
        rows = [
            f"{epoch + 1},{name},{value!r},{phase}"
            for phase, norms in (("warm_start", self.warm_start), ("fusion", self.norms))
            for epoch in range(max(map(len, norms.values()), default=0))
            for name, values in norms.items()
            for value in values[epoch : epoch + 1]
        ]
        return "\n".join(["epoch,modality,norm,phase", *rows]) + "\n"
