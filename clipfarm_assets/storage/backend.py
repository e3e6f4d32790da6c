"""What a folder and S3 have in common below `ObjectStore`."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from clipfarm_assets.storage.bulk import Lanes


@dataclass(frozen=True, slots=True, order=True)
class ObjectInfo:
    """One listed object.

    Attributes:
        key: Names it.
        size: In bytes.
        modified: When it was written last, by the store's clock; None where that isn't known.
        is_linked: Whether a folder store has it by way of a symbolic link, so that the file may
            have another name too. Neither this nor `modified` counts where infos are compared.
    """

    key: str
    size: int
    modified: datetime | None = field(default=None, compare=False)
    is_linked: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What is known of an object without reading it.

    Attributes:
        size: In bytes.
        mark: Another one each time the object is written, of equal bytes too; costs no reading, as
            a version of a folder's does.
        modified: When it was written last, by the store's clock, maybe in whole seconds.
    """

    size: int
    mark: str
    modified: datetime | None = field(default=None, compare=False)


class Backend(Protocol):
    """Operations on checked keys. Not found is a bare `FileNotFoundError`."""

    def get(self, key: str) -> bytes:
        """The object's bytes."""

    def get_tail(self, key: str, length: int) -> bytes:
        """The object's last `length` bytes; all of them if there are fewer."""

    def head(self, key: str) -> ObjectHead:
        """The object's size and mark, read from nothing of it."""

    def get_range(self, key: str, start: int, length: int, mark: str | None) -> bytes:
        """Bytes of the object; fewer than `length`, 1 at least asked for, where it ends before.

        Raises:
            ObjectChanged: Its mark is another than `mark`, if that is given.
        """

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

    def read_lanes(self, workers: int | None) -> Lanes:
        """How to read many objects; by the backend's own measure if `workers` is None."""

    def write_lanes(self, workers: int | None) -> Lanes:
        """How to write many objects; by the backend's own measure if `workers` is None."""

    def reader(self) -> Callable[[str], bytes]:
        """`get` for many keys in a row, from several threads; may remember what it has checked."""

    def writer(self) -> Callable[[str, bytes], None]:
        """`put` for many keys in a row, from several threads; may remember what it has checked."""


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
