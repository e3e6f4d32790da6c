"""The promises about models and their predictions, as functions from numbers to findings."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.horizons import Horizon

# Of being found by chance, in either tail: a suite has some fifty families and jobs.
CHANCE: Final = 1e-4

_NUMBERS: Final = ("prediction_log", "prediction_raw", "interval_low_raw", "interval_high_raw")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often the true value of a test row lay in its interval.

    Attributes:
        level: The coverage that the interval guarantees, in (0, 1).
        calibrated: Number of rows that the interval was taken from.
        found: Share of the test rows inside.
        n: Number of test rows.
    """

    level: float
    calibrated: int
    found: float
    n: int


def beats_mean(errors: Mapping[str, float], floor: float) -> Verdict:
    """Every family predicts better than the mean of the train rows.

    Args:
        errors: Family -> RMSE of log1p(views) on test.
        floor: That of the mean.
    """
    findings = [
        Finding(family, f"rmse_log on test is {error:.4f}, that of the train mean is {floor:.4f}")
        for family, error in errors.items()
        if not error < floor
    ]
    return Verdict(tuple(findings), len(errors), {"rmse_log_of_the_mean": f"{floor:.4f}"})


def interval_coverage(families: Mapping[str, Coverage]) -> Verdict:
    """Intervals hold as many true values as promised, as far as chance allows.

    With exchangeable rows and a continuous target the number inside, of n test rows, is
    beta-binomial with ``a = k`` and ``b = m + 1 - k``, where k / (m + 1) is the guaranteed level of
    an interval from m rows. Source: Angelopoulos and Bates (2021), "A Gentle Introduction to
    Conformal Prediction", section 3.2.
    """
    from scipy.stats import betabinom

    findings = []
    for family, told in families.items():
        k = round(told.level * (told.calibrated + 1))
        inside = round(told.found * told.n)
        law = betabinom(told.n, k, told.calibrated + 1 - k)
        too_few, too_many = float(law.cdf(inside)), float(law.sf(inside - 1))
        if min(too_few, too_many) < CHANCE:
            findings.append(
                Finding(
                    family,
                    f"{told.found:.3f} of {told.n} test rows lie in intervals that promise "
                    f"{told.level:.3f}: by chance with probability {min(too_few, too_many):.1e}",
                )
            )
    return Verdict(tuple(findings), len(families))


def predictions_complete(
    rows: pl.DataFrame, fused: Mapping[Horizon, Collection[str]], index_ids: Sequence[str]
) -> Verdict:
    """Every fused clip of a date has one finite prediction for every promoted horizon.

    Args:
        rows: Of `clip_tables.CLIP_PREDICTIONS`.
        fused: Promoted horizon, in days -> video ids with a fused vector of the promoted model's
            strategy.
        index_ids: The date's clips.
    """
    findings = []
    examined = without = 0
    for horizon, ids in fused.items():
        of_horizon = rows.filter(pl.col("horizon_days") == horizon)
        predicted = {row["video_id"]: row for row in of_horizon.iter_rows(named=True)}
        wanted = [video_id for video_id in index_ids if video_id in ids]
        examined += len(wanted)
        without += len(index_ids) - len(wanted)
        if len(predicted) < of_horizon.height:
            more = of_horizon.height - len(predicted)
            findings.append(Finding(f"horizon {horizon}", f"{more} clips have two predictions"))
        for video_id in wanted:
            problem = _problem(predicted.get(video_id))
            if problem:
                findings.append(Finding(f"{video_id}, {horizon} days", problem))
        findings += [
            Finding(f"{video_id}, {horizon} days", "is predicted without a fused vector")
            for video_id in predicted
            if video_id not in ids
        ]
    findings += [
        Finding(f"horizon {horizon}", "is predicted, but no model is promoted for it")
        for horizon in rows["horizon_days"].unique().sort().to_list()
        if horizon not in fused
    ]
    return Verdict(tuple(findings), examined, {"without_fused_vector": without})


def _problem(row: Mapping[str, Any] | None) -> str:
    """What keeps a row from being a prediction; empty if nothing does."""
    if row is None:
        return "has a fused vector and no prediction"
    for name in _NUMBERS:
        value = row[name]
        if value is None or not math.isfinite(value):
            return f"{name} must be a finite number: found {value}"
    low, value, high = row["interval_low_raw"], row["prediction_raw"], row["interval_high_raw"]
    if not low <= value <= high:
        return f"the prediction {value} lies outside its interval {low} to {high}"
    return ""
