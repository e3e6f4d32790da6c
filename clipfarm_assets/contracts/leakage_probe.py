"""A look at the values: does a feature copy, or nearly reproduce, what it must not know?

Names can't tell: a new column may be a renamed, rescaled, noised or binned copy of the views. The
probe compares every feature with every forbidden column in two ways, both on ranks, so that a
monotone transform changes nothing:

* Spearman's rank correlation;
* one-feature R²: the share of variance that the means of groups explain, adjusted for their number
  k (``1 - (1 - R²)(n - 1)/(n - k)``), of the forbidden column's ranks in quantile bins of the
  feature or in its categories; and the other way round: what folds or coarsens the outcome, as
  ``abs(views - mean)`` or "above the median" do, is determined by it without giving it back. The
  variance of a categorical feature is that of its one-hot columns (so R² is Goodman and Kruskal's
  tau).

It sees one feature at a time. A leak diluted by something larger (subscribers + views / 2) stays
below any limit that an honest feature may reach: against those there is the availability contract.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.leakage import AVAILABILITY, OUTCOMES

Numbers = NDArray[np.float64]
Categories = Sequence[str | None]

_BLOCK: Final = 256
"""Columns of a matrix that are ranked at once: bounds the memory."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a likeness is a copy.

    Attributes:
        rank_correlation: Smallest absolute Spearman correlation that is a finding. A copy with
            noise of 0.15 standard deviations has 0.99, one with 0.3 has 0.95; honest features of
            views stay far below (the best model of the deployed pipeline, using all of them, had
            r2 0.72, which is a correlation of 0.85).
        r2: Smallest adjusted R² that is a finding; about the same likeness, squared.
        rows: Pairs with fewer complete rows are not examined. By chance a correlation of 0.95
            among 30 has a probability below 1e-13.
        spare_rows: R² needs as many rows more than there are groups, or chance explains the rest.
        rows_per_bin: Rows of a quantile bin, at least. Fewer, and the few rows with a rare value
            fill a bin of their own by chance; more, and the bins of 36 rows are too coarse to
            follow anything.
        bins: Number of quantile bins, at most: a fold of two arms gets 16 bins each, which leaves
            0.4% of a variance unexplained.
        sample: Rows examined, at most: every s-th row of more. The standard error of a correlation
            of 0.95 among 5,000 is 0.0014.
    """

    rank_correlation: float = 0.95
    r2: float = 0.90
    rows: int = 30
    spare_rows: int = 20
    rows_per_bin: int = 6
    bins: int = 32
    sample: int = 5_000


DEFAULT_THRESHOLDS: Final = Thresholds()

NOT_PROBED: Final = frozenset({"age_days", "horizon_days"})
"""No outcome, though unknown at publication: the age at capture. A collector that runs once a day
makes the hour of publication a function of it."""


def probed(columns: Iterable[str]) -> tuple[str, ...]:
    """Which of the outcome columns features are compared with."""
    return tuple(name for name in columns if name not in NOT_PROBED)


PROBED: Final = probed(name for name in OUTCOMES if AVAILABILITY[name].kind == "numeric")
"""The contract's outcome columns that features are compared with, beside the target."""


@dataclass(frozen=True, slots=True)
class _Likeness:
    """The strongest likeness of one pair; None where a measure could not be taken."""

    pair: str
    rows: int
    rank_correlation: float | None
    r2: float | None

    def problem(self, thresholds: Thresholds) -> str:
        """What is wrong with the pair; empty if nothing is."""
        rho, r2 = self.rank_correlation, self.r2
        found = []
        if rho is not None and abs(rho) >= thresholds.rank_correlation:
            limit = thresholds.rank_correlation
            found.append(f"rank correlation {rho:.4f} (limit ±{limit:g})")
        if r2 is not None and r2 >= thresholds.r2:
            found.append(f"one-feature R2 {r2:.4f} (limit {thresholds.r2:g})")
        return f"{' and '.join(found)} over {self.rows} rows" if found else ""


