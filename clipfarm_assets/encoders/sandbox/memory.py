"""Bytes that two processes share: a file's on their way to a decoder, arrays on their way back.

Both sides read and write by calls, and neither maps the memory: so no decoder can pull pages away
from under a run, and one more copy costs less than a pipe's many small ones.
"""

import os
import tempfile
from typing import Any, Final, Self

from numpy.typing import NDArray

_KEPT: Final = 64 * 2**20
"""Bytes that stay allocated between two items."""


class SharedBytes:
    """Memory behind a descriptor, which is handed over to share it."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        self.descriptor = descriptor

    @classmethod
    def create(cls) -> Self:
        """New memory; on a system without ``memfd_create`` a temporary file without a name."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("clipfarm-decode", os.MFD_CLOEXEC))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def write(self, data: bytes | memoryview, at: int = 0) -> None:
        """Write all of `data`, from the byte `at` on."""
        view, done = memoryview(data), 0
        while done < len(view):  # a call takes 2 GiB at most
            done += os.pwrite(self.descriptor, view[done:], at + done)

    def write_array(self, array: NDArray[Any], at: int) -> None:
        """Write the values of a C-contiguous array, from the byte `at` on."""
        self.write(array.reshape(-1).view("u1").data, at)

    def read(self, size: int) -> bytes:
        """The first `size` bytes.

        Raises:
            ValueError: There are fewer.
        """
        parts: list[bytes] = []
        at = 0
        while at < size:
            part = os.pread(self.descriptor, size - at, at)
            if not part:
                raise _shorter(size, at)
            parts.append(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_array(self, array: NDArray[Any], at: int) -> None:
        """Fill a C-contiguous array with what is there from the byte `at` on.

        Raises:
            ValueError: There are fewer bytes than it has.
        """
        view, done = memoryview(array.reshape(-1).view("u1").data), 0
        while done < len(view):
            count = os.preadv(self.descriptor, [view[done:]], at + done)
            if not count:
                raise _shorter(len(view), done)
            done += count

    def trim(self) -> None:
        """Give memory back that one large item took."""
        if os.fstat(self.descriptor).st_size > _KEPT:
            os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


def _shorter(size: int, found: int) -> ValueError:
    return ValueError(f"expected {size} bytes in shared memory, found {found}")
