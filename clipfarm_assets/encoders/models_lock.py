"""The models lock: one JSON object that remembers which weights made a store's vectors.

It has three parts. ``models`` maps ``modality|name|requested revision`` to what that resolved to
the first time, so that a moving branch cannot change the vectors of a store unnoticed.
``versions`` maps an embedding version's id to its fields. ``adopted`` maps a modality to the
version that the unversioned vectors of an older deployment are taken to be.

Every change is one compare-and-swap on the object, so that concurrent runs lose nothing.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast, get_args

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import EmbeddingVersion, ModelMismatch
from clipfarm_assets.encoders.lock_store import LockStore
from clipfarm_assets.encoders.precision.verdicts import Verdicts

STAND_IN_NAME: Final = "stand-in"
"""Part of the name of every model whose seeded weights stand in for trained ones."""

_PARTS: Final = ("models", "versions", "adopted")
_MODEL_FIELDS: Final = frozenset({"revision", "weights_sha256"})
_VERSION_FIELD_TYPES: Final[Mapping[str, type]] = {
    "modality": str,
    "model_name": str,
    "model_revision": str,
    "weights_sha256": str,
    "preprocess_version": str,
    "params": dict,
    "dim": int,
}


@dataclass(frozen=True, slots=True)
class LockedModel:
    """What a requested model resolved to: a pinned revision and the hash of its files."""

    revision: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class _Content:
    models: Mapping[str, LockedModel] = field(default_factory=dict)
    versions: Mapping[str, EmbeddingVersion] = field(default_factory=dict)
    adopted: Mapping[str, str] = field(default_factory=dict)


class ModelsLock:
    """The models lock of a store. Holds no state of its own: every call reads the object."""

    def __init__(self, store: LockStore, key: str, verdicts: Verdicts | None = None) -> None:
        """Read and write the lock at `key` of `store`; the object need not exist yet.

        Args:
            store: Where it lies.
            key: Its object.
            verdicts: Beside it, where these models' faster precisions were found equivalent; None
                to find out whenever one is opened.
        """
        self._store = store
        self._key = key
        self.verdicts = verdicts

    def model(self, modality: Modality, name: str, requested: str) -> LockedModel | None:
        """What this model at this requested revision resolved to, or None if it is not recorded."""
        return self._read().models.get(_model_key(modality, name, requested))

    def record_model(
        self, modality: Modality, name: str, requested: str, *, revision: str, weights_sha256: str
    ) -> None:
        """Record what a requested model resolved to; does nothing if that is recorded already.

        Raises:
            ModelMismatch: It resolved to something else before.
            ValueError: The lock object is malformed.
        """
        key = _model_key(modality, name, requested)
        found = LockedModel(revision, weights_sha256)

        def add(content: _Content) -> _Content:
            expected = content.models.get(key, found)
            if expected != found:
                msg = (
                    f"the models lock {self._key} expects {modality} model {name} at {requested} "
                    f"to be {_describe(expected)}, but found {_describe(found)}: restore the "
                    "recorded files, or give the new model another name or revision and re-embed"
                )
                raise ModelMismatch(msg)
            return replace(content, models={**content.models, key: found})

        self._change(add)

    def version(self, version_id: str) -> EmbeddingVersion | None:
        """The embedding version of that id, or None if it is not recorded."""
        return self._read().versions.get(version_id)

    def versions(self) -> dict[str, EmbeddingVersion]:
        """All recorded embedding versions, by id."""
        return dict(self._read().versions)

    def record_version(self, version: EmbeddingVersion) -> None:
        """Record an embedding version under its id; does nothing if it is there already."""
        self._change(
            lambda content: replace(content, versions={**content.versions, version.id: version})
        )

    def admit(self, version: EmbeddingVersion, *, is_stand_in: bool) -> None:
        """Record a version before its first vector.

        Raises:
            ModelMismatch: It is a stand-in's, and real models have made vectors of its modality
                here, which its own would replace.
        """
        for other in self.versions().values() if is_stand_in else ():
            if other.modality == version.modality and STAND_IN_NAME not in other.model_name:
                msg = (
                    f"the store has {version.modality} vectors of {other.model_name}, and a "
                    f"stand-in model ({version.model_name}) must not replace them: set "
                    "CLIPFARM_ENCODERS=pretrained, or use another store for the demo"
                )
                raise ModelMismatch(msg)
        self.record_version(version)

    def adopted(self) -> dict[Modality, str]:
        """Modality to version id: what vectors of an older deployment are taken to be."""
        return {cast("Modality", key): value for key, value in self._read().adopted.items()}

    def adopt(self, modality: Modality, version: EmbeddingVersion, is_stand_in: bool) -> None:
        """Take the unversioned vectors of an older deployment to be of this version. Idempotent.

        Raises:
            ModelMismatch: The encoder is a stand-in, whose vectors must never be mixed with a real
                deployment's, or the vectors were adopted as another version before.
            ValueError: The version is of another modality, or the lock object is malformed.
        """
        if version.modality != modality:
            msg = f"expected a version of modality {modality} to adopt, found {version.id}"
            raise ValueError(msg)
        if is_stand_in:
            msg = (
                f"the store has unversioned {modality} vectors of an older deployment, and a "
                f"stand-in model ({version.model_name}) must not be mixed with them: set "
                f"CLIPFARM_ENCODERS=pretrained or CLIPFARM_{modality.upper()}_MODEL to the model "
                "that made them, or use another store"
            )
            raise ModelMismatch(msg)

        def add(content: _Content) -> _Content:
            expected = content.adopted.get(modality, version.id)
            if expected != version.id:
                msg = (
                    f"the models lock {self._key} expects the older deployment's {modality} "
                    f"vectors to be {expected}, but found {version.id}: use the adopted model "
                    "and parameters, or migrate and re-embed"
                )
                raise ModelMismatch(msg)
            return replace(
                content,
                versions={**content.versions, version.id: version},
                adopted={**content.adopted, modality: version.id},
            )

        self._change(add)

    def _read(self) -> _Content:
        try:
            return _parse(self._store.get(self._key), self._key)
        except FileNotFoundError:
            return _Content()

    def _change(self, change: Callable[[_Content], _Content]) -> None:
        before = self._read()
        if change(before) == before:
            return  # the common case, and one that needs no write permission

        def changed(raw: bytes | None) -> bytes:
            content = _Content() if raw is None else _parse(raw, self._key)
            return _serialise(change(content))

        self._store.update(self._key, changed)


def _model_key(modality: Modality, name: str, requested: str) -> str:
    return f"{modality}|{name}|{requested}"


def _describe(model: LockedModel) -> str:
    return f"revision {model.revision} with weights sha256 {model.weights_sha256}"


def _serialise(content: _Content) -> bytes:
    data = {
        "models": {
            key: {"revision": model.revision, "weights_sha256": model.weights_sha256}
            for key, model in content.models.items()
        },
        "versions": {key: version.to_dict() for key, version in content.versions.items()},
        "adopted": dict(content.adopted),
    }
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def _parse(raw: bytes, key: str) -> _Content:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _malformed(key, "a JSON object", f"text that is not JSON ({error})") from error
    if not isinstance(data, dict) or sorted(data) != sorted(_PARTS):
        found = f"the keys {sorted(data)}" if isinstance(data, dict) else type(data).__name__
        raise _malformed(key, f"an object with the keys {sorted(_PARTS)}", found)
    for part in _PARTS:
        if not isinstance(data[part], dict):
            raise _malformed(key, f"an object as {part!r}", type(data[part]).__name__)
    content = _Content(
        models={name: _parse_model(name, entry, key) for name, entry in data["models"].items()},
        versions={name: _parse_version(name, v, key) for name, v in data["versions"].items()},
        adopted=data["adopted"],
    )
    for modality, version_id in content.adopted.items():
        version = content.versions.get(version_id) if isinstance(version_id, str) else None
        if version is None or version.modality != modality:
            expected = f"the id of a recorded {modality} version as adopted[{modality!r}]"
            raise _malformed(key, expected, repr(version_id))
    return content


def _parse_model(name: str, entry: Any, key: str) -> LockedModel:
    if (
        not isinstance(entry, dict)
        or entry.keys() != _MODEL_FIELDS
        or not all(isinstance(value, str) and value for value in entry.values())
    ):
        raise _malformed(
            key, f"text fields {sorted(_MODEL_FIELDS)} as models[{name!r}]", f"{entry}"
        )
    return LockedModel(**entry)


def _parse_version(name: str, entry: Any, key: str) -> EmbeddingVersion:
    if (
        not isinstance(entry, dict)
        or entry.keys() != _VERSION_FIELD_TYPES.keys()
        or any(type(entry[field]) is not kind for field, kind in _VERSION_FIELD_TYPES.items())
        or entry["modality"] not in get_args(Modality)
    ):
        expected = f"an embedding version's fields as versions[{name!r}]"
        raise _malformed(key, expected, f"{entry}")
    version = EmbeddingVersion.from_dict(entry)
    if version.id != name:
        raise _malformed(key, f"the fields of version {name}", f"those of {version.id}")
    return version


def _malformed(key: str, expected: str, found: str) -> ValueError:
    msg = (
        f"the models lock {key} is malformed: expected {expected}, found {found[:200]}; "
        "restore it from a backup, or delete it to record models and versions anew"
    )
    return ValueError(msg)
