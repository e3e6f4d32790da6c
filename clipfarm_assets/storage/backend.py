"""What a folder and S3 have in common below `ObjectStore`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True, order=True)
class ObjectInfo:
    """One listed object: its key and its size in bytes."""

    key: str
    size: int


class Backend(Protocol):
    """Operations on checked keys. Not found is a bare `FileNotFoundError`."""

    def get(self, key: str) -> bytes:
        """The object's bytes."""

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and the version they are."""

    def version(self, key: str) -> str:
        """The object's version."""

    def put(self, key: str, data: bytes) -> None:
        """Write atomically, whatever is there."""

    def create(self, key: str, data: bytes) -> None:
        """Write atomically if nothing is there, else raise `ObjectExists`."""

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """Write if the version is `expected` (None: nothing there), else raise `ObjectChanged`."""

    def exists(self, key: str) -> bool:
        """Whether an object is there."""

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """All objects below `folder`, in any order."""

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""


class ForkGuard:
    """Refuses obstore in a child forked after its parent used it: it would hang there forever.

    obstore's thread pool is one per process and does not survive a fork. Spawned children import
    this module anew and are fine; so are children forked before the first use.
    """

    _owner: ClassVar[int | None] = None

    @classmethod
    def check(cls) -> None:
        """Claim obstore for this process, or raise `RuntimeError` in a forked child."""
        pid = os.getpid()
        if cls._owner is None:
            cls._owner = pid
        elif cls._owner != pid:
            msg = (
                f"object store used in process {pid}, forked from {cls._owner} after that one had "
                "used it; start workers with the 'spawn' or 'forkserver' method instead of 'fork'"
            )
            raise RuntimeError(msg)
