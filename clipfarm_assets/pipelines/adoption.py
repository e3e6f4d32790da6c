"""Taking over an older deployment's vectors, which do not say what made them.

Adopting them as some encoder's is for good, so it looks first: a few are made again, and most of
them must come out as they are stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizon_csv import latest_rows, read_horizon_csv
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import (
    ContentMissing,
    Deadline,
    Encoder,
    MediaError,
    ModelMismatch,
    Source,
)
from clipfarm_assets.encoders.config import TEMPLATE_FIELDS
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.failure_streak import EncoderBroken, sentence
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.storage.npy import BadVector, npy_to_vector

SAMPLE_CLIPS: Final = 3
CANDIDATES: Final = 50
# Other hardware and library builds move a vector by far less, another model or frame choice by far
# more: bf16 against float32 was seen at 0.9999, padded against unpadded sound at 0.5.
MIN_COSINE: Final = 0.99


@dataclass(frozen=True)
class Adoption:
    """Decides, once a store and modality, what the unversioned vectors there are.

    Attributes:
        deployment: Where they are.
        modality: Of which modality.
        deadline_seconds: For decoding one raw object.
        say: Told what was compared, or that nothing could be.
    """

    deployment: Deployment
    modality: Modality
    deadline_seconds: float
    say: Say = silent

    def __call__(self, encoder: Encoder) -> None:
        """Adopt the unversioned vectors as the encoder's, if there are any and it makes the same.

        Where no raw object is left there is nothing to compare with; they are adopted all the same.

        Raises:
            ModelMismatch: The encoder makes other vectors, is a stand-in, or computes in another
                than the exact precision, in which no older deployment did.
            EncoderBroken: It could make none, for no fault of the media.
        """
        lock = self.deployment.models_lock()
        if self.modality in lock.adopted():
            return
        stage = statuses.embedding_stage(self.modality)
        candidates = self.deployment.ledger.unversioned(stage, statuses.SUCCESS, CANDIDATES)
        if not candidates:
            return
        if precision := encoder.version.params.get("precision"):
            msg = (
                f"the store has unversioned {self.modality} vectors of an older deployment, which "
                f"are exact, and the encoder's precision is {precision}: run once with precision "
                "exact, which takes them over as they are, then go over to the other"
            )
            raise ModelMismatch(msg)
        if not encoder.is_stand_in:  # else `adopt` refuses it, whatever it makes
            self._compare(encoder, candidates)
        lock.adopt(self.modality, encoder.version, encoder.is_stand_in)

    def _compare(self, encoder: Encoder, candidates: Sequence[str]) -> None:
        cosines = dict(islice(self._cosines(encoder, candidates), SAMPLE_CLIPS))
        who = f"{encoder.version.model_name} ({encoder.version.id})"
        if not cosines:
            self.say(
                f"the older deployment's {self.modality} vectors are taken to be of {who} unseen: "
                f"none of the first {len(candidates)} has a raw object left to compare with"
            )
            return
        found = ", ".join(f"{video_id} {cosine:.4f}" for video_id, cosine in cosines.items())
        same = sum(cosine >= MIN_COSINE for cosine in cosines.values())
        if 2 * same <= len(cosines):
            raise self._refusal(f"a cosine of {MIN_COSINE} or more with them", found, who)
        self.say(
            f"the older deployment's {self.modality} vectors are taken to be of {who}: "
            f"made again, {same} of {len(cosines)} are the same (cosines: {found})"
        )

    def _cosines(self, encoder: Encoder, candidates: Sequence[str]) -> Iterator[tuple[str, float]]:
        """The cosine of stored and new vector of every candidate that can be made again."""
        metadata = self._metadata(candidates)
        broken: Exception | None = None
        compared = False
        for video_id in candidates:
            stored = self._stored(video_id)
            if stored is None:
                continue
            if len(stored) != encoder.version.dim:
                who = f"{encoder.version.model_name} ({encoder.version.id})"
                expected = f"{len(stored)} values, as {video_id} has"
                raise self._refusal(expected, f"{encoder.version.dim} values", who)
            raw = self._get("raw", video_id)
            if raw is None or video_id not in metadata:
                continue
            try:
                deadline = Deadline.after(self.deadline_seconds)
                prepared = encoder.prepare(Source(video_id, raw, metadata[video_id]), deadline)
                cosine = _cosine(stored, encoder.encode([prepared])[0].vector)
            except (MediaError, ContentMissing):
                continue  # the raw object is not what it was
            except Exception as error:  # noqa: BLE001 - whose fault it is shows at the end
                broken = error
                continue
            compared = True
            yield video_id, cosine
        if broken is not None and not compared:
            msg = (
                f"the {self.modality} encoder could make none of the older deployment's vectors "
                f"again, the last time with {sentence(broken)}"
            )
            raise EncoderBroken(msg) from broken

    def _metadata(self, video_ids: Sequence[str]) -> dict[str, Mapping[str, str]]:
        """The text fields of those of the clips that the metadata CSV has, by video_id."""
        key = self.deployment.layout.metadata()
        try:
            rows = latest_rows(read_horizon_csv(self.deployment.store.get(key), key)).rows
        except FileNotFoundError:
            return {}
        return {
            row["video_id"]: {name: row[name] or "" for name in TEMPLATE_FIELDS}
            for row in rows.filter(pl.col("video_id").is_in(list(video_ids))).to_dicts()
        }

    def _stored(self, video_id: str) -> NDArray[np.float32] | None:
        data = self._get("embedding", video_id)
        try:
            return None if data is None else npy_to_vector(data)
        except BadVector:
            return None  # a check's finding; it says nothing about the encoder

    def _get(self, what: str, video_id: str) -> bytes | None:
        layout = self.deployment.layout
        key = {"raw": layout.raw, "embedding": layout.embedding}[what](self.modality, video_id)
        try:
            return self.deployment.store.get(key)
        except FileNotFoundError:
            return None

    def _refusal(self, expected: str, found: str, who: str) -> ModelMismatch:
        name = self.modality.upper()
        return ModelMismatch(
            f"the store has unversioned {self.modality} vectors of an older deployment and expects "
            f"its encoder to give {expected}, but found {found} with {who}: name the model that "
            f"made them by CLIPFARM_{name}_MODEL and its parameters, or use another store"
        )


def _cosine(stored: NDArray[np.float32], made: NDArray[np.float32]) -> float:
    """Cosine of two vectors of shape (dim,), in float64; 0 where a norm is 0."""
    one, two = stored.astype(np.float64), made.astype(np.float64)
    norms = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(one @ two) / norms if norms else 0.0
