"""The schema lock of a strategy: the one shape, and the one encoder a modality, of its vectors.

``fused/<strategy>/schema.json`` holds the fields of the fusion contract (section 8.3) and two more:
``lock_version``, counted up by every migration, and ``embedding_versions``. An older deployment's
lock has neither: it is version 1, and its embedding versions are `UNVERSIONED`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES, Modality, Strategy

# The version of vectors whose encoder nobody recorded: those of an older deployment.
UNVERSIONED: Final = "unversioned"

_DIMS: Final = ("video_dim", "audio_dim", "text_dim", "fused_dim")


class LockMismatch(RuntimeError):  # noqa: N818 - reads better where it is raised
    """What was found contradicts the lock: a structural fault that stops the run."""


class BadLock(ValueError):  # noqa: N818
    """The object is not a schema lock."""


def fused_dim(
    strategy: Strategy, *, video_dim: int, audio_dim: int, text_dim: int, append_mask: bool = True
) -> int:
    """Length of a fused vector, mask included.

    Raises:
        ValueError: `strategy` is none of `STRATEGIES`.
    """
    dims = (video_dim, audio_dim, text_dim)
    if strategy == "concat":
        return sum(dims) + append_mask
    if strategy in {"sum_pool", "max_pool"}:
        return max(dims) + append_mask
    msg = f"unknown fusion strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}"
    raise ValueError(msg)


@dataclass(frozen=True)
class SchemaLock:
    """The locked shape of one strategy's fused vectors."""

    fusion_strategy: Strategy
    video_dim: int
    audio_dim: int
    text_dim: int
    fused_dim: int
    mask_appended: bool
    updated_at: str = ""
    lock_version: int = 1
    embedding_versions: Mapping[Modality, str] = field(
        default_factory=lambda: dict.fromkeys(MODALITIES, UNVERSIONED)
    )

    @classmethod
    def of(
        cls,
        strategy: Strategy,
        dims: Mapping[Modality, int],
        versions: Mapping[Modality, str],
        *,
        append_mask: bool = True,
    ) -> "SchemaLock":
        """The lock that vectors of these dimensions and versions ask for."""
        return cls(
            fusion_strategy=strategy,
            video_dim=dims["video"],
            audio_dim=dims["audio"],
            text_dim=dims["text"],
            fused_dim=fused_dim(
                strategy,
                video_dim=dims["video"],
                audio_dim=dims["audio"],
                text_dim=dims["text"],
                append_mask=append_mask,
            ),
            mask_appended=append_mask,
            embedding_versions=dict(versions),
        )

    @property
    def id(self) -> str:
        """How ledger rows and shards name the lock they were made under, e.g. ``lock-1``."""
        return f"lock-{self.lock_version}"

    @property
    def sha256(self) -> str:
        """Identity of the locked shape: strategy, dimensions, mask and version.

        The embedding versions are not in it, they are compared by themselves: an older deployment's
        lock names them later, and is still the same lock.
        """
        shape = [self.fusion_strategy, *(getattr(self, name) for name in _DIMS)]
        told = json.dumps([*shape, self.mask_appended, self.lock_version])
        return hashlib.sha256(told.encode()).hexdigest()

    def dim(self, modality: Modality) -> int:
        """Locked vector length of a modality."""
        dims: dict[Modality, int] = {
            "video": self.video_dim,
            "audio": self.audio_dim,
            "text": self.text_dim,
        }
        return dims[modality]

    def to_json(self) -> bytes:
        """The object's bytes."""
        body = {
            "fusion_strategy": self.fusion_strategy,
            **{name: getattr(self, name) for name in _DIMS},
            "mask_appended": self.mask_appended,
            "updated_at": self.updated_at,
            "lock_version": self.lock_version,
            "embedding_versions": dict(sorted(self.embedding_versions.items())),
        }
        return (json.dumps(body, indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, key: str = "schema.json") -> "SchemaLock":
        """Parse a lock of this or an older deployment.

        Raises:
            BadLock: Not JSON, or a field is missing, of another type, or contradicts the others.
        """
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            msg = f"{key} is not JSON ({error}); restore it from a backup or an archive beside it"
            raise BadLock(msg) from None
        if not isinstance(body, dict):
            msg = f"{key} must be a JSON object: found a {type(body).__name__}"
            raise BadLock(msg)
        _require(key, body, "fusion_strategy", str)
        if body["fusion_strategy"] not in STRATEGIES:
            msg = (
                f"{key}: fusion_strategy must be one of {', '.join(STRATEGIES)}: "
                f"found {body['fusion_strategy']!r}"
            )
            raise BadLock(msg)
        for name in _DIMS:
            _require(key, body, name, int)
            if not 0 < body[name] <= _MAX_DIM:
                msg = f"{key}: {name} must be between 1 and {_MAX_DIM}: found {body[name]}"
                raise BadLock(msg)
        _require(key, body, "mask_appended", bool)
        _require(key, body, "updated_at", str)
        if "lock_version" not in body and "embedding_versions" not in body:
            body["lock_version"] = 1
            body["embedding_versions"] = dict.fromkeys(MODALITIES, UNVERSIONED)
        _require(key, body, "lock_version", int)
        if body["lock_version"] < 1:
            msg = f"{key}: lock_version counts from 1: found {body['lock_version']}"
            raise BadLock(msg)
        versions = body.get("embedding_versions")
        if (
            not isinstance(versions, dict)
            or set(versions) != set(MODALITIES)
            or not all(isinstance(value, str) and value for value in versions.values())
        ):
            msg = (
                f"{key}: embedding_versions must name one version each of "
                f"{', '.join(MODALITIES)}: found {versions!r}"
            )
            raise BadLock(msg)
        lock = cls(
            **{name: body[name] for name in ("fusion_strategy", *_DIMS, "mask_appended")},
            updated_at=body["updated_at"],
            lock_version=body["lock_version"],
            embedding_versions=versions,
        )
        implied = fused_dim(
            lock.fusion_strategy,
            video_dim=lock.video_dim,
            audio_dim=lock.audio_dim,
            text_dim=lock.text_dim,
            append_mask=lock.mask_appended,
        )
        if implied != lock.fused_dim:
            msg = (
                f"{key} contradicts itself: its dimensions give fused_dim {implied}, "
                f"it says {lock.fused_dim}"
            )
            raise BadLock(msg)
        return lock


_MAX_DIM: Final = 1_000_000


def _require(key: str, body: Mapping[str, Any], name: str, kind: type) -> None:
    value = body.get(name)
    # bool is an int to Python, but not to this contract.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        found = "nothing" if name not in body else f"{value!r}"
        msg = f"{key}: {name} must be of type {kind.__name__}: found {found}"
        raise BadLock(msg)


@dataclass(frozen=True)
class Difference:
    """One field in which what was found departs from the lock."""

    name: str
    locked: object
    found: object


def differences(
    lock: SchemaLock, found: SchemaLock, adopted: Mapping[Modality, str] | None = None
) -> list[Difference]:
    """Fields in which `found` departs from `lock`, in the lock's order.

    Args:
        lock: What is locked.
        found: What the vectors at hand would ask for.
        adopted: Modality -> version that the older deployment's unversioned vectors are taken to be
            of: `UNVERSIONED` and that version are the same.
    """
    adopted = adopted or {}
    out = [
        Difference(name, getattr(lock, name), getattr(found, name))
        for name in ("fusion_strategy", *_DIMS, "mask_appended")
        if getattr(lock, name) != getattr(found, name)
    ]
    for modality in MODALITIES:
        locked, other = lock.embedding_versions[modality], found.embedding_versions[modality]
        if resolve(locked, modality, adopted) != resolve(other, modality, adopted):
            out.append(Difference(f"embedding_versions.{modality}", locked, other))
    return out


def resolve(version: str | None, modality: Modality, adopted: Mapping[Modality, str]) -> str:
    """A vector's version, where an unversioned one is of the adopted version if there is one."""
    if version is None or version == UNVERSIONED:
        return adopted.get(modality, UNVERSIONED)
    return version


def mismatch(lock: SchemaLock, difference: Difference) -> LockMismatch:
    """The one sentence a run stops with."""
    return LockMismatch(
        f"schema lock of {lock.fusion_strategy!r} (version {lock.lock_version}): "
        f"{difference.name} is locked to {difference.locked!r} but {difference.found!r} was found; "
        f"if the change is meant, materialise clips/schema_lock for partition "
        f"{lock.fusion_strategy!r} with the config {{migrate: true}}, which archives the old lock "
        "and manifest and opens a new version, else restore the encoder that the lock names"
    )


def verify(
    lock: SchemaLock, found: SchemaLock, adopted: Mapping[Modality, str] | None = None
) -> None:
    """Raise `LockMismatch` on the first field in which `found` departs from `lock`."""
    for difference in differences(lock, found, adopted):
        raise mismatch(lock, difference)


def verify_dims(lock: SchemaLock, modality: Modality, dim: int) -> None:
    """Raise `LockMismatch` unless vectors of `modality` have the locked length."""
    if dim != lock.dim(modality):
        raise mismatch(lock, Difference(f"{modality}_dim", lock.dim(modality), dim))


def with_adopted(lock: SchemaLock, adopted: Mapping[Modality, str]) -> SchemaLock:
    """The lock with its unversioned modalities named by what they were adopted as."""
    return replace(
        lock,
        embedding_versions={
            modality: resolve(version, modality, adopted)
            for modality, version in lock.embedding_versions.items()
        },
    )
