"""Train, val and test of memes: near-duplicates stay together, joint labels are spread evenly.

Benign confounders share a text or an image and have another label: with one in train and one in
test, a model is examined on what it has seen. So memes are grouped by text and by image, and a
group goes to one split as a whole.

A meme that has a split keeps it when others are added, and gets it again if it was removed and
returns: its id stays on record. Where a new meme links groups of several
splits, all of them go to the first of these in the order train, val, test: what was once trained on
is never examined on.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.hamming import Links, near_groups
from clipfarm_assets.contracts.meme_rows import SPLITS, MemeRow, Split
from clipfarm_assets.storage.images import DEFAULT_LIMITS, ImageLimits

RATIOS: Final = (0.70, 0.15, 0.15)
SEED: Final = 42
MAX_DISTANCE: Final = 4
"""Bits of 64 that the perceptual hashes of one image may differ in: recompressed and resized copies
are nearly always within 4, and unrelated photographs about 32 apart."""

_FORMAT: Final = "clipfarm.meme_splits.v1"
_RATIO_TOLERANCE: Final = 1e-9
_WORDS: Final = re.compile(r"\w+")

Labels = tuple[tuple[str, int], ...]


class BadSplits(ValueError):  # noqa: N818 - reads better where it is raised
    """Not a stored split: a structural fault that stops the run."""


class BadSplitRatios(ValueError):  # noqa: N818
    """The ratios don't make three parts: a structural fault that stops the run."""


class TooFewGroups(ValueError):  # noqa: N818
    """Fewer groups than splits: a structural fault that stops the run."""


@dataclass(frozen=True)
class MemeSplits:
    """Where every meme is.

    Attributes:
        split_of: Id -> its split.
        group_of: Id -> its group: the first id of it, in alphabetical order.
        seed: Decided the order in which groups were dealt out.
        ratios: Of train, val and test, as asked for.
        max_distance: Of the perceptual hashes of one image, when memes were grouped. Splits stored
            before it was kept have the default.
        retired: Id -> the split it had, of memes that are no rows any more.
        images: Limits that images were decoded within for their hashes, and are for shards. Splits
            stored before they were kept have the default.
    """

    split_of: Mapping[str, Split]
    group_of: Mapping[str, str]
    seed: int = SEED
    ratios: tuple[float, float, float] = RATIOS
    max_distance: int = MAX_DISTANCE
    retired: Mapping[str, Split] = field(default_factory=dict)
    images: ImageLimits = DEFAULT_LIMITS

    @property
    def ever(self) -> dict[str, Split]:
        """Id -> split of every meme that has or had one."""
        return {**self.retired, **self.split_of}

    def ids(self, split: Split) -> list[str]:
        """The ids of one split, sorted."""
        return sorted(meme_id for meme_id, s in self.split_of.items() if s == split)

    def sizes(self) -> dict[Split, int]:
        """Number of memes by split."""
        found = Counter(self.split_of.values())
        return {split: found[split] for split in SPLITS}

    def to_json(self) -> bytes:
        """The object's bytes: id -> group by split, retired ids by split.

        Equal splits have equal ones.
        """
        body: dict[str, Any] = {split: {} for split in SPLITS}
        for meme_id, split in self.split_of.items():
            body[split][meme_id] = self.group_of[meme_id]
        retired: dict[Split, list[str]] = {split: [] for split in SPLITS}
        for meme_id, split in sorted(self.retired.items()):
            retired[split].append(meme_id)
        body |= {
            "format": _FORMAT,
            "ratios": list(self.ratios),
            "seed": self.seed,
            "max_distance": self.max_distance,
            "images": asdict(self.images),
            "retired": retired,
        }
        told = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False)
        return (told + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, key: str = "splits.json") -> "MemeSplits":
        """Parse what `to_json` wrote.

        Raises:
            BadSplits: Not JSON, of another form, or with one meme or one group in two splits.
        """
        remedy = "restore it, or remove it to have every meme dealt out anew"
        try:
            splits, repeated = _parsed(json.loads(data))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            msg = f"{key} must be splits as they are written here: {error!r:.200}; {remedy}"
            raise BadSplits(msg) from None
        verdict = no_group_in_two_splits(splits)
        if repeated or not verdict.holds:
            what = f"{repeated} memes are in two splits" if repeated else verdict.summary()
            msg = f"{key} must keep its splits apart: {what}; {remedy}"
            raise BadSplits(msg)
        return splits


