"""The run's side of `server`: starting it, and asking it for workers."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import IO, Any, Final

from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.sandbox.channel import BadMessage, Channel

_SERVER: Final = "clipfarm_assets.encoders.sandbox.server"
_START_SECONDS: Final = 120.0
_ANSWER_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_SHOWN: Final = 300

# All that a decoder is given of the environment: no credential, address or setting of the run.
_PASSED_ON: Final = (
    "DYLD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PATH",
    "TMPDIR",
    "TZ",
)
# A worker decodes one item with one thread; more would also forbid the fork.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ForkFailed(DecodersUnavailable):
    """The machine has no room for one more process now; those that there are go on."""


class ForkServer:
    """A process that workers are forked from. Thread-safe.

    Orders and answers follow each other in turn. So after one that failed, whatever still comes
    might answer another order: from then on it `is_broken`, and is asked nothing any more. Workers
    that it has go on until it is closed, or until they are not heard of.
    """

    def __init__(self, jobs: str, memory_bytes: int) -> None:
        """Start it, which takes as long as importing the jobs' libraries.

        Args:
            jobs: Module of the jobs, as `jobs`.
            memory_bytes: What a worker may take beside what it starts with.

        Raises:
            DecodersUnavailable: It does not start.
        """
        self._lock = Lock()
        self._is_broken = False
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        command = [sys.executable, "-P", "-m", _SERVER]
        command += [str(theirs.fileno()), jobs, str(memory_bytes)]
        with theirs, tempfile.TemporaryFile() as said:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    command,
                    env=_environment(),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                self._channel.close()
                raise _unavailable(str(error)) from error
            theirs.close()  # so that its end is noticed
            self._await_ready(said)

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be asked of it any more."""
        return self._is_broken

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def fork(self, job: str, descriptors: Sequence[int]) -> int:
        """Start a worker; its process id.

        Args:
            job: The name of what it does.
            descriptors: Its socket and its shared memory; the caller's are the caller's to close.

        Raises:
            ForkFailed: Not now; the server is well.
            DecodersUnavailable: It cannot be started, or the server is broken.
        """
        # The first of a job waits for its libraries too.
        reply = self._ask({"do": "start", "job": job}, _START_SECONDS, descriptors)
        if "failed" in reply:
            passing = bool(reply.get("passing"))
            raise _unavailable(str(reply["failed"]), ForkFailed if passing else DecodersUnavailable)
        return int(reply["pid"])

    def end(self, pid: int) -> int | None:
        """End a worker, whatever it does; its exit code, minus the number of a signal.

        None if the server is broken, so that nobody knows, or if it has no such worker.
        """
        try:
            code = self._ask({"do": "end", "pid": pid}, _ANSWER_SECONDS).get("code")
        except DecodersUnavailable:
            return None
        return None if code is None else int(code)

    def close(self) -> None:
        """End it and all of its workers."""
        self._channel.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_ready(self, said: IO[bytes]) -> None:
        try:
            reply = self._channel.receive(time.monotonic() + _START_SECONDS)
            reason = str(reply.get("failed", ""))
        except (OSError, BadMessage) as error:
            self._process.kill()
            self._process.wait()
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"its process ended ({type(error).__name__})"
        if reason:
            self.close()
            raise _unavailable(reason)

    def _ask(
        self, order: Mapping[str, Any], seconds: float, descriptors: Sequence[int] = ()
    ) -> Mapping[str, Any]:
        with self._lock:
            if self._is_broken:
                msg = "the process they are forked from failed before"
                raise _unavailable(msg)
            self._is_broken = True  # unless all of it comes through
            try:
                until = time.monotonic() + seconds
                self._channel.send(order, until)
                if descriptors:
                    self._channel.send_descriptors(descriptors, until)
                reply = self._channel.receive(until)
            except (OSError, BadMessage) as error:
                reason = f"the process they are forked from is gone ({type(error).__name__})"
                raise _unavailable(reason) from error
            self._is_broken = False
            return reply


def _environment() -> dict[str, str]:
    """Modules are found where this process finds them; see `_PASSED_ON` for the rest."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    folders = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - a text, as the others
    return {**passed, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(folders)}


def _unavailable(
    reason: str, kind: type[DecodersUnavailable] = DecodersUnavailable
) -> DecodersUnavailable:
    told = " ".join(reason.split())[:_SHOWN]
    return kind(
        f"cannot start a process that decodes media: {told}; mend the installation or the "
        "machine's limits, or decode in the run's own threads by decode_isolation=thread"
    )
