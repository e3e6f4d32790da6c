"""Objects that a run has stored and the ledger doesn't know yet: to be named if it never will."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from clipfarm_assets.ledger.leases import LeaseLost

_NAMED = 5


class Unrecorded:
    """Keys of such objects; threads may add to them."""

    def __init__(self, advice: str) -> None:
        """None yet; `advice` says what to do about those that remain."""
        self._advice = advice
        self._keys: set[str] = set()
        self._lock = threading.Lock()

    def add(self, key: str) -> None:
        """Stored."""
        with self._lock:
            self._keys.add(key)

    def settle(self, keys: Iterable[str | None]) -> None:
        """On record now."""
        with self._lock:
            self._keys.difference_update(keys)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Names them where the block ends because its lease was lost.

        Raises:
            LeaseLost: As it was, and with the keys.
        """
        try:
            yield
        except LeaseLost as lost:
            keys = sorted(self._keys)
            if not keys:
                raise
            more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
            msg = (
                f"{lost}. Stored since its last commit, and on no record: "
                f"{', '.join(keys[:_NAMED])}{more}; {self._advice}"
            )
            raise LeaseLost(msg) from lost
