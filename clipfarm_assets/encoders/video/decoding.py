"""Decoding a clip: planned intervals of it, or all of it, whatever state it is in."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline, MediaError, Rotation
from clipfarm_assets.encoders.video.bitstream import Unplannable
from clipfarm_assets.encoders.video.file import check_size
from clipfarm_assets.encoders.video.packets import Interval

_T = TypeVar("_T")


class Converter(Generic[_T]):
    """Turns decoded frames into what is kept of them."""

    def __init__(self, transform: Callable[[NDArray[np.uint8]], _T], rotation: Rotation) -> None:
        """Keep what `transform` makes of the RGB frame, turned as `rotation` asks."""
        self._transform = transform
        self._rotation = rotation
        self._reformatter = VideoReformatter()  # one for all: it is set up once a clip

    def __call__(self, frame: Any) -> _T:
        """Convert to RGB, turn as asked, transform.

        Raises:
            MediaError: Too large, or to be turned by an angle that isn't a multiple of 90 degrees.
        """
        check_size(frame.width, frame.height)
        # One thread: clips are decoded side by side.
        rgb: Any = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return self._transform(_turned(rgb, frame, self._rotation))


def _turned(rgb: NDArray[np.uint8], frame: Any, rotation: Rotation) -> NDArray[np.uint8]:
    if rotation == "as_stored" or frame.rotation % 360 == 0:
        return rgb
    if frame.rotation % 90:
        msg = (
            f"cannot turn the video upright: its display matrix asks for {frame.rotation} degrees, "
            "expected a multiple of 90; use rotation=as_stored"
        )
        raise MediaError(msg)
    return np.ascontiguousarray(np.rot90(rgb, k=frame.rotation // 90))


def decode_intervals(
    video: Any,
    intervals: Iterable[Interval],
    targets: Collection[int],
    convert: Converter[_T],
    deadline: Deadline,
) -> tuple[dict[int, _T], int]:
    """Decode each interval from a fresh decoder, and hold it to its packets, one frame each.

    Returns:
        The converted frames of those pts that are `targets`, and how many packets were decoded.

    Raises:
        Unplannable: A packet could not be decoded, or gave another frame than it should.
    """
    kept: dict[int, _T] = {}
    packets = 0
    for interval in intervals:
        packets += len(interval.samples)
        due = sorted(
            sample.pts
            for sample in interval.samples
            if sample.shown and sample.pts >= interval.starts_at
        )
        seen = []
        for frame in _frames(video.codec_context, interval, deadline):
            if frame.pts is not None and frame.pts < interval.starts_at:
                continue  # leading pictures, whose references were not decoded
            if frame.is_corrupt:
                msg = "a part of it decodes to a damaged frame"
                raise Unplannable(msg)
            seen.append(frame.pts)
            if frame.pts in targets:
                kept[frame.pts] = convert(frame)
                deadline.check("decoding the video")
        if seen != due:
            msg = "decoding a part of it gave other frames than its packets promise"
            raise Unplannable(msg)
    return kept, packets


def _frames(context: Any, interval: Interval, deadline: Deadline) -> Iterator[Any]:
    for sample in (*interval.samples, None):
        deadline.check("decoding the video")
        try:
            frames = context.decode(sample and sample.packet)
        except av.error.FFmpegError as error:
            msg = f"a packet cannot be decoded: {error.strerror}"
            raise Unplannable(msg) from error
        yield from frames
    context.flush_buffers()


@dataclass(frozen=True, slots=True)
class Decoded(Generic[_T]):
    """What decoding from the start gave.

    Attributes:
        frames: The converted frames by their number, of those wanted.
        count: Frames that could be decoded.
        errors: Packets that could not be read or decoded.
        packets: Packets given to the decoder.
    """

    frames: Mapping[int, _T]
    count: int
    errors: int
    packets: int


def decode_from_start(
    container: Any,
    video: Any,
    wanted: Collection[int],
    convert: Converter[_T],
    deadline: Deadline,
    stop: int | None = None,
) -> Decoded[_T]:
    """Decode every packet, tolerating damaged ones, and keep the frames numbered `wanted`.

    Args:
        container: The open container, at its start.
        video: Its stream.
        wanted: Numbers of the frames to keep, in the decoder's order, from 0.
        convert: Makes what is kept.
        deadline: When to give up.
        stop: Frames after which to stop; None decodes all.
    """
    keep = frozenset(wanted)
    frames: dict[int, _T] = {}
    count = errors = packets = 0
    for decoded in _decoded_packets(container, video):
        deadline.check("decoding the video")
        packets += 1
        if decoded is None:
            errors += 1
            continue
        for frame in decoded:
            if count in keep:
                frames[count] = convert(frame)
                deadline.check("decoding the video")
            count += 1
            if count == stop:
                return Decoded(frames, count, errors, packets)
    return Decoded(frames, count, errors, packets)


def _decoded_packets(container: Any, video: Any) -> Iterator[list[Any] | None]:
    """The frames of each packet, None for a packet that cannot be read or decoded."""
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets, None)
        except MemoryError:
            raise  # the limit's doing, no damage of the file
        except av.error.FFmpegError:
            yield None
            packet = None  # a file that cannot be read on ends here
        if packet is None:
            break
        if packet.size == 0:
            continue
        try:
            yield packet.decode()
        except MemoryError:
            raise  # the limit's doing, no damage of the file
        except av.error.FFmpegError:
            yield None
    try:
        yield video.codec_context.decode(None)  # what the decoder still holds back
    except MemoryError:
        raise
    except av.error.FFmpegError:
        yield None
