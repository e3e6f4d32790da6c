"""What each step of a running flow has done so far, and what it took: counted in its workers."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, Literal

Step = Literal["fetch", "decode", "encode", "put"]
STEPS: Final[tuple[Step, ...]] = ("fetch", "decode", "encode", "put")
PAST: Final[Mapping[Step, str]] = {
    "fetch": "fetched",
    "decode": "decoded",
    "encode": "encoded",
    "put": "stored",
}


@dataclass(frozen=True, slots=True)
class StepUse:
    """What a step used.

    Attributes:
        items: Items it was done for.
        busy_seconds: Wall time inside it, summed over workers.
        cpu_seconds: Processor time of the workers' own threads: all of it where a worker uses no
            others, as an encode worker with one torch thread.
        bytes: Moved to or from the store.
        requests: Made of the store.
    """

    items: int = 0
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes: int = 0
    requests: int = 0


@dataclass
class Tally:
    """What a piece of work, while it is measured, says it did."""

    items: int = 0
    bytes: int = 0
    requests: int = 0


@dataclass
class Meters:
    """Sums by step. Thread-safe."""

    _uses: dict[Step, StepUse] = field(default_factory=lambda: {step: StepUse() for step in STEPS})
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def measured(self, step: Step) -> Iterator[Tally]:
        """Add the time spent inside, in this thread, and what is written to the tally."""
        tally = Tally()
        began, used = time.perf_counter(), time.thread_time()
        try:
            yield tally
        finally:
            busy, cpu = time.perf_counter() - began, time.thread_time() - used
            with self._lock:
                before = self._uses[step]
                self._uses[step] = StepUse(
                    before.items + tally.items,
                    before.busy_seconds + busy,
                    before.cpu_seconds + cpu,
                    before.bytes + tally.bytes,
                    before.requests + tally.requests,
                )

    def uses(self) -> dict[Step, StepUse]:
        """The sums as they are now."""
        with self._lock:
            return dict(self._uses)

    def counts(self) -> dict[str, int]:
        """Items by what was done to them: ``{"fetched": 20, …}``; for progress lines."""
        return {PAST[step]: use.items for step, use in self.uses().items()}