def _parsed(body: Any) -> tuple[MemeSplits, int]:
    """The splits of a parsed object, and how many memes are in it more than once.

    Raises:
        ValueError, TypeError, KeyError: It is of another form.
    """
    if body["format"] != _FORMAT:
        msg = f"expected the format {_FORMAT}: found {body['format']!r:.100}"
        raise ValueError(msg)
    parts: dict[Split, Any] = {split: body[split] for split in SPLITS}
    for split, part in parts.items():
        if not isinstance(part, dict) or not all(isinstance(g, str) for g in part.values()):
            msg = f"{split} must be an object of ids and their groups"
            raise ValueError(msg)
    train, val, test = (float(ratio) for ratio in body["ratios"])
    split_of = {meme_id: split for split, part in parts.items() for meme_id in part}
    group_of = {meme_id: group for part in parts.values() for meme_id, group in part.items()}
    listed = _retired(body.get("retired", {}))
    retired = {meme_id: split for split, ids in listed.items() for meme_id in ids}
    distance = int(body.get("max_distance", MAX_DISTANCE))
    seed, ratios = int(body["seed"]), (train, val, test)
    images = ImageLimits(**body.get("images", {}))
    splits = MemeSplits(split_of, group_of, seed, ratios, distance, retired, images)
    told = sum(map(len, parts.values())) + sum(map(len, listed.values()))
    return splits, told - len(splits.ever)


def _retired(body: Any) -> dict[Split, list[str]]:
    if not isinstance(body, dict) or body.keys() - set(SPLITS):
        msg = f"retired must be an object of {', '.join(SPLITS)}"
        raise ValueError(msg)
    listed: dict[Split, list[str]] = {split: body.get(split, []) for split in SPLITS}
    for split, ids in listed.items():
        if not isinstance(ids, list) or not all(isinstance(meme_id, str) for meme_id in ids):
            msg = f"retired {split} must be a list of ids"
            raise ValueError(msg)
    return listed


