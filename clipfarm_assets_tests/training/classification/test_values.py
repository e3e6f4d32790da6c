"""What is no label, logit or probability is refused with what was expected and found."""

import numpy as np
import pytest

from clipfarm_assets.training.classification.metrics import classification_metrics
from clipfarm_assets.training.classification.values import (
    class_labels,
    class_logits,
    class_probabilities,
    predicted_classes,
    probabilities,
)

HALVES = [[0.5, 0.5], [0.5, 0.5]]


def test_probabilities_are_the_softmax_whatever_the_size_of_logits():
    from scipy.special import softmax

    logits = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) * 30
    for temperature in (0.05, 1.0, 7.0):
        found = probabilities(logits, temperature)
        assert found.dtype == np.float64
        np.testing.assert_allclose(
            found, softmax(logits.astype(np.float64) / temperature, axis=1), rtol=1e-12, atol=1e-300
        )
        class_probabilities(found)
    assert probabilities([[1e30, 0.0]]).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_one_logit_is_that_of_class_1(shape):
    logits = np.linspace(-3, 3, 5)
    found = probabilities(logits.reshape(shape))
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-15)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_a_row_does_not_depend_on_the_others():
    logits = np.random.default_rng(3).normal(size=(301, 2)) * 5
    whole = probabilities(logits, 1.7)
    for size in (1, 3, 8, 64):
        parts = [probabilities(logits[start : start + size], 1.7) for start in range(0, 301, size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_of_two_classes_the_threshold_itself_is_class_1():
    values = [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]
    assert predicted_classes(values).tolist() == [0, 1, 1]
    assert predicted_classes(values, 0.75).tolist() == [0, 0, 1]
    assert predicted_classes(values, 0.25).tolist() == [1, 1, 1]
    assert predicted_classes([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]]).tolist() == [0, 1]


REFUSED = {
    "no rows": (lambda: classification_metrics([], np.empty((0, 2))), "at least one row"),
    "no labels": (lambda: class_labels([], 2), r"at least one row: found shape \(0,\)"),
    "one column": (lambda: class_probabilities([[1.0]]), "two classes: found shape"),
    "NaN probability": (
        lambda: classification_metrics([0, 1], [[0.5, 0.5], [np.nan, 0.5]]),
        "probabilities must be finite: 1 of 2 rows are not",
    ),
    "logits for probabilities": (
        lambda: class_probabilities([[2.0, -1.0]]),
        "from -1 to 2.*are they logits",
    ),
    "no sum": (lambda: class_probabilities([[0.2, 0.3]]), "sum to 1 in each row"),
    "NaN logit": (lambda: class_logits([[0.0, np.nan], [0.0, 1.0]]), "1 of 2 rows are not"),
    "infinite logit": (lambda: class_logits([[0.0, np.inf]]), "must be finite"),
    "empty logits": (lambda: class_logits(np.empty((0, 2))), r"found shape \(0, 2\)"),
    "cube of logits": (lambda: class_logits(np.zeros((2, 2, 2))), r"found shape \(2, 2, 2\)"),
    "float labels": (lambda: class_labels([0.0, 1.0], 2), "integers.*found dtype float64"),
    "NaN label": (lambda: class_labels([0, np.nan], 2), "integers.*found dtype float64"),
    "unlabelled": (lambda: class_labels([0, -1], 2), "from 0 to 1, of 2 classes: found -1 to 0"),
    "unknown class": (lambda: classification_metrics([0, 2], HALVES), "found 0 to 2"),
    "too few labels": (
        lambda: classification_metrics([0], HALVES),
        "one label a row: found 1 labels of 2 rows",
    ),
    "threshold above 1": (lambda: predicted_classes(HALVES, 1.5), "from 0 to 1: found 1.5"),
    "threshold NaN": (lambda: predicted_classes(HALVES, float("nan")), "found nan"),
    "threshold of three": (
        lambda: predicted_classes([[0.2, 0.3, 0.5]], 0.5),
        "for two classes: found 3",
    ),
    "temperature 0": (lambda: probabilities([[0.0, 1.0]], 0.0), "above 0 and finite: found 0.0"),
    "temperature NaN": (lambda: probabilities([[0.0, 1.0]], float("nan")), "found nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_judged_is_refused(name):
    act, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        act()
