"""What a model sees of clips, and what it is to learn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.features import FeatureContract
from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.contracts.split_rules import (
    EXCLUDED,
    PARTS,
    SPLIT_KINDS,
    Moments,
    Part,
    SplitKind,
    Strings,
)
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy

__all__ = [
    "EXCLUDED",
    "PARTS",
    "SPLIT_KINDS",
    "ClipBatch",
    "Floats",
    "Labelled",
    "Moments",
    "Part",
    "Provenance",
    "SplitKind",
    "Strings",
    "TrainingData",
]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ClipBatch:
    """N clips as a model sees them: no label, and nothing that is known only after the outcome.

    Attributes:
        video_ids: ``(N,)``.
        fused: float32 ``(N, fused_dim)``: the strategy's vectors as stored, mask included.
        video, audio, text: float32 ``(N, dim)`` each; text is zero where `text_present` is not set.
        text_present: bool ``(N,)``.
        metadata: ``(N,)`` rows: a Float64 column for every numeric feature and a String column for
            every categorical one, in the contract's order; null is missing.
        channel_id: ``(N,)``, empty where unknown. Not a feature: groups and channel history.
        published_at: datetime64[us] in UTC ``(N,)``, NaT where unknown: the moment of prediction.
    """

    video_ids: Strings
    fused: Floats
    video: Floats
    audio: Floats
    text: Floats
    text_present: NDArray[np.bool_]
    metadata: pl.DataFrame
    channel_id: Strings
    published_at: Moments

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.video_ids)

    def modality(self, modality: Modality) -> Floats:
        """One modality's vectors."""
        vectors: Floats = getattr(self, modality)
        return vectors

    def with_modality(self, modality: Modality, vectors: Floats) -> "ClipBatch":
        """The clips with other vectors of one modality; the fused ones stay as they are."""
        if modality == "video":
            return replace(self, video=vectors)
        return replace(self, audio=vectors) if modality == "audio" else replace(self, text=vectors)

    @property
    def dims(self) -> dict[Modality, int]:
        """Vector length by modality."""
        return {modality: self.modality(modality).shape[1] for modality in MODALITIES}

    def take(self, rows: NDArray[np.intp]) -> "ClipBatch":
        """The clips at these positions, in this order."""
        return ClipBatch(
            video_ids=self.video_ids[rows],
            fused=self.fused[rows],
            video=self.video[rows],
            audio=self.audio[rows],
            text=self.text[rows],
            text_present=self.text_present[rows],
            metadata=self.metadata[rows],
            channel_id=self.channel_id[rows],
            published_at=self.published_at[rows],
        )


@dataclass(frozen=True)
class Labelled:
    """Clips with what is to be predicted.

    Attributes:
        clips: N clips.
        target_log: float64 ``(N,)``, log1p of views at the horizon.
        known_at: datetime64[us] ``(N,)``: when the label was captured; before, nobody knew it.
    """

    clips: ClipBatch
    target_log: NDArray[np.float64]
    known_at: Moments

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def take(self, rows: NDArray[np.intp]) -> "Labelled":
        """The rows at these positions, in this order."""
        return Labelled(self.clips.take(rows), self.target_log[rows], self.known_at[rows])


@dataclass(frozen=True)
class Provenance:
    """What a dataset was made of.

    Attributes:
        strategy, horizon: Which of the suite's jobs it is for.
        lock_version, lock_sha256: The schema lock in force when it was assembled.
        embedding_versions: Modality -> version, as the lock names it.
        manifest_sha256, metadata_sha256: Of the objects it was read from.
    """

    strategy: Strategy
    horizon: Horizon
    lock_version: int
    lock_sha256: str
    embedding_versions: Mapping[Modality, str]
    manifest_sha256: str
    metadata_sha256: str


@dataclass(frozen=True)
class TrainingData:
    """One strategy's and horizon's rows, with every split of them.

    Attributes:
        clips: N clips, in the order that the splits were drawn in.
        target_raw: float64 ``(N,)``: views at the horizon.
        captured_at: datetime64[us] ``(N,)``: when the label was captured.
        source_hash: ``(N,)``.
        splits: Split kind -> ``(N,)`` of `PARTS` or `EXCLUDED`. A kind that can't be made of these
            rows is missing here and in `unavailable_splits` with the reason.
        unavailable_splits: Split kind -> why.
        duplicate_groups: int64 ``(N,)``: rows of one number are the same clip to a model.
        contract: The metadata features.
        outcomes: ``(N,)`` rows: Float64 columns that are known only after the outcome (views,
            likes, rates, …), kept for the leakage probe alone; no model is ever given them.
        counts: What was left out or changed on the way, by reason.
        provenance: What it was made of.
    """

    clips: ClipBatch
    target_raw: NDArray[np.float64]
    captured_at: Moments
    source_hash: Strings
    splits: Mapping[SplitKind, Strings]
    unavailable_splits: Mapping[SplitKind, str]
    duplicate_groups: NDArray[np.int64]
    contract: FeatureContract
    outcomes: pl.DataFrame
    counts: Mapping[str, int]
    provenance: Provenance

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    @property
    def target_log(self) -> NDArray[np.float64]:
        """``log1p(target_raw)``, what every model is fitted to."""
        return np.log1p(self.target_raw)

    def labelled(self) -> Labelled:
        """All rows."""
        return Labelled(self.clips, self.target_log, self.captured_at)

    def part(self, kind: SplitKind, part: Part) -> Labelled:
        """The rows of one part of one split, in their order.

        Raises:
            KeyError: The split can't be made of these rows; see `unavailable_splits`.
        """
        return self.labelled().take(np.flatnonzero(self.splits[kind] == part))

    def with_metadata(self, contract: FeatureContract, metadata: pl.DataFrame) -> "TrainingData":
        """The same rows with other metadata features."""
        clips = replace(self.clips, metadata=metadata)
        return replace(self, clips=clips, contract=contract)
