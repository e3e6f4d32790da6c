"""Who decodes media for the encoders: the thread that asks, or a process that may be killed.

Both give the same bytes. See `sandbox` for the processes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline, Rotation

if TYPE_CHECKING:  # which loads FFmpeg's libraries
    from clipfarm_assets.encoders.video.frames import PickedFrames

DecodeIsolation = Literal["process", "thread"]

_T = TypeVar("_T")


class DecodersUnavailable(RuntimeError):  # noqa: N818 - a structural fault, as ModelMismatch
    """No decoder can be started: the installation's or the machine's fault. Stops the run."""


class MediaDecoding(Protocol):
    """Decodes what the encoders take. Thread-safe."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time that was used so far in other processes than the caller's."""

    def pick_frames(
        self,
        raw: bytes,
        wanted: int,
        taken: int,
        transform: Callable[[NDArray[np.uint8]], _T],
        deadline: Deadline,
        rotation: Rotation,
    ) -> "PickedFrames[_T]":
        """See `video.frames.pick_frames`. `transform` is called in the calling thread."""

    def load_audio(
        self, raw: bytes, sample_rate: int, max_seconds: float, deadline: Deadline
    ) -> tuple[NDArray[np.float32], float]:
        """See `audio.decoding.load_audio`.

        It keeps the deadline, which is its to extend: starting a decoder is no item's time.
        """

    def close(self) -> None:
        """Give up what is under way as far as that is possible; nothing is decoded afterwards."""


class InThread:
    """Decodes in the thread that asks: a decoder that crashes or hangs takes the process along."""

    cpu_seconds: Final = 0.0

    def pick_frames(
        self,
        raw: bytes,
        wanted: int,
        taken: int,
        transform: Callable[[NDArray[np.uint8]], _T],
        deadline: Deadline,
        rotation: Rotation,
    ) -> "PickedFrames[_T]":
        """See `MediaDecoding`."""
        from clipfarm_assets.encoders.video.frames import pick_frames

        return pick_frames(raw, wanted, taken, transform, deadline, rotation)

    def load_audio(
        self, raw: bytes, sample_rate: int, max_seconds: float, deadline: Deadline
    ) -> tuple[NDArray[np.float32], float]:
        """See `MediaDecoding`."""
        from clipfarm_assets.encoders.audio.decoding import load_audio

        deadline.check("decoding the audio")
        decoded = load_audio(raw, sample_rate, max_seconds)
        deadline.check("decoding the audio")
        return decoded

    def close(self) -> None:
        """See `MediaDecoding`."""


@runtime_checkable
class DecodesMedia(Protocol):
    """An encoder that can be told who decodes for it."""

    def decoding_by(self, decoding: MediaDecoding) -> Any:
        """The same encoder, for which `decoding` decodes."""


def decoded_by(encoder: _T, decoding: MediaDecoding) -> _T:
    """The encoder with `decoding` as its decoder; itself, if it decodes no media."""
    if isinstance(encoder, DecodesMedia):
        told: _T = encoder.decoding_by(decoding)
        return told
    return encoder
