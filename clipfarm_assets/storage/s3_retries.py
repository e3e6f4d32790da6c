"""Requests to a server that throttles, breaks off or falls silent: repeated, bounded, counted.

The client library repeats some of them itself. It doesn't repeat what it may not know to be safe (a
conditional write whose connection broke), takes some passing refusals for final ones, and can't
tell how often it did. Here each request is known to be safe to repeat, so it repeats none and all
of it is decided and counted in one place.
"""

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeVar

from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError

from clipfarm_assets.storage.errors import StoreUnavailable

Out = TypeVar("Out")

# Half of each pause is chance, so that those whom a server sent away don't all come back at once.
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 8.0

# What S3 answers when the same request may succeed later, whatever the status it comes with; see
# "List of error codes" in S3's API reference.
_PASSING_CODES: Final = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
    }
)
_PASSING_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
_VAGUE: Final = frozenset({400, 409})
_DENIED: Final = frozenset({401, 403})
_NO_BUCKET: Final = "NoSuchBucket"
# Of an upload in parts whose end was carried out and whose answer got lost: the client asks again,
# and there is no such upload any more.
_NO_UPLOAD: Final = "NoSuchUpload"
# Errors of conditional writes that say how things are, and that callers ask for.
_CONDITIONS: Final = (AlreadyExistsError, PreconditionError)

# How the library words what it was told. Nothing else of its text is passed on: servers repeat
# whole requests in their refusals, tokens of credentials included.
_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_NO_RANGES: Final = "Received non-partial response when range requested"
_CODE: Final = re.compile(r'(?:<Code>|\bcode: "?)([A-Za-z]{1,64})\b')
_HAPPENED: Final = (
    ("connectionrefused", "a refused connection"),
    ("dnserror", "an unknown host name"),
    ("timedout", "no whole answer in time"),
    ("connectionreset", "a connection that was reset"),
    ("incompletemessage", "a connection that was closed without an answer"),
    ("incompletebody", "an answer that broke off"),
    ("brokenpipe", "a connection that was closed"),
    ("hyper::error(parse", "an answer that is no HTTP"),
    ("errorsendingrequest", "a request that could not be sent"),
)

_LOG: Final = logging.getLogger(__name__)


class RequestRefused(StoreUnavailable):
    """The server's final no to one request: repeating it would not help."""


