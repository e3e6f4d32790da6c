"""Train, val and test of the memes that are there, and the labels they were made with.

Writes ``label_taxonomy.json`` and then ``splits.json``, each a function of the rows, the images and
the splits that were stored before, so that a second run writes the same bytes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from clipfarm_assets.contracts.label_taxonomy import LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import SPLITS, MemeRow, Split
from clipfarm_assets.contracts.meme_splits import (
    MAX_DISTANCE,
    RATIOS,
    SEED,
    MemeSplits,
    assign_splits,
    near_duplicate_groups,
)
from clipfarm_assets.pipelines.memes.hashes import ImageHashes, hash_images
from clipfarm_assets.pipelines.memes.manifest import Memes, list_images, read_memes
from clipfarm_assets.pipelines.problems import ProblemCounts
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.split_changes import SplitChanges, lacking_note, split_changes
from clipfarm_assets.storage.images import DEFAULT_LIMITS, ImageLimits
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore


class NoMemeSplits(FileNotFoundError):  # noqa: N818 - a state of the store
    """The store has no splits where they are looked for."""


class OtherTaxonomy(ValueError):  # noqa: N818
    """The memes have other labels or classes now than the splits were made with."""


@dataclass(frozen=True)
class SplitReport(SplitChanges):
    """What became of the memes, in groups of near-duplicates.

    Attributes:
        splits: As stored.
        version: Sha256 of the stored object.
        classes: Split -> label -> name of the class -> memes.
        images_read: Images that were read for their hash.
        images_known: Images whose hash was on record.
        image_problems: Why images have no hash.
        notes: What a person should know, in sentences.
    """

    splits: MemeSplits
    version: str
    classes: Mapping[Split, Mapping[str, Mapping[str, int]]]
    images_read: int
    images_known: int
    image_problems: ProblemCounts
    notes: Sequence[str]

    @property
    def near_duplicates(self) -> int:
        """Memes that are in a group with another."""
        return self.together


def make_splits(
    store: ObjectStore,
    layout: MemeLayout,
    *,
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
    max_distance: int = MAX_DISTANCE,
    limits: ImageLimits = DEFAULT_LIMITS,
    workers: int = 4,
    say: Say = silent,
) -> SplitReport:
    """Hash the images, group near-duplicates, deal groups out, and store the outcome.

    Memes keep the splits they have; see `contracts.meme_splits`. Runs at once lose nothing: each
    begins from what the one before stored.

    Args:
        store: Where the memes are.
        layout: Where there.
        ratios: Of train, val and test. Others than before deal every meme out anew.
        seed: Likewise.
        max_distance: Bits that the perceptual hashes of one image may differ in.
        limits: Of images, here and in shards.
        workers: Images hashed at a time.
        say: Told how far it is.

    Raises:
        NoMemes, NoMemeRows, BadTaxonomy: See `read_memes`.
        BadSplits: What is stored are no splits.
        BadSplitRatios, TooFewGroups: See `assign_splits`.
    """
    memes = read_memes(store, layout)
    rows = memes.rows
    hashes = hash_images(
        store,
        layout,
        (row.image for row in rows),
        list_images(store, layout),
        limits=limits,
        workers=workers,
        say=say,
    )
    groups = near_duplicate_groups(rows, hashes.values(), max_distance)
    key = layout.splits()
    previous: MemeSplits | None = None

    def change(stored: bytes | None) -> bytes:
        nonlocal previous
        previous = None if stored is None else MemeSplits.from_json(stored, key)
        splits = assign_splits(rows, groups, ratios, seed, previous)
        return replace(splits, max_distance=max_distance, images=limits).to_json()

    # First what the splits are read with: whoever sees the splits sees that too.
    _put_taxonomy(store, layout, memes.taxonomy)
    data = store.update(key, change)
    if data is None:  # pragma: no cover - an absent object is always made
        msg = f"{key} was not made"
        raise RuntimeError(msg)
    splits = MemeSplits.from_json(data, key)
    problems = ProblemCounts.of(hashes.problems(layout))
    report = _report(memes, splits, previous, hashes, problems)
    for note in report.notes:
        say(note)
    return report


def read_splits(store: ObjectStore, layout: MemeLayout) -> MemeSplits:
    """The stored splits.

    Raises:
        NoMemeSplits: There are none; says what makes them.
        BadSplits: What is stored are no splits.
    """
    key = layout.splits()
    return MemeSplits.from_json(_get(store, key), key)


def read_taxonomy(store: ObjectStore, layout: MemeLayout) -> LabelTaxonomy:
    """The labels that the stored splits were made with.

    Raises:
        NoMemeSplits: There are none; says what makes them.
        BadTaxonomy: What is stored is no taxonomy.
    """
    key = layout.label_taxonomy()
    return LabelTaxonomy.from_json(_get(store, key), key)


def read_divided(store: ObjectStore, layout: MemeLayout) -> tuple[Memes, MemeSplits]:
    """The memes that are there, and their splits, which were made with the same taxonomy.

    Raises:
        NoMemes, NoMemeRows, BadTaxonomy: See `read_memes`.
        NoMemeSplits, BadSplits: See `read_splits`.
        OtherTaxonomy: The taxonomy was changed meanwhile: numbers of classes would change their
            meaning under models and shards that are there.
    """
    memes, splits = read_memes(store, layout), read_splits(store, layout)
    then = read_taxonomy(store, layout)
    if then != memes.taxonomy:
        msg = (
            f"{layout.taxonomy_source()} must say what memes/splits was made with, which "
            f"{layout.label_taxonomy()} keeps: {_told(then)}; it says {_told(memes.taxonomy)}: "
            "restore it, or materialise memes/splits again"
        )
        raise OtherTaxonomy(msg)
    return memes, splits


def _told(taxonomy: LabelTaxonomy) -> str:
    return " ".join(taxonomy.to_json().decode().split())


def _get(store: ObjectStore, key: str) -> bytes:
    try:
        return store.get(key)
    except FileNotFoundError:
        msg = f"the store {store.url} must hold {key}: it does not; materialise memes/splits"
        raise NoMemeSplits(msg) from None


def _put_taxonomy(store: ObjectStore, layout: MemeLayout, taxonomy: LabelTaxonomy) -> None:
    store.update(layout.label_taxonomy(), lambda _: taxonomy.to_json())


def _report(
    memes: Memes,
    splits: MemeSplits,
    previous: MemeSplits | None,
    hashes: ImageHashes,
    image_problems: ProblemCounts,
) -> SplitReport:
    changes = split_changes(splits, previous)
    report = SplitReport(
        **vars(changes),
        splits=splits,
        version=hashlib.sha256(splits.to_json()).hexdigest(),
        classes=_classes(memes.rows, splits, memes.taxonomy),
        images_read=hashes.read,
        images_known=hashes.known,
        image_problems=image_problems,
        notes=(),
    )
    notes = [*report.sentences("memes", "near-duplicates"), *_imbalances(report)]
    return replace(report, notes=tuple(notes))


def _imbalances(report: SplitReport) -> Iterator[str]:
    """Sentences on splits that are not what was asked for."""
    for split, ratio in zip(SPLITS, report.splits.ratios, strict=True):
        if note := report.share_note(split, ratio, "memes"):
            yield note
        for label, classes in report.classes[split].items():
            if note := lacking_note(split, classes, f"meme of {label}"):
                yield note


def _classes(
    rows: Sequence[MemeRow], splits: MemeSplits, taxonomy: LabelTaxonomy
) -> dict[Split, dict[str, dict[str, int]]]:
    found: dict[Split, dict[str, dict[str, int]]] = {
        split: {label: dict.fromkeys(names, 0) for label, names in taxonomy.labels.items()}
        for split in SPLITS
    }
    for row in rows:
        for label, number in row.labels.items():
            found[splits.split_of[row.id]][label][taxonomy.labels[label][number]] += 1
    return found
