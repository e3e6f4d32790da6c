"""The model registry of a horizon: which model serves, which did, and what each is bound to.

``models/registry/horizon=<h>/registry.json`` is one object, changed by compare-and-swap. Versions
are appended and never changed; `current` names one of them. How one gets there: `promotion`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, cast

from pydantic import TypeAdapter

from clipfarm_assets.contracts.horizons import Horizon, as_horizon
from clipfarm_assets.contracts.statuses import Modality, Strategy
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import SnapshotId

FORMAT: Final = 1

_VERSION: Final = re.compile(r"h([0-9]{1,4})-v([1-9][0-9]{0,8})")

Judged = Literal["val", "test"]


class NoModel(FileNotFoundError):  # noqa: N818 - a state of the store
    """No such model was promoted."""


class BadRegistry(ValueError):  # noqa: N818
    """The object is no registry."""


@dataclass(frozen=True)
class ModelVersion:
    """One promoted model and its binding.

    Attributes:
        model_version: Its name, e.g. ``h7-v3``.
        run_id, fusion_strategy, horizon_days, snapshot_family: Name its snapshot; the last is None
            for an all-model run's.
        family: Which of the snapshot's models.
        feature_set_version, feature_contract_sha256: The metadata features.
        lock_version, lock_sha256, embedding_versions: The vectors.
        artifacts: Name in the snapshot -> sha256 of everything that serving reads.
        interval: Of its predictions, for people; serving reads the snapshot's.
        metrics: ``val`` and ``test`` -> metric -> value.
        promoted_at: ISO 8601, UTC.
    """

    model_version: str
    run_id: str
    fusion_strategy: Strategy
    horizon_days: Horizon
    family: str
    snapshot_family: str | None
    feature_set_version: str
    feature_contract_sha256: str
    lock_version: int
    lock_sha256: str
    embedding_versions: Mapping[Modality, str]
    artifacts: Mapping[str, str]
    interval: Mapping[str, Any]
    metrics: Mapping[Judged, Mapping[str, float | None]]
    promoted_at: str

    @property
    def snapshot_id(self) -> SnapshotId:
        """Where its files are."""
        return SnapshotId(
            self.run_id, self.fusion_strategy, self.horizon_days, self.snapshot_family
        )

    def is_same_model(self, other: "ModelVersion") -> bool:
        """Whether both are the same model of the same snapshot, whenever promoted."""
        named = {"model_version": other.model_version, "promoted_at": other.promoted_at}
        return replace(self, **cast("dict[str, Any]", named)) == other


_VERSIONS: Final = TypeAdapter(tuple[ModelVersion, ...])


@dataclass(frozen=True)
class Registry:
    """All versions of one horizon.

    Attributes:
        horizon: Of which.
        current: The version that serves; empty if none was promoted yet.
        versions: In the order of promotion.
    """

    horizon: Horizon
    current: str = ""
    versions: tuple[ModelVersion, ...] = field(default=())

    def version(self, model_version: str) -> ModelVersion:
        """The version of that name.

        Raises:
            NoModel: There is none; names those that there are.
        """
        for version in self.versions:
            if version.model_version == model_version:
                return version
        known = ", ".join(version.model_version for version in self.versions) or "none"
        msg = (
            f"horizon {self.horizon} has no model version {model_version!r}: there are {known}; "
            "promote one by materialising clips/model_registry"
        )
        raise NoModel(msg)

    @property
    def serving(self) -> ModelVersion:
        """The version that serves.

        Raises:
            NoModel: None was promoted yet.
        """
        if not self.current:
            msg = (
                f"no model was promoted for horizon {self.horizon} yet: materialise "
                f"clips/model_registry for partition {str(self.horizon)!r}"
            )
            raise NoModel(msg)
        return self.version(self.current)

    @property
    def next_version(self) -> str:
        """The name of the version after the last."""
        return f"h{self.horizon}-v{len(self.versions) + 1}"

    def to_json(self) -> bytes:
        """The object's bytes."""
        body = {
            "format": FORMAT,
            "horizon": self.horizon,
            "current": self.current,
            "versions": [asdict(version) for version in self.versions],
        }
        return (json.dumps(body, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes | None, horizon: Horizon, key: str) -> "Registry":
        """The registry of `horizon`; an empty one if there is no object.

        Raises:
            BadRegistry: It is none, that of another horizon, or contradicts itself.
        """
        if data is None:
            return cls(horizon)
        try:
            body = json.loads(data)
            found = (body["format"], body["horizon"])
            registry = cls(
                horizon=horizon,
                current=body["current"],
                versions=_VERSIONS.validate_python(body["versions"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            told = " ".join(str(error).split())[:300]
            raise _malformed(key, f"{type(error).__name__}: {told}") from None
        if found != (FORMAT, horizon):
            raise _malformed(
                key,
                f"expected format {FORMAT} of horizon {horizon}, found {found[0]} of {found[1]}",
            )
        names = [version.model_version for version in registry.versions]
        if names != [f"h{horizon}-v{number}" for number in range(1, len(names) + 1)]:
            raise _malformed(key, f"versions must count up from h{horizon}-v1, found {names[:20]}")
        if registry.current not in {*names, ""} or any(
            version.horizon_days != horizon for version in registry.versions
        ):
            raise _malformed(key, f"current is {registry.current!r} of versions {names[:20]}")
        return registry


def _malformed(key: str, problem: str) -> BadRegistry:
    return BadRegistry(f"{key} is no model registry ({problem}): restore it from a backup")


def load_registry(store: ObjectStore, layout: Layout, horizon: Horizon) -> Registry:
    """The registry of a horizon; without versions if nothing was promoted yet.

    Raises:
        BadRegistry: The object is none.
    """
    key = layout.model_registry(horizon)
    try:
        data = store.get(key)
    except FileNotFoundError:
        data = None
    return Registry.from_json(data, horizon, key)


def horizon_of(model_version: str) -> Horizon:
    """The horizon of a model version, e.g. 7 of ``h7-v3``.

    Raises:
        ValueError: It is no version's name.
    """
    match = _VERSION.fullmatch(model_version)
    if match is None:
        msg = f"bad model version {model_version[:100]!r}: expected one like h7-v3"
        raise ValueError(msg)
    return as_horizon(match[1])
