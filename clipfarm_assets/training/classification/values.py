"""What metrics are taken of: labels, logits and probabilities of N rows and C classes, checked."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipfarm_assets.training.metrics import Doubles

Labels = NDArray[np.int64]

THRESHOLD: Final = 0.5
"""From which probability on class 1 of two is predicted, where nothing else was chosen."""

_MOST_CLASSES: Final = 4096
_SUM_TOLERANCE: Final = 1e-5  # of float32 probabilities


def probabilities(logits: ArrayLike, temperature: float = 1.0) -> Doubles:
    """Softmax of ``logits / temperature``, in float64 whatever the logits are.

    Args:
        logits: As `class_logits`.
        temperature: Above 0.

    Returns:
        float64 ``(N, C)``, C >= 2.

    Raises:
        ValueError: As `class_logits`, or the temperature is not above 0.
    """
    if not 0 < temperature < np.inf:
        msg = f"a temperature must be above 0 and finite: found {temperature!r}"
        raise ValueError(msg)
    log_softmax = log_probabilities(class_logits(logits) / temperature)
    exponents = np.exp(log_softmax)
    result: Doubles = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def log_probabilities(logits: Doubles) -> Doubles:
    """Log-softmax of float64 ``(N, C)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def class_logits(logits: ArrayLike) -> Doubles:
    """Logits as float64 ``(N, C)``, C >= 2, checked.

    One logit a row, ``(N,)`` or ``(N, 1)``, is that of class 1 against class 0, as binary cross
    entropy fits it; the logit of class 0 is then 0: softmax of ``[0, z]`` is the sigmoid of z.

    Raises:
        ValueError: No rows, another number of axes, or a value is not finite.
    """
    array: Doubles = np.asarray(logits, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.size:
        msg = f"logits must be (rows, classes) of at least one row: found shape {array.shape}"
        raise ValueError(msg)
    _check_finite("logits", array)
    return np.hstack([np.zeros_like(array), array]) if array.shape[1] == 1 else array


def class_probabilities(values: ArrayLike) -> Doubles:
    """Probabilities as float64 ``(N, C)``, C >= 2, checked.

    Raises:
        ValueError: No rows, another number of axes, a value outside of [0, 1], or a row that does
            not sum to 1.
    """
    array: Doubles = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not len(array) or array.shape[1] < 2:
        msg = (
            "probabilities must be (rows, classes) of at least one row and two classes: found "
            f"shape {array.shape}"
        )
        raise ValueError(msg)
    _check_finite("probabilities", array)
    off = np.abs(array.sum(axis=1) - 1.0)
    if array.min() < 0 or array.max() > 1 or off.max() > _SUM_TOLERANCE:
        msg = (
            "probabilities must be between 0 and 1 and sum to 1 in each row: found values from "
            f"{array.min():g} to {array.max():g} and sums off by up to {off.max():g}; are they "
            "logits? Then take their softmax by `probabilities`"
        )
        raise ValueError(msg)
    return array


def class_labels(
    labels: ArrayLike, classes: int = _MOST_CLASSES, rows: int | None = None
) -> Labels:
    """Labels as int64 ``(N,)``, checked.

    Args:
        labels: Integers from 0 to `classes` - 1.
        classes: C.
        rows: How many there must be.

    Raises:
        ValueError: None, another number of them, not integers, or outside of the classes.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or not len(array):
        msg = f"labels must have one axis and at least one row: found shape {array.shape}"
        raise ValueError(msg)
    if array.dtype.kind not in "iub":
        msg = f"labels must be integers, the numbers of classes: found dtype {array.dtype}"
        raise ValueError(msg)
    if rows is not None and len(array) != rows:
        msg = f"there must be one label a row: found {len(array)} labels of {rows} rows"
        raise ValueError(msg)
    if array.min() < 0 or array.max() >= classes:
        msg = (
            f"labels must be from 0 to {classes - 1}, of {classes} classes: found "
            f"{array.min()} to {array.max()}"
        )
        raise ValueError(msg)
    return array.astype(np.int64)


def predicted_classes(values: ArrayLike, threshold: float | None = None) -> Labels:
    """The class of each row, int64 ``(N,)``.

    Of two classes it is 1 where the probability of class 1 is at least `threshold`; of more it is
    the most probable one, the first of equal ones.

    Args:
        values: Probabilities ``(N, C)``.
        threshold: `THRESHOLD` if None; of two classes alone.

    Raises:
        ValueError: As `class_probabilities`; or the threshold is outside of [0, 1], or there are
            more than two classes to which there is one.
    """
    array = class_probabilities(values)
    if array.shape[1] == 2:
        cut = THRESHOLD if threshold is None else threshold
        if not 0 <= cut <= 1:
            msg = f"a threshold must be from 0 to 1: found {cut!r}"
            raise ValueError(msg)
        return (array[:, 1] >= cut).astype(np.int64)
    if threshold is not None:
        msg = f"a threshold is for two classes: found {array.shape[1]}"
        raise ValueError(msg)
    most: Labels = array.argmax(axis=1).astype(np.int64)
    return most


def _check_finite(name: str, array: Doubles) -> None:
    wrong = int((~np.isfinite(array)).any(axis=1).sum())
    if wrong:
        msg = f"{name} must be finite: {wrong} of {len(array)} rows are not"
        raise ValueError(msg)
