"""Intervals are those of the plain bootstrap on the same draws, and hold what they promise."""

import numpy as np
import pytest

from clipfarm_assets.training.classification import confidence
from clipfarm_assets.training.classification.confidence import (
    Difference,
    Interval,
    group_codes,
    intervals,
    paired_macro_f1,
    resample_counts,
)
from clipfarm_assets.training.classification.metrics import METRICS, classification_metrics
from clipfarm_assets.training.classification.values import predicted_classes
from clipfarm_assets_tests.training.classification.kit import (
    plain_macro_f1,
    plain_metrics,
    rows,
)

R = 40


def grouped(n, seed=1):
    """Names of groups of one to many rows, not in the order of rows."""
    rng = np.random.default_rng(seed)
    return [f"g{code}" for code in (rng.random(n) ** 2 * n / 3).astype(int)]


def plain_resamples(groups, resamples, seed):
    """Row numbers of each resample: whole groups, one after the other."""
    names = sorted(set(groups))
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = [names[int(rng.random() * len(names))] for _ in names]
        yield [i for name in drawn for i, group in enumerate(groups) if group == name]


@pytest.mark.parametrize(("classes", "ties"), [(2, False), (2, True), (3, True)])
def test_intervals_are_those_of_the_plain_bootstrap(classes, ties):
    labels, values = rows(45, classes, seed=7, ties=ties)
    groups = grouped(45)
    threshold = 0.4 if classes == 2 else None
    found = intervals(labels, values, groups, threshold=threshold, resamples=R, seed=3, level=0.8)
    drawn = [
        plain_metrics(labels[index], values[index], threshold or 0.5)
        for index in plain_resamples(groups, R, 3)
    ]
    whole = classification_metrics(labels, values, threshold)
    assert list(found) == list(METRICS)
    for name in METRICS:
        there = [row[name] for row in drawn if row[name] is not None]
        low, high = np.quantile(there, [0.1, 0.9])
        assert found[name].value == whole[name]
        assert found[name].resamples == len(there)
        assert found[name].low == pytest.approx(low, rel=1e-9), name
        assert found[name].high == pytest.approx(high, rel=1e-9), name
        assert low < high


@pytest.mark.parametrize("classes", [2, 4])
def test_the_paired_difference_is_that_of_the_plain_bootstrap(classes):
    labels, values = rows(50, classes, seed=11)
    a = predicted_classes(values)
    b = predicted_classes(rows(50, classes, seed=12)[1])
    groups = grouped(50, seed=2)
    found = paired_macro_f1(labels, a, b, groups, resamples=R, seed=5, level=0.9)
    drawn = [
        plain_macro_f1(labels[i].tolist(), a[i].tolist())
        - plain_macro_f1(labels[i].tolist(), b[i].tolist())
        for i in plain_resamples(groups, R, 5)
    ]
    low, high = np.quantile(drawn, [0.05, 0.95])
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    assert found.mean == pytest.approx(np.mean(drawn))
    assert (found.resamples, found.groups, found.level) == (R, len(set(groups)), 0.9)
    whole = plain_macro_f1(labels.tolist(), a.tolist())
    assert found.value == pytest.approx(whole - plain_macro_f1(labels.tolist(), b.tolist()))


def test_blocks_do_not_change_the_draws(monkeypatch):
    labels, values = rows(30, seed=1)
    whole = intervals(labels, values, resamples=50, seed=9)
    monkeypatch.setattr(confidence, "_CELLS", 7 * 30)
    assert len(list(resample_counts(30, 50, 9))) == 8
    assert intervals(labels, values, resamples=50, seed=9) == whole


def test_resamples_hold_as_many_groups_as_there_are_and_differ_by_the_seed():
    counts = np.concatenate(list(resample_counts(25, 400, 1)))
    assert counts.shape == (400, 25)
    assert (counts.sum(axis=1) == 25).all()
    # Binomial(25, 1/25): mean 1, variance 24/25; four standard errors of 400 draws.
    assert np.abs(counts.mean(axis=0) - 1).max() < 4 * np.sqrt(0.96 / 400)
    assert not np.array_equal(counts, np.concatenate(list(resample_counts(25, 400, 2))))


