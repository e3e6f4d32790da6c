"""How well views were predicted: in log space, and in views.

Source: the training contract, section 8, and the record of the deployed pipeline for the inversion.
"""

import math
from collections.abc import Callable
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.training.config import RANK_METRICS, RankMetric

Metrics = dict[RankMetric, float | None]
Slice = Literal["text_present_1", "text_present_0"]
SLICES: Final[tuple[Slice, ...]] = get_args(Slice)

LOWEST_LOG: Final = -20.0
HIGHEST_LOG: Final = 30.0
"""Log predictions are clipped to these before they are inverted: e^30 is 1e13 views."""

_HIGHER_IS_BETTER: Final[frozenset[RankMetric]] = frozenset({"r2_log"})

Doubles = NDArray[np.float64]


def to_raw(prediction_log: Doubles) -> Doubles:
    """Views of a prediction of log1p(views): ``max(expm1(clip(x, -20, 30)), 0)``.

    Raises:
        ValueError: A value is not finite.
    """
    values = finite_vector("prediction_log", prediction_log)
    raw: Doubles = np.maximum(np.expm1(np.clip(values, LOWEST_LOG, HIGHEST_LOG)), 0.0)
    return raw


def regression_metrics(target_log: Doubles, prediction_log: Doubles) -> Metrics:
    """The five metrics of N predictions.

    With residuals ``e = prediction - target``: rmse is ``sqrt(mean(e^2))``, mae ``mean(|e|)``, and
    r2 ``1 - sum(e^2) / sum((target - mean(target))^2)``; ``_raw`` ones are in views, by `to_raw`.

    Args:
        target_log: float64 ``(N,)``: log1p(views).
        prediction_log: float64 ``(N,)``.

    Returns:
        A float each; ``r2_log`` is None where it has no meaning: one row, or all targets equal.

    Raises:
        ValueError: No rows, lengths differ, a value is not finite, or a target is above 30.
    """
    target, prediction = _pair(target_log, prediction_log)
    if not len(target):
        msg = "metrics need at least one row: found none"
        raise ValueError(msg)
    error_log = prediction - target
    error_raw = to_raw(prediction) - np.expm1(target)
    return {
        "rmse_log": _rmse(error_log),
        "mae_log": float(np.abs(error_log).mean()),
        "r2_log": _r2(target, error_log),
        "rmse_raw": _rmse(error_raw),
        "mae_raw": float(np.abs(error_raw).mean()),
    }


def slices(
    target_log: Doubles, prediction_log: Doubles, text_present: NDArray[np.bool_]
) -> dict[Slice, dict[str, float | int | None]]:
    """The metrics of the rows with text, and of those without, each with its row count ``n``.

    A slice without rows has ``n`` 0, and None for every metric.

    Args:
        target_log: float64 ``(N,)``.
        prediction_log: float64 ``(N,)``.
        text_present: bool ``(N,)``.

    Raises:
        ValueError: As `regression_metrics`, but for no rows.
    """
    target, prediction = _pair(target_log, prediction_log)
    if text_present.shape != target.shape or text_present.dtype != np.bool_:
        msg = (
            f"text_present must be bool {target.shape}: "
            f"found {text_present.dtype} {text_present.shape}"
        )
        raise ValueError(msg)
    found: dict[Slice, dict[str, float | int | None]] = {}
    for name, rows in zip(SLICES, (text_present, ~text_present), strict=True):
        metrics = regression_metrics(target[rows], prediction[rows]) if rows.any() else {}
        found[name] = {metric: metrics.get(metric) for metric in RANK_METRICS}
        found[name]["n"] = int(rows.sum())
    return found


def rank_key(metric: RankMetric) -> Callable[[float | None], float]:
    """A sort key that puts the best value of a metric first, and None or NaN last."""
    sign = -1.0 if metric in _HIGHER_IS_BETTER else 1.0

    def key(value: float | None) -> float:
        return math.inf if value is None or math.isnan(value) else sign * value

    return key


def better(metric: RankMetric, a: float | None, b: float | None) -> bool:
    """Whether `a` is strictly better than `b`; any number is better than None."""
    key = rank_key(metric)
    return key(a) < key(b)


def _rmse(errors: Doubles) -> float:
    return float(np.sqrt(np.square(errors).mean()))


def _r2(target: Doubles, errors: Doubles) -> float | None:
    # Of a constant target the rounded mean can differ from the constant, so no sum tells.
    if target.min() == target.max():
        return None
    spread = float(np.square(target - target.mean()).sum())
    return 1.0 - float(np.square(errors).sum()) / spread if spread > 0 else None


def _pair(target_log: Doubles, prediction_log: Doubles) -> tuple[Doubles, Doubles]:
    target = finite_vector("target_log", target_log)
    prediction = finite_vector("prediction_log", prediction_log)
    if target.shape != prediction.shape:
        msg = (
            "there must be one prediction a target: "
            f"found {len(prediction)} predictions and {len(target)} targets"
        )
        raise ValueError(msg)
    if len(target) and target.max() > HIGHEST_LOG:
        msg = (
            f"target_log must be log1p(views), at most {HIGHEST_LOG:g}: found {target.max():g}; "
            "is it in views?"
        )
        raise ValueError(msg)
    return target, prediction


def finite_vector(name: str, values: Doubles) -> Doubles:
    """The values as float64 ``(N,)``.

    Raises:
        ValueError: Another number of axes, or a value is not finite.
    """
    array: Doubles = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        msg = f"{name} must have one axis: found shape {array.shape}"
        raise ValueError(msg)
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        msg = f"{name} must be finite: {wrong} of {len(array)} values are not"
        raise ValueError(msg)
    return array
