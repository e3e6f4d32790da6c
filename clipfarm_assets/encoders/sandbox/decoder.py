"""The run's side of one process that decodes: giving it an item, and hearing what it answers."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.sandbox.channel import BadMessage, Channel
from clipfarm_assets.encoders.sandbox.fork_server import ForkFailed, ForkServer
from clipfarm_assets.encoders.sandbox.memory import SharedBytes
from clipfarm_assets.encoders.sandbox.tasks import Arrays, Task, is_duration
from clipfarm_assets.encoders.sandbox.worker import GRACE_SECONDS

_T = TypeVar("_T")

_READY_SECONDS: Final = 60.0
_GRACE: Final = 2 * GRACE_SECONDS  # a worker ends itself a little earlier
_LONGEST_TEXT: Final = 10_000
_CLOCKS_DIFFER: Final = 1.0

End = Literal["told", "media_error", "short_of_memory", "unexpected"]


class Died(Exception):  # noqa: N818 - what became of it
    """A decoder is gone in the middle of an item."""


class Unheard(Exception):  # noqa: N818 - likewise
    """A decoder did not answer in time, or does not listen."""


class Nonsense(Exception):  # noqa: N818 - likewise
    """No decoder of ours would say this."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How an item ended.

    Attributes:
        end: Which way.
        said: The job's fields if it told them, a sentence of an error, or True.
        cpu_seconds: Processor time that it took.
    """

    end: End
    said: Any
    cpu_seconds: float


class Decoder:
    """One process that decodes, and the ways to it. For one thread at a time."""

    def __init__(self, server: ForkServer, job: str) -> None:
        """Start it and wait until it is ready.

        Raises:
            ForkFailed: Not now.
            DecodersUnavailable: It does not start.
        """
        self._server = server
        self._ordered = time.monotonic()
        self.items = 0
        """That it was given so far."""
        ours, theirs = socket.socketpair()
        self._channel, self._memory = Channel(ours), SharedBytes.create()
        try:
            with theirs:
                self._pid = server.fork(job, [theirs.fileno(), self._memory.descriptor])
            ready = self._channel.receive(time.monotonic() + _READY_SECONDS)
            self.landlock = int(ready["landlock"])
            """Version of what seals it; see `confinement`."""
        except (OSError, BadMessage) as error:
            code = self.end()
            msg = f"a process that decodes media did not get ready (exit code {code})"
            raise ForkFailed(msg) from error
        except DecodersUnavailable:
            self.close()
            raise

    def order(self, raw: bytes, task: Task, deadline: Deadline) -> None:
        """Give it an item.

        Raises:
            Died: It is gone.
            Unheard: It does not listen.
            OSError: There is no room for the file.
        """
        self._ordered = time.monotonic()
        self.items += 1
        self._memory.write(raw)
        order = {"left": deadline.left, "seconds": deadline.seconds, "bytes": len(raw)}
        self._send({**order, "arguments": dict(task.arguments)}, deadline)

    def answer(
        self, task: Task, deadline: Deadline, take: Callable[[NDArray[Any]], _T]
    ) -> tuple[list[_T], Answer]:
        """What `take` made of the item's arrays, and how the item ended.

        Raises:
            Unheard: It did not come in time, or the decoder does not listen.
            Nonsense: It is none.
            Died: There is none.
        """
        made: list[_T] = []
        while True:
            reply = self._received(deadline)
            arrays = reply.pop("arrays", [])
            made.extend(map(take, self._arrays(arrays, task.arrays, len(made))))
            if reply:
                return made, self._end_of_item(reply, task, len(made))
            if not arrays:
                raise Nonsense  # which would cost nothing to say for ever
            self._send({"taken": True}, deadline)

    def trim(self) -> None:
        """Give memory back that one large item took."""
        self._memory.trim()

    def end(self) -> int | None:
        """Kill it, if it lives; its exit code, minus the number of a signal, if that is known."""
        code = self._server.end(self._pid)
        self.close()
        return code

    def close(self) -> None:
        """Let go of it: if it is idle it ends by itself."""
        self._channel.close()
        self._memory.close()

    def _received(self, deadline: Deadline) -> dict[str, Any]:
        try:
            return self._channel.receive(_until(deadline))
        except TimeoutError as error:
            raise Unheard from error
        except ConnectionError as error:
            raise Died from error
        except BadMessage as error:
            raise Nonsense from error

    def _send(self, message: Mapping[str, Any], deadline: Deadline) -> None:
        try:
            self._channel.send(message, _until(deadline))
        except TimeoutError as error:
            raise Unheard from error
        except ConnectionError as error:
            raise Died from error

    def _arrays(self, told: Any, allowed: Arrays, given: int) -> Iterator[NDArray[Any]]:
        """The arrays that a reply announces, each copied out of shared memory.

        Raises:
            Nonsense: It announces something else, or more than is allowed.
        """
        if not isinstance(told, list) or given + len(told) > allowed.most:
            raise Nonsense
        at = 0
        for one in told:
            if not isinstance(one, dict) or one.keys() != {"shape", "dtype"}:
                raise Nonsense
            if not allowed.allow(one["shape"], one["dtype"]):
                raise Nonsense
            array = np.empty(one["shape"], allowed.dtype)
            try:
                self._memory.read_array(array, at)
            except ValueError as error:
                raise Nonsense from error
            at += array.nbytes
            yield array

    def _end_of_item(self, reply: Mapping[str, Any], task: Task, given: int) -> Answer:
        spent = time.monotonic() - self._ordered
        for end in ("told", "media_error", "short_of_memory", "unexpected"):
            if reply.keys() != {end, "cpu_seconds"}:
                continue
            said, used = reply[end], reply["cpu_seconds"]
            if end == "told":
                may_say = isinstance(said, dict) and task.may_tell(said, given)
            elif end == "short_of_memory":
                may_say = said is True
            else:
                may_say = isinstance(said, str) and len(said) <= _LONGEST_TEXT
            # It has one thread.
            if may_say and is_duration(used, spent + _CLOCKS_DIFFER):
                return Answer(end, said, float(used))
        raise Nonsense


def _until(deadline: Deadline) -> float:
    return deadline.at + _GRACE
