"""What registries share: versions are appended and never changed, and one of them serves.

A registry is one object, changed by compare-and-swap: of two writers at once, both changes stay.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, cast

from clipfarm_assets.storage.objects import ObjectStore

What = Literal["promoted", "back", "unchanged"]


class NoModel(FileNotFoundError):  # noqa: N818 - a state of the store
    """No such model was promoted."""


class BadRegistry(ValueError):  # noqa: N818
    """The object is no registry."""

    @classmethod
    def of(cls, key: str, problem: str) -> "BadRegistry":
        """What is wrong with the object of that key."""
        return cls(f"{key} is no model registry ({problem}): restore it from a backup")

    @classmethod
    def parsing(cls, key: str, error: Exception) -> "BadRegistry":
        """What parsing it failed with."""
        return cls.of(key, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


class Version(Protocol):
    """A frozen dataclass: one promoted model and what it is bound to."""

    @property
    def model_version(self) -> str:
        """Its name, e.g. ``h7-v3``."""

    @property
    def promoted_at(self) -> str:
        """ISO 8601, UTC."""


V = TypeVar("V", bound=Version)
R = TypeVar("R")


class VersionList(ABC, Generic[V]):
    """All versions of one thing that is predicted: the base of a frozen dataclass.

    Attributes:
        current: The version that serves; empty if none was promoted yet.
        versions: In the order of promotion.
    """

    current: str
    versions: tuple[V, ...]

    @property
    @abstractmethod
    def stem(self) -> str:
        """What versions' names begin with, e.g. ``h7`` of ``h7-v3``."""

    @abstractmethod
    def missing(self, model_version: str) -> str:
        """The message about a version that isn't there; an empty one: none was promoted."""

    def version(self, model_version: str) -> V:
        """The version of that name.

        Raises:
            NoModel: There is none; names those that there are.
        """
        for version in self.versions:
            if version.model_version == model_version:
                return version
        raise NoModel(self.missing(model_version))

    @property
    def serving(self) -> V:
        """The version that serves.

        Raises:
            NoModel: None was promoted yet.
        """
        if not self.current:
            raise NoModel(self.missing(""))
        return self.version(self.current)

    @property
    def next_version(self) -> str:
        """The name of the version after the last."""
        return f"{self.stem}-v{len(self.versions) + 1}"

    @property
    def known(self) -> str:
        """The names of all versions, for people."""
        return ", ".join(version.model_version for version in self.versions) or "none"

    def with_serving(self, made: V) -> Self:
        """The list of which `made` serves: its version if it was promoted before, or a new one.

        Args:
            made: Its name does not matter.
        """
        for version in self.versions:
            if is_same_model(version, made):
                return self._with(current=version.model_version)
        named = cast("V", _replaced(made, model_version=self.next_version))
        return self._with(current=named.model_version, versions=(*self.versions, named))

    def with_current(self, model_version: str) -> Self:
        """The list of which a version that was promoted before serves.

        Raises:
            NoModel: There is none of that name.
        """
        return self._with(current=self.version(model_version).model_version)

    def problem(self) -> str:
        """How it contradicts itself; empty if it does not."""
        names = [version.model_version for version in self.versions]
        if names != [f"{self.stem}-v{number}" for number in range(1, len(names) + 1)]:
            return f"versions must count up from {self.stem}-v1, found {names[:20]}"
        if self.current not in (*names, ""):
            return f"current is {self.current!r} of versions {names[:20]}"
        return ""

    def _with(self, **changes: Any) -> Self:
        return cast("Self", _replaced(self, **changes))


@dataclass(frozen=True)
class Change(Generic[V]):
    """What became of a list of versions.

    Attributes:
        version: The one that serves now.
        what: ``promoted`` a new version, went ``back`` to an older one, or ``unchanged``.
        previous: The version that served before; empty if none did.
    """

    version: V
    what: What
    previous: str

    @classmethod
    def between(cls, before: VersionList[V], after: VersionList[V]) -> "Change[V]":
        """What happened between two states of one list."""
        what: What = "unchanged"
        if after.current != before.current:
            what = "promoted" if len(after.versions) > len(before.versions) else "back"
        return cls(after.serving, what, before.current)


def is_same_model(one: V, other: V) -> bool:
    """Whether both are the same model, whenever promoted and under whatever name."""
    return bool(
        _replaced(one, model_version=other.model_version, promoted_at=other.promoted_at) == other
    )


def stored(store: ObjectStore, key: str) -> bytes | None:
    """The bytes of a registry; None if nothing was promoted yet."""
    try:
        return store.get(key)
    except FileNotFoundError:
        return None


def update(
    store: ObjectStore,
    key: str,
    parse: Callable[[bytes | None], R],
    change: Callable[[R], R],
    write: Callable[[R], bytes],
) -> tuple[R, R]:
    """Change a registry by compare-and-swap.

    Args:
        store: Where.
        key: Its object.
        parse: From the object's bytes, None if absent.
        change: Safe to repeat: called again after each lost race.
        write: To the object's bytes.

    Returns:
        The registry as it was before the change that stayed, and after.

    Raises:
        ObjectChanged: Every attempt lost to other writers.
        BadRegistry: Of `parse`; the object is kept.
    """
    before: list[R] = []

    def changed(data: bytes | None) -> bytes:
        before[:] = [parse(data)]
        return write(change(before[0]))

    after = parse(store.update(key, changed))
    return before[0], after


def _replaced(instance: Any, **changes: Any) -> Any:
    return replace(instance, **changes)
