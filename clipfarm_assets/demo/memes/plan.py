"""What the memes of a set are: moods, words, pictures and labels, before anything is encoded.

Set ``xor``. Four memes share two captions and two pictures, a glad and a grim one of each, under
one sign: every caption stands on both pictures. A meme's label is 1 where the moods differ::

    label = mood of the caption XOR mood of the picture

So a caption, and likewise a picture, has both labels equally often: whoever sees one of the two is
right about half of each four, whatever it answers. Who sees both can be right about all.

Set ``noise``. The label is the caption's mood, and the pictures are noise: there is nothing that
fusion could know better than the caption.

Set ``pilot``. Fifty memes of the first kind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image

from clipfarm_assets.demo.memes import pictures, words

Kind = Literal["xor", "noise", "pilot"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
ROWS: Final[dict[Kind, int]] = {"xor": 800, "noise": 400, "pilot": 50}
"""Memes of a set, where nothing else is asked for."""

SEED: Final = 42
FEWEST: Final = 12
"""Memes of a set at least: of fewer, no three splits with both classes can be made."""

_SEEDS: Final[dict[Kind, int]] = {"xor": 1, "noise": 2, "pilot": 3}
_OF_A_QUAD: Final = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Moods of caption and picture."""


@dataclass(frozen=True, slots=True)
class Meme:
    """One generated meme.

    Attributes:
        id: In the manifest.
        image: Path of its picture, which others may have too.
        caption: Its words.
        ocr: What the picture says.
        label: 0 or 1.
        quad: Memes of one number share captions and pictures.
    """

    id: str
    image: str
    caption: str
    ocr: str
    label: int
    quad: int


@dataclass(frozen=True)
class Plan:
    """A set.

    Attributes:
        kind: Which.
        memes: In the order of the manifest.
        draw: Path of a picture -> draws it, RGB.
    """

    kind: Kind
    memes: tuple[Meme, ...]
    draw: dict[str, Callable[[], Image.Image]]


def plan_memes(kind: Kind, rows: int | None = None, seed: int = SEED) -> Plan:
    """The memes of a set; the same arguments give the same ones.

    Args:
        kind: Which set.
        rows: How many; by default those of `ROWS`.
        seed: Of every random choice.

    Raises:
        ValueError: Fewer rows than `FEWEST`.
    """
    rows = ROWS[kind] if rows is None else rows
    if rows < FEWEST:
        msg = f"a set of memes must have {FEWEST} rows or more: found {rows}"
        raise ValueError(msg)
    maker = _Maker(kind, seed)
    if kind == "noise":
        memes = [maker.noisy(number) for number in range(rows)]
    else:
        quads = [maker.quad(number) for number in range(-(-rows // len(_OF_A_QUAD)))]
        memes = [meme for quad in quads for meme in quad][:rows]
    used = {meme.image for meme in memes}
    draw = {path: drawn for path, drawn in maker.draw.items() if path in used}
    return Plan(kind, tuple(memes), draw)


class Words:
    """Captions and signs of which none comes twice: equal ones would be near-duplicates."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draws from `rng`."""
        self._rng = rng
        self._said: set[str] = set()

    def caption(self, mood: int) -> str:
        """A caption of that mood."""
        return self._once(lambda: words.caption(mood, self._rng))

    def sign(self) -> str:
        """A sign."""
        return self._once(lambda: words.sign(self._rng))

    def _once(self, draw: Callable[[], str]) -> str:
        while (said := draw()) in self._said:
            pass
        self._said.add(said)
        return said


class _Maker:
    def __init__(self, kind: Kind, seed: int) -> None:
        self._root = np.random.SeedSequence([seed, _SEEDS[kind]])
        self._words = Words(np.random.default_rng(self._root.spawn(1)[0]))
        self.draw: dict[str, Callable[[], Image.Image]] = {}

    def quad(self, number: int) -> list[Meme]:
        """Four memes, every caption on both pictures."""
        sign = self._words.sign()
        captions = [self._words.caption(mood) for mood in (0, 1)]
        images = [f"{number // 100:03d}/quad-{number:05d}-{mood}" for mood in (0, 1)]
        # Half of the sets' pictures are lossy, as on the web.
        paths = [f"{image}.{'png' if number % 2 else 'jpg'}" for image in images]
        for mood, path in enumerate(paths):
            self.draw[path] = self._drawing(mood, sign)
        return [
            Meme(
                id=f"meme-{number:05d}-{words_mood}{picture_mood}",
                image=paths[picture_mood],
                caption=captions[words_mood],
                ocr=sign,
                label=words_mood ^ picture_mood,
                quad=number,
            )
            for words_mood, picture_mood in _OF_A_QUAD
        ]

    def noisy(self, number: int) -> Meme:
        """A meme whose picture says nothing."""
        mood = number % 2
        path = f"{number // 100:03d}/noise-{number:05d}.png"
        seed = self._root.spawn(1)[0]
        self.draw[path] = lambda: pictures.noise(np.random.default_rng(seed))
        caption = self._words.caption(mood)
        return Meme(f"meme-{number:05d}", path, caption, "", mood, number)

    def _drawing(self, mood: int, sign: str) -> Callable[[], Image.Image]:
        # A stream a picture: leaving one out changes no other.
        seed = self._root.spawn(1)[0]
        return lambda: pictures.picture(mood, sign, np.random.default_rng(seed))
