"""Train, val and test of memes: near-duplicates stay together, joint labels are spread evenly.

Benign confounders share a text or an image and have another label: with one in train and one in
test, a model is examined on what it has seen. So memes are grouped by text and by image, and a
group goes to one split as a whole; see `grouped_splits`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

import numpy as np

from clipfarm_assets.contracts.grouped_splits import (
    RATIOS,
    SEED,
    BadSplitRatios,
    BadSplits,
    GroupedSplits,
    TooFewGroups,
    deal_groups,
    no_group_in_two_splits,
)
from clipfarm_assets.contracts.hamming import Links, near_groups
from clipfarm_assets.contracts.meme_rows import MemeRow
from clipfarm_assets.storage.images import DEFAULT_LIMITS, ImageLimits

__all__ = [
    "MAX_DISTANCE",
    "RATIOS",
    "SEED",
    "BadSplitRatios",
    "BadSplits",
    "MemeSplits",
    "TooFewGroups",
    "assign_splits",
    "near_duplicate_groups",
    "no_group_in_two_splits",
    "normalised",
]

MAX_DISTANCE: Final = 4
"""Bits of 64 that the perceptual hashes of one image may differ in: recompressed and resized copies
are nearly always within 4, and unrelated photographs about 32 apart."""

_WORDS: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class MemeSplits(GroupedSplits):
    """Where every meme is. Its group is named by the first id of it, in alphabetical order.

    Attributes:
        max_distance: Of the perceptual hashes of one image, when memes were grouped. Splits stored
            before it was kept have the default.
        images: Limits that images were decoded within for their hashes, and are for shards. Splits
            stored before they were kept have the default.
    """

    max_distance: int = MAX_DISTANCE
    images: ImageLimits = DEFAULT_LIMITS

    FORMAT: ClassVar[str] = "clipfarm.meme_splits.v1"
    NOUN: ClassVar[str] = "meme"

    def _settings(self) -> dict[str, Any]:
        return {"max_distance": self.max_distance, "images": asdict(self.images)}

    @classmethod
    def _settings_of(cls, body: Mapping[str, Any]) -> dict[str, Any]:
        distance = int(body.get("max_distance", MAX_DISTANCE))
        return {"max_distance": distance, "images": ImageLimits(**body.get("images", {}))}


def normalised(text: str) -> str:
    """What of a text tells it from others: its words, whatever their case, marks and spaces.

    A text without words, of signs alone, is compared as it is; a blank one is the empty string.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORDS.findall(plain) or plain.split())


def near_duplicate_groups(
    rows: Sequence[MemeRow],
    image_hashes: Mapping[str, int | None],
    max_distance: int = MAX_DISTANCE,
) -> dict[str, str]:
    """Group memes of the same text, or of the same image by its perceptual hash.

    Texts are the caption, the OCR and both together, after `normalised`: an image swapped under a
    caption changes what OCR makes of it, and the caption tells. Blank ones equal none. Belonging is
    transitive.

    Args:
        rows: With different ids.
        image_hashes: `MemeRow.image` -> 64-bit perceptual hash; None for an image that has none,
            which is the same as itself alone.
        max_distance: Bits that the hashes of one image may differ in.

    Returns:
        Id -> group, named by its first id in alphabetical order; whatever the rows' order.

    Raises:
        KeyError: No hash, and no None either, for a row's image.
    """
    links = Links(len(rows))
    _link_equal(links, ((n, text) for n, row in enumerate(rows) for text in _texts(row)))
    _link_equal(links, ((n, row.image) for n, row in enumerate(rows)))
    hashes = [(n, h) for n, row in enumerate(rows) if (h := image_hashes[row.image]) is not None]
    numbers = near_groups(np.array([h for _, h in hashes], dtype=np.uint64), max_distance)
    _link_equal(links, zip((n for n, _ in hashes), numbers.tolist(), strict=True))
    labels = links.labels().tolist()
    names: dict[int, str] = {}
    for row, label in zip(rows, labels, strict=True):
        names[label] = min(names.get(label, row.id), row.id)
    return {row.id: names[label] for row, label in zip(rows, labels, strict=True)}


def assign_splits(
    rows: Sequence[MemeRow],
    groups: Mapping[str, str],
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
    previous: MemeSplits | None = None,
) -> MemeSplits:
    """Deal groups out to train, val and test, so that each has its share of every joint label.

    Args:
        rows: With different ids; their order makes no difference.
        groups: Id -> group, of every row.
        ratios: Of train, val and test.
        seed: Decides every choice between equals.
        previous: Splits to keep, also those of memes that `rows` lacks; see `deal_groups`.

    Raises:
        BadSplitRatios: Not three positive numbers with sum 1.
        TooFewGroups: Fewer than three groups.
    """
    deal = deal_groups(
        {row.id: tuple(sorted(row.labels.items())) for row in rows},
        groups,
        ratios,
        seed,
        previous,
        noun="memes",
        apart="that share neither text nor image",
    )
    group_of = {row.id: groups[row.id] for row in rows}
    return MemeSplits(deal.split_of, group_of, seed, deal.ratios, deal.retired)


def _texts(row: MemeRow) -> set[str]:
    return {normalised(text) for text in (row.caption, row.ocr, row.text)} - {""}


def _link_equal(links: Links, keyed: Iterable[tuple[int, object]]) -> None:
    """Link the rows of equal keys."""
    first: dict[object, int] = {}
    pairs = [(first.setdefault(key, row), row) for row, key in keyed]
    links.add(*np.array(pairs, dtype=np.intp).reshape(-1, 2).T)
