"""A model's logits as probabilities and classes: temperature and threshold, chosen on val."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from numpy.typing import ArrayLike

from clipfarm_assets.training.classification.calibration import (
    Temperature,
    Threshold,
    best_threshold,
    fit_temperature,
)
from clipfarm_assets.training.classification.values import (
    Labels,
    class_logits,
    predicted_classes,
    probabilities,
)
from clipfarm_assets.training.metrics import Doubles


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was chosen on val.

    Attributes:
        temperature: Logits are divided by it.
        threshold: Of class 1 of two; None of more classes.
    """

    temperature: Temperature
    threshold: Threshold | None

    @classmethod
    def fit(cls, logits: ArrayLike, labels: ArrayLike) -> Self:
        """Choose both on N rows of val: the temperature first, the threshold under it.

        Raises:
            ValueError: As `fit_temperature`.
        """
        temperature = fit_temperature(logits, labels)
        values = probabilities(logits, temperature.value)
        threshold = best_threshold(labels, values) if values.shape[1] == 2 else None
        return cls(temperature, threshold)

    @property
    def cut(self) -> float | None:
        """The threshold's value, if there is one."""
        return None if self.threshold is None else self.threshold.value

    def probabilities(self, logits: ArrayLike) -> Doubles:
        """float64 ``(N, C)``."""
        return probabilities(class_logits(logits), self.temperature.value)

    def predicted(self, values: ArrayLike) -> Labels:
        """Classes ``(N,)`` of probabilities ``(N, C)``."""
        return predicted_classes(values, self.cut)

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """What `to_fields` wrote.

        Raises:
            ValueError: It is none.
        """
        try:
            threshold = fields["threshold"]
            return cls(
                Temperature(**fields["temperature"]),
                None if threshold is None else Threshold(**threshold),
            )
        except (KeyError, TypeError) as error:
            msg = f"not a calibration: {type(error).__name__}: {error}"
            raise ValueError(msg) from None
