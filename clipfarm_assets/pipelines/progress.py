"""How long work says how far it is: done, rate, remaining time."""

import time
from collections.abc import Callable

Say = Callable[[str], None]


def silent(_line: str) -> None:
    """Say nothing."""


class Progress:
    """Counts steps and says a line now and then.

    For example ``video 2026-02-05: 12/20, 3.1/s, 3 s left``.
    """

    def __init__(
        self,
        what: str,
        total: int,
        say: Say = silent,
        *,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start counting `total` steps of `what`."""
        self._what, self._total, self._say = what, total, say
        self._every, self._clock = every_seconds, clock
        self._started = self._said = clock()
        self.done = 0

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return self._clock() - self._started

    def step(self, steps: int = 1) -> None:
        """Count, and say a line if it is time to, or the last step."""
        self.done += steps
        now = self._clock()
        if self.done >= self._total or now - self._said >= self._every:
            self._said = now
            self._say(self.line())

    def line(self) -> str:
        """The line as it is now."""
        rate = self.done / self.seconds if self.seconds > 0 else 0.0
        left = (
            f", {(self._total - self.done) / rate:.0f} s left"
            if rate and self.done < self._total
            else ""
        )
        return f"{self._what}: {self.done}/{self._total}, {rate:.1f}/s{left}"
