"""A decoder: a forked process that takes one item after the other until its run is gone."""

import errno
import os
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.sandbox import confinement
from clipfarm_assets.encoders.sandbox.channel import Channel
from clipfarm_assets.encoders.sandbox.jobs import Job
from clipfarm_assets.encoders.sandbox.memory import SharedBytes

GRACE_SECONDS: Final = 2.0
"""After an item's deadline: time for a decoder that can still tell so itself."""

WINDOW_BYTES: Final = 16 * 2**20
"""Of arrays that wait in shared memory; a larger one waits alone."""


def work(job: Job, channel: Channel, memory: SharedBytes, memory_bytes: int) -> None:
    """Do the job for every item that is ordered; returns when the run is gone.

    It says when it is ready, and what `confine` tells. An order tells the file's size in shared
    memory, the job's arguments, and the time that is left. Replies are ``arrays``, to be taken
    before the next ones, and at the end one of: ``told`` with the last arrays, ``media_error``,
    ``short_of_memory``, ``unexpected``.
    """
    landlock = confine(memory_bytes)
    try:
        channel.send({"ready": True, "landlock": landlock})
        while True:
            order = channel.receive()
            # By the kernel, whose signal ends also a library that never comes back.
            signal.setitimer(signal.ITIMER_REAL, max(order["left"], 0.0) + GRACE_SECONDS)
            began = time.process_time()
            reply = _reply(job, order, channel, memory)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            channel.send({**reply, "cpu_seconds": time.process_time() - began})
    except ConnectionError:
        return


def confine(memory_bytes: int) -> int:
    """Limit what this process can take: for good, as nothing raises a hard limit again.

    - Memory: so much more than it has now (address space; not enforced by macOS), and so much that
      it shares with the run, which is none of its address space.
    - No file, socket or device can be opened any more, whatever a medium names.
    - No file can be removed or changed by its name, no other process be looked into; see
      `confinement.seal`.
    - No process or thread can be started. Root's are not limited, and not by macOS.
    - No core file is written when it crashes.

    Returns:
        The version of Landlock that seals it, 0 for none.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that it is an error, EFBIG
    _limit(resource.RLIMIT_FSIZE, memory_bytes)
    _limit(resource.RLIMIT_AS, _address_space() + memory_bytes)
    _limit(resource.RLIMIT_NPROC, 0)
    landlock = confinement.seal()  # the size that it has now was read from a file
    _limit(resource.RLIMIT_NOFILE, 0)
    return landlock


def _limit(which: int, wanted: int) -> None:
    _, hard = resource.getrlimit(which)
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(which, (bound, bound))


def _address_space() -> int:
    """Bytes of this process's address space; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _reply(
    job: Job, order: Mapping[str, Any], channel: Channel, memory: SharedBytes
) -> Mapping[str, Any]:
    given = _Given(channel, memory)
    try:
        deadline = Deadline(time.monotonic() + order["left"], order["seconds"])
        raw = memory.read(order["bytes"])
        told = job(raw, order["arguments"], deadline, given.give)
    except MediaError as error:
        if _is_shortage(error.__cause__):
            return {"short_of_memory": True}
        return {"media_error": str(error)}
    except Exception as error:  # noqa: BLE001 - a mistake of our own, which the run is to be told
        if _is_shortage(error):
            return {"short_of_memory": True}
        return {"unexpected": f"{type(error).__name__}: {error}"}
    return {"arrays": given.waiting, "told": told}


def _is_shortage(error: BaseException | None) -> bool:
    """Whether memory of its own is short, or such as it shares."""
    short = {errno.EFBIG, errno.ENOSPC}
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in short)


class _Given:
    """Arrays of an item on their way to the run: several a message, as each costs two wake-ups."""

    def __init__(self, channel: Channel, memory: SharedBytes) -> None:
        self._channel, self._memory = channel, memory
        self._count = self._at = 0
        self.waiting: list[Mapping[str, Any]] = []
        """What lies in shared memory and was not told of yet."""

    def give(self, array: NDArray[Any]) -> int:
        """Hand an array over; its number."""
        array = np.ascontiguousarray(array)
        if self.waiting and self._at + array.nbytes > WINDOW_BYTES:
            self._channel.send({"arrays": self.waiting})
            self._channel.receive()
            self.waiting, self._at = [], 0
        self._memory.write_array(array, self._at)
        self.waiting.append({"shape": list(array.shape), "dtype": array.dtype.name})
        self._at += array.nbytes
        self._count += 1
        return self._count - 1
