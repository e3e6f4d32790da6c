"""Which frames of a clip are looked at, and getting them out of the file.

The file is read twice. First its packets are listed without decoding, which counts the frames
where headers lie or say nothing (edit lists, fragments, truncation, other containers). Then it is
decoded in one pass from the start, and only the chosen frames are converted. If another number
was decodable than listed, the file is damaged: what decodes is what counts, the frames are chosen
again among those, and a second pass fetches them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Generic, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.config import Rotation
from clipfarm_assets.encoders.guard import media_errors

MAX_SIDE: Final = 8192
"""Pixels. A longer side is taken for an attack on memory, not for a clip."""

# Demuxers of media files. Without the list a playlist (ffconcat, HLS) or a session description in
# disguise makes the library open the files and addresses it names.
_OPEN_OPTIONS: Final = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv",
    "protocol_whitelist": "data",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PickedFrames(Generic[_T]):
    """The chosen frames, in order, each as the given transform left it.

    Attributes:
        frames: One value a chosen frame; a frame chosen twice is there twice.
        decoded_frames: Frames that could be decoded; with `listed` false, as far as was looked.
        decode_errors: Packets that could not be decoded.
        listed: Whether the frames could be counted before decoding.
    """

    frames: list[_T]
    decoded_frames: int
    decode_errors: int
    listed: bool


def choose_frames(available: int, wanted: int) -> NDArray[np.int64]:
    """Indices of `wanted` frames, uniform over `available`; too few are padded with the last.

    The rule is ``np.linspace(0, available - 1, wanted).astype(int)``, which truncates.
    """
    if available < wanted:
        return np.minimum(np.arange(wanted), available - 1)
    return np.linspace(0, available - 1, wanted).astype(np.int64)


def pick_frames(
    raw: bytes,
    wanted: int,
    taken: int,
    transform: Callable[[NDArray[np.uint8]], _T],
    deadline: Deadline,
    rotation: Rotation = "as_stored",
) -> PickedFrames[_T]:
    """Decode a clip and pick frames uniformly over its first video stream.

    If the frames cannot be counted without decoding (packets without timestamps), the first
    `wanted` decodable ones are taken instead.

    Args:
        raw: The file's bytes.
        wanted: Frames sampled over the clip.
        taken: Frames returned, uniform over those sampled if the numbers differ, so that 32 sampled
            frames thin out to a model's 16 and 8 are repeated.
        transform: Reduces one RGB frame, uint8 of shape (height, width, 3), so that only what is
            needed of large frames stays in memory.
        deadline: When to give up.
        rotation: Whether to apply the file's display matrix.

    Raises:
        MediaError: No frame can be had from these bytes within the deadline.
    """
    with media_errors("decode the video"):
        listed = _count_frames(raw, deadline)
        plan = _Plan(wanted, taken)
        if listed is None:
            decoded = _decode(raw, range(wanted), transform, deadline, rotation, stop=wanted)
        else:
            decoded = _decode(raw, plan.indices(listed), transform, deadline, rotation)
        if decoded.count == 0:
            msg = (
                "cannot decode the video: none of its frames is decodable "
                f"({decoded.errors} damaged packets); replace the file"
            )
            raise MediaError(msg)
        if listed is not None and decoded.count != listed:
            decoded = _decode(raw, plan.indices(decoded.count), transform, deadline, rotation)
    return PickedFrames(
        [decoded.frames[index] for index in plan.indices(decoded.count)],
        decoded.count,
        decoded.errors,
        listed is not None,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    wanted: int
    taken: int

    def indices(self, available: int) -> list[int]:
        sampled = choose_frames(available, self.wanted)
        thinned = np.linspace(0, self.wanted - 1, self.taken).astype(np.int64)
        return [int(index) for index in sampled[thinned]]


@dataclass(frozen=True, slots=True)
class _Decoded(Generic[_T]):
    frames: Mapping[int, _T]
    count: int
    errors: int


@contextmanager
def _open_video(raw: bytes) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream, all other streams discarded."""
    if not raw:
        msg = "cannot decode the video: the object is empty (0 bytes); upload the file again"
        raise MediaError(msg)
    try:
        opened = av.open(BytesIO(raw), options=dict(_OPEN_OPTIONS))
    except av.FFmpegError as error:
        msg = (
            "cannot decode the video: not a complete file of an allowed container (mp4, mov, mkv, "
            f"webm, avi, ts, flv): {error.strerror}"
        )
        raise MediaError(msg) from error
    with opened as container:
        # A cover picture is a video stream to the library, but not a video.
        streams = [
            stream
            for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams}) or ["no streams"]
            msg = f"cannot decode the video: no video stream in it, found {', '.join(kinds)}"
            raise MediaError(msg)
        video = streams[0]
        for stream in container.streams:
            if stream.index != video.index:
                stream.discard = av.stream.Discard.all
        _check_size(video.codec_context.width, video.codec_context.height)
        # The decoder's own limit: a size may also change in mid-stream.
        video.codec_context.options = {"max_pixels": str(MAX_SIDE * MAX_SIDE)}
        # One thread a clip: what a damaged stream yields must not depend on timing.
        video.codec_context.thread_count = 1
        yield container, video


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        msg = (
            f"cannot decode the video: its frames are {width}x{height} pixels, "
            f"the limit is {MAX_SIDE} a side"
        )
        raise MediaError(msg)