def probe(
    features: Mapping[str, Numbers | Categories],
    forbidden: Mapping[str, Numbers],
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> Verdict:
    """Compare every feature with every forbidden column.

    Args:
        features: Name -> ``(N,)``: numbers with NaN where missing, or a sequence of texts with None
            or an empty one where missing.
        forbidden: Name -> ``(N,)`` numbers with NaN where missing: outcome columns and the target.
        thresholds: Where a likeness is a finding.

    Returns:
        A finding for every pair at or beyond a limit. `examined` counts pairs; the facts say how
        many were not (``not_examined``: too few complete rows, or one side constant there), how
        many rows were looked at, and which pair came closest.

    Raises:
        ValueError: The columns differ in length.
        TypeError: A feature is neither an array of numbers nor texts.
    """
    total = _common_length({**features, **{f"forbidden {n}": v for n, v in forbidden.items()}})
    keep = _sample(total, thresholds)
    outcomes = {name: np.asarray(v, dtype=np.float64)[keep] for name, v in forbidden.items()}
    likenesses: list[_Likeness] = []
    for name, values in features.items():
        column = _Column.of(values, keep)
        likenesses += [
            column.likeness(f"{name} ~ {other}", outcome, thresholds)
            for other, outcome in outcomes.items()
        ]
    return _verdict(likenesses, total, keep, thresholds)


def probe_vectors(
    matrix: NDArray[np.floating],
    names: Sequence[str],
    forbidden: Mapping[str, Numbers],
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
) -> Verdict:
    """Compare every dimension of N vectors with every forbidden column, by rank correlation alone.

    Args:
        matrix: ``(N, D)``, finite.
        names: Of the D dimensions.
        forbidden: As in `probe`.
        thresholds: As in `probe`.

    Returns:
        As `probe`.

    Raises:
        ValueError: Lengths differ, or the vectors are not finite.
    """
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        msg = f"expected a matrix (N, {len(names)}), a column a name: found {matrix.shape}"
        raise ValueError(msg)
    total = _common_length(
        {"vectors": matrix, **{f"forbidden {n}": v for n, v in forbidden.items()}}
    )
    keep = _sample(total, thresholds)
    sample = matrix[keep]
    if not np.isfinite(sample).all():
        msg = f"expected finite vectors, found {int((~np.isfinite(sample)).sum())} other values"
        raise ValueError(msg)
    outcomes = {name: np.asarray(v, dtype=np.float64)[keep] for name, v in forbidden.items()}
    likenesses: list[_Likeness] = []
    for known, group in _by_known_rows(outcomes):
        rows = int(known.sum())
        rho = np.full((len(names), len(group)), np.nan)
        if rows >= thresholds.rows:
            targets = _standardised(_ranks(np.stack([outcomes[name][known] for name in group], 1)))
            for start in range(0, len(names), _BLOCK):
                block = _standardised(_ranks(sample[known, start : start + _BLOCK]))
                rho[start : start + _BLOCK] = block.T @ targets
        likenesses += [
            _Likeness(f"{name} ~ {other}", rows, _known(rho[i, j]), None)
            for i, name in enumerate(names)
            for j, other in enumerate(group)
        ]
    return _verdict(likenesses, total, keep, thresholds)


@dataclass(frozen=True)
class _Column:
    """A feature as it is compared.

    Attributes:
        values: ``(N,)``: numbers, or the numbers of categories.
        known: ``(N,)``: where there is a value.
        categorical: Whether the order of `values` means nothing.
    """

    values: Numbers
    known: NDArray[np.bool_]
    categorical: bool

    @classmethod
    def of(cls, values: Numbers | Categories, keep: slice) -> "_Column":
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
            numbers = values[keep].astype(np.float64)
            return cls(numbers, ~np.isnan(numbers), categorical=False)
        texts = [text or "" for text in values[keep]]
        other = {type(text).__name__ for text in texts if not isinstance(text, str)}
        if other:
            msg = f"expected an array of numbers or texts with None: found {', '.join(other)}"
            raise TypeError(msg)
        _, codes = np.unique(np.array(texts, dtype=np.str_), return_inverse=True)
        return cls(codes.astype(np.float64), np.array(texts) != "", categorical=True)

    def likeness(self, pair: str, outcome: Numbers, thresholds: Thresholds) -> _Likeness:
        """Measure one pair over the rows where both sides are known."""
        both = self.known & ~np.isnan(outcome)
        rows = int(both.sum())
        if rows < thresholds.rows:
            return _Likeness(pair, rows, None, None)
        ranks = _ranks(np.stack([self.values[both], outcome[both]], axis=1))
        mine, theirs = ranks[:, 0], ranks[:, 1]
        if not (np.ptp(mine) and np.ptp(theirs)):
            return _Likeness(pair, rows, None, None)
        their_bins = _bins(theirs, thresholds)
        if self.categorical:
            _, groups = np.unique(mine, return_inverse=True)
            rho, forward = None, _r2(theirs, groups, thresholds)
            backward = _tau(groups, their_bins, thresholds)
        else:
            standardised = _standardised(ranks)
            rho = float(standardised[:, 0] @ standardised[:, 1])
            forward = _r2(theirs, _bins(mine, thresholds), thresholds)
            backward = _r2(mine, their_bins, thresholds)
        measured = [r2 for r2 in (forward, backward) if r2 is not None]
        return _Likeness(pair, rows, rho, max(measured, default=None))


def _sample(total: int, thresholds: Thresholds) -> slice:
    return slice(None, None, max(1, -(-total // thresholds.sample)))


def _common_length(columns: Mapping[str, Sized]) -> int:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        msg = f"expected as many values of every column, one a row: found {shown}"
        raise ValueError(msg)
    return next(iter(lengths.values()), 0)


def _by_known_rows(
    columns: Mapping[str, Numbers],
) -> list[tuple[NDArray[np.bool_], list[str]]]:
    """Columns that are known in the same rows, together: vectors are ranked once for them all."""
    groups: dict[bytes, tuple[NDArray[np.bool_], list[str]]] = {}
    for name, values in columns.items():
        known = ~np.isnan(values)
        groups.setdefault(known.tobytes(), (known, []))[1].append(name)
    return list(groups.values())


def _ranks(columns: NDArray[np.floating]) -> Numbers:
    """Ranks 0.. of each column of ``(n, d)``; equal values share their average rank."""
    across = np.ascontiguousarray(columns.T)
    order = np.argsort(across, axis=1)
    ordered = np.take_along_axis(across, order, axis=1)
    n = across.shape[1]
    position = np.arange(n)
    new = np.ones(across.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    last = np.ones(across.shape, dtype=bool)
    last[:, :-1] = new[:, 1:]
    # First and last position of every run of equal values, carried over the run.
    first_of_run = np.maximum.accumulate(np.where(new, position, 0), axis=1)
    backwards = np.where(last, position, n)[:, ::-1]
    last_of_run = np.minimum.accumulate(backwards, axis=1)[:, ::-1]
    ranks = np.empty(across.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (first_of_run + last_of_run) / 2, axis=1)
    return ranks.T


def _standardised(ranks: Numbers) -> Numbers:
    """Columns of mean 0 and length 1, whose products are correlations; NaN for a constant one."""
    centred = ranks - ranks.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    result: Numbers = centred / np.where(length > 0, length, np.nan)
    return result


def _bins(ranks: Numbers, thresholds: Thresholds) -> NDArray[np.intp]:
    """The quantile bin ``(n,)`` of average ranks ``(n,)``; equal values share one."""
    n = len(ranks)
    count = min(thresholds.bins, n // thresholds.rows_per_bin)
    _, bins = np.unique(np.floor(ranks * count / n), return_inverse=True)
    return bins


def _r2(values: Numbers, groups: NDArray[np.intp], thresholds: Thresholds) -> float | None:
    """Adjusted R² of the means of groups ``(n,)`` for values ``(n,)``; None if it says nothing."""
    size = np.bincount(groups)
    means = np.bincount(groups, values) / size
    residual = float(((values - means[groups]) ** 2).sum())
    return _adjusted(residual / float(((values - values.mean()) ** 2).sum()), size, thresholds)


def _tau(
    categories: NDArray[np.intp], groups: NDArray[np.intp], thresholds: Thresholds
) -> float | None:
    """`_r2` of the one-hot columns of categories ``(n,)``, their variances summed.

    Counted instead of spelled out: with as many categories as rows, one-hot columns fill memory.
    """
    n, size = len(groups), np.bincount(groups)
    pairs, both = np.unique(groups * (categories.max() + 1) + categories, return_counts=True)
    residual = n - float((both**2 / size[pairs // (categories.max() + 1)]).sum())
    total = n - float((np.bincount(categories) ** 2).sum()) / n
    return _adjusted(residual / total, size, thresholds)


def _adjusted(unexplained: float, size: NDArray[np.intp], thresholds: Thresholds) -> float | None:
    """R² adjusted for the number of groups; None for one group or too few spare rows."""
    n, k = int(size.sum()), len(size)
    if k == 1 or n - k < thresholds.spare_rows:
        return None
    return 1.0 - unexplained * (n - 1) / (n - k)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _verdict(
    likenesses: Sequence[_Likeness], total: int, keep: slice, thresholds: Thresholds
) -> Verdict:
    examined = [one for one in likenesses if (one.rank_correlation, one.r2) != (None, None)]
    findings = tuple(
        Finding(one.pair, problem) for one in examined if (problem := one.problem(thresholds))
    )
    facts: dict[str, object] = {
        "not_examined": len(likenesses) - len(examined),
        "rows": total,
        "rows_examined": len(range(*keep.indices(total))),
        "stride": keep.step,
    }
    ranked = [one for one in examined if one.rank_correlation is not None]
    if ranked:
        closest = max(ranked, key=lambda one: abs(one.rank_correlation or 0.0))
        facts["strongest_rank_correlation"] = closest.rank_correlation
        facts["strongest_rank_correlation_of"] = closest.pair
    explained = [one for one in examined if one.r2 is not None]
    if explained:
        most = max(explained, key=lambda one: one.r2 or 0.0)
        facts["strongest_r2"] = most.r2
        facts["strongest_r2_of"] = most.pair
    return Verdict(findings, len(examined), facts)
