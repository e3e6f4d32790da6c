"""What each step of a running flow has done so far, and what it took: counted in its workers."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
        cpu_seconds: Processor time of the workers' own threads and processes: all of it where one
            uses no others, as an encode worker with one torch thread.
        bytes: Moved to or from the store.
        requests: Made of the store.
    """

    items: int = 0
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes: int = 0
    requests: int = 0

    def __add__(self, other: "StepUse") -> "StepUse":
        """What both used together."""
        return StepUse(
            self.items + other.items,
            self.busy_seconds + other.busy_seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.bytes + other.bytes,
            self.requests + other.requests,
        )


@dataclass
class Tally:
    """What a piece of work, while it is measured, says it did."""

    items: int = 0
    bytes: int = 0
    requests: int = 0


@dataclass
class Meters:
    """Sums by step. Thread-safe.

    Attributes:
        decoding: Processor seconds that decoding has used so far in other processes, ever since
            they were there; what was used before these meters is left out.
    """

    decoding: Callable[[], float] = lambda: 0.0

    _uses: dict[Step, StepUse] = field(default_factory=lambda: {step: StepUse() for step in STEPS})
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        """Count from now on."""
        self._decoding_before = self.decoding()

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
                self._uses[step] += StepUse(tally.items, busy, cpu, tally.bytes, tally.requests)

    def add(self, uses: Mapping[Step, StepUse]) -> None:
        """Add what was measured elsewhere."""
        with self._lock:
            for step, use in uses.items():
                self._uses[step] = self._uses[step] + use

    def uses(self) -> dict[Step, StepUse]:
        """The sums as they are now."""
        with self._lock:
            uses = dict(self._uses)
        elsewhere = self.decoding() - self._decoding_before
        uses["decode"] = replace(uses["decode"], cpu_seconds=uses["decode"].cpu_seconds + elsewhere)
        return uses

    def counts(self) -> dict[str, int]:
        """Items by what was done to them: ``{"fetched": 20, …}``; for progress lines."""
        return {PAST[step]: use.items for step, use in self.uses().items()}
