"""Each metric is what a plain loop makes it, and what scikit-learn does."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.training.classification import metrics
from clipfarm_assets.training.classification.metrics import (
    METRICS,
    calibration_bins,
    classification_metrics,
    confusion_matrix,
    ece,
)
from clipfarm_assets_tests.training.classification.kit import plain_metrics, rows


def assert_close(found, expected):
    assert list(found) == list(METRICS)
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            assert type(found[name]) is float, name
            assert math.isclose(found[name], value, rel_tol=1e-9, abs_tol=1e-12), name


@given(
    n=st.integers(1, 30),
    classes=st.integers(2, 4),
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
)
def test_metrics_are_the_plain_loops(n, classes, seed, ties):
    labels, values = rows(n, classes, seed=seed, ties=ties)
    assert_close(classification_metrics(labels, values), plain_metrics(labels, values))


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.7, 1.0])
def test_the_threshold_decides_classes_and_no_probabilities(threshold):
    labels, values = rows(60, seed=4)
    found = classification_metrics(labels, values, threshold)
    assert_close(found, plain_metrics(labels, values, threshold))
    neutral = classification_metrics(labels, values)
    assert [name for name in METRICS if found[name] != neutral[name]] == ["accuracy", "macro_f1"]


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_those_of_scikit_learn(classes, ties):
    from sklearn import metrics as sk

    labels, values = rows(200, classes, seed=classes, ties=ties)
    predicted = values.argmax(axis=1) if classes > 2 else (values[:, 1] >= 0.5).astype(int)
    scores = values[:, 1] if classes == 2 else values
    found = classification_metrics(labels, values)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "auroc": sk.roc_auc_score(labels, scores, multi_class="ovr"),
        "brier": sk.brier_score_loss(labels, values, labels=range(classes)),
        "nll": sk.log_loss(labels, values),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    np.testing.assert_array_equal(
        confusion_matrix(labels, predicted, classes), sk.confusion_matrix(labels, predicted)
    )


def test_a_class_that_is_nowhere_is_no_class_as_in_scikit_learn():
    from sklearn.metrics import f1_score

    for labels, predicted in [([0, 0], [0, 0]), ([0, 2, 2], [2, 2, 2]), ([1, 1], [0, 0])]:
        expected = f1_score(labels, predicted, average="macro", zero_division=0)
        assert metrics.macro_f1(labels, predicted) == expected


def test_calibration_by_hand():
    # Confidences 0.9, 0.9, 0.9, 0.6; right, right, wrong, right.
    values = [[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]]
    labels = [1, 0, 1, 1]
    assert ece(labels, values) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * (1 - 0.6))
    bins = calibration_bins(labels, values)
    assert bins.counts.tolist() == [0] * 8 + [1] + [0] * 4 + [3, 0]
    assert bins.accuracy[13] == pytest.approx(2 / 3)
    assert bins.confidence[13] == pytest.approx(0.9)
    assert np.isnan(bins.accuracy[0])
    assert ece(labels, values, bins=1) == pytest.approx(abs(3.3 / 4 - 3 / 4))


def test_the_upper_edge_is_of_its_bin():
    # 0.8 is an edge of five bins, 1.0 the last edge of all.
    bins = calibration_bins([0, 0], [[0.8, 0.2], [1.0, 0.0]], bins=5)
    assert bins.counts.tolist() == [0, 0, 0, 1, 1]


def test_sure_and_right_or_sure_and_wrong_are_the_ends():
    right, wrong = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]
    best = classification_metrics([0, 1], right)
    assert best == {
        "accuracy": 1.0, "macro_f1": 1.0, "auroc": 1.0, "ece": 0.0, "brier": 0.0, "nll": 0.0,
    }  # fmt: skip
    worst = classification_metrics([0, 1], wrong)
    assert worst["nll"] == pytest.approx(-math.log(np.finfo(np.float64).eps)), "finite"
    del worst["nll"]
    assert worst == {"accuracy": 0.0, "macro_f1": 0.0, "auroc": 0.0, "ece": 1.0, "brier": 1.0}


@pytest.mark.parametrize("label", [0, 1])
def test_of_one_class_there_is_no_auroc_and_the_rest_holds(label):
    _, values = rows(20, seed=9)
    labels = np.full(20, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(labels, values)
    assert_close(found, plain_metrics(labels, values))
    assert found["auroc"] is None


def test_of_three_classes_a_missing_one_leaves_no_auroc():
    labels, values = rows(30, 3, seed=2)
    assert classification_metrics(np.where(labels == 2, 1, labels), values)["auroc"] is None


def test_the_order_of_rows_does_not_matter():
    labels, values = rows(50, 3, seed=6, ties=True)
    order = np.random.default_rng(0).permutation(50)
    found = classification_metrics(labels, values)
    again = classification_metrics(labels[order], values[order])
    assert found == pytest.approx(again, rel=1e-12)
