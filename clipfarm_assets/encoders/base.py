"""What an encoder is to the rest of the house.

Encoding is two steps, because they want different workers: ``prepare`` turns raw bytes into
whatever the model takes (decode, pick, resample; no torch model, safe to call from threads), and
``encode`` runs the model over prepared items.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.statuses import Modality

Rotation = Literal["as_stored", "upright"]
"""Whether a clip's frames are taken as they are stored, or as its display matrix asks."""


class MediaError(ValueError):
    """This one item cannot be embedded: corrupt, empty, hostile or endless. Filed as `fail`."""


class ContentMissing(Exception):  # noqa: N818 - a state of the world, not an error in it
    """The raw object is there but holds nothing to embed yet (an empty transcript).

    Filed as `missing_raw_object` with this message as its reason: the item waits for a better one.
    """


class ModelMismatch(RuntimeError):  # noqa: N818
    """A structural fault: the weights found are not the ones that were recorded. Stops the run."""


@dataclass(frozen=True)
class EmbeddingVersion:
    """Everything that decides an encoder's output. A change of any field is another version.

    Attributes:
        modality: What is embedded.
        model_name: Hub name, or the directory's name for a local model.
        model_revision: Pinned commit of the hub, or ``sha256:<weights hash>`` for a directory.
        weights_sha256: Hash over the model directory's files.
        preprocess_version: Name of the preprocessing contract, e.g. ``video-1``.
        params: Parameters that change the vector (num_frames, pooling, …); JSON values only.
        dim: Length of the vector.
    """

    modality: Modality
    model_name: str
    model_revision: str
    weights_sha256: str
    preprocess_version: str
    params: Mapping[str, Any]
    dim: int

    @property
    def id(self) -> str:
        """Short stable name, e.g. ``video-3f5c0a9d1b22e4f7``: a hash of all fields."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"{self.modality}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "params": dict(self.params)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EmbeddingVersion":
        """The inverse of `to_dict`."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Source:
    """One item's input: the clip's id, its raw object, and the metadata row's text fields."""

    video_id: str
    raw: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One item's output: a float32 unit vector of shape ``(dim,)`` and notes worth keeping.

    ``notes`` are JSON scalars shown to users and kept in the ledger, e.g. ``tokens_cut``.
    """

    vector: NDArray[np.float32]
    notes: Mapping[str, int | float | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which an item is given up; checked inside decode loops."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """A deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, seconds)

    def check(self, doing: str) -> None:
        """Raise `MediaError` when the time is over; `doing` says during what, e.g. "decoding"."""
        if self.left < 0:
            raise self.passed(doing)

    @property
    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self.at - time.monotonic()

    def passed(self, doing: str) -> MediaError:
        """The error of an item that is given up."""
        return MediaError(
            f"gave up {doing} after {self.seconds:g} s, the deadline for one item; "
            "raise item_deadline_seconds if the media is really that long"
        )


@dataclass(frozen=True, slots=True)
class Equivalence:
    """What embedding the canary set both ways showed: whether a faster precision may be used.

    Attributes:
        precision: The faster one, e.g. ``bf16``.
        holds: Whether every cosine is at least `least_cosine` and no neighbour changed.
        items: Canaries compared.
        min_cosine: The smallest cosine of an item's exact and fast vector.
        least_cosine: What was demanded.
        neighbours_changed: Items whose nearest other item is another one.
        build: The machine and libraries it was shown on; it holds nowhere else.
    """

    precision: str
    holds: bool
    items: int
    min_cosine: float
    least_cosine: float
    neighbours_changed: int
    build: str

    def sentence(self) -> str:
        """What a run says of it."""
        found = (
            f"{self.items} canaries embedded both ways: smallest cosine {self.min_cosine:.6f} "
            f"(at least {self.least_cosine:g} wanted), {self.neighbours_changed} nearest "
            "neighbours changed"
        )
        if self.holds:
            return f"{self.precision} is used: {found}"
        return f"{self.precision} was asked for but exact stays: {found}"


class Encoder(Protocol):
    """Raw bytes of one modality to unit vectors."""

    @property
    def version(self) -> EmbeddingVersion:
        """Provenance of every vector this encoder makes."""

    @property
    def is_stand_in(self) -> bool:
        """True for the demo's seeded small models, which stand in for pretrained weights."""

    @property
    def group_size(self) -> int:
        """Items a call of `encode` should be given at most: more gain nothing."""

    @property
    def note(self) -> str:
        """What is computed, and why that way, as far as it is known yet; for people to read."""

    @property
    def equivalence(self) -> Equivalence | None:
        """Why the precision in use is used, where another than the exact one was asked for."""

    def prepare(self, source: Source, deadline: Deadline) -> Any:
        """Decode one item, without the model. Thread-safe.

        Raises:
            MediaError: The media is unusable.
            ContentMissing: There is nothing to embed yet.
        """

    def encode(self, prepared: Sequence[Any]) -> list[Encoded]:
        """Run the model. An item's vector does not depend on its neighbours, bit for bit.

        Raises:
            MediaError: An item gave no usable vector. The message does not say which one, so a
                caller that encoded several encodes them one at a time to find it.
        """
