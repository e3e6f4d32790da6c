"""What is chosen on val after a model is fitted: a temperature, and a threshold of two classes.

Neither is chosen where the rows can't tell: then the neutral value stays, and the result says why.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipfarm_assets.training.classification.metrics import ece, macro_f1_of
from clipfarm_assets.training.classification.values import (
    THRESHOLD,
    class_labels,
    class_logits,
    class_probabilities,
    log_probabilities,
    probabilities,
)
from clipfarm_assets.training.metrics import Doubles

COLDEST: Final = 0.01
HOTTEST: Final = 100.0
"""A temperature beyond these is taken as these."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """What logits are divided by, and what that does on the rows it was chosen on.

    Attributes:
        value: The temperature; 1 changes nothing.
        rows: How many it was chosen on.
        nll_before, nll_after: Mean negative log likelihood.
        ece_before, ece_after: Expected calibration error.
        why_neutral: Why it is 1 without having been chosen; else empty.
    """

    value: float
    rows: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    why_neutral: str = ""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which probability on class 1 of two is predicted.

    Attributes:
        value: In [0, 1].
        rows: How many it was chosen on.
        macro_f1_before, macro_f1_after: With 0.5, and with it.
        why_neutral: Why it is 0.5 without having been chosen; else empty.
    """

    value: float
    rows: int
    macro_f1_before: float
    macro_f1_after: float
    why_neutral: str = ""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """The temperature under which the labels are most likely.

    Temperature scaling of Guo et al., ICML 2017: one number, by L-BFGS. The likelihood is convex in
    its inverse, so the optimum is the only one. There is none where every row is right, since
    colder is then always better, nor where the label's logit is on average no higher than that of
    the classes, since hotter is.

    Args:
        logits: ``(N, C)``, see `values.class_logits`.
        labels: ``(N,)``.

    Raises:
        ValueError: As `values.class_logits` and `values.class_labels`.
    """
    wide = class_logits(logits)
    true = class_labels(labels, wide.shape[1], len(wide))
    of_label = wide[np.arange(len(true)), true]
    why = ""
    if (of_label - wide.mean(axis=1)).mean() <= 0:
        why = (
            "labels have no higher logits than other classes, so that no temperature is hot enough"
        )
    elif (of_label >= wide.max(axis=1)).all():
        why = "every row is right, so that no temperature is cold enough"
    value = 1.0 if why else _most_likely(wide, true, of_label)
    before, after = probabilities(wide), probabilities(wide, value)
    return Temperature(
        value=value,
        rows=len(true),
        nll_before=_nll(wide, true),
        nll_after=_nll(wide / value, true),
        ece_before=ece(true, before),
        ece_after=ece(true, after),
        why_neutral=why,
    )


def best_threshold(labels: ArrayLike, values: ArrayLike) -> Threshold:
    """The threshold of the best macro-F1; of equally good ones that nearest to 0.5.

    Every way of cutting the rows is tried. A threshold lies midway between the probabilities that
    it parts, or at 0.5 where that parts them too.

    Args:
        labels: ``(N,)``, of two classes.
        values: Probabilities ``(N, 2)``.

    Raises:
        ValueError: As `values.class_labels` and `values.class_probabilities`; or there are more
            than two classes.
    """
    array = class_probabilities(values)
    if array.shape[1] != 2:
        msg = f"a threshold is for two classes: found {array.shape[1]}"
        raise ValueError(msg)
    true = class_labels(labels, 2, len(array))
    scores, place = np.unique(array[:, 1], return_inverse=True)
    ones = np.bincount(place[true == 1], minlength=len(scores)).astype(np.float64)
    zeros = np.bincount(place[true == 0], minlength=len(scores)).astype(np.float64)
    # Cut c puts the scores from c on into class 1: 0 all of them, ..., S none.
    missed = np.concatenate([[0.0], np.cumsum(ones)])
    spared = np.concatenate([[0.0], np.cumsum(zeros)])
    hits, wrong = ones.sum() - missed, zeros.sum() - spared
    table = np.stack([np.stack([spared, wrong], -1), np.stack([missed, hits], -1)], -2)
    f1 = macro_f1_of(table)
    neutral = float(f1[np.searchsorted(scores, THRESHOLD)])
    if ones.sum() == 0 or zeros.sum() == 0:
        why = "all rows are of one class, so that any threshold beyond them is the best"
        return Threshold(THRESHOLD, len(true), neutral, neutral, why)
    cuts = _cuts(scores)
    f1 = f1[: len(cuts)]
    best = np.flatnonzero(f1 == f1.max())
    chosen = best[np.abs(cuts[best] - THRESHOLD).argmin()]
    return Threshold(float(cuts[chosen]), len(true), neutral, float(f1[chosen]))


def _most_likely(logits: Doubles, true: NDArray[np.int64], of_label: Doubles) -> float:
    """The temperature of the highest likelihood, within `COLDEST` and `HOTTEST`."""
    from scipy.optimize import minimize

    def loss(log_inverse: Doubles) -> tuple[float, Doubles]:
        inverse = float(np.exp(log_inverse[0]))
        logs = log_probabilities(logits * inverse)
        expected = (np.exp(logs) * logits).sum(axis=1)
        slope = inverse * float((expected - of_label).mean())
        return float(-logs[np.arange(len(true)), true].mean()), np.array([slope])

    # From logits of unit size on: the slope far from the optimum is too flat to go by.
    size = float((logits - logits.mean(axis=1, keepdims=True)).std())
    bounds = (-float(np.log(HOTTEST)), -float(np.log(COLDEST)))
    result: Any = minimize(
        loss,
        np.clip([-np.log(size)], *bounds),
        jac=True,
        method="L-BFGS-B",
        bounds=[bounds],
        options={"ftol": 1e-15, "gtol": 1e-9},
    )
    return float(np.exp(-result.x[0]))


def _nll(logits: Doubles, true: NDArray[np.int64]) -> float:
    return float(-log_probabilities(logits)[np.arange(len(true)), true].mean())


def _cuts(scores: Doubles) -> Doubles:
    """A threshold for each cut of the distinct scores, ascending; none beyond a score of 1."""
    lower = np.concatenate([[0.0], scores])
    upper = np.concatenate([scores, [1.0]])
    middle = (lower + upper) / 2.0
    # Between neighbouring floats there is no middle.
    cuts = np.where(middle > lower, middle, upper)
    cuts = np.where((lower < THRESHOLD) & (upper >= THRESHOLD), THRESHOLD, cuts)
    result: Doubles = cuts[:-1] if scores[-1] == 1.0 else cuts
    return result