def test_rows_and_groups_may_come_in_any_order():
    labels, values = rows(40, seed=3)
    groups = np.array(grouped(40))
    order = np.random.default_rng(1).permutation(40)
    a = paired_macro_f1(labels, predicted_classes(values), labels * 0, groups, resamples=R)
    b = paired_macro_f1(
        labels[order],
        predicted_classes(values)[order],
        labels * 0,
        groups[order],
        resamples=R,
    )
    assert a == b


def test_rows_of_a_group_count_as_one_draw():
    """Every row ten times over tells no more than once, if the copies are a group."""
    labels, values = rows(40, seed=5)
    once = intervals(labels, values, [f"{i:02d}" for i in range(40)], resamples=R)
    tenfold = intervals(
        np.repeat(labels, 10),
        np.repeat(values, 10, axis=0),
        np.repeat([f"{i:02d}" for i in range(40)], 10),
        resamples=R,
    )
    apart = intervals(np.repeat(labels, 10), np.repeat(values, 10, axis=0), resamples=R)
    for name in METRICS:
        assert tenfold[name].low == pytest.approx(once[name].low)
        assert tenfold[name].high == pytest.approx(once[name].high)
    width = once["accuracy"].high - once["accuracy"].low
    assert apart["accuracy"].high - apart["accuracy"].low < width / 2


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Accuracy and AUROC of draws from a law whose values are known."""
    rng = np.random.default_rng(8)
    held = dict.fromkeys(("accuracy", "auroc", "macro_f1"), 0)
    trials, n = 120, 120
    truth = {"accuracy": 0.8, "auroc": 0.8, "macro_f1": 0.8}
    for trial in range(trials):
        labels = rng.integers(2, size=n)
        is_right = rng.random(n) < 0.8
        score = np.where(is_right, labels, 1 - labels) * 0.6 + 0.2
        found = intervals(
            labels, np.column_stack([1 - score, score]), resamples=200, seed=trial, level=0.9
        )
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    # 0.9 +- four standard errors of 120 trials is 0.79 to 1; percentile intervals run a bit low.
    assert all(0.79 <= count / trials <= 0.98 for count in held.values()), held


def test_a_model_like_the_other_is_seldom_better_and_a_better_one_is():
    rng = np.random.default_rng(2)
    better = equal = 0
    for trial in range(60):
        labels = rng.integers(2, size=150)

        def model(share, labels=labels):
            return np.where(rng.random(150) < share, labels, 1 - labels)

        same = paired_macro_f1(labels, model(0.7), model(0.7), resamples=200, seed=trial)
        apart = paired_macro_f1(labels, model(0.95), model(0.6), resamples=200, seed=trial)
        equal += same.is_better
        better += apart.is_better
    assert equal <= 7, "one in forty by chance"
    assert better == 60


def test_a_draw_is_no_win():
    labels, values = rows(30, seed=1)
    predicted = predicted_classes(values)
    found = paired_macro_f1(labels, predicted, predicted, resamples=R)
    assert found == Difference(0.0, 0.0, 0.0, 0.0, R, 30, 0.95, better=0, worse=0, sign_p=1.0)
    assert not found.is_better


def one_better_than(labels, better, worse):
    """Predictions of two models that are both wrong but for the first rows."""
    a, b = 1 - labels, 1 - labels
    a[:better] = labels[:better]
    b[better : better + worse] = labels[better : better + worse]
    return a, b


def test_the_sign_test_is_scipys_of_the_groups_where_models_differ():
    """Of the rows of a group together: what one is right more often in is its."""
    binomtest = pytest.importorskip("scipy.stats").binomtest
    labels, _ = rows(40, seed=6)
    for better, worse in [(1, 0), (6, 0), (9, 1), (9, 2), (4, 9), (0, 3)]:
        a, b = one_better_than(labels, better, worse)
        found = paired_macro_f1(labels, a, b, resamples=R)
        expected = binomtest(better, better + worse, alternative="greater").pvalue
        assert (found.better, found.worse) == (better, worse)
        assert found.sign_p == pytest.approx(expected)
    a, b = one_better_than(labels, 6, 2)
    together = paired_macro_f1(labels, a, b, ["one"] * 4 + ["two"] * 4 + ["three"] * 32)
    assert (together.better, together.worse) == (1, 0), "4 against 0, and 2 against 2"


@pytest.mark.parametrize(("groups", "wins"), [(5, False), (6, True)])
def test_a_handful_of_groups_is_no_proof_however_sure_the_bootstrap_is(groups, wins):
    """Five coins that all fall on one side do so once in 32 times, which is not 2.5%."""
    labels = np.arange(groups) % 2
    found = paired_macro_f1(labels, labels, 1 - labels, resamples=R)
    assert found.low == 1.0
    assert found.sign_p == pytest.approx(0.5**groups)
    assert found.is_better is wins


def test_of_equal_models_a_tiny_set_seldom_says_one_is_better():
    """No more often than the level allows; the bootstrap alone says so far more often."""
    rng = np.random.default_rng(3)
    labels = np.tile([0, 1], 4)
    wins = bootstrap_alone = 0
    for trial in range(400):
        a, b = (np.where(rng.random(8) < 0.7, labels, 1 - labels) for _ in range(2))
        found = paired_macro_f1(labels, a, b, resamples=100, seed=trial)
        wins += found.is_better
        bootstrap_alone += found.low > 0
    assert wins <= 0.025 * 400 < bootstrap_alone


def test_one_group_tells_nothing_of_others():
    labels, values = rows(10, seed=1)
    groups = ["only"] * 10
    found = intervals(labels, values, groups, resamples=R)
    for name, value in classification_metrics(labels, values).items():
        assert found[name] == Interval(value, None, None, R)
    difference = paired_macro_f1(labels, labels, 1 - labels, groups, resamples=R)
    assert (difference.value, difference.low, difference.high) == (1.0, -1.0, 1.0)
    assert not difference.is_better


def test_resamples_without_an_auroc_are_left_out_and_counted():
    labels = np.array([1] + [0] * 9)
    _, values = rows(10, seed=3)
    found = intervals(labels, values, resamples=200, seed=1)["auroc"]
    expected = sum(
        bool(counts[0]) and counts[0] < 10
        for counts in np.concatenate([*resample_counts(10, 200, 1)])
    )
    assert found.resamples == expected
    assert 80 < expected < 160, "1 - (9/10)^10 is 0.65"
    assert found.low is not None


def test_of_one_class_there_is_no_interval_of_auroc():
    _, values = rows(12, seed=4)
    found = intervals(np.zeros(12, dtype=int), values, resamples=R)
    assert found["auroc"] == Interval(None, None, None, 0)
    assert found["nll"].low < found["nll"].high


REFUSED = {
    "groups": (
        lambda: intervals([0, 1], [[0.5, 0.5]] * 2, ["a"]),
        "one group a row: found 1 groups of 2 rows",
    ),
    "resamples": (lambda: paired_macro_f1([0], [0], [0], resamples=0), "at least one resample"),
    "level": (lambda: paired_macro_f1([0], [0], [0], level=1.0), "between 0 and 1: found 1.0"),
    "lengths": (lambda: paired_macro_f1([0, 1], [0, 1], [0]), "found 1 labels of 2 rows"),
    "NaN": (lambda: paired_macro_f1([0, 1], [0, np.nan], [0, 1]), "integers"),
    "empty": (lambda: paired_macro_f1([], [], []), "at least one row"),
    "empty intervals": (lambda: intervals([], np.empty((0, 2))), "at least one row"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_resampled_is_refused(name):
    act, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        act()


def test_groups_are_numbered_by_name():
    codes, count = group_codes(["b", "a", "b"], 3)
    assert (codes.tolist(), count) == ([1, 0, 1], 2)
    codes, count = group_codes(None, 3)
    assert (codes.tolist(), count) == ([0, 1, 2], 3)
