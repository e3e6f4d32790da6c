"""Leases: of several runs that want the same work, one has it and the others wait.

A lease is a row with a token that grows each time somebody takes it. A thread renews it while the
work goes on; what is committed under it is committed only if nobody has taken it since, which the
same transaction looks at. So a run that was suspended, cut off from the database, or whose
machine's clock jumped, cannot write over what the next one did: its token is an older one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from clipfarm_assets.ledger.holder import is_gone, this_process
from clipfarm_assets.ledger.schema import LEASES

TTL_SECONDS: Final = 60.0
WAIT_SECONDS: Final = 6 * 3600.0

# One that ends later than this was written by a clock that is wrong, or was: it doesn't count.
_LONGEST_TTL_SECONDS: Final = 3600.0
_RENEWALS_A_TTL: Final = 3
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_SECOND: Final = 1_000_000  # in microseconds
_NO_TOKEN: Final = -1
_TAKEN_WITH: Final = ("holder", "taken_us", "expires_us")

# One that goes on while the machine sleeps, where there is such a clock.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Begin = Callable[[], AbstractContextManager[sa.Connection]]
"""Begins a transaction."""


class LeaseHeld(RuntimeError):  # noqa: N818 - a state of the deployment
    """Another run works on it, and goes on longer than one was to wait."""


class LeaseLost(RuntimeError):  # noqa: N818
    """Another run has taken the lease, or it could not be renewed: whoever had it has to stop."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease as others see it.

    Attributes:
        scope: What is worked on.
        holder: By whom, see `holder.this_process`.
        token: Which taking of it this is.
        taken_us: Since when, in microseconds since 1970 by the database's clock; that of the
            machine where it is SQLite.
        expires_us: Until when, unless it is renewed.
        is_free: Whether that has passed.
    """

    scope: str
    holder: str
    token: int
    taken_us: int
    expires_us: int
    is_free: bool

    def __str__(self) -> str:
        """Who has it, since when and until when."""
        return (
            f"{self.holder}, which has worked on it since {_moment(self.taken_us)} and holds it "
            f"until {_moment(self.expires_us)} at least"
        )


@dataclass(frozen=True)
class Place:
    """Where a lease is kept: its row, which stays when the lease has ended.

    Attributes:
        begin: Begins a transaction in the ledger's database.
        store_id: Of which store.
        scope: What is worked on.
    """

    begin: Begin
    store_id: str
    scope: str

    def take(self, holder: str, ttl_us: int, over: int = _NO_TOKEN) -> int | None:
        """Take the lease if it is free, or is still the one of the token `over`.

        Returns:
            Its token from now on; None if somebody has it.
        """
        with self.begin() as connection:
            now = _now(connection)
            on_postgres = connection.dialect.name == "postgresql"
            insert = postgresql.insert(LEASES) if on_postgres else sqlite.insert(LEASES)
            insert = insert.values(
                store_id=self.store_id,
                scope=self.scope,
                holder=holder,
                token=1,
                taken_us=now,
                expires_us=now + ttl_us,
            )
            changed: dict[str, Any] = {name: insert.excluded[name] for name in _TAKEN_WITH}
            changed["token"] = LEASES.c.token + 1
            statement = insert.on_conflict_do_update(
                index_elements=("store_id", "scope"),
                set_=changed,
                where=_is_free(now) | (LEASES.c.token == over),
            ).returning(LEASES.c.token)
            return connection.execute(statement).scalar_one_or_none()

    def look(self, connection: sa.Connection) -> HeldLease | None:
        """Who has it, or had it last."""
        return next(iter(_leases(connection, *self._is_here())), None)

    def renew(self, connection: sa.Connection, token: int, ttl_us: int) -> bool:
        """Hold it that long from now, if it is still the one of `token`; whether it is."""
        statement = sa.update(LEASES).where(*self._is_here(), LEASES.c.token == token)
        renewed = connection.execute(statement.values(expires_us=_now(connection) + ttl_us))
        return renewed.rowcount == 1

    def release(self, token: int) -> None:
        """Let others have it, if it is still the one of `token`."""
        with self.begin() as connection:
            statement = sa.update(LEASES).where(*self._is_here(), LEASES.c.token == token)
            connection.execute(statement.values(expires_us=0))

    def _is_here(self) -> tuple[sa.ColumnElement[bool], ...]:
        return LEASES.c.store_id == self.store_id, LEASES.c.scope == self.scope


class Lease:
    """The right to be the only one who works on something; made by `hold`."""

    def __init__(
        self, place: Place, holder: str, token: int, ttl_seconds: float, at: float
    ) -> None:
        """A lease just taken.

        Args:
            place: Where it is kept.
            holder: Who took it.
            token: Which taking it is.
            ttl_seconds: How long it holds unless it is renewed.
            at: The moment just before it was taken, by `_elapsed`.
        """
        self.scope, self.holder, self.token = place.scope, holder, token
        self._place, self._ttl = place, ttl_seconds
        self._sure_at = at
        self._lost = ""
        self._ended = threading.Event()

    def check(self) -> None:
        """See that it is still held; asks the database only if it wasn't heard of for a TTL.

        Raises:
            LeaseLost: It isn't, or nobody can tell.
        """
        self._refuse_if_lost()
        if _elapsed() - self._sure_at < self._ttl:
            return
        try:
            self.renew()
        except sa.exc.SQLAlchemyError as error:
            msg = (
                f"the lease of {self.scope} was last renewed more than {self._ttl:g} s ago, and "
                f"now it can't be ({type(error).__name__}): another run may have it; run again"
            )
            raise LeaseLost(msg) from error

    def confirm(self, connection: sa.Connection) -> None:
        """Renew it within a transaction: what else that writes is written only if it is held.

        Nobody can take it between this and the end of the transaction. One that expired without
        anybody having taken it is still held.

        Raises:
            LeaseLost: Somebody has taken it since.
        """
        self._refuse_if_lost()
        if not self._place.renew(connection, self.token, _in_microseconds(self._ttl)):
            now = self._place.look(connection)
            by = f"by {now.holder} at {_moment(now.taken_us)}" if now else "away: its row is gone"
            self._lost = (
                f"the lease of {self.scope} was taken {by}, after this run had not been heard of "
                f"for {self._ttl:g} s: nothing more is written here; run again"
            )
            raise LeaseLost(self._lost)

    def renew(self) -> None:
        """Hold it for another TTL from now.

        Raises:
            LeaseLost: Somebody has taken it since.
        """
        at = _elapsed()
        with self._place.begin() as connection:
            self.confirm(connection)
        self._sure_at = at

    def keep(self) -> None:
        """Renew it now and then until `end`; for a thread."""
        while not self._ended.wait(self._ttl / _RENEWALS_A_TTL):
            try:
                self.renew()
            except LeaseLost:
                return
            except sa.exc.SQLAlchemyError:
                continue  # the database is away for now; `check` knows since when

    def end(self) -> None:
        """Hold it no more."""
        self._ended.set()

    def _refuse_if_lost(self) -> None:
        if self._ended.is_set():
            msg = f"the lease of {self.scope} was given back: nothing more is done under it"
            raise LeaseLost(msg)
        if self._lost:
            raise LeaseLost(self._lost)


@contextmanager
def hold(
    place: Place, ttl_seconds: float, wait_seconds: float, say: Callable[[str], None], run_id: str
) -> Iterator[Lease]:
    """Take a lease, keep it while the block runs, give it back; see `Ledger.lease`.

    Raises:
        LeaseHeld: Somebody else has it.
        ValueError: `ttl_seconds` is not in (0, 3600], or `wait_seconds` is negative.
    """
    if not 0 < ttl_seconds <= _LONGEST_TTL_SECONDS or not wait_seconds >= 0:
        msg = (
            f"a lease holds for more than 0 s and at most {_LONGEST_TTL_SECONDS:g}, and is waited "
            f"for 0 s or longer: found {ttl_seconds} and {wait_seconds}"
        )
        raise ValueError(msg)
    lease = _taken(place, this_process(run_id), ttl_seconds, wait_seconds, say)
    keeper = threading.Thread(target=lease.keep, name=f"lease {place.scope}", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        lease.end()
        keeper.join()
        # If it can't be given back it expires.
        with suppress(sa.exc.SQLAlchemyError):
            place.release(lease.token)


def held(connection: sa.Connection, store_id: str) -> list[HeldLease]:
    """The leases of a store that somebody has, sorted by scope."""
    return [one for one in _leases(connection, LEASES.c.store_id == store_id) if not one.is_free]


def _taken(
    place: Place,
    holder: str,
    ttl_seconds: float,
    wait_seconds: float,
    say: Callable[[str], None],
) -> Lease:
    """Take the lease, when it is free."""
    until = _elapsed() + wait_seconds
    pause, told, over = _FIRST_PAUSE_SECONDS, False, _NO_TOKEN
    while True:
        at = _elapsed()
        token = place.take(holder, _in_microseconds(ttl_seconds), over)
        if token is not None:
            return Lease(place, holder, token, ttl_seconds, at)
        while True:
            with place.begin() as connection:
                other = place.look(connection)
            if other is None or other.is_free:
                break
            if is_gone(other.holder):
                over = other.token  # of nobody else: who takes it meanwhile has another
                break
            if _elapsed() >= until:
                raise LeaseHeld(_refusal(place.scope, other, wait_seconds))
            if not told:
                say(f"{place.scope}: waiting for {other}")
                told = True
            time.sleep(min(pause, max(0.0, until - _elapsed())))
            pause = min(1.5 * pause, _LONGEST_PAUSE_SECONDS)


def _refusal(scope: str, other: HeldLease, waited: float) -> str:
    still = f"still, after {waited:g} s, " if waited else ""
    return (
        f"{scope} is {still}worked on by {other}: run again when it is done, or let this run wait "
        "longer (lease_wait_seconds)"
    )


def _leases(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[HeldLease]:
    columns = (LEASES.c[name] for name in ("scope", "holder", "token", "taken_us", "expires_us"))
    query = (
        sa.select(*columns, _is_free(_now(connection)).label("is_free"))
        .where(*conditions)
        .order_by(LEASES.c.scope)
    )
    return [
        HeldLease(row.scope, row.holder, row.token, row.taken_us, row.expires_us, bool(row.is_free))
        for row in connection.execute(query)
    ]


def _is_free(now: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    expires, longest = LEASES.c.expires_us, _in_microseconds(_LONGEST_TTL_SECONDS)
    return (expires <= now) | (expires > now + longest)


def _now(connection: sa.Connection) -> sa.ColumnElement[Any]:
    """The moment in microseconds since 1970: by the database's clock, if it has one of its own."""
    if connection.dialect.name == "postgresql":
        # Of this moment; `now` is when the transaction began.
        seconds = sa.extract("epoch", sa.func.clock_timestamp())
        return sa.cast(seconds * _SECOND, sa.BigInteger)
    return sa.literal(time.time_ns() // 1000, sa.BigInteger)


def _elapsed() -> float:
    """Seconds of any origin, also those in which the machine slept."""
    return time.clock_gettime(_CLOCK)


def _in_microseconds(seconds: float) -> int:
    return round(seconds * _SECOND)


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / _SECOND, UTC).isoformat(timespec="seconds")
