import numpy as np
import pytest

from clipfarm_assets.contracts import leakage_probe
from clipfarm_assets.contracts.leakage import AVAILABILITY
from clipfarm_assets.contracts.leakage_probe import (
    PROBED,
    Thresholds,
    probe,
    probe_vectors,
    probed,
)

N = 400


def views(n=N, seed=0):
    """Views as they are: heavy-tailed, whole, of clips without like counts some missing."""
    return np.round(np.expm1(np.random.default_rng(seed).normal(9.5, 1.4, n)))


def log_views(n=N):
    return np.log1p(views(n))


def noised(share, n=N, seed=1):
    log = log_views(n)
    return log + np.random.default_rng(seed).normal(0, share * log.std(), n)


def found(feature, forbidden=None, thresholds=leakage_probe.DEFAULT_THRESHOLDS):
    verdict = probe({"f": feature}, {"views": views() if forbidden is None else forbidden})
    assert verdict.examined == 1
    return [finding.subject for finding in verdict.findings]


LABELS = np.array(["few", "some", "many", "most"])

COPIES = {
    "renamed": views(),
    "rescaled": views() / 7.5 + 3,
    "log": log_views(),
    "negative": -views(),
    "reciprocal": 1 / (1 + views()),
    "noised": noised(0.15),
    "noised in raw views": views() * np.random.default_rng(2).uniform(0.9, 1.1, N),
    "folded": np.abs(log_views() - log_views().mean()),
    "wave": np.sin(1.5 * log_views()),
    "above the median": views() > np.median(views()),
    "top tenth": (views() >= np.quantile(views(), 0.9)).astype(float),
    "rounded": np.round(log_views()),
    "labels of bins": [f"bin {x:.0f}" for x in np.round(2 * log_views())],
    "labels of quartiles": LABELS[np.digitize(views(), np.quantile(views(), [0.25, 0.5, 0.75]))],
    "label of popularity": ["hit" if x else "flop" for x in views() > np.median(views())],
    "half missing": np.where(np.arange(N) % 2, views(), np.nan),
    "labels, half missing": [f"{x:.0f}" if i % 2 else None for i, x in enumerate(log_views())],
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_catches_a_copy(copy):
    assert found(copy) == ["f ~ views"]


def test_catches_what_is_known_of_the_outcome_in_two_ways():
    """The outcome is a fold of the feature: the feature gives it back, not the other way round."""
    feature = np.random.default_rng(3).normal(0, 1, N)
    assert found(feature, np.abs(feature)) == ["f ~ views"]


@pytest.mark.parametrize("transform", [np.exp, lambda x: x**3, lambda x: 10 - x, np.arctan])
def test_a_monotone_transform_changes_no_measure(transform):
    feature, outcome = noised(0.4), log_views()
    plain = probe({"f": feature}, {"y": outcome}).facts
    other = probe({"f": transform(feature - 9)}, {"y": outcome}).facts
    assert abs(other["strongest_rank_correlation"]) == pytest.approx(
        plain["strongest_rank_correlation"]
    )
    if transform(1.0) > transform(0.0):  # a falling one turns bins round: their bounds move
        assert other["strongest_r2"] == plain["strongest_r2"]


def test_passes_an_honest_good_feature():
    """Rank correlation 0.8: more than any single feature of the deployed pipeline had."""
    verdict = probe({"f": noised(0.7)}, {"views": views()})
    assert verdict.holds
    assert verdict.facts["strongest_rank_correlation"] == pytest.approx(0.8, abs=0.05)
    assert verdict.facts["strongest_rank_correlation_of"] == "f ~ views"


def test_passes_independent_features_of_every_sort():
    rng = np.random.default_rng(4)
    features = {
        "number": rng.normal(0, 1, N),
        "hour": rng.integers(0, 24, N),
        "flag": rng.random(N) < 0.02,
        "language": rng.choice(["en", "hi", "id", ""], N).tolist(),
        "one a row": [f"id{i}" for i in range(N)],
    }
    verdict = probe(features, {"views": views()})
    assert verdict.holds
    assert verdict.examined == 5


def test_noise_among_36_rows_is_never_a_copy():
    """The demo's size. Discrete features are the danger: a rare value may fill a bin by chance."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        features = {
            "number": rng.normal(0, 1, 36),
            "count": rng.poisson(0.5, 36),
            "flag": rng.random(36) < 0.15,
            "country": rng.choice(["US", "IN", "ID", "BR", "DE", "FR"], 36).tolist(),
            "channel": rng.choice([f"c{i}" for i in range(15)], 36).tolist(),
            "rare": rng.choice(["a", "b"], 36, p=[0.9, 0.1]).tolist(),
        }
        verdict = probe(features, {"views": views(36, 10_000 + seed), "likes": rng.poisson(9, 36)})
        assert verdict.holds, verdict.summary()


def test_catches_copies_among_36_rows():
    few = views(36)
    features = {
        "renamed": few,
        "noised": np.log1p(few) + np.random.default_rng(0).normal(0, 0.2, 36),
        "negative": -few,
        "label": LABELS[np.digitize(few, np.quantile(few, [0.25, 0.5, 0.75]))].tolist(),
    }
    subjects = [finding.subject for finding in probe(features, {"views": few}).findings]
    assert subjects == [f"{name} ~ views" for name in features]


def test_catches_the_median_that_holds_half_of_the_views():
    """Of channels whose subscribers are few beside their views."""
    subscribers = np.random.default_rng(5).integers(0, 200, N)
    third = np.where(np.arange(N) % 3 == 0, subscribers + views() // 2, np.nan)
    assert found(third) == ["f ~ views"]


def test_a_leak_diluted_by_something_larger_is_left_to_the_contract():
    """Half of the views in a larger number looks like an honest good feature, to any such probe."""
    size = np.random.default_rng(6).normal(0, 1, N)
    log = 9.5 + 0.9 * size + np.random.default_rng(7).normal(0, 1.1, N)
    outcome = np.round(np.expm1(log))
    median = np.round(10 ** (4.5 + 0.8 * size)) + outcome // 2
    assert not found(median, outcome)
    assert AVAILABILITY["channel_median_shorts_view_count"].availability == "at_capture"


def test_what_cannot_be_judged_is_counted():
    few = np.where(np.arange(N) < 29, views(), np.nan)
    enough = np.where(np.arange(N) < 30, views(), np.nan)
    features = {
        "few": few,
        "enough": enough,
        "nothing": np.full(N, np.nan),
        "constant": np.ones(N),
        "one word": ["yes"] * N,
        "no word": [None, ""] * (N // 2),
    }
    verdict = probe(features, {"views": views(), "flat": np.zeros(N)})
    assert (verdict.examined, verdict.facts["not_examined"]) == (1, 11)
    assert [f.subject for f in verdict.findings] == ["enough ~ views"]


def test_rows_complete_on_both_sides_count_only():
    """Each is known where the other is not, but for 29 rows."""
    index = np.arange(N)
    feature = np.where(index < 229, views(), np.nan)
    forbidden = np.where(index >= 200, views(), np.nan)
    assert probe({"f": feature}, {"views": forbidden}).facts["not_examined"] == 1


def test_a_finding_says_what_was_measured():
    verdict = probe({"my_score": views()}, {"view_count": views()})
    (finding,) = verdict.findings
    assert str(finding) == (
        "my_score ~ view_count: rank correlation 1.0000 (limit ±0.95) and one-feature R2 "
        f"{verdict.facts['strongest_r2']:.4f} (limit 0.9) over 400 rows"
    )


def test_limits_are_inclusive_and_settable():
    verdict = probe({"f": noised(0.7)}, {"views": views()})
    reached = verdict.facts["strongest_rank_correlation"]
    strict = Thresholds(rank_correlation=reached, r2=2.0)
    assert not probe({"f": noised(0.7)}, {"views": views()}, strict).holds
    beyond = Thresholds(rank_correlation=np.nextafter(reached, 1), r2=2.0)
    assert probe({"f": noised(0.7)}, {"views": views()}, beyond).holds


def test_more_rows_than_the_sample_are_thinned_evenly_and_said_so():
    n = 10_001
    copy = views(n)
    copy[np.arange(n) % 3 != 0] = 0  # what is not in the sample doesn't matter
    verdict = probe({"f": copy}, {"views": views(n)})
    assert (verdict.facts["rows"], verdict.facts["stride"]) == (n, 3)
    assert verdict.facts["rows_examined"] == len(range(0, n, 3))
    assert [f.subject for f in verdict.findings] == ["f ~ views"]
    assert probe({"f": copy[:5000]}, {"views": views(n)[:5000]}).facts["stride"] == 1


def test_ranks_are_average_ranks():
    rng = np.random.default_rng(8)
    columns = rng.integers(0, 6, (50, 7)).astype(np.float32)
    plain = [
        [sum(x < y for x in column) + (sum(x == y for x in column) - 1) / 2 for y in column]
        for column in columns.T
    ]
    assert leakage_probe._ranks(columns).T.tolist() == plain


def test_r2_is_that_of_dummy_variables():
    rng = np.random.default_rng(10)
    groups, categories = rng.integers(0, 5, N), rng.integers(0, 9, N)
    categories[: N // 2] = groups[: N // 2]
    dummies = np.eye(5)[groups]
    limits = leakage_probe.DEFAULT_THRESHOLDS

    def plain(columns):
        fitted = dummies @ np.linalg.lstsq(dummies, columns, rcond=None)[0]
        unexplained = ((columns - fitted) ** 2).sum() / ((columns - columns.mean(0)) ** 2).sum()
        return 1 - unexplained * (N - 1) / (N - 5)

    values = log_views() + groups
    assert leakage_probe._r2(values, groups, limits) == pytest.approx(plain(values[:, None]))
    tau = leakage_probe._tau(categories, groups, limits)
    assert tau == pytest.approx(plain(np.eye(9)[categories]))
    assert 0.1 < tau < 0.5


def test_vectors_are_measured_as_single_features_are():
    rng = np.random.default_rng(9)
    matrix = rng.normal(0, 1, (N, 300)).astype(np.float32)
    matrix[:, 17] = -log_views()
    matrix[:, 299] = noised(0.15)
    matrix[::3, 5] = 0  # ties, as absent text makes them
    matrix[:, 6] = 0
    likes = np.where(rng.random(N) < 0.2, np.nan, views() * rng.uniform(0.01, 0.1, N))
    few = np.where(np.arange(N) < 29, views(), np.nan)
    forbidden = {"views": views(), "likes": likes, "few": few, "unknown": np.full(N, np.nan)}
    names = [f"d{i}" for i in range(300)]
    verdict = probe_vectors(matrix, names, forbidden)
    assert [f.subject for f in verdict.findings] == ["d17 ~ views", "d299 ~ views"]
    assert verdict.facts["not_examined"] == 300 + 300 + 2
    for limit in (0.05, 0.3):
        thresholds = Thresholds(rank_correlation=limit, r2=2.0)
        singly = probe(
            {name: matrix[:, i].astype(float) for i, name in enumerate(names)},
            forbidden,
            thresholds,
        )
        together = probe_vectors(matrix, names, forbidden, thresholds)
        assert set(together.findings) == set(singly.findings)
        assert (together.examined, together.facts["not_examined"]) == (
            singly.examined,
            singly.facts["not_examined"],
        )


def test_same_data_same_verdict():
    features = {"f": noised(0.3), "g": COPIES["labels of bins"]}
    assert probe(features, {"views": views()}) == probe(features, {"views": views()})


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="found f 399, forbidden views 400"):
        probe({"f": views()[1:]}, {"views": views()})
    with pytest.raises(ValueError, match="found vectors 399, forbidden views 400"):
        probe_vectors(np.zeros((399, 2)), ["a", "b"], {"views": views()})
    with pytest.raises(ValueError, match=r"\(N, 1\), a column a name: found \(400, 2\)"):
        probe_vectors(np.zeros((N, 2)), ["a"], {"views": views()})


def test_values_that_are_none_are_refused():
    with pytest.raises(TypeError, match="array of numbers or texts with None: found float"):
        probe({"f": [1.0] * N}, {"views": views()})
    matrix = np.zeros((N, 2))
    matrix[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite vectors, found 1 other"):
        probe_vectors(matrix, ["a", "b"], {"views": views()})


def test_nothing_to_compare_holds_and_looks_so():
    assert probe({}, {"views": views()}).examined == 0
    assert probe({"f": views()}, {}).examined == 0
    assert probe({"f": views()[:0]}, {"views": views()[:0]}).facts["not_examined"] == 1


def test_ages_are_not_probed():
    assert set(PROBED) == {
        "view_count", "like_count", "comment_count", "views_per_day", "likes_per_day",
        "comments_per_day", "likes_per_view", "comments_per_view", "views_per_hour",
        "virality_score", "horizon_view_count",
    }  # fmt: skip
    assert probed(["age_days", "views_at_launch", "horizon_days"]) == ("views_at_launch",)
