"""What is chosen on val is what probabilities and classes are made with, and survives JSON."""

import json

import numpy as np
import pytest

from clipfarm_assets.training.classification.calibrated import Calibration

RNG = np.random.default_rng(2)


def drawn(classes, rows=200):
    labels = RNG.integers(classes, size=rows)
    logits = 3 * RNG.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 4
    return logits, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_it_survives_json(classes):
    logits, labels = drawn(classes)
    found = Calibration.fit(logits, labels)
    again = Calibration.from_fields(json.loads(json.dumps(found.to_fields())))
    assert again == found
    values = again.probabilities(logits)
    assert values.sum(axis=1) == pytest.approx(np.ones(len(labels)))
    assert (again.predicted(values) == labels).mean() > 0.7
    assert (found.cut is None) == (classes == 3), "a threshold is of two classes alone"


def test_probabilities_are_those_under_the_temperature():
    logits, labels = drawn(3)
    found = Calibration.fit(logits, labels)
    exponents = np.exp(logits / found.temperature.value)
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    assert found.probabilities(logits) == pytest.approx(expected)


def test_other_fields_are_refused():
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration.from_fields({"temperature": {"value": 1.0}, "threshold": None})
