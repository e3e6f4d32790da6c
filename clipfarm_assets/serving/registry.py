"""The model registry of a horizon: which model serves, which did, and what each is bound to.

``models/registry/horizon=<h>/registry.json`` is one object, changed by compare-and-swap. Versions
are appended and never changed; `current` names one of them. How one gets there: `promotion`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from clipfarm_assets.contracts.horizons import Horizon, as_horizon
from clipfarm_assets.contracts.statuses import Modality, Strategy
from clipfarm_assets.serving.version_list import BadRegistry, NoModel, VersionList, stored
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import SnapshotId

__all__ = [
    "BadRegistry",
    "ModelVersion",
    "NoModel",
    "Registry",
    "horizon_of",
    "load_registry",
]

FORMAT: Final = 1

_VERSION: Final = re.compile(r"h([0-9]{1,4})-v([1-9][0-9]{0,8})")

Judged = Literal["val", "test"]


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


_VERSIONS: Final = TypeAdapter(tuple[ModelVersion, ...])


@dataclass(frozen=True)
class Registry(VersionList[ModelVersion]):
    """All versions of one horizon.

    Attributes:
        horizon: Of which.
        current: The version that serves; empty if none was promoted yet.
        versions: In the order of promotion.
    """

    horizon: Horizon
    current: str = ""
    versions: tuple[ModelVersion, ...] = field(default=())

    @property
    def stem(self) -> str:
        """E.g. ``h7``."""
        return f"h{self.horizon}"

    def missing(self, model_version: str) -> str:
        """Says what to materialise."""
        if not model_version:
            return (
                f"no model was promoted for horizon {self.horizon} yet: materialise "
                f"clips/model_registry for partition {str(self.horizon)!r}"
            )
        return (
            f"horizon {self.horizon} has no model version {model_version!r}: there are "
            f"{self.known}; promote one by materialising clips/model_registry"
        )

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
            raise BadRegistry.parsing(key, error) from None
        if found != (FORMAT, horizon):
            problem = (
                f"expected format {FORMAT} of horizon {horizon}, found {found[0]} of {found[1]}"
            )
        else:
            problem = registry.problem() or registry.strangers()
        if problem:
            raise BadRegistry.of(key, problem)
        return registry

    def strangers(self) -> str:
        """Which versions are of another horizon; empty if none is."""
        wrong = [v.model_version for v in self.versions if v.horizon_days != self.horizon]
        return f"{', '.join(wrong)} of another horizon than {self.horizon}" if wrong else ""


def load_registry(store: ObjectStore, layout: Layout, horizon: Horizon) -> Registry:
    """The registry of a horizon; without versions if nothing was promoted yet.

    Raises:
        BadRegistry: The object is none.
    """
    key = layout.model_registry(horizon)
    return Registry.from_json(stored(store, key), horizon, key)


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
