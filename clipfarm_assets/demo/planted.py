"""What decides the sample's views: a linear relation of hidden traits, with known noise.

Six traits of a clip are independent and uniform on ``[-sqrt(3), sqrt(3)]``, so each has mean 0 and
variance 1; a seventh, the topic, is one of four with equal chance. The media show them: motion
and warmth in the picture, tempo and pitch in the sound, sentiment and topic in the words; the
channel's size stands in the metadata row. With c = `COEFFICIENTS`, t = `TOPIC_EFFECTS`,
g = `GROWTH_COEFFICIENTS`::

    log1p(views_7)  = INTERCEPT + sum_k c[k] trait_k + t[topic] + e,        e ~ N(0, NOISE_SD)
    log1p(views_30) = log1p(views_7) + GROWTH + sum_k g[k] trait_k + u,     u ~ U * GROWTH_NOISE_SD

where U is uniform on ``[-sqrt(3), sqrt(3)]``. The growth's bounds keep it positive: views never
fall. Views are rounded to whole numbers, which adds noise of no account. A model that knew every
trait would reach ``R2 = var(signal) / (var(signal) + var(noise))``, 0.839 at 7 days and 0.846 at
30 (`attainable_r2`); one that knew the channel's size alone, 0.363 and 0.312.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from clipfarm_assets.contracts.horizons import Horizon

Topic = Literal["cooking", "sport", "music", "school"]
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)


INTERCEPT: Final = 9.5
COEFFICIENTS: Final[Mapping[str, float]] = {
    "motion": 0.50,
    "warmth": 0.40,
    "tempo": 0.45,
    "pitch": 0.30,
    "sentiment": 0.40,
    "channel": 0.90,
}
TOPIC_EFFECTS: Final[Mapping[Topic, float]] = {
    "cooking": -0.6,
    "sport": -0.2,
    "music": 0.2,
    "school": 0.6,
}
NOISE_SD: Final = 0.6

GROWTH: Final = 1.2
GROWTH_COEFFICIENTS: Final[Mapping[str, float]] = {
    "motion": 0.10,
    "warmth": -0.05,
    "tempo": 0.15,
    "pitch": 0.0,
    "sentiment": 0.10,
    "channel": 0.0,
}
GROWTH_NOISE_SD: Final = 0.2

BOUND: Final = 3**0.5
"""Half the range of a uniform variable of mean 0 and variance 1."""


@dataclass(frozen=True, slots=True)
class Traits:
    """A clip's hidden traits. All but `topic` lie on ``[-BOUND, BOUND]``."""

    motion: float
    warmth: float
    tempo: float
    pitch: float
    sentiment: float
    channel: float
    topic: Topic

    def unit(self, name: str) -> float:
        """A trait on 0..1, which is how the media are painted from it."""
        return float((getattr(self, name) + BOUND) / (2 * BOUND))


@dataclass(frozen=True, slots=True)
class Views:
    """Views at 7 and at 30 days; whole numbers, never falling."""

    day_7: int
    day_30: int

    def at(self, horizon: Horizon) -> int:
        """Views at one horizon."""
        return self.day_7 if horizon == 7 else self.day_30


def draw_channel(rng: np.random.Generator) -> float:
    """One channel's size trait, shared by all its clips."""
    return float(rng.uniform(-BOUND, BOUND))


def draw_traits(rng: np.random.Generator, channel: float) -> Traits:
    """One clip's traits, on a channel of the given size."""
    values = rng.uniform(-BOUND, BOUND, size=5)
    motion, warmth, tempo, pitch, sentiment = (float(value) for value in values)
    topic = TOPICS[int(rng.integers(len(TOPICS)))]
    return Traits(motion, warmth, tempo, pitch, sentiment, channel, topic)


def draw_views(traits: Traits, rng: np.random.Generator) -> Views:
    """Views by the module's formula."""
    log_7 = signal(traits, 7) + rng.normal(0.0, NOISE_SD)
    growth = signal(traits, 30) - signal(traits, 7)
    log_30 = log_7 + growth + rng.uniform(-BOUND, BOUND) * GROWTH_NOISE_SD
    return Views(max(0, round(np.expm1(log_7))), max(0, round(np.expm1(log_30))))


def signal(traits: Traits, horizon: Horizon) -> float:
    """The part of log1p(views) that the traits decide."""
    weights = _coefficients(horizon)
    linear = sum(weight * getattr(traits, name) for name, weight in weights.items())
    intercept = INTERCEPT if horizon == 7 else INTERCEPT + GROWTH
    return float(intercept + linear + TOPIC_EFFECTS[traits.topic])


def design_row(traits: Traits) -> list[float]:
    """One row of the regression that the relation promises: 6 traits, then 4 topic indicators."""
    numbers = [float(getattr(traits, name)) for name in COEFFICIENTS]
    return [*numbers, *(float(traits.topic == topic) for topic in TOPICS)]


def attainable_r2(horizon: Horizon) -> float:
    """The share of var(log1p(views)) that the traits explain, in the population."""
    linear = sum(weight**2 for weight in _coefficients(horizon).values())
    explained = linear + float(np.var(list(TOPIC_EFFECTS.values())))
    noise = NOISE_SD**2 + (GROWTH_NOISE_SD**2 if horizon == 30 else 0.0)
    return explained / (explained + noise)


def _coefficients(horizon: Horizon) -> dict[str, float]:
    grown = GROWTH_COEFFICIENTS if horizon == 30 else dict.fromkeys(COEFFICIENTS, 0.0)
    return {name: weight + grown[name] for name, weight in COEFFICIENTS.items()}
