"""The registry of memes' models: what serves a label, fusion or one modality alone, and why.

``memes/models/registry.json`` is one object for all labels, changed by compare-and-swap. Fusion
serves where it is better than the best modality alone beyond chance, else that modality does.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast, get_args

from pydantic import TypeAdapter

from clipfarm_assets.serving.meme_artifacts import artifacts_resolve
from clipfarm_assets.serving.version_list import (
    BadRegistry,
    Change,
    VersionList,
    stored,
    update,
)
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.classification.verdict import FusionVerdict

FORMAT: Final = 1

System = Literal["fusion", "text", "vision"]
SYSTEMS: Final[tuple[System, ...]] = get_args(System)

Scores = Mapping[str, Mapping[str, float | None]]
"""Split -> metric -> value."""

_VERSION: Final = re.compile(r"([a-z][a-z0-9_]{0,63})-v([1-9][0-9]{0,8})")


class NotServable(RuntimeError):  # noqa: N818 - a state of the model
    """The model must not serve; says why."""


@dataclass(frozen=True)
class Candidate:
    """A system as it was evaluated.

    Attributes:
        artifacts: Key in the store -> sha256 of everything that serving it reads.
        temperature, threshold: Chosen on val; the threshold is None for more than two classes.
        metrics: Of the system.
        facts: What else people should see, e.g. where its experts are from.
        fusion_version: Of the fusion model, see `meme_snapshot`; empty of a modality alone.
    """

    artifacts: Mapping[str, str]
    temperature: float
    threshold: float | None
    metrics: Scores
    facts: Mapping[str, Any]
    fusion_version: str = ""


@dataclass(frozen=True)
class MemeVersion:
    """One model that serves or did, and what it is bound to.

    Attributes:
        model_version: Its name, e.g. ``abuse_hate-v3``.
        label: What it tells.
        system: ``fusion``, or the modality that serves alone.
        classes: Names of the classes.
        verdict: Why this system.
        artifacts, temperature, threshold, metrics, facts, fusion_version: See `Candidate`.
        promoted_at: ISO 8601, UTC.
    """

    model_version: str
    label: str
    system: System
    classes: tuple[str, ...]
    verdict: FusionVerdict
    artifacts: Mapping[str, str]
    temperature: float
    threshold: float | None
    metrics: Scores
    facts: Mapping[str, Any]
    fusion_version: str
    promoted_at: str

    def problem(self) -> str:
        """How it contradicts itself; empty if it does not."""
        if self.system != system_of(self.verdict):
            return f"{self.system} can't serve where {self.verdict}"
        if not 0 < self.temperature < math.inf:
            return f"a temperature must be above 0 and finite: found {self.temperature!r}"
        if len(self.classes) < 2:
            return f"there must be two classes or more: found {len(self.classes)}"
        is_binary = len(self.classes) == 2
        if is_binary != (self.threshold is not None):
            return f"a threshold is for two classes: found {self.threshold!r} of {self.classes}"
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            return f"a threshold must be from 0 to 1: found {self.threshold!r}"
        if (self.system == "fusion") != bool(self.fusion_version):
            return f"{self.system} has the fusion_version {self.fusion_version!r}"
        if not self.artifacts:
            return "it names no artifacts, so that nothing could be read"
        return ""


_VERSIONS: Final = TypeAdapter(tuple[MemeVersion, ...])


@dataclass(frozen=True)
class LabelVersions(VersionList[MemeVersion]):
    """All versions of one label.

    Attributes:
        label: Which.
        current: The version that serves; empty if none was promoted yet.
        versions: In the order of promotion.
    """

    label: str
    current: str = ""
    versions: tuple[MemeVersion, ...] = ()

    @property
    def stem(self) -> str:
        """The label."""
        return self.label

    def missing(self, model_version: str) -> str:
        """Says what to materialise."""
        todo = f"materialise memes/evaluation for partition {self.label!r}"
        if not model_version:
            return f"no model was promoted for label {self.label} yet: {todo}"
        return (
            f"label {self.label} has no model version {model_version!r}: there are {self.known}; "
            f"{todo} to promote one"
        )

    def contradiction(self) -> str:
        """How it contradicts itself, versions included; empty if it does not."""
        if found := self.problem():
            return found
        for version in self.versions:
            if version.label != self.label:
                return f"{version.model_version} is of label {version.label!r}"
            if found := version.problem():
                return f"{version.model_version}: {found}"
        return ""


@dataclass(frozen=True)
class MemeRegistry:
    """The versions of every label that has some."""

    labels: Mapping[str, LabelVersions]

    def of(self, label: str) -> LabelVersions:
        """Those of a label; without versions if nothing was promoted yet."""
        return self.labels.get(label, LabelVersions(label))

    def with_label(self, versions: LabelVersions) -> "MemeRegistry":
        """The registry with other versions of one label."""
        return MemeRegistry({**self.labels, versions.label: versions})

    def to_json(self) -> bytes:
        """The object's bytes."""
        labels = {
            label: {
                "current": found.current,
                "versions": [asdict(version) for version in found.versions],
            }
            for label, found in sorted(self.labels.items())
        }
        body = {"format": FORMAT, "labels": labels}
        return (json.dumps(body, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes | None, key: str) -> "MemeRegistry":
        """The registry; an empty one if there is no object.

        Raises:
            BadRegistry: It is none, or contradicts itself.
        """
        if data is None:
            return cls({})
        try:
            body = json.loads(data)
            found_format = body["format"]
            labels = {
                label: LabelVersions(
                    label, found["current"], _VERSIONS.validate_python(found["versions"])
                )
                for label, found in body["labels"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadRegistry.parsing(key, error) from None
        if found_format != FORMAT:
            raise BadRegistry.of(key, f"expected format {FORMAT}, found {found_format}")
        for label, versions in labels.items():
            if problem := versions.contradiction():
                raise BadRegistry.of(key, f"label {label}: {problem}")
        return cls(labels)


def system_of(verdict: FusionVerdict) -> System:
    """What serves by that verdict."""
    return "fusion" if verdict.fusion_wins else cast("System", verdict.best_unimodal)


def promote(
    store: ObjectStore,
    layout: MemeLayout,
    label: str,
    *,
    classes: tuple[str, ...],
    verdict: FusionVerdict,
    candidates: Mapping[System, Candidate],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Change[MemeVersion]:
    """Let the system serve that the verdict is for.

    Promoting what was promoted before goes back to its version; what serves already stays.

    Args:
        store: Where.
        layout: Where in it.
        label: What it tells.
        classes: Names of the label's classes.
        verdict: Decides, see `system_of`.
        candidates: The systems that were evaluated; the one to serve must be among them.
        clock: Gives ``promoted_at``.

    Raises:
        NotServable: That system was not evaluated, or one of its artifacts is gone or was changed.
        ValueError: The version would contradict itself.
        BadRegistry: The registry is malformed.
    """
    system = system_of(verdict)
    if system not in candidates:
        msg = (
            f"{system} is to serve {label} ({verdict}), and was not evaluated: found "
            f"{', '.join(candidates) or 'nothing'}"
        )
        raise NotServable(msg)
    chosen = candidates[system]
    made = MemeVersion(
        model_version=f"{label}-v1",
        label=label,
        system=system,
        classes=classes,
        verdict=verdict,
        artifacts=dict(sorted(chosen.artifacts.items())),
        temperature=chosen.temperature,
        threshold=chosen.threshold,
        metrics=chosen.metrics,
        facts=chosen.facts,
        fusion_version=chosen.fusion_version,
        promoted_at=clock().isoformat(),
    )
    if problem := made.problem():
        msg = f"bad model of {label}: {problem}"
        raise ValueError(msg)
    as_read = json.loads(json.dumps([asdict(made)], allow_nan=False))
    (made,) = _VERSIONS.validate_python(as_read)
    resolved = artifacts_resolve(store, made)
    if not resolved.holds:
        msg = f"{system} can't serve {label}: {resolved.summary()}; evaluate again"
        raise NotServable(msg)
    return _update(store, layout, label, lambda versions: versions.with_serving(made))


def rollback(store: ObjectStore, layout: MemeLayout, model_version: str) -> Change[MemeVersion]:
    """Let a version that was promoted before serve again.

    Raises:
        ValueError: It is no version's name.
        NoModel: There is no such version.
        NotServable: One of its artifacts is gone or was changed.
        BadRegistry: The registry is malformed.
    """
    version = find_version(store, layout, model_version=model_version)
    resolved = artifacts_resolve(store, version)
    if not resolved.holds:
        msg = f"{model_version} can't serve again: {resolved.summary()}; promote another"
        raise NotServable(msg)
    return _update(
        store, layout, version.label, lambda versions: versions.with_current(model_version)
    )


def load_registry(store: ObjectStore, layout: MemeLayout) -> MemeRegistry:
    """The registry; without labels if nothing was promoted yet.

    Raises:
        BadRegistry: The object is none.
    """
    key = layout.registry()
    return MemeRegistry.from_json(stored(store, key), key)


def find_version(
    store: ObjectStore,
    layout: MemeLayout,
    label: str | None = None,
    model_version: str | None = None,
) -> MemeVersion:
    """The version that serves a label, or the one of that name.

    Raises:
        ValueError: Neither or both are given, or the name is none of a version.
        NoModel: No such model was promoted.
        BadRegistry: The registry is malformed.
    """
    if (label is None) == (model_version is None):
        msg = "expected a label or a model_version, and not both: found " + (
            "neither" if label is None else f"{label} and {model_version}"
        )
        raise ValueError(msg)
    registry = load_registry(store, layout)
    if model_version is None:
        return registry.of(str(label)).serving
    match = _VERSION.fullmatch(model_version)
    if match is None:
        msg = f"bad model version {model_version[:100]!r}: expected one like abuse_hate-v3"
        raise ValueError(msg)
    return registry.of(match[1]).version(model_version)


def _update(
    store: ObjectStore,
    layout: MemeLayout,
    label: str,
    change: Callable[[LabelVersions], LabelVersions],
) -> Change[MemeVersion]:
    key = layout.registry()
    before, after = update(
        store,
        key,
        lambda data: MemeRegistry.from_json(data, key),
        lambda registry: registry.with_label(change(registry.of(label))),
        MemeRegistry.to_json,
    )
    return Change.between(before.of(label), after.of(label))
