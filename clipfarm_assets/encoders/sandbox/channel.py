"""Messages between a run and its decoders.

They are JSON: whatever takes over a decoder can say nothing that is more than data.
"""

import json
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

_HEAD: Final = struct.Struct("!I")
_LONGEST: Final = 2**20


class ChannelClosed(ConnectionError):  # noqa: N818 - what is so, not who is to blame
    """The other side is gone."""


class BadMessage(ValueError):  # noqa: N818 - reads better where it is raised
    """What came is no message."""


class Channel:
    """One end of a socket: a length of four bytes, then a JSON object. For one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        """Take over the socket."""
        self._socket = end

    def send(self, message: Mapping[str, Any], until: float | None = None) -> None:
        """Send a message, at most until that moment of the monotonic clock.

        Raises:
            ConnectionError: Nobody is there to receive it.
            TimeoutError: Somebody is, and reads nothing; a part of it may be on the way.
        """
        data = json.dumps(message).encode()
        self._socket.settimeout(_left(until))
        self._socket.sendall(_HEAD.pack(len(data)) + data)

    def receive(self, until: float | None = None) -> dict[str, Any]:
        """Wait for the next message, at most until that moment of the monotonic clock.

        Raises:
            ChannelClosed: The other side is gone.
            TimeoutError: Nothing came in time, or not all of it.
            BadMessage: What came is no message.
        """
        (length,) = _HEAD.unpack(self._exactly(_HEAD.size, until))
        if length > _LONGEST:
            msg = f"expected a message of {_LONGEST} bytes at most, found one of {length}"
            raise BadMessage(msg)
        try:
            message = json.loads(self._exactly(length, until))
        except (ValueError, RecursionError) as error:
            msg = f"expected a JSON object, found {error}"
            raise BadMessage(msg) from error
        if not isinstance(message, dict):
            msg = f"expected a JSON object, found {type(message).__name__}"
            raise BadMessage(msg)
        return message

    def send_descriptors(self, descriptors: Sequence[int], until: float | None = None) -> None:
        """Hand over open files, as `send` does; see `socket.send_fds`."""
        self._socket.settimeout(_left(until))
        socket.send_fds(self._socket, [b"+"], list(descriptors))

    def receive_descriptors(self, count: int) -> list[int]:
        """Take over open files: so many, and they are the caller's to close.

        Raises:
            ChannelClosed: The other side is gone.
        """
        data, descriptors, _, _ = socket.recv_fds(self._socket, 1, count)
        if not data:
            raise ChannelClosed
        return list(descriptors)

    def close(self) -> None:
        """Close this end, which the other side notices."""
        self._socket.close()

    def _exactly(self, size: int, until: float | None) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(_left(until))
            part = self._socket.recv(size - len(data))
            if not part:
                raise ChannelClosed
            data += part
        return bytes(data)


def _left(until: float | None) -> float | None:
    """Seconds until then, as sockets take them; raises `TimeoutError` when there are none."""
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