def no_group_in_two_splits(splits: MemeSplits) -> Verdict:
    """No group of near-duplicates has memes in two splits."""
    inside: dict[str, set[Split]] = {}
    for meme_id, split in splits.split_of.items():
        inside.setdefault(splits.group_of[meme_id], set()).add(split)
    findings = tuple(
        Finding(f"group {group}", f"is in {' and '.join(s for s in SPLITS if s in found)}")
        for group, found in sorted(inside.items())
        if len(found) > 1
    )
    facts: Mapping[str, Any] = {str(split): n for split, n in splits.sizes().items()}
    return Verdict(findings, len(inside), facts)


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

    Groups come largest first, those of one size in an order that the seed decides. Each goes where
    its memes' joint labels, and memes at all, are lacking most. So a share is off by little more
    than the largest groups, and small ones make up for what large ones do.

    Args:
        rows: With different ids; their order makes no difference.
        groups: Id -> group, of every row.
        ratios: Of train, val and test.
        seed: Decides every choice between equals.
        previous: Splits to keep, as the module says, also those of memes that `rows` lacks. Those
            made with another seed or other ratios are not kept.

    Raises:
        BadSplitRatios: Not three positive numbers with sum 1.
        TooFewGroups: Fewer than three groups.
    """
    shares = _checked(ratios)
    members: dict[str, list[MemeRow]] = {}
    for row in rows:
        members.setdefault(groups[row.id], []).append(row)
    if len(members) < len(SPLITS):
        msg = (
            f"splits need at least {len(SPLITS)} groups of memes that share neither text nor "
            f"image: found {len(members)} among {len(rows)} memes; add memes that differ"
        )
        raise TooFewGroups(msg)
    if previous and (previous.seed, previous.ratios) != (seed, shares):
        previous = None
    ever = previous.ever if previous else {}
    kept = {
        group: min((ever[row.id] for row in inside), key=SPLITS.index)
        for group, some in members.items()
        if (inside := [row for row in some if row.id in ever])
    }
    hand = _Hand(rows, shares)
    split_of_group: dict[str, Split] = {}
    for group in sorted(kept):
        split_of_group[group] = hand.deal(members[group], (kept[group],))
    new = sorted(
        members.keys() - kept.keys(), key=lambda g: (-len(members[g]), _digest(seed, g), g)
    )
    for place, group in enumerate(new):
        empty = hand.empty()
        choice = empty if len(new) - place <= len(empty) else SPLITS
        split_of_group[group] = hand.deal(members[group], choice)
    split_of = {row.id: split_of_group[groups[row.id]] for row in rows}
    group_of = {row.id: groups[row.id] for row in rows}
    retired = {meme_id: split for meme_id, split in ever.items() if meme_id not in split_of}
    return MemeSplits(split_of, group_of, seed, shares, retired=retired)


class _Hand:
    """What each split lacks of its share, in memes: of every joint label, and at all."""

    def __init__(self, rows: Sequence[MemeRow], shares: Sequence[float]) -> None:
        found = Counter(_joint(row) for row in rows)
        self._lacking = {
            split: {labels: share * n for labels, n in found.items()}
            for split, share in zip(SPLITS, shares, strict=True)
        }
        self._lacking_at_all = {
            split: share * len(rows) for split, share in zip(SPLITS, shares, strict=True)
        }
        self._has: Counter[Split] = Counter()

    def deal(self, members: Sequence[MemeRow], choice: Sequence[Split]) -> Split:
        """Give a group to the split of these that lacks it most, and say which."""
        found = Counter(_joint(row) for row in members)

        def need(split: Split) -> float:
            lacking = self._lacking[split]
            alike = sum(n * lacking[labels] for labels, n in sorted(found.items()))
            return alike + len(members) * self._lacking_at_all[split]

        split = max(choice, key=need)
        for labels, n in found.items():
            self._lacking[split][labels] -= n
        self._lacking_at_all[split] -= len(members)
        self._has[split] += len(members)
        return split

    def empty(self) -> tuple[Split, ...]:
        """Splits without any meme."""
        return tuple(split for split in SPLITS if not self._has[split])


def _joint(row: MemeRow) -> Labels:
    return tuple(sorted(row.labels.items()))


def _texts(row: MemeRow) -> set[str]:
    return {normalised(text) for text in (row.caption, row.ocr, row.text)} - {""}


def _link_equal(links: Links, keyed: Iterable[tuple[int, object]]) -> None:
    """Link the rows of equal keys."""
    first: dict[object, int] = {}
    pairs = [(first.setdefault(key, row), row) for row, key in keyed]
    links.add(*np.array(pairs, dtype=np.intp).reshape(-1, 2).T)


def _digest(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()


def _checked(ratios: Sequence[float]) -> tuple[float, float, float]:
    try:
        train, val, test = (float(ratio) for ratio in ratios)
    except (TypeError, ValueError):
        train = val = test = math.nan
    shares = (train, val, test)
    if not min(shares) > 0 or abs(sum(shares) - 1) > _RATIO_TOLERANCE:
        msg = f"ratios must be three positive numbers, of {', '.join(SPLITS)}, with sum 1: "
        raise BadSplitRatios(f"{msg}found {ratios!r:.200}")
    return shares
