"""Prediction intervals by split conformal prediction.

A half-width is taken from the absolute residuals of rows that the model was not fitted on. If those
rows and a new one are exchangeable, the new one's target lies within it with a probability of at
least the coverage, whatever the model and the distribution (Lei et al., "Distribution-Free
Predictive Inference for Regression", JASA 2018, theorem 2.2). Rows of a later time are not
exchangeable with earlier ones, so the coverage reached is measured and shown (`coverage`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from clipfarm_assets.training.metrics import Doubles, finite_vector, to_raw


@dataclass(frozen=True, slots=True)
class SplitConformal:
    """Intervals of one half-width, in log1p(views).

    Attributes:
        nominal: The coverage asked for, in (0, 1).
        half_width: Of every interval, in log space.
        n: Number of residuals it was taken from.
        attained_level: The coverage that is guaranteed: at least `nominal`, or n / (n + 1) where n
            residuals are too few for it.
        is_attained: Whether n residuals were enough for `nominal`.
    """

    nominal: float
    half_width: float
    n: int
    attained_level: float
    is_attained: bool

    @classmethod
    def fit(cls, residuals: Doubles, coverage: float) -> "SplitConformal":
        """The ``ceil((n + 1) * coverage)``-th smallest absolute residual, or else the largest.

        Args:
            residuals: float64 ``(n,)``: target_log - prediction_log of rows not fitted on.
            coverage: In (0, 1).

        Raises:
            ValueError: No residuals, one is not finite, or `coverage` is not in (0, 1).
        """
        sizes = np.abs(np.asarray(residuals, dtype=np.float64))
        if not 0 < coverage < 1:
            msg = f"the coverage of an interval must be between 0 and 1: found {coverage!r}"
            raise ValueError(msg)
        if sizes.ndim != 1 or not len(sizes) or not np.isfinite(sizes).all():
            msg = (
                "intervals need finite residuals of at least one row: "
                f"found shape {sizes.shape}, {int(np.isfinite(sizes).sum())} of them finite"
            )
            raise ValueError(msg)
        n = len(sizes)
        # Exact in the decimal that was written: 100 * 0.55 is 55.000000000000007 in floats.
        rank = math.ceil((n + 1) * Fraction(repr(float(coverage))))
        is_attained = rank <= n
        rank = min(rank, n)
        return cls(
            nominal=float(coverage),
            half_width=float(np.partition(sizes, rank - 1)[rank - 1]),
            n=n,
            attained_level=rank / (n + 1),
            is_attained=is_attained,
        )

    def interval(self, prediction_log: Doubles) -> tuple[Doubles, Doubles]:
        """Lower and upper ends in log space, float64 ``(N,)`` each.

        Raises:
            ValueError: A prediction is not finite.
        """
        prediction = finite_vector("prediction_log", prediction_log)
        return prediction - self.half_width, prediction + self.half_width

    def interval_raw(self, prediction_log: Doubles) -> tuple[Doubles, Doubles]:
        """Lower and upper ends in views: those of `interval`, inverted as the metrics do."""
        low, high = self.interval(prediction_log)
        return to_raw(low), to_raw(high)

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "SplitConformal":
        """The intervals that `to_fields` wrote.

        Raises:
            ValueError: A field is missing or not one of intervals.
        """
        try:
            found = cls(
                nominal=float(fields["nominal"]),
                half_width=float(fields["half_width"]),
                n=int(fields["n"]),
                attained_level=float(fields["attained_level"]),
                is_attained=bool(fields["is_attained"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = f"not a prediction interval: {type(error).__name__}: {error}"
            raise ValueError(msg) from None
        if not (0 < found.nominal < 1 and 0 <= found.half_width < math.inf and found.n >= 1):
            msg = f"not a prediction interval: {found}"
            raise ValueError(msg)
        return found


def coverage(target: Doubles, low: Doubles, high: Doubles) -> float:
    """Share of targets within their intervals, ends included.

    Args:
        target: ``(N,)``, in the space of the ends.
        low: ``(N,)``.
        high: ``(N,)``.

    Raises:
        ValueError: No rows, lengths differ, or a value is NaN.
    """
    if not len(target) == len(low) == len(high) or not len(target):
        msg = (
            "coverage needs an interval for each of at least one target: "
            f"found {len(target)} targets, {len(low)} lower and {len(high)} upper ends"
        )
        raise ValueError(msg)
    if np.isnan(target).any() or np.isnan(low).any() or np.isnan(high).any():
        msg = "coverage needs targets and ends that are numbers: found NaN"
        raise ValueError(msg)
    return float(((low <= target) & (target <= high)).mean())
