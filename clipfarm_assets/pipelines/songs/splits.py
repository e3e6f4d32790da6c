"""Train, val and test of the segments that are there: ``songs/splits.json``.

It is a function of the metadata and of the splits that were stored before, so that a second run
writes the same bytes, and segments keep the split they have when others come.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from clipfarm_assets.contracts.song_segments import Segment
from clipfarm_assets.contracts.song_splits import (
    SPLITS,
    SongSplits,
    Split,
    assign_song_splits,
    no_song_in_two_splits,
)
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.pipelines.split_changes import SplitChanges, lacking_note, split_changes
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import DataConfig, SongConfig


class NoSongSplits(FileNotFoundError):  # noqa: N818 - a state of the store
    """The store has no splits where they are looked for."""


class StaleSplits(ValueError):  # noqa: N818 - reads better where it is raised
    """The splits are not of the segments, or the settings, that there are now."""


@dataclass(frozen=True)
class SongSplitReport(SplitChanges):
    """What became of the segments, in groups of one song, or of the albums that share songs.

    Attributes:
        splits: As stored.
        version: Sha256 of the stored object.
        classes: Split -> label -> segments.
        unlabelled: Segments without a label: they have a split, and are no examples.
        notes: What a person should know, in sentences.
    """

    splits: SongSplits
    version: str
    classes: Mapping[Split, Mapping[str, int]]
    unlabelled: int
    notes: Sequence[str]


def make_splits(
    store: ObjectStore, layout: SongLayout, config: SongConfig, say: Say = silent
) -> SongSplitReport:
    """Deal songs, or albums, out, and store the outcome.

    Segments keep the splits they have; see `contracts.song_splits`. Runs at once lose nothing: each
    begins from what the one before stored.

    Args:
        store: Where the segments are.
        layout: Where there.
        config: ``data`` says what is of one split as a whole, in what ratios, and with what seed.
            Others than before deal every segment out anew.
        say: Told what a person should know.

    Raises:
        NoSegments, BadTable, BadSegments: See `read_segments`.
        BadSplits: What is stored are no splits.
        BadSplitRatios, TooFewGroups: See `assign_song_splits`.
    """
    data = config.data
    segments = read_segments(store, layout, data.columns).segments
    key = layout.splits()
    previous: SongSplits | None = None

    def change(stored: bytes | None) -> bytes:
        nonlocal previous
        previous = None if stored is None else SongSplits.from_json(stored, key)
        return assign_song_splits(
            segments, by=data.split_by, ratios=data.ratios, seed=data.seed, previous=previous
        ).to_json()

    made = store.update(key, change)
    if made is None:  # pragma: no cover - an absent object is always made
        msg = f"{key} was not made"
        raise RuntimeError(msg)
    report = _report(segments, SongSplits.from_json(made, key), previous)
    for note in report.notes:
        say(note)
    return report


def read_splits(store: ObjectStore, layout: SongLayout) -> SongSplits:
    """The stored splits.

    Raises:
        NoSongSplits: There are none; says what makes them.
        BadSplits: What is stored are no splits.
    """
    key = layout.splits()
    try:
        data = store.get(key)
    except FileNotFoundError:
        msg = f"the store {store.url} must hold {key}: it does not; materialise songs/splits first"
        raise NoSongSplits(msg) from None
    return SongSplits.from_json(data, key)


def check_splits(
    segments: Sequence[Segment], splits: SongSplits, data: DataConfig, key: str
) -> None:
    """Refuse splits by which a model would be examined on songs that it was fitted on.

    Args:
        segments: As they are now; those that have no split yet are no fault.
        splits: That they are to be used by.
        data: Says how they are wanted.
        key: Where the splits are, for the message.

    Raises:
        StaleSplits: They were made by other settings; or a song, or by album an album, has segments
            in two of them.
    """
    wanted = {"split_by": data.split_by, "ratios": data.ratios, "seed": data.seed}
    made_by = {"split_by": splits.by, "ratios": splits.ratios, "seed": splits.seed}
    others = [name for name, value in wanted.items() if made_by[name] != value]
    if others:
        told = ", ".join(f"{name} {made_by[name]}, not {wanted[name]}" for name in others)
        msg = (
            f"{key} must be made by the settings of config.data: found {told}; materialise "
            "songs/splits with these settings"
        )
        raise StaleSplits(msg)
    verdict = no_song_in_two_splits((s for s in segments if s.id in splits.split_of), splits)
    if not verdict.holds:
        msg = (
            f"{key} must keep segments of one {splits.by} together: found {verdict.summary()}; the "
            "metadata has changed since it was made: materialise songs/splits again"
        )
        raise StaleSplits(msg)


def _report(
    segments: Sequence[Segment], splits: SongSplits, previous: SongSplits | None
) -> SongSplitReport:
    changes = split_changes(splits, previous)
    if previous is not None and previous.by != splits.by:
        changes = replace(changes, is_anew=True)
    labels = sorted({segment.label for segment in segments if segment.label is not None})
    classes: dict[Split, dict[str, int]] = {split: dict.fromkeys(labels, 0) for split in SPLITS}
    for segment in segments:
        if segment.label is not None:
            classes[splits.split_of[segment.id]][segment.label] += 1
    report = SongSplitReport(
        **vars(changes),
        splits=splits,
        version=hashlib.sha256(splits.to_json()).hexdigest(),
        classes=classes,
        unlabelled=sum(segment.label is None for segment in segments),
        notes=(),
    )
    link = "songs of several albums" if splits.by == "album" else "songs"
    notes = [*report.sentences("segments", link, "seed, ratios or grouping"), *_imbalances(report)]
    return replace(report, notes=tuple(notes))


def _imbalances(report: SongSplitReport) -> Iterator[str]:
    """Sentences on splits that are not what was asked for."""
    for split, ratio in zip(SPLITS, report.splits.ratios, strict=True):
        if note := report.share_note(split, ratio, "segments"):
            yield note
        if note := lacking_note(split, report.classes[split], "segment labelled"):
            yield note
    if report.unlabelled:
        yield f"{report.unlabelled} segments have no label, so that they are no examples"
