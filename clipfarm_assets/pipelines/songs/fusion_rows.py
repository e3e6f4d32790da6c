"""The labelled segments of splits as models see them: what there is, in which order, as batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.contracts.song_splits import Split, song_groups
from clipfarm_assets.encoders.models import Profile, ResolvedModel, encoder_profile
from clipfarm_assets.pipelines.progress import Say
from clipfarm_assets.pipelines.songs.alignment_rows import (
    AlignmentUse,
    read_alignment,
    use_alignment,
)
from clipfarm_assets.pipelines.songs.dataset import SegmentDataset, Survey
from clipfarm_assets.pipelines.songs.media import media_rows
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.pipelines.songs.splits import check_splits, read_splits
from clipfarm_assets.pipelines.songs.stored_features import check_features, open_features
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.classification.values import Labels
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_items import Arrays
from clipfarm_assets.training.song_models import network_models
from clipfarm_assets.training.song_snapshot import SongSnapshot, modality_of

if TYPE_CHECKING:
    from clipfarm_assets.training.networks.fit import Batches
    from clipfarm_assets.training.songs.model import SongModel

FITTED: Final[tuple[Split, Split]] = ("train", "val")
"""Splits that models are fitted on; stopping and calibrating are fitting too."""

JUDGED: Final[tuple[Split, Split]] = ("val", "test")


class NoLabelledSegments(ValueError):  # noqa: N818 - reads better where it is raised
    """A split, or a class of train, has no labelled segments."""


@dataclass(frozen=True)
class LabelledRows:
    """N labelled segments of a split, in the order of its batches.

    Attributes:
        ids: ``(N,)``.
        groups: ``(N,)``: songs, or albums, as segments were split by.
        labels: int64 ``(N,)``.
    """

    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: Labels


@dataclass(frozen=True)
class SongRows:
    """Labelled segments, by the settings of some models.

    Attributes:
        store, layout: Where they are, and models go to.
        config: The settings; of models, the strategy is another one for each.
        dataset: The segments.
        groups: Id -> its song, or album, as segments were split by, by the metadata as it is now.
        alignment: Which of them are misaligned, and left out or not.
        models: Pretrained encoders that run in networks.
    """

    store: ObjectStore
    layout: SongLayout
    config: SongConfig
    dataset: SegmentDataset
    groups: Mapping[str, str]
    alignment: AlignmentUse
    models: Mapping[Modality, ResolvedModel]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.dataset.classes

    @property
    def encoder_titles(self) -> dict[str, str]:
        """Modality -> what it is encoded by, stand-ins named as such."""
        titles: dict[str, str] = {}
        for name in MODALITIES:
            kind = getattr(self.config.model, f"{name}_encoder").type
            model = self.models.get(name)
            stand_in = " (stand-in)" if model is not None and model.is_stand_in else ""
            titles[name] = kind if model is None else f"{kind} {model.name}{stand_in}"
        return titles

    def build(self, name: str, config: SongConfig) -> "SongModel":
        """A model, freshly drawn.

        Args:
            name: A strategy, or one modality alone.
            config: How it is fitted may be other than in the rows' own.

        Raises:
            ModelUnavailable, NoLayers: A pretrained encoder does not do.
        """
        from clipfarm_assets.training.songs.model import SongModel

        return SongModel.build(name, config, self.classes, self._folders)

    def load(self, found: SongSnapshot) -> "SongModel":
        """A published model.

        Raises:
            BadSnapshot, BadWeights: Its files are not what was published, or what it was fitted
                over has changed.
        """
        from clipfarm_assets.training.songs.model import SongModel

        return SongModel.load(found.read, self._folders)

    def batches(self, split: Split, name: str) -> "Batches":
        """A split as a model sees it; train is shuffled, and augmented if the settings say so."""
        from clipfarm_assets.training.songs.single import OneModality

        batches = self.dataset.as_batches(split, training=split == "train")
        alone = modality_of(name)
        return batches if alone is None else OneModality(batches, alone, MODALITIES.index(alone))

    def labelled(self, split: Split) -> LabelledRows:
        """The segments, in the order of `batches` but for train."""
        segments = self.dataset.of_split(split)
        number = {name: place for place, name in enumerate(self.classes)}
        return LabelledRows(
            np.array([segment.id for segment in segments], dtype=np.str_),
            np.array([self.groups[segment.id] for segment in segments], dtype=np.str_),
            np.array([number[str(segment.label)] for segment in segments], dtype=np.int64),
        )

    def check_in_order(self, split: Split, labels: Labels) -> None:
        """Refuse what a model said of other rows than `labelled` has.

        Raises:
            RuntimeError: The labels are others.
        """
        if not np.array_equal(self.labelled(split).labels, labels):
            msg = f"batches of {split} gave other segments than the dataset has: a mistake of ours"
            raise RuntimeError(msg)

    def counts(self, split: Split) -> list[int]:
        """Segments of each class."""
        return self.dataset.class_counts(split)

    def counts_by_name(self, split: Split) -> dict[str, int]:
        """Segments by name of the class."""
        return dict(zip(self.classes, self.counts(split), strict=True))

    @property
    def surveys(self) -> dict[Split, Survey]:
        """What the segments of train and val have, and what was wrong with them."""
        return {split: self.dataset.survey(split) for split in FITTED}

    def left_out(self) -> dict[str, int]:
        """Why -> segments of the metadata that models see nothing of."""
        excluded = len(self.alignment.excluded)
        return {**self.dataset.left_out, **({"misaligned": excluded} if excluded else {})}

    def identity(self, split: Split) -> str:
        """Names all that encoders see of a split, and its classes."""
        return self.dataset.identity(split)

    def grouping(self, split: Split) -> str:
        """Names what of the media's row groups an epoch's random order follows from."""
        return self.dataset.grouping(split)

    def check_labelled(self) -> None:
        """Refuse what can't be fitted.

        Raises:
            NoLabelledSegments: There are fewer than two classes, train or val has no labelled
                segments, or train has none of a class.
        """
        if len(self.classes) < 2:
            found = ", ".join(self.classes) or "none"
            msg = (
                f"models tell two classes at least: the labelled segments have {found}; label "
                "more, or name another column in config.data.columns.label"
            )
            raise NoLabelledSegments(msg)
        empty = [split for split in FITTED if not sum(self.counts(split))]
        lacking = [name for name, n in self.counts_by_name("train").items() if not n]
        if empty or lacking:
            what = (
                f"{' and '.join(empty)} must have labelled segments"
                if empty
                else f"train must have segments of every class, and has none of {lacking}"
            )
            reasons = ", ".join(f"{why} {n}" for why, n in self.left_out().items())
            msg = (
                f"{what}: found {self.counts_by_name('train')} in train and "
                f"{self.counts_by_name('val')} in val, left out: {reasons or 'none'}; label more "
                "songs, or set other config.data.ratios"
            )
            raise NoLabelledSegments(msg)

    def check_judged(self) -> None:
        """Refuse splits that nothing can be judged by.

        Raises:
            NoLabelledSegments: Val or test has no labelled segments.
        """
        empty = [split for split in JUDGED if not sum(self.counts(split))]
        if empty:
            msg = (
                f"{' and '.join(empty)} must have labelled segments to judge by: found none; label "
                "more songs, or set other config.data.ratios"
            )
            raise NoLabelledSegments(msg)

    @property
    def _folders(self) -> dict[Modality, Path]:
        return {name: model.path for name, model in self.models.items()}


def open_rows(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig,
    say: Say,
    *,
    cache_dir: Path,
    profile: Profile | None = None,
) -> SongRows:
    """The segments as they are now; those that have no split yet are left out, and counted.

    Args:
        store: Where they are.
        layout: Where there.
        config: What models are made by.
        say: Told of misaligned segments.
        cache_dir: Folder for stand-ins of pretrained encoders.
        profile: Whose models are taken where none is named; by default the environment's.

    Raises:
        NoSegments, BadTable, BadSegments: See `read_segments`.
        NoAlignment: An album with audio and MIDI was not checked for alignment.
        NoFeatures: An album lacks features that a modality is read from; see `check_features`.
        NoSongSplits, BadSplits: See `read_splits`.
        StaleSplits: See `check_splits`.
        ModelUnavailable: A pretrained encoder is missing.
    """
    segments = read_segments(store, layout, config.data.columns).segments
    settings = config.preprocessing.alignment
    pairs = sorted({each.album for each in segments if each.has_audio and each.has_midi})
    media = media_rows(store, layout)  # one file, whatever is put in its place meanwhile
    found = read_alignment(store, layout, pairs, config.preprocessing, media)
    alignment = use_alignment(segments, found, settings)
    told = f"{len(alignment.excluded)} left out, {len(alignment.flagged)} used nevertheless"
    if alignment.excluded or alignment.flagged:
        say(f"misaligned segments: {told}; {len(alignment.corrections)} others are corrected")
    splits = read_splits(store, layout)
    check_splits(segments, splits, config.data, layout.splits())
    profile = profile or encoder_profile()
    check_features(store, layout, config, segments, cache_dir=cache_dir, profile=profile)
    models = network_models(config, profile=profile, cache_dir=cache_dir)
    dataset = SegmentDataset(
        store,
        layout,
        config,
        alignment.kept,
        splits,
        corrections=alignment.corrections,
        features=open_features(store, layout, config, cache_dir=cache_dir, profile=profile),
        tokenise=_tokenise(config, models),
        media=media,
    )
    groups = song_groups(segments, splits.by)
    return SongRows(store, layout, config, dataset, groups, alignment, models)


def _tokenise(config: SongConfig, models: Mapping[Modality, ResolvedModel]) -> Any:
    """What makes tokens of lyrics, where the text encoder runs in the network."""
    encoder = config.model.text_encoder
    if encoder.type == "precomputed":
        return None
    from clipfarm_assets.training.song_encoders.text import LyricTokenizer

    tokenizer = LyricTokenizer(models["text"].path, encoder.max_tokens)

    def tokenise(text: str) -> tuple[Arrays, int]:
        found = tokenizer([text])
        return {name: value[0].numpy() for name, value in found.inputs.items()}, found.cut[0]

    return tokenise
