"""The dates of a stage in turn, each under its lease, so that no other run works on it meanwhile.

A date that another run has is left for last, and then waited for: several runs over the same dates
share them out between them, and none does what another one did.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

from clipfarm_assets.ledger.leases import TTL_SECONDS, WAIT_SECONDS, Lease, LeaseHeld
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.progress import Say

SWEEP: Final = "upkeep/gc"
"""The scope of whoever removes what nothing refers to."""


@dataclass(frozen=True)
class LeaseOptions:
    """How a run keeps others from its dates, and waits for theirs.

    Attributes:
        wait_seconds: How long to wait for a date that another run works on; 0 for not at all.
        ttl_seconds: A run that was not heard of for so long has lost its date.
        run_id: Named to those who wait; may be empty.
    """

    wait_seconds: float = WAIT_SECONDS
    ttl_seconds: float = TTL_SECONDS
    run_id: str = ""


@dataclass(frozen=True)
class Turn:
    """A date to be worked on.

    Attributes:
        date: The date.
        lease: What to commit under.
        is_late: Whether another run had it before: what was read of it earlier is out of date.
        end: Lets others have it.
    """

    date: str
    lease: Lease
    is_late: bool
    end: Callable[[], None]


class Turns:
    """Gives out a stage's dates; for a ``with`` block, whose end is the end of all turns."""

    def __init__(self, ledger: Ledger, stage: str, options: LeaseOptions, say: Say) -> None:
        """Take nothing yet.

        Args:
            ledger: Where leases are kept.
            stage: The stage that they are of.
            options: How to wait.
            say: Told who is waited for.
        """
        self._ledger, self._stage, self._options, self._say = ledger, stage, options, say
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what turns there are."""
        self._held.close()

    def free(self, dates: Iterable[str], late: list[str]) -> Iterator[Turn]:
        """Those of the dates that nobody has when their turn comes; the others are added to `late`.

        Never waits, so the next one may be asked for before the one before has ended.
        """
        for date in dates:
            try:
                turn = self._turn(date, is_late=False)
            except LeaseHeld:
                late.append(date)
            else:
                yield turn

    def waited_for(self, dates: Iterable[str]) -> Iterator[Turn]:
        """Each of the dates, when whoever has it is done. End each before asking for the next one.

        Raises:
            LeaseHeld: It is still another run's after `LeaseOptions.wait_seconds`.
        """
        for date in dates:
            yield self._turn(date, is_late=True)

    def all(self, dates: Iterable[str]) -> Iterator[Turn]:
        """Those that are free, then those that are not. End each before asking for the next one.

        Raises:
            LeaseHeld: As `waited_for`; those that were free are done by then.
        """
        late: list[str] = []
        yield from self.free(dates, late)
        yield from self.waited_for(late)

    def _turn(self, date: str, *, is_late: bool) -> Turn:
        lease = at_work(
            self._ledger, f"{self._stage}/{date}", self._options, self._say, waits=is_late
        )
        its_own = self._held.enter_context(ExitStack())
        return Turn(date, its_own.enter_context(lease), is_late, its_own.close)


@contextmanager
def at_work(
    ledger: Ledger, scope: str, options: LeaseOptions, say: Say, *, waits: bool = True
) -> Iterator[Lease]:
    """A lease for work that stores objects and refers to them only later.

    Who removes what nothing refers to takes `SWEEP` first and looks then who is at work, and stops
    if anybody is. Who works looks the other way round. So one of the two sees the other, and a
    sweep is never waited for longer than its next look takes.

    Args:
        ledger: Where leases are kept.
        scope: What is worked on.
        options: How to wait.
        say: Told who is waited for.
        waits: Whether to wait for another run that works on it; a sweep is waited for anyhow.

    Raises:
        LeaseHeld: Somebody else works on it, or sweeps, for longer than was to be waited.
    """
    take = partial(ledger.lease, ttl_seconds=options.ttl_seconds, say=say, run_id=options.run_id)
    with take(scope, wait_seconds=options.wait_seconds if waits else 0) as lease:
        if any(held.scope == SWEEP for held in ledger.held_leases()):
            with take(SWEEP, wait_seconds=options.wait_seconds):
                pass  # it has ended
        yield lease
