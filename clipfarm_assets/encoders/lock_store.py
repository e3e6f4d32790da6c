"""What the records beside the vectors need of an object store."""

from collections.abc import Callable
from typing import Protocol


class LockStore(Protocol):
    """The two operations of the object store that a lock or record needs."""

    def get(self, key: str) -> bytes:
        """The object's bytes; `FileNotFoundError` if there is none."""

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Replace the object by ``change(current bytes or None)``, by compare-and-swap."""