class Garbled(Exception):  # noqa: N818 - a state of an answer
    """An answer that came through and isn't one that S3 gives."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What the error of a request says.

    Attributes:
        told: Status and code, or what happened to the connection.
        passing: Whether the same request may succeed later.
        status: The HTTP status, if there was one.
        code: S3's error code, if there was one.
    """

    told: str
    passing: bool
    status: int | None = None
    code: str | None = None

    @property
    def is_named_passing(self) -> bool:
        """Whether it is passing by its code, whatever the client makes of its status."""
        return self.code in _PASSING_CODES

    @property
    def is_of_bucket(self) -> bool:
        """Whether there is no such bucket, which no object's absence explains."""
        return self.code == _NO_BUCKET

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Read it from an error of the client library."""
        if isinstance(error, Garbled):
            return cls(str(error), passing=True)
        text = str(error)
        found, named = _STATUS.search(text), _CODE.search(text)
        status = int(found[1]) if found else None
        code = named[1] if named else None
        if status is None and code is None:
            passing = isinstance(error, GenericError) and _NO_RANGES not in text
            return cls(_what_happened(text, passing), passing)
        # Of a HEAD there is no body, so no code: what stands behind such a status is unknown.
        passing = (
            code in _PASSING_CODES
            or status in _PASSING_STATUSES
            or (status in _VAGUE and code is None)
            or code == _NO_UPLOAD
        )
        told = " ".join(str(part) for part in (status, code) if part is not None)
        return cls(told, passing, status, code)


def _what_happened(text: str, passing: bool) -> str:
    squeezed = "".join(text.lower().split())
    for words, told in _HAPPENED:
        if words in squeezed:
            return told
    return "an answer that can't be read" if passing else "something that it doesn't support"


class Retries:
    """Repeats requests to one store, in any number of threads.

    A request that failed is repeated after 0.1 s, then twice as long each time up to 8 s, of which
    half is chance; as long as there are `retries` left, and not later than `seconds` after its
    first beginning. Each one takes as long as the client lets it, so all of it is bounded.
    """

    def __init__(self, place: str, bucket: str, retries: int, seconds: float) -> None:
        """Make the rules for a store.

        Args:
            place: The store, for messages.
            bucket: Its bucket.
            retries: Repeats of one request.
            seconds: No repeat begins later.
        """
        self._place, self._bucket = place, bucket
        self._retries, self._seconds = retries, seconds
        self._lock = threading.Lock()
        self._repeated = 0

    @property
    def repeated(self) -> int:
        """Requests that were repeated so far, in this process."""
        return self._repeated

    def call(
        self,
        what: str,
        key: str,
        request: Callable[[], Out],
        *,
        writes: bool = False,
        conditional: bool = False,
    ) -> Out:
        """The result of `request`, repeated while that may help.

        Args:
            what: The kind of request, for messages.
            key: What it is about.
            request: Safe to repeat.
            writes: Whether it changes the store: then a lost answer leaves open whether it did.
            conditional: Whether it does so under a condition, which may not hold.

        Raises:
            FileNotFoundError: There is no such object to read.
            AlreadyExistsError: The condition of a write didn't hold.
            PreconditionError: Likewise.
            RequestRefused: The server refused for a reason that stays.
            StoreUnavailable: It failed as often, or as long, as is allowed.
        """
        begun = time.monotonic()
        for attempt in count(1):
            try:
                return request()
            except (FileNotFoundError, BaseError, Garbled) as error:
                fault = Fault.of(error)
                if conditional and isinstance(error, _CONDITIONS) and not fault.is_named_passing:
                    raise
                # Nothing that is written has to be there before: so to a write it is a refusal.
                absent = isinstance(error, FileNotFoundError) and not fault.is_of_bucket
                if absent and not writes:
                    raise
            # Out of the handler: what is raised now must not carry the library's text along.
            if not fault.passing:
                raise self._final(what, key, fault)
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
            pause *= random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
            spent = time.monotonic() - begun
            if attempt > self._retries or spent + pause > self._seconds:
                raise StoreUnavailable(self._given_up(what, key, fault, attempt, spent, writes))
            self._count(what, key, fault)
            time.sleep(pause)
        raise AssertionError("unreachable: count() has no end")

    def _count(self, what: str, key: str, fault: Fault) -> None:
        """Tell of a repeat: the first, the second, the fourth, ...: a storm is few lines."""
        with self._lock:
            self._repeated += 1
            number = self._repeated
        level = logging.WARNING if number & (number - 1) == 0 else logging.DEBUG
        said = "%s: %s of %s is repeated after %s; requests repeated so far: %d"
        _LOG.log(level, said, self._place, what, key, fault.told, number)

    def _final(self, what: str, key: str, fault: Fault) -> StoreUnavailable:
        if fault.is_of_bucket:
            msg = f"there is no bucket {self._bucket!r}; create it or correct the store's url"
            return StoreUnavailable(msg)
        why = f"{self._place} refuses {what} of {key}: {fault.told}"
        if fault.status in _DENIED or fault.code == "AccessDenied":
            why += "; look at the credentials, and whether their policy allows it"
        return RequestRefused(why)

    def _given_up(
        self, what: str, key: str, fault: Fault, tries: int, spent: float, writes: bool
    ) -> str:
        times = "once" if tries == 1 else f"{tries} times"
        unknown = "; whether anything was written is not known" if writes else ""
        return (
            f"{self._place}: {what} of {key} failed {times} in {spent:.1f} s, at last with "
            f"{fault.told}{unknown}; start again when the server answers, or allow it more time "
            "(CLIPFARM_S3_RETRIES, CLIPFARM_S3_RETRY_SECONDS, CLIPFARM_S3_TIMEOUT_SECONDS)"
        )
