"""Decoding in processes of its own: what hangs, crashes or blows up there is one failed item."""

import logging
import signal
import time
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline, MediaError, Rotation
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.sandbox.confinement import LANDLOCK_SEALS
from clipfarm_assets.encoders.sandbox.decoder import Answer, Decoder, Died, Nonsense, Unheard
from clipfarm_assets.encoders.sandbox.fork_server import ForkFailed, ForkServer
from clipfarm_assets.encoders.sandbox.tasks import Task, frames_task, sound_task

if TYPE_CHECKING:  # which loads FFmpeg's libraries
    from clipfarm_assets.encoders.video.frames import PickedFrames

_T = TypeVar("_T")

_LOG: Final = logging.getLogger(__name__)

_JOBS: Final = "clipfarm_assets.encoders.sandbox.jobs"
_FORK_PAUSES: Final = (0.1, 0.4, 1.6)
"""Seconds, where the machine has no room for one more process; then it is told."""
_ITEMS: Final = 100
"""That one decoder takes, one after the other."""


class DecodingFailed(RuntimeError):  # noqa: N818 - reads better where it is raised
    """A decoder raised what no medium explains: a mistake of our own, or a broken library."""


class DecodeWorkers:
    """Decodes in processes, one for every thread that asks at the same time. Thread-safe.

    They are started when needed, forked from one that has the libraries loaded, and used again.
    Each has one item at a time. One whose item fails, whatever the reason, is ended, and so is one
    that had a hundred: the next item has a new one. They see a file's bytes, and have no
    credentials, no open files, and no way to open or change any.

    Where what they are forked from fails, another one takes its place, and an item whose decoder
    went with it is decoded once more.

    Whoever makes one closes it.
    """

    def __init__(self, memory_bytes: int, jobs: str = _JOBS) -> None:
        """Start nothing yet.

        Args:
            memory_bytes: What a decoder may take beside what it starts with.
            jobs: Module of what they can do; see `jobs`.
        """
        self._memory_bytes, self._jobs = memory_bytes, jobs
        self._lock, self._starting = Lock(), Lock()
        self._server: ForkServer | None = None
        self._left: list[ForkServer] = []  # broken, and there until its decoders are through
        self._idle: dict[str, list[Decoder]] = {}
        self._cpu_seconds = 0.0
        self._unsealed = 0
        self._is_closed = False

    @property
    def cpu_seconds(self) -> float:
        """See `MediaDecoding`."""
        with self._lock:
            return self._cpu_seconds

    @property
    def unsealed(self) -> int:
        """Decoders that were started on a kernel without the Landlock that `confinement` wants."""
        with self._lock:
            return self._unsealed

    def pick_frames(
        self,
        raw: bytes,
        wanted: int,
        taken: int,
        transform: Callable[[NDArray[np.uint8]], _T],
        deadline: Deadline,
        rotation: Rotation,
    ) -> "PickedFrames[_T]":
        """See `MediaDecoding`.

        Raises:
            MediaError: The clip cannot be decoded, or its decoder hung, crashed or took too much.
            DecodersUnavailable: There can be no decoder.
        """
        from clipfarm_assets.encoders.video.frames import PickedFrames

        made, told = self.run(frames_task(wanted, taken, rotation), raw, deadline, transform)
        return PickedFrames(**{**told, "frames": [made[number] for number in told["frames"]]})

    def load_audio(
        self, raw: bytes, sample_rate: int, max_seconds: float, deadline: Deadline
    ) -> tuple[NDArray[np.float32], float]:
        """See `MediaDecoding`; raises as `pick_frames` does."""
        task = sound_task(sample_rate, max_seconds)
        (samples,), told = self.run(task, raw, deadline, lambda array: array)
        return samples, float(told["seconds"])

    def run(
        self, task: Task, raw: bytes, deadline: Deadline, take: Callable[[NDArray[Any]], _T]
    ) -> tuple[list[_T], dict[str, Any]]:
        """Have one item decoded.

        Args:
            task: What is to be done with it, and what may be answered.
            raw: The file.
            deadline: Of the item; the time that starting a decoder takes is added to it. Where the
                decoder is lost without its doing, it begins anew, once.
            take: Called in this thread with each array that the job gives, in order.

        Returns:
            What `take` made of the arrays, and what the job told.
        """
        try:
            return self._run_once(task, raw, deadline, take)
        except _Lost:
            deadline = Deadline.after(deadline.seconds)
        try:
            return self._run_once(task, raw, deadline, take)
        except _Lost:
            raise _death(task.what, None, deadline) from None

    def _run_once(
        self, task: Task, raw: bytes, deadline: Deadline, take: Callable[[NDArray[Any]], _T]
    ) -> tuple[list[_T], dict[str, Any]]:
        """As `run`; raises `_Lost` if the decoder went with what it was forked from."""
        decoder, deadline = self._at_work(task, raw, deadline)
        try:
            made, answer = decoder.answer(task, deadline, take)
        except Died:
            code = decoder.end()
            if code is None:
                raise _Lost from None
            raise _death(task.what, code, deadline) from None
        except Unheard:
            decoder.end()
            raise deadline.passed(f"decoding the {task.what}") from None
        except Nonsense as error:
            decoder.end()
            msg = f"cannot decode the {task.what}: its decoder answered nonsense; replace the file"
            raise MediaError(msg) from error
        except BaseException:
            decoder.end()  # it may be in the middle of anything
            raise
        self._done(task.job, decoder, answer)
        if answer.end == "told":
            return made, answer.said
        if answer.end == "media_error":
            raise MediaError(answer.said)
        if answer.end == "short_of_memory":
            msg = (
                f"cannot decode the {task.what}: it asks for more memory than decode_memory_mib "
                f"allows, {self._memory_bytes / 2**20:g} MiB"
            )
            raise MediaError(msg)
        raise DecodingFailed(answer.said)

    def close(self) -> None:
        """End all decoders, also those that are at work; their items fail."""
        with self._starting:
            with self._lock:
                self._is_closed = True
                idle = [decoder for decoders in self._idle.values() for decoder in decoders]
                self._idle.clear()
            for decoder in idle:
                decoder.close()
            for server in (*self._left, self._server):
                if server is not None:
                    server.close()

    def _at_work(self, task: Task, raw: bytes, deadline: Deadline) -> tuple[Decoder, Deadline]:
        """A decoder that has the item, and the item's deadline."""
        asked = time.monotonic()
        while True:
            with self._lock:
                idle = self._idle.get(task.job)
                decoder = idle.pop() if idle else None
            is_new = decoder is None
            if decoder is None:
                decoder = self._started(task.job)
            own = Deadline(deadline.at + (time.monotonic() - asked), deadline.seconds)
            try:
                decoder.order(raw, task, own)
            except (Died, Unheard) as error:
                decoder.end()
                if is_new:
                    msg = "a process that decodes media ended before it had anything to decode"
                    raise DecodersUnavailable(msg) from error
            except OSError as error:
                decoder.end()
                msg = (
                    f"cannot hand {len(raw)} bytes to a process that decodes media: "
                    f"{error.strerror}; free memory, or decode with fewer workers"
                )
                raise DecodersUnavailable(msg) from error
            except BaseException:
                decoder.end()
                raise
            else:
                return decoder, own

    def _started(self, job: str) -> Decoder:
        for pause in _FORK_PAUSES:
            try:
                return self._looked_at(self._forked(job))
            except ForkFailed:
                time.sleep(pause)
        return self._looked_at(self._forked(job))

    def _looked_at(self, decoder: Decoder) -> Decoder:
        """Count and tell where the kernel does not seal them."""
        if decoder.landlock < LANDLOCK_SEALS:
            with self._lock:
                self._unsealed += 1
                is_first = self._unsealed == 1
            if is_first:
                _LOG.warning(
                    "decoders are sealed by version %d of Landlock, and %d is wanted (Linux 6.12; "
                    "0: the kernel has none): one that a medium takes over can reach this user's "
                    "files and processes; see docs/security.md",
                    decoder.landlock,
                    LANDLOCK_SEALS,
                )
        return decoder

    def _forked(self, job: str) -> Decoder:
        with self._starting:
            if self._is_closed:
                msg = "media are not decoded any more: the run is over"
                raise DecodersUnavailable(msg)
            if self._server is not None:
                try:
                    return Decoder(self._server, job)
                except DecodersUnavailable:
                    if not self._server.is_broken:
                        raise
                    self._replaced(self._server)
            self._server = ForkServer(self._jobs, self._memory_bytes)
            return Decoder(self._server, job)

    def _replaced(self, server: ForkServer) -> None:
        """Let go of a broken one; closed now, it would take decoders along that are at work."""
        self._server = None
        if server.is_alive:
            self._left.append(server)
        else:
            server.close()

    def _done(self, job: str, decoder: Decoder, answer: Answer) -> None:
        """Keep a decoder for the next item, if this one left it as it was, as far as is known."""
        is_good = answer.end == "told" and decoder.items < _ITEMS
        if is_good:
            decoder.trim()
        with self._lock:
            self._cpu_seconds += answer.cpu_seconds
            if is_good and not self._is_closed:
                self._idle.setdefault(job, []).append(decoder)
                return
        decoder.end()


class _Lost(Exception):  # noqa: N818 - seen by this module alone
    """A decoder is gone, and nobody can tell how: what it was forked from is broken."""


def _death(what: str, code: int | None, deadline: Deadline) -> MediaError:
    """What an item is told whose decoder died, of its exit code."""
    if code == -signal.SIGALRM:
        return deadline.passed(f"decoding the {what}")
    if code is None:
        how = "its decoder is gone"
    elif code == -signal.SIGKILL:
        how = "its decoder was killed (SIGKILL), as by a system that is short of memory"
    elif code < 0:
        how = f"its decoder crashed ({signal.strsignal(-code)})"
    else:
        how = f"its decoder ended by itself (exit code {code})"
    return MediaError(f"cannot decode the {what}: {how}; replace the file")
