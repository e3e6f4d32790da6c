"""How well N rows were told into C classes, from their labels and probabilities.

Definitions are scikit-learn's, by which others' numbers are made too; the calibration error is that
of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Functions named ``..._of`` and
``..._rows`` are the parts that `confidence` takes of many resamples at once.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from clipfarm_assets.training.classification.values import (
    Labels,
    class_labels,
    class_probabilities,
    predicted_classes,
)
from clipfarm_assets.training.metrics import Doubles

Metric = Literal["accuracy", "macro_f1", "auroc", "ece", "brier", "nll"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)

ECE_BINS: Final = 15

_EPSILON: Final = float(np.finfo(np.float64).eps)


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> Labels:
    """Rows by label and predicted class, int64 ``(C, C)``: ``[i, j]`` are of class i, taken for j.

    Raises:
        ValueError: As `class_labels`.
    """
    true = class_labels(labels, classes)
    taken = class_labels(predicted, classes, len(true))
    counts = np.bincount(true * classes + taken, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Share of rows whose predicted class is their label.

    Raises:
        ValueError: As `class_labels`.
    """
    true, taken = _two(labels, predicted)
    return float((true == taken).mean())


def macro_f1(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over classes of ``2 tp / (2 tp + fp + fn)``.

    Over classes that occur among the labels or the predictions, as in scikit-learn's
    ``f1_score(average="macro")``: of a class that does neither there is nothing to be said.

    Raises:
        ValueError: As `class_labels`.
    """
    true, taken = _two(labels, predicted)
    matrix = confusion_matrix(true, taken, int(max(true.max(), taken.max())) + 1)
    return float(macro_f1_of(matrix.astype(np.float64)))


def macro_f1_of(confusion: Doubles) -> Doubles:
    """`macro_f1` of confusion counts ``(..., C, C)``, none of them all zero: float64 ``(...)``."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    seen = confusion.sum(axis=-1) + confusion.sum(axis=-2)  # 2 tp + fp + fn
    f1 = np.divide(2.0 * hits, seen, out=np.zeros_like(seen), where=seen > 0)
    result: Doubles = f1.sum(axis=-1) / (seen > 0).sum(axis=-1)
    return result


def auroc(labels: ArrayLike, values: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a row of class 1 scores above one of class 0.

    Equal scores count half. Of more than two classes it is the mean of each against the rest.

    Args:
        labels: ``(N,)``.
        values: Probabilities ``(N, C)``.

    Returns:
        None where it has no meaning: a class has no rows, or all of them.

    Raises:
        ValueError: As `class_labels` and `class_probabilities`.
    """
    array = class_probabilities(values)
    true = class_labels(labels, array.shape[1], len(array))
    areas = []
    for target in scored_classes(array.shape[1]):
        _, place = np.unique(array[:, target], return_inverse=True)
        is_class = true == target
        places = int(place.max()) + 1
        positive = np.bincount(place[is_class], minlength=places).astype(np.float64)
        negative = np.bincount(place[~is_class], minlength=places).astype(np.float64)
        areas.append(float(auroc_of(positive, negative)))
    area = float(np.mean(areas))
    return None if np.isnan(area) else area


def scored_classes(classes: int) -> tuple[int, ...]:
    """The classes whose probability an AUROC ranks rows by: the second of two, or each."""
    return (1,) if classes == 2 else tuple(range(classes))


def auroc_of(positive: Doubles, negative: Doubles) -> Doubles:
    """AUROC of rows counted by score.

    Args:
        positive: ``(..., S)``: rows of the class at each of S scores, lowest first.
        negative: ``(..., S)``: other rows there.

    Returns:
        float64 ``(...)``, NaN where there are none of either.
    """
    below = np.cumsum(negative, axis=-1) - 0.5 * negative
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    won = (positive * below).sum(axis=-1)
    result: Doubles = np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
    return result


@dataclass(frozen=True)
class CalibrationBins:
    """Rows by how sure the model is of its most probable class, in bins of equal width.

    Attributes:
        counts: int64 ``(B,)``.
        confidence: float64 ``(B,)``: mean probability of the most probable class; NaN if empty.
        accuracy: float64 ``(B,)``: share of rows whose label is that class; NaN if empty.
    """

    counts: Labels
    confidence: Doubles
    accuracy: Doubles

    @property
    def ece(self) -> float:
        """Mean of |accuracy - confidence| over rows."""
        there = self.counts > 0
        gaps = np.abs(self.accuracy[there] - self.confidence[there])
        return float((gaps * self.counts[there]).sum() / self.counts.sum())


def calibration_bins(labels: ArrayLike, values: ArrayLike, bins: int = ECE_BINS) -> CalibrationBins:
    """Rows by confidence: bin b of B holds those in ``(b / B, (b + 1) / B]``.

    The class is the most probable one, first of equal ones, whatever the threshold is.

    Raises:
        ValueError: As `class_labels` and `class_probabilities`; or less than one bin.
    """
    confidence, is_right, place = confidence_rows(labels, values, bins)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of empty bins
        return CalibrationBins(
            counts=counts.astype(np.int64),
            confidence=np.bincount(place, weights=confidence, minlength=bins) / counts,
            accuracy=np.bincount(place, weights=is_right, minlength=bins) / counts,
        )


def confidence_rows(
    labels: ArrayLike, values: ArrayLike, bins: int
) -> tuple[Doubles, Doubles, Labels]:
    """Confidence of each row, 1.0 where the most probable class is right, and the row's bin."""
    array = class_probabilities(values)
    true = class_labels(labels, array.shape[1], len(array))
    if bins < 1:
        msg = f"calibration needs at least one bin: found {bins}"
        raise ValueError(msg)
    confidence = array.max(axis=1)
    is_right = (array.argmax(axis=1) == true).astype(np.float64)
    edges = np.arange(bins + 1) / bins
    place = np.searchsorted(edges, confidence, side="left") - 1
    return confidence, is_right, place.astype(np.int64)


def ece(labels: ArrayLike, values: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error, of bins of equal width; see `calibration_bins`."""
    return calibration_bins(labels, values, bins).ece


def brier(labels: ArrayLike, values: ArrayLike) -> float:
    """Brier score: of two classes the mean of ``(p - y)^2``; of more, summed over the classes.

    Raises:
        ValueError: As `class_labels` and `class_probabilities`.
    """
    return float(brier_rows(labels, values).mean())


def brier_rows(labels: ArrayLike, values: ArrayLike) -> Doubles:
    """Each row's part of `brier`, float64 ``(N,)``."""
    array = class_probabilities(values)
    true = class_labels(labels, array.shape[1], len(array))
    errors = array.copy()
    errors[np.arange(len(true)), true] -= 1.0
    squared: Doubles = np.square(errors).sum(axis=1)
    return squared * 0.5 if array.shape[1] == 2 else squared


def nll(labels: ArrayLike, values: ArrayLike) -> float:
    """Mean negative log probability of the label; probabilities below 2.2e-16 count as that.

    Raises:
        ValueError: As `class_labels` and `class_probabilities`.
    """
    return float(nll_rows(labels, values).mean())


def nll_rows(labels: ArrayLike, values: ArrayLike) -> Doubles:
    """Each row's part of `nll`, float64 ``(N,)``."""
    array = class_probabilities(values)
    true = class_labels(labels, array.shape[1], len(array))
    result: Doubles = -np.log(np.maximum(array[np.arange(len(true)), true], _EPSILON))
    return result


def classification_metrics(
    labels: ArrayLike, values: ArrayLike, threshold: float | None = None
) -> dict[Metric, float | None]:
    """All metrics of N rows, in the order of `METRICS`; None where one has no meaning.

    Args:
        labels: ``(N,)``.
        values: Probabilities ``(N, C)``.
        threshold: See `predicted_classes`; decides accuracy and macro-F1 alone.

    Raises:
        ValueError: As `class_labels`, `class_probabilities` and `predicted_classes`.
    """
    array = class_probabilities(values)
    true = class_labels(labels, array.shape[1], len(array))
    predicted = predicted_classes(array, threshold)
    return {
        "accuracy": accuracy(true, predicted),
        "macro_f1": macro_f1(true, predicted),
        "auroc": auroc(true, array),
        "ece": ece(true, array),
        "brier": brier(true, array),
        "nll": nll(true, array),
    }


def _two(labels: ArrayLike, predicted: ArrayLike) -> tuple[Labels, Labels]:
    true = class_labels(labels)
    return true, class_labels(predicted, rows=len(true))
