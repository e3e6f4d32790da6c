"""How sure metrics are: percentile intervals of the bootstrap, resampled by group.

Rows of a group, e.g. near-duplicates, are not independent, so whole groups are drawn with
replacement (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8). A resample
is how often it holds each group, and metrics are taken of sums over groups: nothing is copied, and
thousands of resamples are a few matrix products.

What was chosen before, e.g. a temperature or a threshold, is taken as given: the intervals are
those of a model as it is, not of training it again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipfarm_assets.training.classification.metrics import (
    ECE_BINS,
    METRICS,
    Metric,
    auroc_of,
    brier_rows,
    classification_metrics,
    confidence_rows,
    macro_f1_of,
    nll_rows,
    scored_classes,
)
from clipfarm_assets.training.classification.values import (
    Labels,
    class_labels,
    class_probabilities,
    predicted_classes,
)
from clipfarm_assets.training.metrics import Doubles

RESAMPLES: Final = 2000
LEVEL: Final = 0.95

_CELLS: Final = 2_000_000
"""Numbers held at once: resamples go by in blocks of about so many."""

Groups = Sequence[str] | NDArray[np.str_] | None
"""The group of each row; None if each is its own."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric and how far it may be off.

    Attributes:
        value: Of the rows themselves; None where the metric has no meaning.
        low, high: Ends; None where there is no value, no resample with one, or one group only,
            which says nothing of others.
        resamples: Those in which the metric had a value: AUROC has none where a class is missing.
    """

    value: float | None
    low: float | None
    high: float | None
    resamples: int


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one model is better than another on the same rows, in macro-F1.

    Attributes:
        value: Of the rows themselves.
        mean: Over the resamples.
        low, high: Ends of the interval; -1 and 1, beyond which no difference lies, if there is one
            group only.
        resamples: How many.
        groups: How many were drawn from.
        level: Of the interval, in (0, 1).
        better, worse: Groups in which the first, or the other, is right about more rows.
        sign_p: Chance of so many `better` ones at least if either were as likely; exact.
    """

    value: float
    mean: float
    low: float
    high: float
    resamples: int
    groups: int
    level: float
    better: int
    worse: int
    sign_p: float

    @property
    def is_better(self) -> bool:
        """Whether the first is better beyond chance: a draw, ``low`` of 0, is not.

        The interval alone is too sure of few groups: where one model is better in all of them, it
        is so in every resample. So the sign test must be as sure as the interval's lower end.
        """
        return self.low > 0 and self.sign_p <= (1.0 - self.level) / 2.0