def _count_frames(raw: bytes, deadline: Deadline) -> int | None:
    """Frames that decoding should yield, by the packets; None if packets lack timestamps."""
    count = 0
    with _open_video(raw) as (container, video):
        try:
            for packet in container.demux(video):
                deadline.check("listing the video's packets")
                if packet.size == 0:
                    continue  # the flush packet at the end
                if packet.pts is None:
                    return None
                # Discarded packets are decoded for others' sake and not shown (edit lists).
                count += not packet.is_discard
        except av.error.FFmpegError:
            pass  # counted by the decoding pass, whose count decides
    return count


def _decode(
    raw: bytes,
    wanted: range | list[int],
    transform: Callable[[NDArray[np.uint8]], _T],
    deadline: Deadline,
    rotation: Rotation,
    stop: int | None = None,
) -> _Decoded[_T]:
    """Decode from the start, keeping the frames at `wanted`; tolerates damaged packets."""
    keep = frozenset(wanted)
    frames: dict[int, _T] = {}
    count = errors = 0
    with _open_video(raw) as (container, video):
        for decoded in _decoded_packets(container, video):
            deadline.check("decoding the video")
            if decoded is None:
                errors += 1
                continue
            for frame in decoded:
                if count in keep:
                    _check_size(frame.width, frame.height)
                    frames[count] = transform(_to_rgb(frame, rotation))
                    deadline.check("decoding the video")
                count += 1
                if count == stop:
                    return _Decoded(frames, count, errors)
    return _Decoded(frames, count, errors)


def _decoded_packets(container: Any, video: Any) -> Iterator[list[Any] | None]:
    """The frames of each packet, None for a packet that cannot be read or decoded."""
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            yield None
            packet = None  # a file that cannot be read on ends here
        if packet is None:
            break
        if packet.size == 0:
            continue
        try:
            yield packet.decode()
        except av.error.FFmpegError:
            yield None
    try:
        yield video.codec_context.decode(None)  # what the decoder still holds back
    except av.error.FFmpegError:
        yield None


def _to_rgb(frame: Any, rotation: Rotation) -> NDArray[np.uint8]:
    rgb: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    if rotation == "as_stored" or frame.rotation % 360 == 0:
        return rgb
    if frame.rotation % 90:
        msg = (
            f"cannot turn the video upright: its display matrix asks for {frame.rotation} degrees, "
            "expected a multiple of 90; use rotation=as_stored"
        )
        raise MediaError(msg)
    return np.ascontiguousarray(np.rot90(rgb, k=frame.rotation // 90))
