"""How long work says how far it is: done, rate, remaining time."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

Say = Callable[[str], None]

_WINDOW_SECONDS: Final = 60.0
_SAMPLE_SECONDS: Final = 1.0


def silent(_line: str) -> None:
    """Say nothing."""


class Progress:
    """Counts steps and says a line now and then.

    For example ``video 2026-02-05: 12/20, 3.1/s, 3 s left (fetched 20, decoded 16, encoded 13,
    stored 12)``. The rate, and the time left that follows from it, are those of the last minute:
    what it took to load a model says nothing of the items to come. At the end it is that of the
    whole.
    """

    def __init__(
        self,
        what: str,
        total: int,
        say: Say = silent,
        *,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        stages: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """Start counting `total` steps of `what`.

        Args:
            what: Begins each line.
            total: Steps to come.
            say: Told each line.
            every_seconds: Time between lines.
            clock: Seconds of any origin.
            stages: How many items have passed each stage so far, by a word for it.
        """
        self._what, self._total, self._say = what, total, say
        self._every, self._clock, self._stages = every_seconds, clock, stages
        self._started = self._said = clock()
        self._recent: deque[tuple[float, int]] = deque([(self._started, 0)])
        self.done = 0

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return self._clock() - self._started

    def step(self, steps: int = 1) -> None:
        """Count, and say a line if it is time to, or the last step."""
        self.done += steps
        now = self._clock()
        if now - self._recent[-1][0] >= _SAMPLE_SECONDS:
            self._recent.append((now, self.done))
        while len(self._recent) > 1 and now - self._recent[1][0] >= _WINDOW_SECONDS:
            self._recent.popleft()
        if self.done >= self._total:
            self._speak(now)
        else:
            self.tick()

    def tick(self) -> None:
        """Say a line if it is time to: for work that goes on while no step is done."""
        now = self._clock()
        if now - self._said >= self._every:
            self._speak(now)

    def line(self) -> str:
        """The line as it is now."""
        left = self._total - self.done
        rate = self._rate()
        time_left = f", {left / rate:.0f} s left" if rate and left > 0 else ""
        stages = ", ".join(f"{name} {count}" for name, count in self._stages().items())
        line = f"{self._what}: {self.done}/{self._total}, {rate:.1f}/s{time_left}"
        return f"{line} ({stages})" if stages else line

    def _speak(self, now: float) -> None:
        self._said = now
        self._say(self.line())

    def _rate(self) -> float:
        since, before = (self._started, 0) if self.done >= self._total else self._recent[0]
        seconds = self._clock() - since
        return (self.done - before) / seconds if seconds > 0 else 0.0
