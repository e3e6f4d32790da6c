"""Segments of songs as items and batches, of words, sound and notes, read when they are needed.

The metadata says which segments there are. The media file is read in the order of its rows, some
megabytes at a time, and only for what nothing stored has. So an epoch's memory is that of a shuffle
buffer and of what is kept of prepared inputs, both bounded, whatever the size of the files.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from clipfarm_assets.contracts.song_segments import MODALITIES, Modality, Segment
from clipfarm_assets.contracts.song_splits import SongSplits, Split
from clipfarm_assets.pipelines.songs.album_features import Features, SegmentFeatures
from clipfarm_assets.pipelines.songs.inputs import (
    CHANGES_VERSION,
    AudioInputs,
    Draw,
    MidiInputs,
    PreparedArrays,
    TextInputs,
    Tokenise,
    is_precomputed,
    stored_audio,
)
from clipfarm_assets.pipelines.songs.media import MediaCounts, MediaModality, open_media
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_items import Arrays, SegmentItem, input_specs

if TYPE_CHECKING:
    import torch

    from clipfarm_assets.training.networks.fit import StreamedBatches

KEPT_BYTES: Final = 256 << 20
"""Most bytes of prepared inputs that are kept from one epoch to the next."""

_EPOCHS: Final = 2**62


@dataclass(frozen=True)
class Survey:
    """What the segments of a split have, once each was looked at.

    Attributes:
        segments: How many.
        present: Modality -> how many have it.
        sha256: Of ids, classes and all that encoders see of them.
        problems: Kind -> what was wrong with their media, how often.
    """

    segments: int
    present: Mapping[Modality, int]
    sha256: str
    problems: Mapping[str, int] = field(default_factory=dict)


class SegmentDataset:
    """Labelled segments; ``dataset[n]`` is as at inference, without random changes.

    Not for several threads at once.

    Attributes:
        segments: Those that have a class and a split, in the order of their rows.
        classes: Names of the classes; an item's label is a place among them.
        left_out: Why -> how many of the segments given are not among them.
        counts: Of media that was asked for, and what was wrong with it. What is not kept is asked
            for again each epoch, and counted again.
        specs: Shapes of a row's inputs in a batch.
    """

    def __init__(
        self,
        store: ObjectStore,
        layout: SongLayout,
        config: SongConfig,
        segments: Sequence[Segment],
        splits: SongSplits,
        *,
        corrections: Mapping[str, float] | None = None,
        features: Features | None = None,
        tokenise: Tokenise | None = None,
        kept_bytes: int = KEPT_BYTES,
        media: ParquetRows | None = None,
    ) -> None:
        """Read the files' footers; nothing is decoded yet.

        Args:
            store: Where the files are.
            layout: Where there.
            config: Which encoders there are, what is done to their inputs, and the classes.
            segments: Of the metadata, less those that are not to be used.
            splits: Where they are.
            corrections: Id -> seconds to add to the times of its MIDI's notes; see
                `use_alignment`.
            features: What was computed before, by kind; see `open_features`.
            tokenise: For a text encoder that runs in the network.
            kept_bytes: Most bytes of prepared inputs that are kept from epoch to epoch.
            media: The media file, if it is open.

        Raises:
            NoSegments, BadTable: A file is missing, or is none.
            ValueError: A tokeniser, or features that the settings ask for, are missing.
        """
        self.config = config
        self.counts = MediaCounts()
        features = features or {}
        modalities: list[MediaModality] = ["midi"] if is_precomputed(config) else ["audio", "midi"]
        self._media = open_media(
            store,
            layout,
            config.data.columns,
            modalities=modalities,
            folders=config.data.media_folders,
            counts=self.counts,
            rows=media,
        )
        stored = stored_audio(config, features)
        tokens = _stored_tokens(stored if is_precomputed(config) else None, segments)
        self.specs = input_specs(config, tokens)
        self._text = TextInputs(store, layout, config, features.get("text"), tokenise, self.counts)
        self._audio = AudioInputs(config, self._media, stored, self.specs["audio"], self.counts)
        self._midi = MidiInputs(config, self._media, corrections or {}, self.counts)
        self._kept = PreparedArrays(kept_bytes)
        self._surveys: dict[Split, Survey] = {}
        self._splits = splits
        found = sorted({segment.label for segment in segments if segment.label is not None})
        self.classes: tuple[str, ...] = config.data.classes or tuple(found)
        self._number = {name: number for number, name in enumerate(self.classes)}
        self.left_out: Counter[str] = Counter()
        used = [segment for segment in segments if self._is_used(segment)]
        self.segments = sorted(used, key=lambda segment: segment.row)

    def __len__(self) -> int:
        """How many segments there are."""
        return len(self.segments)

    def __getitem__(self, place: int) -> SegmentItem:
        """One item."""
        return self._item(self.segments[place], None)

    def of_split(self, split: Split) -> list[Segment]:
        """The segments of a split, in the order of their rows."""
        return [one for one in self.segments if self._splits.split_of[one.id] == split]

    def class_counts(self, split: Split) -> list[int]:
        """Segments of each class."""
        found = Counter(segment.label for segment in self.of_split(split))
        return [found[name] for name in self.classes]

    def items(self, split: Split) -> Iterator[SegmentItem]:
        """The items of a split, in the order of their rows."""
        for segment in self.of_split(split):
            yield self._item(segment, None)

    def survey(self, split: Split) -> Survey:
        """What the segments of a split have; at first this decodes each of them."""
        if split not in self._surveys:
            before = self.counts.kinds.copy()
            # Anew: what is kept already would not be counted.
            survey = _surveyed(self._item(one, None, anew=True) for one in self.of_split(split))
            problems = dict(sorted((self.counts.kinds - before).items()))
            self._surveys[split] = replace(survey, problems=problems)
        return self._surveys[split]

    def identity(self, split: Split) -> str:
        """Names all that encoders see of a split when nothing is changed; costs a `survey`."""
        return self.survey(split).sha256

    def grouping(self, split: Split) -> str:
        """Names how the media's row groups part a split's rows: random orders follow from it."""
        return _sha256(str([len(unit) for unit in self._units(self.of_split(split))]))

    def as_batches(
        self, split: Split, training: bool = False, batch_size: int | None = None
    ) -> "StreamedBatches[SegmentItem]":
        """A split's items as what `FusionNetwork` is called with, and their classes.

        Training takes row groups in a random order and rows in that of a buffer, and changes sound
        and notes if the settings say so. All of it follows from an epoch's generator.

        Args:
            split: Which.
            training: Whether a network is to be fitted on them.
            batch_size: Rows of a batch; by default that of the settings.

        Raises:
            ValueError: The split has no labelled segments.
        """
        from clipfarm_assets.training.networks.fit import StreamedBatches
        from clipfarm_assets.training.songs.collate import CollateSegments

        segments, data = self.of_split(split), self.config.data
        recipe = f"{CHANGES_VERSION} {self.config.preprocessing.model_dump_json()}"
        changes = _sha256(recipe) if training else "none"
        source = f"{self.identity(split)}, changes {changes}"
        if training:
            source += f", row groups {self.grouping(split)}"
        return StreamedBatches(
            lambda order: self._epoch(segments, order if training else None),
            len(segments),
            batch_size or self.config.training.fit.batch_size,
            shuffle_buffer=data.shuffle_buffer if training else 0,
            collate=CollateSegments(self.specs),
            source=source,
            part=split,
            shuffle_bytes=data.shuffle_bytes if training else None,
            size_of=lambda item: item.nbytes,
        )

    def _epoch(
        self, segments: Sequence[Segment], order: "torch.Generator | None"
    ) -> Iterator[SegmentItem]:
        """All items once; in an order and with changes that `order` decides, if it is given."""
        units = self._units(segments)
        draw = None
        if order is not None:
            import torch

            # Epochs are not counted here: a fit that goes on has the generator of where it was.
            epoch = int(torch.randint(_EPOCHS, (), generator=order))
            draw = Draw(self.config.training.seed, epoch)
            units = [units[place] for place in torch.randperm(len(units), generator=order).tolist()]
        for unit in units:
            for segment in unit:
                yield self._item(segment, draw)

    def _units(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """Those of one row group of the media each."""
        groups = groupby(segments, key=lambda segment: self._media.rows.group_of(segment.row))
        return [list(unit) for _, unit in groups]

    def _item(self, segment: Segment, draw: Draw | None, *, anew: bool = False) -> SegmentItem:
        inputs = {name: self._arrays(name, segment, draw, anew=anew) for name in MODALITIES}
        return SegmentItem(segment.id, inputs, self._number[str(segment.label)])

    def _arrays(
        self, modality: Modality, segment: Segment, draw: Draw | None, *, anew: bool
    ) -> Arrays | None:
        key = (modality, segment.id)
        changed = {"text": False, "audio": self._audio.is_changed, "midi": self._midi.is_changed}
        changes = draw if changed[modality] else None
        if not anew and key in self._kept and (changes is None or self._kept[key] is None):
            return self._kept[key]
        if modality == "text":
            arrays = self._text.arrays(segment)
        elif modality == "audio":
            arrays = self._audio.arrays(segment, changes)
        else:
            arrays = self._midi.arrays(segment, changes)
        # Of what training changes only that there is nothing is asked for again.
        again = not changed[modality] or arrays is None or not self._is_trained_on(segment)
        if changes is None and again and key not in self._kept:
            self._kept.keep(key, arrays)
        return arrays

    def _is_trained_on(self, segment: Segment) -> bool:
        return self._splits.split_of[segment.id] == "train"

    def _is_used(self, segment: Segment) -> bool:
        reason = None
        if segment.label is None:
            reason = "unlabelled"
        elif segment.label not in self._number:
            reason = "other_label"
        elif segment.id not in self._splits.split_of:
            reason = "no_split"
        if reason is not None:
            self.left_out[reason] += 1
        return reason is None


def _surveyed(items: Iterator[SegmentItem]) -> Survey:
    digest = hashlib.sha256()
    present: Counter[Modality] = Counter()
    total = 0
    for item in items:
        total += 1
        digest.update(f"{item.id}\0{item.label}\n".encode())
        for name in MODALITIES:
            arrays = item.inputs[name]
            if arrays is None:
                continue
            present[name] += 1
            for argument, array in sorted(arrays.items()):
                digest.update(f"{name}.{argument} {array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
    return Survey(total, {name: present[name] for name in MODALITIES}, digest.hexdigest())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _stored_tokens(stored: SegmentFeatures | None, segments: Sequence[Segment]) -> int:
    """How many vectors the stored audio of a segment has; 1 if there is none to tell by."""
    if stored is None:
        return 1
    found = (stored.get(segment) for segment in segments if segment.has_audio)
    return next((len(vectors) for vectors in found if vectors is not None), 1)
