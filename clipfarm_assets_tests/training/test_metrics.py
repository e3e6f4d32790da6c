import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.training.config import RANK_METRICS
from clipfarm_assets.training.metrics import (
    better,
    rank_key,
    regression_metrics,
    slices,
    to_raw,
)

LOG_VIEWS = st.floats(0, 30)
ANY_LOG = st.floats(-1e6, 1e6)


def plain_raw(value):
    return max(math.expm1(min(max(value, -20.0), 30.0)), 0.0)


def plain_metrics(target, prediction):
    n = len(target)
    mean = sum(target) / n
    errors = [p - t for t, p in zip(target, prediction, strict=True)]
    raw = [plain_raw(p) - math.expm1(t) for t, p in zip(target, prediction, strict=True)]
    spread = sum((t - mean) ** 2 for t in target)
    return {
        "rmse_log": math.sqrt(sum(e**2 for e in errors) / n),
        "mae_log": sum(abs(e) for e in errors) / n,
        "r2_log": 1 - sum(e**2 for e in errors) / spread if len(set(target)) > 1 else None,
        "rmse_raw": math.sqrt(sum(e**2 for e in raw) / n),
        "mae_raw": sum(abs(e) for e in raw) / n,
    }


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            assert type(found[name]) is float
            assert math.isclose(found[name], value, rel_tol=1e-9, abs_tol=1e-9), name


# Views, so that two targets are equal or differ by more than the rounding of their mean.
VIEWS = st.integers(0, 10**4) | st.just(10**13)


@given(st.lists(st.tuples(VIEWS.map(math.log1p), ANY_LOG), min_size=1))
def test_metrics_are_the_plain_formulas(pairs):
    target, prediction = map(list, zip(*pairs, strict=True))
    found = regression_metrics(np.array(target), np.array(prediction))
    assert_same(found, plain_metrics(target, prediction))
    assert tuple(found) == RANK_METRICS


def test_metrics_of_a_known_case():
    target = np.log1p([0.0, 3.0, 8.0])
    found = regression_metrics(target, np.log1p([1.0, 3.0, 6.0]))
    assert found["mae_raw"] == pytest.approx((1 + 0 + 2) / 3)
    assert found["rmse_raw"] == pytest.approx(math.sqrt(5 / 3))
    assert found["mae_log"] == pytest.approx((math.log(2) + math.log(9 / 7)) / 3)


def test_perfect_predictions_and_the_mean():
    target = np.array([1.0, 2.0, 6.0])
    assert regression_metrics(target, target) == {
        "rmse_log": 0,
        "mae_log": 0,
        "r2_log": 1,
        "rmse_raw": 0,
        "mae_raw": 0,
    }
    mean = regression_metrics(target, np.full(3, 3.0))
    assert mean["r2_log"] == 0
    assert mean["rmse_log"] == pytest.approx(statistics.pstdev(target))


@pytest.mark.parametrize("target", [[3.0], [0.1] * 7, [0.0, 0.0]])
def test_r2_of_a_constant_target_is_none(target):
    target = np.array(target)
    found = regression_metrics(target, target + 1)
    assert found["r2_log"] is None
    assert found["rmse_log"] == pytest.approx(1)


@given(ANY_LOG)
def test_inversion(value):
    assert to_raw(np.array([value]))[0] == pytest.approx(plain_raw(value), rel=1e-12)


def test_inversion_is_clipped_and_floored():
    raw = to_raw(np.array([-1e300, -20.0, -1e-9, 0.0, math.log(8), 30.0, 1e300]))
    assert raw[:4].tolist() == [0, 0, 0, 0]
    assert raw[4] == pytest.approx(7)
    assert raw[5] == raw[6] == np.expm1(30.0)


def test_float32_predictions_are_measured_in_float64():
    target = np.array([20.0, 20.0, 21.0])
    prediction = (target + 1e-3).astype(np.float32)
    found = regression_metrics(target, prediction)
    assert_same(found, plain_metrics(target.tolist(), [float(p) for p in prediction]))


@given(st.lists(st.tuples(LOG_VIEWS, LOG_VIEWS, st.booleans())))
def test_slices_are_the_metrics_of_their_rows(rows):
    target, prediction, present = (
        np.array([row[k] for row in rows], dtype=dtype)
        for k, dtype in enumerate((np.float64, np.float64, np.bool_))
    )
    found = slices(target, prediction, present)
    assert list(found) == ["text_present_1", "text_present_0"]
    for name, kept in (("text_present_1", present), ("text_present_0", ~present)):
        assert found[name].pop("n") == kept.sum()
        if kept.any():
            assert found[name] == regression_metrics(target[kept], prediction[kept])
        else:
            assert found[name] == dict.fromkeys(RANK_METRICS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_not_finite_are_refused(bad):
    target = np.array([1.0, 2.0, 3.0])
    prediction = np.array([1.0, bad, 3.0])
    with pytest.raises(ValueError, match="prediction_log must be finite: 1 of 3 values are not"):
        regression_metrics(target, prediction)
    with pytest.raises(ValueError, match="target_log must be finite: 1 of 3 values are not"):
        regression_metrics(prediction, target)
    with pytest.raises(ValueError, match="prediction_log must be finite"):
        to_raw(prediction)
    with pytest.raises(ValueError, match="prediction_log must be finite"):
        slices(target, prediction, np.ones(3, dtype=bool))


def test_bad_shapes_are_refused():
    three, two = np.ones(3), np.ones(2)
    with pytest.raises(ValueError, match="found 2 predictions and 3 targets"):
        regression_metrics(three, two)
    with pytest.raises(ValueError, match="at least one row: found none"):
        regression_metrics(three[:0], three[:0])
    with pytest.raises(ValueError, match=r"one axis: found shape \(3, 1\)"):
        regression_metrics(three, three[:, None])
    with pytest.raises(ValueError, match=r"text_present must be bool \(3,\): found float64"):
        slices(three, three, three)


def test_targets_in_views_are_refused():
    with pytest.raises(
        ValueError, match=r"must be log1p\(views\), at most 30: found 1234; is it in"
    ):
        regression_metrics(np.array([1234.0, 2.0]), np.array([1.0, 2.0]))


def test_ranking():
    assert better("r2_log", 0.5, 0.4)
    assert not better("r2_log", 0.4, 0.5)
    for metric in set(RANK_METRICS) - {"r2_log"}:
        assert better(metric, 1.0, 2.0)
        assert not better(metric, 2.0, 1.0)
    for metric in RANK_METRICS:
        assert better(metric, -5.0, None)
        assert better(metric, 5.0, None)
        assert better(metric, 5.0, math.nan)
        assert not better(metric, None, 1.0)
        assert not better(metric, None, None)
        assert not better(metric, 1.0, 1.0)
    assert sorted([None, 0.1, 0.9, -2.0], key=rank_key("r2_log")) == [0.9, 0.1, -2.0, None]
    assert sorted([None, 3.0, 1.0], key=rank_key("mae_raw")) == [1.0, 3.0, None]
