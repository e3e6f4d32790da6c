"""A fit between two epochs as bytes: plain tensors and JSON, and what they belong to."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from torch import Tensor

from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.networks.batches import tensors_hash
from clipfarm_assets.training.networks.weights import (
    BadWeights,
    from_safetensors,
    safetensors_metadata,
    to_safetensors,
)

_METADATA_KEY: Final = "fit"
_LONGEST_SHOWN: Final = 80


class BadCheckpoint(ValueError):  # noqa: N818
    """A checkpoint cannot be gone on from: it is damaged, or of another fit."""


class Checkpoint(Protocol):
    """Where a fit keeps its state after every epoch.

    The loop saves, and never clears but after divergence: clear it once what came of the fit is
    stored. Until then a fit that is started again ends at once, with the same result.
    """

    def load(self) -> bytes | None:
        """What was saved last, or None."""

    def save(self, data: bytes) -> None:
        """Replace what was saved, as a whole or not at all."""

    def clear(self) -> None:
        """Forget it; fine if there is nothing."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint as an object of a store."""

    store: ObjectStore
    key: str

    def load(self) -> bytes | None:
        """The object's bytes, or None if there is none."""
        try:
            return self.store.get(self.key)
        except FileNotFoundError:
            return None

    def save(self, data: bytes) -> None:
        """Replace the object; a kill leaves the old one or the new one."""
        self.store.put(self.key, data)

    def clear(self) -> None:
        """Delete the object if there is one."""
        self.store.delete(self.key)


class _About(BaseModel):
    """The JSON beside the tensors. `tensors` is their hash: the format itself has no checksum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    belongs_to: dict[str, JsonValue]
    tensors: str


def pack(belongs_to: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """A checkpoint: safetensors, with JSON as its metadata. Equal arguments give equal bytes.

    Args:
        belongs_to: What decides the fit: all that must be equal for the result to be.
        tensors: By name; may share memory.
    """
    about = _About(belongs_to=_as_json(belongs_to), tensors=tensors_hash(tensors))
    text = json.dumps(about.model_dump(), sort_keys=True)
    return to_safetensors(tensors, {_METADATA_KEY: text})


def unpack(data: bytes, belongs_to: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint.

    Raises:
        BadCheckpoint: It is damaged, or belongs to another fit; the error says what differs.
    """
    try:
        tensors = from_safetensors(data, "the checkpoint")
        text = safetensors_metadata(data).get(_METADATA_KEY, "")
        about = _About.model_validate_json(text)
    except BadWeights as error:
        raise BadCheckpoint(f"{error}; clear it to start anew") from None
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        msg = f"the checkpoint is none of a fit, or of another version: {found}; clear it"
        raise BadCheckpoint(msg) from None
    if tensors_hash(tensors) != about.tensors:
        msg = "the checkpoint is damaged: its tensors are not those that were saved; clear it"
        raise BadCheckpoint(msg)
    if differences := _differences(about.belongs_to, _as_json(belongs_to)):
        msg = (
            f"the checkpoint belongs to another fit: {'; '.join(differences)}. Clear it to start "
            "anew, or finish that fit with what it was started with"
        )
        raise BadCheckpoint(msg)
    return tensors


def resume(
    checkpoint: Checkpoint,
    belongs_to: Mapping[str, Any],
    *,
    restart_foreign: bool,
    say: Callable[[str], None],
) -> tuple[dict[str, Tensor] | None, int]:
    """What `checkpoint` has to go on from, if anything, and how many (0 or 1) were discarded.

    Args:
        checkpoint: Where to look.
        belongs_to: What decides this fit.
        restart_foreign: Discard a checkpoint that cannot be gone on from, and say so.
        say: Gets the reason.

    Raises:
        BadCheckpoint: There is one that cannot be gone on from, and `restart_foreign` is False.
    """
    data = checkpoint.load()
    if data is None:
        return None, 0
    try:
        return unpack(data, belongs_to), 0
    except BadCheckpoint as error:
        if not restart_foreign:
            raise
        say(f"starts anew, 1 checkpoint discarded: {error}")
        checkpoint.clear()
        return None, 1


def _as_json(belongs_to: Mapping[str, Any]) -> dict[str, Any]:
    """As it is read back: tuples are lists there."""
    fields: dict[str, Any] = json.loads(json.dumps(dict(belongs_to)))
    return fields


def _differences(there: Any, here: Any, where: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            line
            for key in sorted(there.keys() | here.keys())
            for line in _differences(there.get(key), here.get(key), f"{where}.{key}".strip("."))
        ]
    if there == here and type(there) is type(here):
        return []
    return [f"{where} is {_short(there)} there and {_short(here)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


@dataclass(frozen=True)
class SharedCheckpoint:
    """A checkpoint that fits of one process share, where they begin with the same epochs.

    Of a fit of other inputs it is foreign, like any other; so it is for fits that discard such.

    Attributes:
        stored: Where the state is kept beside; a process that goes on looks there.
        remembered: What was saved last, by name; of all fits.
        name: Of this one.
    """

    stored: Checkpoint
    remembered: dict[str, bytes]
    name: str

    def load(self) -> bytes | None:
        """What this process saved, or else what is stored."""
        found = self.remembered.get(self.name)
        return self.stored.load() if found is None else found

    def save(self, data: bytes) -> None:
        """Replace both."""
        self.stored.save(data)
        self.remembered[self.name] = data

    def clear(self) -> None:
        """Forget both."""
        self.stored.clear()
        self.remembered.pop(self.name, None)
