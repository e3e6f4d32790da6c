"""What decoders are asked to do.

A job's libraries are imported, and used once, by the process that decoders are forked from. These
can import nothing any more (see `worker.confine`), and libraries do so late: in their first call,
and in their first error. It also shows that the installation works, before an item is blamed.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline, MediaError

Give = Callable[[NDArray[Any]], int]
"""Hands an array over to the run, waits until it is taken, and tells its number, from 0."""

Job = Callable[[bytes, Mapping[str, Any], Deadline, Give], Mapping[str, Any]]
"""Raw bytes, arguments, when to give up, where arrays go; what is left to tell, as JSON values."""

FRAMES: Final = "frames"
SOUND: Final = "sound"

_WARM_UP_SECONDS: Final = 60.0


def _frames() -> Job:
    from clipfarm_assets.encoders.video.frames import pick_frames

    def run(
        raw: bytes, arguments: Mapping[str, Any], deadline: Deadline, give: Give
    ) -> Mapping[str, Any]:
        # What the run makes of a frame stays there; here a frame is the number of its handing over.
        picked = pick_frames(raw, transform=give, deadline=deadline, **arguments)
        return {
            "frames": picked.frames,
            "decoded_frames": picked.decoded_frames,
            "decode_errors": picked.decode_errors,
            "listed": picked.listed,
            "packets_decoded": picked.packets_decoded,
            "from_start_because": picked.from_start_because,
        }

    arguments = {"wanted": 1, "taken": 1, "rotation": "upright"}
    _use_once(run, _tiny_clip(), arguments)
    return run


def _sound() -> Job:
    from clipfarm_assets.encoders.audio.decoding import load_audio

    def run(
        raw: bytes, arguments: Mapping[str, Any], deadline: Deadline, give: Give
    ) -> Mapping[str, Any]:
        deadline.check("decoding the audio")
        samples, seconds = load_audio(raw, **arguments)
        deadline.check("decoding the audio")
        give(np.ascontiguousarray(samples))
        return {"seconds": seconds}

    _use_once(run, _tiny_sound(), {"sample_rate": 16_000, "max_seconds": 1.0})
    return run


def _use_once(run: Job, raw: bytes, arguments: Mapping[str, Any]) -> None:
    """Decode a file, half of it, and what is none."""
    for part in (raw, raw[: len(raw) // 2], b"no file"):
        with suppress(*([] if part is raw else [MediaError])):
            run(part, arguments, Deadline.after(_WARM_UP_SECONDS), lambda _: 0)


def _tiny_clip() -> bytes:
    import av

    file = BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width = stream.height = 16
        stream.codec_context.thread_count = 1  # none may be left when workers are forked
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
        container.mux(stream.encode(None))
    return file.getvalue()


def _tiny_sound() -> bytes:
    import soundfile

    file = BytesIO()
    soundfile.write(file, np.zeros((800, 2)), 8_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


JOBS: Final[Mapping[str, Callable[[], Job]]] = {FRAMES: _frames, SOUND: _sound}
"""By name: what imports the job's libraries and gives the job."""