def intervals(
    labels: ArrayLike,
    values: ArrayLike,
    groups: Groups = None,
    *,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[Metric, Interval]:
    """Every metric of N rows with its interval, all of the same resamples.

    Args:
        labels: ``(N,)``.
        values: Probabilities ``(N, C)``.
        groups: ``(N,)``.
        threshold: See `values.predicted_classes`.
        resamples: R.
        seed: Of the draws; see `resample_counts`.
        level: Share of the resamples within the ends.

    Raises:
        ValueError: As `metrics.classification_metrics`; or the groups are not one a row, there are
            no resamples, or the level is not in (0, 1).
    """
    _check(resamples, level)
    found = classification_metrics(labels, values, threshold)
    array = class_probabilities(values)
    true = class_labels(labels, array.shape[1], len(array))
    codes, count = group_codes(groups, len(true))
    predicted = predicted_classes(array, threshold)
    sums = _Sums(true, array, predicted, codes, count)
    ranks = [_Ranks(true == c, array[:, c], codes) for c in scored_classes(array.shape[1])]
    blocks = []
    for counts in resample_counts(count, resamples, seed, width=max(len(true), count)):
        block = sums.metrics(counts)
        block["auroc"] = np.mean([rank.auroc(counts) for rank in ranks], axis=0)
        blocks.append(block)
    drawn = {name: np.concatenate([block[name] for block in blocks]) for name in METRICS}
    return {name: _interval(found[name], drawn[name], level, count) for name in METRICS}


def paired_macro_f1(
    labels: ArrayLike,
    predicted_a: ArrayLike,
    predicted_b: ArrayLike,
    groups: Groups = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Difference:
    """Macro-F1 of model a minus that of model b, both on the same rows and resamples.

    Args:
        labels: ``(N,)``.
        predicted_a: Classes ``(N,)``, not probabilities.
        predicted_b: Of the other model.
        groups: ``(N,)``.
        resamples: R.
        seed: Of the draws; see `resample_counts`.
        level: Share of the resamples within the ends.

    Raises:
        ValueError: As `values.class_labels`; or as `intervals`.
    """
    _check(resamples, level)
    true = class_labels(labels)
    pair = [class_labels(part, rows=len(true)) for part in (predicted_a, predicted_b)]
    classes = 1 + max(int(part.max()) for part in (true, *pair))
    codes, count = group_codes(groups, len(true))
    tables = [_group_confusions(true, part, codes, classes, count) for part in pair]

    def differences(counts: Doubles) -> Doubles:
        a, b = (macro_f1_of((counts @ table).reshape(-1, classes, classes)) for table in tables)
        result: Doubles = a - b
        return result

    value = float(differences(np.ones((1, count)))[0])
    drawn = np.concatenate(
        [differences(counts) for counts in resample_counts(count, resamples, seed)]
    )
    low, high = np.quantile(drawn, _tails(level)).tolist() if count > 1 else (-1.0, 1.0)
    better, worse = _signs(true, pair[0], pair[1], codes)
    return Difference(
        value,
        float(drawn.mean()),
        low,
        high,
        resamples,
        count,
        level,
        better,
        worse,
        sign_test(better, worse),
    )


def sign_test(better: int, worse: int) -> float:
    """Exact one-sided p-value of the sign test, ties left out.

    Conover, "Practical Nonparametric Statistics", 3rd edition, 1999, section 3.4: the chance of
    `better` or more heads in ``better + worse`` throws of a fair coin.

    Args:
        better: Pairs in which the first is ahead.
        worse: Pairs in which the other is.
    """
    from scipy.special import betainc

    # Abramowitz and Stegun 26.5.24: the tail of a binomial law as an incomplete beta function.
    return float(betainc(better, worse + 1, 0.5)) if better else 1.0


def resample_counts(
    groups: int, resamples: int, seed: int, width: int | None = None
) -> Iterator[Doubles]:
    """How often each resample holds each group: blocks of float64 ``(r, groups)``, R rows in all.

    A resample draws as many groups as there are, with replacement. The same arguments give the same
    resamples, however they are cut into blocks.

    Args:
        groups: G >= 1.
        resamples: R.
        seed: Of NumPy's default generator.
        width: Numbers that the caller needs at a time for a resample; G if None.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(groups, width or 0))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        # Floats, because a generator may hold back half a word between calls for integers.
        drawn = (rng.random((rows, groups)) * groups).astype(np.int64)
        flat = drawn + groups * np.arange(rows)[:, None]
        counts = np.bincount(flat.ravel(), minlength=rows * groups)
        yield counts.reshape(rows, groups).astype(np.float64)


def group_codes(groups: Groups, rows: int) -> tuple[Labels, int]:
    """Each row's group as a number, in the groups' own order, and how many groups there are.

    Raises:
        ValueError: There is not one group a row.
    """
    if groups is None:
        return np.arange(rows), rows
    if len(groups) != rows:
        msg = f"there must be one group a row: found {len(groups)} groups of {rows} rows"
        raise ValueError(msg)
    number = {group: code for code, group in enumerate(sorted({str(group) for group in groups}))}
    return np.array([number[str(group)] for group in groups], dtype=np.int64), len(number)


def _signs(true: Labels, a: Labels, b: Labels, codes: Labels) -> tuple[int, int]:
    """In how many groups a is right about more rows than b, and b than a."""
    ahead = np.bincount(codes, weights=(a == true).astype(np.float64) - (b == true))
    return int((ahead > 0).sum()), int((ahead < 0).sum())


class _Sums:
    """What all metrics but AUROC need of each group, side by side: float64 ``(G, K)``."""

    def __init__(
        self, true: Labels, values: Doubles, predicted: Labels, codes: Labels, groups: int
    ) -> None:
        self._classes = values.shape[1]
        confidence, is_right, place = confidence_rows(true, values, ECE_BINS)
        gaps = np.bincount(
            codes * ECE_BINS + place, weights=is_right - confidence, minlength=groups * ECE_BINS
        )
        self._table = np.column_stack(
            [
                _group_confusions(true, predicted, codes, self._classes, groups),
                gaps.reshape(groups, ECE_BINS),
                np.bincount(codes, weights=brier_rows(true, values), minlength=groups),
                np.bincount(codes, weights=nll_rows(true, values), minlength=groups),
            ]
        )

    def metrics(self, counts: Doubles) -> dict[Metric, Doubles]:
        """Each ``(r,)``, of resamples ``(r, G)``."""
        sums = counts @ self._table
        cells = self._classes**2
        confusion = sums[:, :cells].reshape(-1, self._classes, self._classes)
        rows = sums[:, :cells].sum(axis=1)
        return {
            "accuracy": np.trace(confusion, axis1=1, axis2=2) / rows,
            "macro_f1": macro_f1_of(confusion),
            "ece": np.abs(sums[:, cells : cells + ECE_BINS]).sum(axis=1) / rows,
            "brier": sums[:, -2] / rows,
            "nll": sums[:, -1] / rows,
        }


class _Ranks:
    """Rows by score, of which a resample's AUROC is taken."""

    def __init__(self, is_class: NDArray[np.bool_], scores: Doubles, codes: Labels) -> None:
        order = np.argsort(scores, kind="stable")
        self._codes = codes[order]
        self._is_class = is_class[order].astype(np.float64)
        # Where each distinct score begins.
        self._starts = np.flatnonzero(np.diff(scores[order], prepend=-1.0))

    def auroc(self, counts: Doubles) -> Doubles:
        """``(r,)`` of resamples ``(r, G)``; NaN where a class is missing."""
        rows = counts[:, self._codes]
        positive = np.add.reduceat(rows * self._is_class, self._starts, axis=1)
        return auroc_of(positive, np.add.reduceat(rows, self._starts, axis=1) - positive)


def _group_confusions(
    true: Labels, predicted: Labels, codes: Labels, classes: int, groups: int
) -> Doubles:
    """Confusion counts of each group, float64 ``(G, C * C)``."""
    cells = classes * classes
    place = codes * cells + true * classes + predicted
    counts = np.bincount(place, minlength=groups * cells)
    return counts.reshape(groups, cells).astype(np.float64)


def _interval(value: float | None, drawn: Doubles, level: float, groups: int) -> Interval:
    there = drawn[~np.isnan(drawn)]
    if value is None or not len(there) or groups < 2:
        return Interval(value, None, None, len(there))
    low, high = np.quantile(there, _tails(level)).tolist()
    return Interval(value, low, high, len(there))


def _tails(level: float) -> list[float]:
    return [(1.0 - level) / 2.0, (1.0 + level) / 2.0]


def _check(resamples: int, level: float) -> None:
    if resamples < 1:
        msg = f"a bootstrap needs at least one resample: found {resamples}"
        raise ValueError(msg)
    if not 0 < level < 1:
        msg = f"the level of an interval must be between 0 and 1: found {level!r}"
        raise ValueError(msg)
