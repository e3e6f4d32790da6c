"""The model that serves: what it was fitted to, applied to new clips, or refused.

Features are made by the functions that training made them by, with what was fitted then; anything
that is not of the model's binding is refused with one sentence instead of being predicted from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.checks import UNIT_NORM_TOLERANCE
from clipfarm_assets.contracts.horizons import Horizon, as_horizon
from clipfarm_assets.contracts.leakage import source_columns
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.serving.binding import Binding, BindingMismatch
from clipfarm_assets.serving.inputs import (
    File,
    Rows,
    check_modalities,
    raw_file,
    text_mask,
    text_rows,
)
from clipfarm_assets.serving.raw_files import DEADLINE_SECONDS, OpenEncoder, embed_files
from clipfarm_assets.serving.registry import ModelVersion, horizon_of, load_registry
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.data import ClipBatch, Strings
from clipfarm_assets.training.families import Model
from clipfarm_assets.training.features import metadata_features, published_at
from clipfarm_assets.training.intervals import SplitConformal
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.metrics import to_raw
from clipfarm_assets.training.snapshot_reader import open_snapshot

IDENTITY: Final = ("video_id", "channel_id", "published_at")
"""Columns that every row needs beside its features: who, whose, and when it is predicted."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """What a model says of N clips.

    Attributes:
        model_version: Which model.
        video_ids: ``(N,)``.
        log: float64 ``(N,)``, log1p(views at the horizon).
        raw: float64 ``(N,)``, views.
        low_raw, high_raw: float64 ``(N,)`` each: ends of the prediction interval, in views.
        text_present: bool ``(N,)``.
        unparsable: Metadata column -> values that are there but unreadable, and count as missing.
        out_of_range: Feature -> values outside of what train held, which count as the nearest
            that it held.
    """

    model_version: str
    video_ids: Strings
    log: Doubles
    raw: Doubles
    low_raw: Doubles
    high_raw: Doubles
    text_present: NDArray[np.bool_]
    unparsable: Mapping[str, int] = field(default_factory=dict)
    out_of_range: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.log)


@dataclass(frozen=True)
class Predictor:
    """A promoted model.

    Attributes:
        version: Its registry entry.
        binding: What it may be given.
        model: The fitted family.
        interval: Of its predictions.
        encoder: Of its metadata, as fitted.
        adopted: What unversioned vectors count as, see `schema_lock.resolve`.
    """

    version: ModelVersion
    binding: Binding
    model: Model
    interval: SplitConformal
    encoder: MetadataEncoder
    adopted: Mapping[Modality, str] = field(default_factory=dict)

    def predict(
        self,
        rows: Rows,
        vectors: Mapping[Modality, NDArray[np.float32]],
        text_present: Sequence[bool] | NDArray[np.bool_],
        *,
        versions: Mapping[Modality, str],
        lock: SchemaLock | None = None,
        feature_contract_sha256: str | None = None,
    ) -> Predictions:
        """Predict N clips from their vectors and metadata rows.

        Args:
            rows: N rows of the metadata CSV: `columns`, others are not looked at.
            vectors: float32 ``(N, dim)`` of unit norm by modality. Text rows of clips without text
                are zero; where no clip has text, text may be left out.
            text_present: bool ``(N,)``.
            versions: What made the vectors, by modality.
            lock: The schema lock that they are under, where there is one.
            feature_contract_sha256: The caller's feature contract, where it has one.

        Raises:
            BindingMismatch: Something is not of the kind that the model was fitted to.
            ValueError: Numbers of rows differ, a vector is no unit vector, or text_present holds
                other values than truth values.
            TypeError: `rows` is no sequence of rows.
        """
        if lock is not None:
            self.binding.check_lock(lock, self.adopted)
        if feature_contract_sha256 is not None:
            self.binding.check_contract(feature_contract_sha256)
        check_modalities("embedding versions", versions)
        check_modalities("vectors", vectors)
        frame = self._frame(rows)
        has_text = text_mask(text_present, frame.height)
        self.binding.check_versions(versions, self.adopted, _needed(has_text))
        parsed = metadata_features(frame, self.binding.contract)
        video_ids = frame["video_id"].to_numpy().astype(np.str_)
        video, audio, text = self._vectors(vectors, has_text, video_ids)
        clips = ClipBatch(
            video_ids=video_ids,
            fused=fuse(
                self.binding.strategy,
                video,
                audio,
                text,
                has_text,
                append_mask=self.binding.append_mask,
            ),
            video=video,
            audio=audio,
            text=text,
            text_present=has_text,
            metadata=parsed.metadata,
            channel_id=frame["channel_id"].str.strip_chars().to_numpy().astype(np.str_),
            published_at=published_at(frame),
        )
        return self._predicted(clips, parsed.unparsable)

    def predict_clips(self, clips: ClipBatch) -> Predictions:
        """Predict clips that were assembled as for training, from stored fused vectors.

        Whoever assembled them has compared lock and embedding versions.

        Raises:
            BindingMismatch: Vectors or features are of another shape than the model's.
        """
        if clips.dims != dict(self.binding.dims) or clips.fused.shape[1] != self.binding.fused_dim:
            msg = (
                f"the model is bound to vectors of {_told(self.binding.dims)} and fused "
                f"{self.binding.fused_dim} values, found {_told(clips.dims)} and fused "
                f"{clips.fused.shape[1]}: assemble the clips under the model's lock"
            )
            raise BindingMismatch(msg)
        if tuple(clips.metadata.columns) != self.binding.contract.features:
            msg = (
                f"the model is bound to the {len(self.binding.contract.features)} features of set "
                f"{self.binding.contract.feature_set}, found {clips.metadata.width} others: make "
                "them by the model's contract"
            )
            raise BindingMismatch(msg)
        return self._predicted(clips, {})

    def predict_files(
        self,
        *,
        video: File,
        audio: File,
        text: File | None,
        metadata: Mapping[str, str],
        open_encoder: OpenEncoder,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Predictions:
        """Predict one clip from its raw files.

        Args:
            video: An mp4, as bytes or where to read it; a str is a path, here and below.
            audio: A wav.
            text: The transcript's JSON; None for a clip without words.
            metadata: Its row: `columns`, and with text those that `embed_files` needs.
            open_encoder: Gives the encoder of a modality, of the bound version.
            deadline_seconds: For decoding one file.

        Raises:
            BindingMismatch: An encoder is not of the bound version, or the row lacks a column.
            MediaError: A file can't be embedded.
            ContentMissing: The transcript holds no words: pass None.
            FileNotFoundError: A path leads nowhere.
            TypeError: A file is neither bytes nor a path.
        """
        self._frame([metadata])  # before the encoders, which take their time
        given: dict[Modality, File] = {"video": video, "audio": audio}
        if text is not None:
            given["text"] = text
        files = {modality: raw_file(modality, file) for modality, file in given.items()}
        versions: dict[Modality, str] = {}

        def check(modality: Modality, version: str) -> None:
            self.binding.check_versions({modality: version}, self.adopted, [modality])
            versions[modality] = version

        vectors = embed_files(files, metadata, open_encoder, check, deadline_seconds)
        return self.predict([metadata], vectors, np.array([text is not None]), versions=versions)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the metadata CSV that a row needs."""
        return tuple(dict.fromkeys((*IDENTITY, *source_columns(self.binding.contract))))

    def _predicted(self, clips: ClipBatch, unparsable: Mapping[str, int]) -> Predictions:
        log = self.model.predict(clips)
        low, high = self.interval.interval_raw(log)
        return Predictions(
            model_version=self.version.model_version,
            video_ids=clips.video_ids,
            log=log,
            raw=to_raw(log),
            low_raw=low,
            high_raw=high,
            text_present=clips.text_present,
            unparsable=unparsable,
            out_of_range=self.encoder.out_of_range(clips.metadata),
        )

    def _frame(self, rows: Rows) -> pl.DataFrame:
        return text_rows(rows, self.columns, self.binding.contract.feature_set)

    def _vectors(
        self,
        vectors: Mapping[Modality, NDArray[np.float32]],
        text_present: NDArray[np.bool_],
        video_ids: Strings,
    ) -> list[NDArray[np.float32]]:
        """Video, audio and text vectors, each of the bound shape."""
        needed, rows = _needed(text_present), len(video_ids)
        out = []
        for modality in MODALITIES:
            expected = (rows, self.binding.dims[modality])
            given = vectors.get(modality)
            if given is None and modality not in needed:
                given = np.zeros(expected, dtype=np.float32)
            if given is None or given.dtype != np.float32 or given.shape != expected:
                found = "none" if given is None else f"{given.dtype} {given.shape}"
                msg = (
                    f"the model is bound to {modality} vectors of float32 {expected}, found "
                    f"{found}: give those of the bound encoder, one a row"
                )
                raise BindingMismatch(msg)
            there = given[text_present] if modality == "text" else given
            norms = np.linalg.norm(there.astype(np.float64), axis=1)
            # Written so that NaN is among the wrong ones.
            wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= UNIT_NORM_TOLERANCE))
            if len(wrong):
                rows_there = np.flatnonzero(text_present) if modality == "text" else np.arange(rows)
                ids = ", ".join(video_ids[rows_there[wrong[:5]]])
                msg = (
                    f"{modality} vectors must be finite and of unit norm, as encoders give them: "
                    f"{len(wrong)} of {len(there)} are not ({ids}); embed them again"
                )
                raise ValueError(msg)
            out.append(given)
        return out


