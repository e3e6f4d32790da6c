"""What decoders are forked from: it has their libraries loaded, and watches over them.

``python -m clipfarm_assets.encoders.sandbox.server <socket> <module of jobs> <memory bytes>``; a
run starts it, see `fork_server`. It decodes nothing itself, so it is always there to notice that
the run is gone: then it ends its workers, and itself.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from clipfarm_assets.encoders.sandbox.channel import Channel
from clipfarm_assets.encoders.sandbox.confinement import die_with
from clipfarm_assets.encoders.sandbox.jobs import Job
from clipfarm_assets.encoders.sandbox.memory import SharedBytes
from clipfarm_assets.encoders.sandbox.worker import work


class _Server:
    """Follows the run's orders: ``start`` a worker of a job, ``end`` one."""

    def __init__(
        self, channel: Channel, jobs: Mapping[str, Callable[[], Job]], memory_bytes: int
    ) -> None:
        self._channel, self._jobs, self._memory_bytes = channel, jobs, memory_bytes
        self._loaded: dict[str, Job] = {}
        self._workers: set[int] = set()
        self._pid = os.getpid()

    def serve(self) -> None:
        """Until the run is gone."""
        try:
            while True:
                order = self._channel.receive()
                if order["do"] == "start":
                    self._channel.send(self._start(order["job"]))
                elif order["pid"] in self._workers:
                    self._channel.send({"code": self._end(order["pid"])})
                else:
                    self._channel.send({"failed": f"{order['pid']} is no worker"})
        except ConnectionError:
            return
        finally:
            for pid in list(self._workers):
                self._end(pid)

    def _start(self, name: str) -> Mapping[str, Any]:
        descriptors = self._channel.receive_descriptors(2)
        try:
            return self._forked(self._job(name), *descriptors)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run has to know it
            return {"failed": f"{type(error).__name__}: {error}"}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _job(self, name: str) -> Job:
        if name not in self._loaded:
            self._loaded[name] = self._jobs[name]()
            gc.collect()
            gc.freeze()  # else a worker's first collection copies all that was imported
        return self._loaded[name]

    def _forked(self, job: Job, connection: int, memory: int) -> Mapping[str, Any]:
        try:
            pid = os.fork()
        except OSError as error:  # short of processes or memory, which others may give back
            return {"failed": f"{type(error).__name__}: {error}", "passing": True}
        if pid == 0:
            self._become_worker(job, connection, memory)
        self._workers.add(pid)
        return {"pid": pid}

    def _become_worker(self, job: Job, connection: int, memory: int) -> None:
        """Never returns, nor unwinds what is the server's."""
        code = 1
        try:
            die_with(self._pid)
            self._channel.close()
            channel = Channel(socket.socket(fileno=connection))
            work(job, channel, SharedBytes(memory), self._memory_bytes)
            code = 0
        finally:
            os._exit(code)

    def _end(self, pid: int) -> int:
        """Kill a worker, unless it is dead already; how it ended, as `subprocess` tells it."""
        self._workers.discard(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)


def main(arguments: Sequence[str]) -> None:
    """Serve one run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides what an interrupt ends
    connection, module, memory_bytes = arguments
    channel = Channel(socket.socket(fileno=int(connection)))
    try:
        jobs = import_module(module).JOBS
    except Exception as error:  # noqa: BLE001 - as above
        channel.send({"failed": f"{type(error).__name__}: {error}"})
        return
    # What libraries print about hostile media is nobody's to read, nor to fill a disk.
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, by descriptor
        os.dup2(nowhere.fileno(), 2)
    channel.send({"ready": True})
    _Server(channel, jobs, int(memory_bytes)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
