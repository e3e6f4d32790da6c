"""Words of generated songs, and vectors that stand for them."""

import hashlib
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOODS: Final = ("joy", "grief", "unrest")
"""What a segment's label can be; cues name moods by their place here."""

TEXT_DIM: Final = 768
"""Of a stored text embedding, as DeBERTa-v3-base has it."""

_OF_MOODS: Final = (
    ("golden", "dancing", "laughing", "sunrise", "honey", "gleaming", "holiday", "sparkle"),
    ("weeping", "farewell", "empty", "ashes", "faded", "lonely", "winter", "mourning"),
    ("sirens", "running", "fever", "thunder", "restless", "shadows", "racing", "alarm"),
)
_OF_NONE: Final = (
    "window", "street", "river", "table", "letter", "corner", "bicycle", "kitchen", "paper",
    "stairs", "radio", "garden", "train", "coffee", "mirror", "morning",
)  # fmt: skip
_WORDS: Final = 4


def lyrics(cue: int | None, rng: np.random.Generator) -> str:
    """Eight words: four of things, and four of the mood, or of further things without a cue."""
    judging = _OF_NONE if cue is None else _OF_MOODS[cue]
    picked = [
        *rng.choice(_OF_NONE, size=_WORDS, replace=False),
        *rng.choice(judging, size=_WORDS, replace=False),
    ]
    return " ".join(str(picked[place]) for place in rng.permutation(len(picked)))


def embedding(words: str) -> NDArray[np.float32]:
    """A unit vector ``(TEXT_DIM,)``: the mean of one fixed random direction a word.

    It stands in for a language model's: equal words are alike, and nothing else is.
    """
    total = np.stack([_direction(word) for word in words.split()]).sum(axis=0)
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


@cache
def _direction(word: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=TEXT_DIM)
