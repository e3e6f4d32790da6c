"""A temperature or a threshold is the best there is, or neutral with the reason why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.training.classification.calibration import (
    COLDEST,
    HOTTEST,
    Threshold,
    best_threshold,
    fit_temperature,
)
from clipfarm_assets.training.classification.metrics import ece, nll
from clipfarm_assets.training.classification.values import probabilities
from clipfarm_assets_tests.training.classification.kit import plain_macro_f1, rows


def planted(temperature, n=6000, classes=2, seed=0):
    """Labels drawn by the probabilities of logits / temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2 * temperature, size=(n, classes))
    values = probabilities(logits, temperature)
    labels = (rng.random((n, 1)) > values.cumsum(axis=1)).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_a_planted_temperature_is_found(temperature, classes):
    logits, labels = planted(temperature, classes=classes)
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(temperature, rel=0.08)
    assert (found.rows, found.why_neutral) == (6000, "")
    assert found.nll_after <= found.nll_before
    assert found.ece_after < 0.03
    if temperature != 1.0:
        assert found.ece_after < found.ece_before / 3
    after = probabilities(logits, found.value)
    assert found.nll_after == pytest.approx(nll(labels, after), rel=1e-9)
    assert found.ece_after == ece(labels, after)
    assert found.ece_before == ece(labels, probabilities(logits))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("seed", range(4))
def test_no_temperature_of_a_fine_grid_is_better(scale, seed):
    from scipy.special import log_softmax

    logits, labels = planted(1.5, n=60, seed=seed)
    found = fit_temperature(logits * scale, labels)
    assert not found.why_neutral
    assert COLDEST <= found.value <= HOTTEST * (1 + 1e-12)
    grid = np.geomspace(COLDEST, HOTTEST, 400)
    rows_of_label = np.arange(60), labels
    best = min(-log_softmax(logits * scale / t, axis=1)[rows_of_label].mean() for t in grid)
    assert found.nll_after <= best + 1e-9


def test_one_logit_a_row_is_calibrated_as_two():
    logits, labels = planted(2.0, n=500)
    single = logits[:, 1] - logits[:, 0]
    one, two = fit_temperature(single, labels), fit_temperature(logits, labels)
    assert one.value == pytest.approx(two.value, rel=1e-5)


def test_rows_that_are_all_right_have_no_best_temperature():
    logits = np.array([[3.0, 0.0], [0.0, 0.1], [1.0, 0.5]])
    found = fit_temperature(logits, [0, 1, 0])
    assert found.value == 1.0
    assert "every row is right" in found.why_neutral
    assert found.nll_after == found.nll_before
    assert found.ece_after == found.ece_before
    # What is said is so: colder is always better.
    losses = [nll([0, 1, 0], probabilities(logits, t)) for t in (1, 0.5, 0.2, 0.1, 0.05)]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("labels", [[1, 0, 1], [0, 0, 0]])
def test_rows_that_tell_nothing_have_no_best_temperature(labels):
    logits = np.array([[3.0, 0.0], [-1.0, 0.1], [1.0, 0.5]]) if labels[0] else np.zeros((3, 2))
    found = fit_temperature(logits, labels)
    assert found.value == 1.0
    assert "hot enough" in found.why_neutral
    losses = [nll(labels, probabilities(logits, t)) for t in (1, 3, 10, 100)]
    assert losses == sorted(losses, reverse=True)


def test_one_class_alone_is_calibrated_if_some_are_wrong():
    found = fit_temperature([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 0])
    assert not found.why_neutral
    assert found.nll_after <= found.nll_before


def plain_best(labels, scores):
    """The best macro-F1 of any threshold in [0, 1]."""
    cuts = [0.0, 0.5, 1.0, *scores, *(np.nextafter(s, 1) for s in scores)]
    found = [plain_macro_f1(labels, [int(s >= cut) for s in scores]) for cut in cuts if cut <= 1]
    return max(found)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]) | st.floats(0, 1)),
        min_size=1,
        max_size=14,
    )
)
def test_the_threshold_is_the_best_of_all(pairs):
    labels, scores = [t for t, _ in pairs], np.array([s for _, s in pairs])
    values = np.column_stack([1 - scores, scores])
    found = best_threshold(labels, values)
    assert 0 <= found.value <= 1
    reached = plain_macro_f1(labels, [int(s >= found.value) for s in scores])
    neutral = plain_macro_f1(labels, [int(s >= 0.5) for s in scores])
    assert found.macro_f1_after == pytest.approx(reached, rel=1e-12)
    assert found.macro_f1_before == pytest.approx(neutral, rel=1e-12)
    if len(set(labels)) == 1:
        assert found.value == 0.5
        assert "one class" in found.why_neutral
    else:
        assert not found.why_neutral
        assert found.macro_f1_after == pytest.approx(plain_best(labels, scores), rel=1e-12)


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken():
    def threshold(labels, scores):
        scores = np.array(scores)
        return best_threshold(labels, np.column_stack([1 - scores, scores])).value

    assert threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == 0.5, "parts them already"
    assert threshold([0, 0, 1, 1], [0.1, 0.2, 0.5, 0.9]) == 0.5, "itself is class 1"
    assert threshold([0, 0, 1, 1], [0.1, 0.2, 0.4, 0.9]) == pytest.approx(0.3), "midway"
    assert threshold([0, 0, 1, 1], [0.6, 0.7, 0.9, 1.0]) == pytest.approx(0.8)
    # 0.3 and 0.85 part equally well, of the same macro-F1; the second is further off.
    assert threshold([0, 1, 0, 1], [0.2, 0.4, 0.8, 0.9]) == pytest.approx(0.3)


@pytest.mark.parametrize("steps", range(4))
def test_neighbouring_floats_are_parted(steps):
    low = 0.7
    for _ in range(steps):
        low = np.nextafter(low, 1)
    scores = np.array([low, np.nextafter(low, 1)])
    found = best_threshold([0, 1], np.column_stack([1 - scores, scores]))
    assert found.value == scores[1]
    assert found.macro_f1_after == 1.0


def test_a_threshold_helps_where_probabilities_are_off():
    labels, values = rows(400, seed=3, skill=3)
    shifted = probabilities(np.log(values) + np.array([2.0, 0.0]))
    found = best_threshold(labels, shifted)
    assert found.value < 0.4
    assert found.macro_f1_after > found.macro_f1_before + 0.02
    assert isinstance(found, Threshold)
    assert found.rows == 400


REFUSED = {
    "empty logits": (lambda: fit_temperature(np.empty((0, 2)), []), "at least one row"),
    "NaN logits": (lambda: fit_temperature([[np.nan, 1.0]], [0]), "must be finite"),
    "labels": (lambda: fit_temperature([[0.0, 1.0]], [2]), "found 2 to 2"),
    "three classes": (lambda: best_threshold([0], [[0.2, 0.3, 0.5]]), "two classes: found 3"),
    "empty": (lambda: best_threshold([], np.empty((0, 2))), "at least one row"),
    "NaN": (lambda: best_threshold([0], [[np.nan, 0.5]]), "must be finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_calibrated_is_refused(name):
    act, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        act()