def load_predictor(
    store: ObjectStore,
    horizon: Horizon | str | None = None,
    model_version: str | None = None,
    layout: Layout | None = None,
) -> Predictor:
    """The model that serves a horizon, or the one of a version.

    Its files are compared with the registry's hashes before any of them is parsed.

    Args:
        store: Where.
        horizon: The current model of this one, a number or its text; or else
        model_version: this model, e.g. ``h7-v3``.
        layout: Where in the store.

    Raises:
        TypeError: `store` is no `ObjectStore`.
        ValueError: Neither or both are given, or one is no horizon or version's name.
        NoModel: No such model was promoted.
        BadRegistry: The registry is malformed.
        NoSnapshot: The model's snapshot is gone.
        BadSnapshot: One of its files is not what was promoted.
    """
    _check_store(store)
    layout = layout or Layout()
    if horizon is not None and model_version is None:
        version = load_registry(store, layout, as_horizon(horizon)).serving
    elif horizon is None and model_version is not None:
        registry = load_registry(store, layout, horizon_of(model_version))
        version = registry.version(model_version)
    else:
        msg = "expected a horizon or a model_version, and not both: found " + (
            "neither" if horizon is None else f"{horizon} and {model_version}"
        )
        raise ValueError(msg)
    snapshot = open_snapshot(store, layout, version.snapshot_id).pinned(version.artifacts)
    return Predictor(
        version=version,
        binding=Binding.of(snapshot),
        model=snapshot.model(version.family),
        interval=SplitConformal.from_fields(snapshot.interval(version.family)),
        encoder=snapshot.encoder(),
        adopted=ModelsLock(store, layout.models_lock()).adopted(),
    )


def _check_store(store: object) -> None:
    if not isinstance(store, ObjectStore):
        msg = (
            f"expected an ObjectStore, found {type(store).__name__}: open one with "
            "ObjectStore.open(path)"
        )
        raise TypeError(msg)


def _needed(text_present: NDArray[np.bool_]) -> tuple[Modality, ...]:
    """The modalities of which there must be vectors."""
    return MODALITIES if text_present.any() else ("video", "audio")


def _told(dims: Mapping[Modality, int]) -> str:
    return ", ".join(f"{modality} {dims[modality]}" for modality in MODALITIES)
