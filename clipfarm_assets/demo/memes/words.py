"""The words of generated memes: captions with a mood, and signs without one."""

from collections.abc import Sequence
from typing import Final

import numpy as np

GLAD: Final = ("lovely", "golden", "cheerful", "gentle", "splendid", "sunny", "tender", "radiant")
GRIM: Final = ("dreary", "bitter", "gloomy", "dismal", "rotten", "frosty", "hollow", "wretched")
MOODS: Final = (GLAD, GRIM)
"""The words of mood 0 and 1."""

_THINGS: Final = (
    "monday", "coffee", "meeting", "weekend", "neighbour", "bus", "garden", "laundry", "exam",
    "holiday", "breakfast", "queue", "printer", "kitten", "sofa", "birthday", "dentist", "train",
    "sandwich", "concert", "umbrella", "homework", "beach", "bicycle",
)  # fmt: skip
_OPENINGS: Final = ("when the", "that feeling:", "me and my", "nobody:", "just another", "behold,")

_SIGNS: Final = (
    "station", "gate", "level", "corner", "market", "harbour", "bridge", "tower", "avenue",
    "platform", "section", "depot", "terrace", "square", "passage", "hall", "lane", "court",
    "pier", "arch", "crossing", "office", "hangar", "yard",
)  # fmt: skip
_NUMBERS: Final = 1000


def caption(mood: int, rng: np.random.Generator) -> str:
    """A line with four words of the mood, and nothing else that tells it."""
    judging = rng.choice(MOODS[mood], size=4, replace=False)
    things = rng.choice(_THINGS, size=2, replace=False)
    opening = _picked(_OPENINGS, rng)
    return (
        f"{opening} {judging[0]} {judging[1]} {things[0]} meets {judging[2]} {judging[3]} "
        f"{things[1]}"
    )


def sign(rng: np.random.Generator) -> str:
    """What stands on a picture: two words and a number, whatever the mood."""
    words = rng.choice(_SIGNS, size=2, replace=False)
    return f"{words[0]} {words[1]} {int(rng.integers(_NUMBERS))}"


def _picked(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
