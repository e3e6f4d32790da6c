"""The law of the generated vector-level set: that of `planted`, and a harder one.

Both laws have the traits, coefficients, growth and rounding of `planted`. Each clip's vectors show
its traits with an error of their own, so that a linear reading of a vector explains `RELIABILITY`
of a trait's variance (see `planted_vectors`). Some clips have no text vector, and what their text
would tell is lost. The channel's size is in no vector: only its other clips' views tell it, and
the columns captured at the horizon, which no honest feature set has.

The harder law, with `sign` of a topic in `MOOD_SIGN`, `c(z) = (z^2 - 1) / sd(z^2)`, and `since`
the publication time as a variable of mean 0 and variance 1::

    log1p(views_7) = the law of `planted`
                   + DUET motion tempo              only both modalities together tell it
                   + MOOD sign[topic] sentiment     what a glad word is worth depends on the topic
                   + CURVE c(pitch)                 no linear model sees it
                   + DRIFT slope[channel] since     channels rise and fall over the year
                   + e,  e ~ student t with TAIL degrees of freedom, scaled to NOISE_SD

All terms are uncorrelated, so the shares of variance add up (`shares`) and the attainable R2 is a
sum (`attainable_r2`): at 7 and 30 days 0.784 and 0.785 by the plain law, 0.779 and 0.777 by the
harder one. Without the channel, that is for a model that knows nothing of its other clips, it is
0.421 and 0.472, and by the harder law 0.406 and 0.447.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.demo.planted import (
    BOUND,
    COEFFICIENTS,
    GROWTH_COEFFICIENTS,
    GROWTH_NOISE_SD,
    NOISE_SD,
    TOPIC_EFFECTS,
    Topic,
    Traits,
    Views,
    draw_views,
    signal,
)

Source = Literal["video", "audio", "text", "channel"]
SOURCES: Final[tuple[Source, ...]] = get_args(Source)

RELIABILITY: Final = 0.9
ABSENT_TEXT: Final[Mapping[bool, float]] = {False: 0.05, True: 0.20}
"""Share of clips without text, by whether the law is the harder one."""

DUET: Final = 0.35
MOOD: Final = 0.30
MOOD_SIGN: Final[Mapping[Topic, int]] = {"cooking": 1, "sport": -1, "music": 1, "school": -1}
CURVE: Final = 0.25
DRIFT: Final = 0.45
TAIL: Final = 4.0

_SHOWN_IN: Final[Mapping[str, Source]] = {
    "motion": "video",
    "warmth": "video",
    "tempo": "audio",
    "pitch": "audio",
    "sentiment": "text",
    "channel": "channel",
}
_SD_OF_SQUARE: Final = 0.8**0.5
"""Of a trait: E z^4 - (E z^2)^2 = 9/5 - 1."""


@dataclass(frozen=True, slots=True)
class Term:
    """One uncorrelated part of log1p(views).

    Attributes:
        variance: Its variance.
        needs: What one must see to know it.
        degree: How many traits, each seen with its own error, are multiplied in it.
    """

    variance: float
    needs: frozenset[Source]
    degree: int


def draw_hard_views(traits: Traits, slope: float, since: float, rng: np.random.Generator) -> Views:
    """Views by the harder law.

    Args:
        traits: The clip's.
        slope: The channel's rise, of mean 0 and variance 1 over channels.
        since: The time of publication, of mean 0 and variance 1 over clips.
        rng: What the noise is drawn from.
    """
    more = (
        DUET * traits.motion * traits.tempo
        + MOOD * MOOD_SIGN[traits.topic] * traits.sentiment
        + CURVE * (traits.pitch**2 - 1) / _SD_OF_SQUARE
        + DRIFT * slope * since
    )
    noise = rng.standard_t(TAIL) * NOISE_SD / (TAIL / (TAIL - 2)) ** 0.5
    log_7 = signal(traits, 7) + more + noise
    growth = signal(traits, 30) - signal(traits, 7)
    log_30 = log_7 + growth + rng.uniform(-BOUND, BOUND) * GROWTH_NOISE_SD
    return Views(max(0, round(np.expm1(log_7))), max(0, round(np.expm1(log_30))))


def draw_views_by(
    law_is_hard: bool,
    traits: Traits,
    slope: float,
    since: float,
    rng: np.random.Generator,
) -> Views:
    """Views by one of the two laws."""
    return draw_hard_views(traits, slope, since, rng) if law_is_hard else draw_views(traits, rng)


def terms(horizon: Horizon, *, hard: bool = False) -> tuple[Term, ...]:
    """The law's terms but for the noise."""
    grown = GROWTH_COEFFICIENTS if horizon == 30 else dict.fromkeys(COEFFICIENTS, 0.0)
    found = [
        Term(
            (weight + grown[name]) ** 2,
            frozenset({_SHOWN_IN[name]}),
            degree=0 if name == "channel" else 1,
        )
        for name, weight in COEFFICIENTS.items()
    ]
    found.append(Term(float(np.var(list(TOPIC_EFFECTS.values()))), frozenset({"text"}), 1))
    if hard:
        found += [
            Term(DUET**2, frozenset({"video", "audio"}), 2),
            Term(MOOD**2, frozenset({"text"}), 2),
            Term(CURVE**2, frozenset({"audio"}), 2),
            Term(DRIFT**2, frozenset({"channel"}), 0),
        ]
    return tuple(found)


def shares(horizon: Horizon, *, hard: bool = False) -> dict[str, float]:
    """Shares of var(log1p(views)) by what decides them; they sum to 1.

    Keys are `SOURCES`, ``audio+video`` for what only both tell, and ``noise``.
    """
    parts: dict[str, float] = {}
    for term in terms(horizon, hard=hard):
        name = "+".join(sorted(term.needs))
        parts[name] = parts.get(name, 0.0) + term.variance
    parts["noise"] = NOISE_SD**2 + (GROWTH_NOISE_SD**2 if horizon == 30 else 0.0)
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def attainable_r2(
    horizon: Horizon, *, hard: bool = False, seen: Collection[Source] = SOURCES
) -> float:
    """The R2 of a model that reads the vectors as well as can be and knows the channel exactly.

    A trait is read with `RELIABILITY`, a product of two with its square (exact for normal traits,
    close for these), and text where there is some.

    Args:
        horizon: Days.
        hard: Which law.
        seen: What the model sees: without ``channel`` it knows nothing of the channel's size.
    """
    explained = 0.0
    for term in terms(horizon, hard=hard):
        if term.needs <= set(seen):
            there = 1 - ABSENT_TEXT[hard] if "text" in term.needs else 1.0
            explained += term.variance * RELIABILITY**term.degree * there
    noise = shares(horizon, hard=hard)["noise"]
    total = sum(term.variance for term in terms(horizon, hard=hard)) / (1 - noise)
    return explained / total
