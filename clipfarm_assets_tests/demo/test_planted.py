import numpy as np
import pytest

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.demo import planted
from clipfarm_assets.demo.plan import plan_sample
from clipfarm_assets.demo.planted import attainable_r2, design_row


def draw(count, seed=3):
    rng = np.random.default_rng(seed)
    traits = [planted.draw_traits(rng, planted.draw_channel(rng)) for _ in range(count)]
    return traits, [planted.draw_views(one, rng) for one in traits]


def regress(traits, views, horizon):
    """Least squares of log1p(views) on the design: (coefficients, R2)."""
    design = np.array([design_row(one) for one in traits])
    target = np.log1p([one.at(horizon) for one in views])
    weights, *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = target - design @ weights
    return weights, 1 - residual.var() / target.var()


@pytest.fixture(scope="module")
def population():
    return draw(6000)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_regression_on_the_traits_reaches_the_stated_r2(population, horizon):
    _, r2 = regress(*population, horizon)
    assert r2 == pytest.approx(attainable_r2(horizon), abs=0.012)


def test_the_docstring_states_the_attainable_figures():
    for horizon in HORIZONS:
        assert f"{attainable_r2(horizon):.3f}" in planted.__doc__
        weights = planted.COEFFICIENTS["channel"] ** 2
        alone = weights * attainable_r2(horizon) / explained(horizon)
        assert f"{alone:.3f}" in planted.__doc__


def explained(horizon):
    growth = planted.GROWTH_COEFFICIENTS if horizon == 30 else {}
    linear = sum((w + growth.get(k, 0.0)) ** 2 for k, w in planted.COEFFICIENTS.items())
    return linear + np.var(list(planted.TOPIC_EFFECTS.values()))


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_regression_finds_the_stated_coefficients(population, horizon):
    weights, _ = regress(*population, horizon)
    growth = planted.GROWTH_COEFFICIENTS if horizon == 30 else {}
    stated = [w + growth.get(k, 0.0) for k, w in planted.COEFFICIENTS.items()]
    intercept = planted.INTERCEPT + (planted.GROWTH if horizon == 30 else 0.0)
    stated += [intercept + planted.TOPIC_EFFECTS[topic] for topic in planted.TOPICS]
    np.testing.assert_allclose(weights, stated, atol=0.05)


def test_traits_have_mean_zero_variance_one_and_stay_in_bounds(population):
    traits, _ = population
    numbers = np.array([design_row(one)[:6] for one in traits])
    np.testing.assert_allclose(numbers.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(numbers.var(0), 1, atol=0.05)
    assert np.abs(numbers).max() <= planted.BOUND
    assert {one.topic for one in traits} == set(planted.TOPICS)


def test_views_never_fall(population):
    _, views = population
    assert all(one.day_30 >= one.day_7 >= 0 for one in views)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_sample_itself_carries_the_relation(horizon):
    clips = plan_sample().clips
    _, r2 = regress([c.traits for c in clips], [c.views for c in clips], horizon)
    stated = attainable_r2(horizon)
    standard_error = 2 * stated**0.5 * (1 - stated) / len(clips) ** 0.5
    assert r2 == pytest.approx(stated, abs=3 * standard_error)
