import json
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.training.intervals import SplitConformal, coverage
from clipfarm_assets.training.metrics import to_raw

RESIDUALS = st.lists(st.floats(-50, 50), min_size=1, max_size=200)


@given(RESIDUALS, st.integers(1, 99))
def test_half_width_is_the_order_statistic_of_the_sorted_list(residuals, percent):
    rank = -(-(len(residuals) + 1) * percent // 100)  # ceil, in integers
    found = SplitConformal.fit(np.array(residuals), percent / 100)
    ordered = sorted(abs(r) for r in residuals)
    assert found.n == len(residuals)
    assert found.nominal == percent / 100
    assert found.is_attained == (rank <= len(residuals))
    if found.is_attained:
        assert found.half_width == ordered[rank - 1]
        assert found.attained_level == rank / (len(residuals) + 1)
        assert found.attained_level >= percent / 100
    else:
        assert found.half_width == ordered[-1]
        assert found.attained_level == len(residuals) / (len(residuals) + 1)
        assert found.attained_level < percent / 100


def test_the_rank_is_exact_where_floats_are_not():
    n, level = 99, 0.55
    assert math.ceil((n + 1) * level) == 56
    assert math.ceil((n + 1) * Decimal(str(level))) == 55
    assert SplitConformal.fit(np.arange(1.0, n + 1), level).half_width == 55
    assert SplitConformal.fit(np.arange(1.0, n + 1), np.float64(level)).half_width == 55


def test_nine_residuals_are_just_enough_for_ninety_percent():
    assert SplitConformal.fit(np.arange(9.0), 0.9).is_attained
    few = SplitConformal.fit(np.arange(8.0), 0.9)
    assert (few.is_attained, few.half_width, few.attained_level) == (False, 7, 8 / 9)


def test_interval_in_logs_and_in_views():
    conformal = SplitConformal.fit(np.array([0.5, -2.0, 1.0]), 0.5)
    assert conformal.half_width == 1
    prediction = np.array([0.5, 3.0, 29.5])
    low, high = conformal.interval(prediction)
    assert low.tolist() == [-0.5, 2.0, 28.5]
    assert high.tolist() == [1.5, 4.0, 30.5]
    low_raw, high_raw = conformal.interval_raw(prediction)
    assert low_raw.tolist() == to_raw(low).tolist()
    assert high_raw.tolist() == to_raw(high).tolist()
    assert low_raw[0] == 0


@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (20, 0.8), (50, 0.9), (5, 0.9)])
def test_coverage_is_guaranteed_for_any_distribution(n, level):
    """Over draws of n + 1 exchangeable rows the new one is covered as often as is promised."""
    rng = np.random.default_rng([n, int(level * 100)])
    repeats = 4000
    for draw in (rng.standard_normal, rng.standard_cauchy, rng.standard_exponential):
        residuals = draw((repeats, n + 1))
        fitted = [SplitConformal.fit(row[:-1], level) for row in residuals]
        inside = np.mean(
            [abs(r) <= c.half_width for r, c in zip(residuals[:, -1], fitted, strict=True)]
        )
        promised = fitted[0].attained_level
        # Continuous residuals reach the promised level and no more: 4 standard errors around it.
        assert abs(inside - promised) < 4 * math.sqrt(promised * (1 - promised) / repeats)


def test_coverage_counts_the_ends():
    ends = np.array([1.0, 1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0, 2.0])
    assert coverage(np.array([1.0, 2.0, 0.999, 2.001]), *ends) == 0.5


def test_coverage_of_the_fitted_rows_is_at_least_nominal():
    residuals = np.random.default_rng(0).standard_normal(100)
    conformal = SplitConformal.fit(residuals, 0.9)
    prediction = np.zeros(100)
    assert coverage(prediction + residuals, *conformal.interval(prediction)) == 0.91


@given(RESIDUALS, st.floats(0.01, 0.99))
def test_fields_survive_json_bit_by_bit(residuals, level):
    fitted = SplitConformal.fit(np.array(residuals), level)
    assert SplitConformal.from_fields(json.loads(json.dumps(fitted.to_fields()))) == fitted


def test_fields_that_are_none_are_refused():
    fields = SplitConformal.fit(np.arange(9.0), 0.9).to_fields()
    wrong = [
        {k: v for k, v in fields.items() if k != "half_width"},
        fields | {"half_width": "wide"},
        fields | {"half_width": float("nan")},
        fields | {"half_width": -1.0},
        fields | {"nominal": 90},
        fields | {"n": 0},
        [],
    ]
    for case in wrong:
        with pytest.raises(ValueError, match="not a prediction interval"):
            SplitConformal.from_fields(case)


@pytest.mark.parametrize("level", [0, 1, -0.1, 90, math.nan])
def test_impossible_coverages_are_refused(level):
    with pytest.raises(ValueError, match="must be between 0 and 1: found"):
        SplitConformal.fit(np.arange(9.0), level)


@pytest.mark.parametrize("residuals", [[], [1.0, math.nan], [math.inf], [[1.0], [2.0]]])
def test_unusable_residuals_are_refused(residuals):
    with pytest.raises(ValueError, match="finite residuals of at least one row"):
        SplitConformal.fit(np.array(residuals, dtype=float), 0.9)


def test_unusable_predictions_and_ends_are_refused():
    conformal = SplitConformal.fit(np.arange(9.0), 0.9)
    with pytest.raises(ValueError, match="prediction_log must be finite"):
        conformal.interval(np.array([1.0, np.nan]))
    one, two = np.ones(1), np.ones(2)
    with pytest.raises(ValueError, match="found 2 targets, 1 lower and 2 upper ends"):
        coverage(two, one, two)
    with pytest.raises(ValueError, match="found 0 targets"):
        coverage(one[:0], one[:0], one[:0])
    with pytest.raises(ValueError, match="found NaN"):
        coverage(one, one * np.nan, one)
