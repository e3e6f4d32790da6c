"""Which frames of a clip are looked at, and getting them out of the file.

The file's packets are listed without decoding, which counts the frames where headers lie or say
nothing (edit lists, fragments, truncation, other containers), and tells at which packets decoding
can start and which frames no other needs. So only the way to each chosen frame is decoded: from
the last keyframe before it, without the frames that nothing refers to.

Where packets don't tell enough, or anything at all is odd on the way (an error, a frame missing),
the file is decoded once from its start, and only the chosen frames are converted. If another number
was decodable than listed, the file is damaged: what decodes is what counts, the frames are chosen
again among those, and a second pass fetches them.

Both ways give the same bytes of every undamaged clip. In a damaged one, whatever the decoder
reports of the packets on the way has the clip decoded from its start; damage elsewhere goes unseen,
is not counted, and the choice stays that of the frames listed. What a decoder conceals without a
word is nobody's to see: then a frame is what its way decodes to, the same every time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Deadline, MediaError, Rotation
from clipfarm_assets.encoders.guard import media_errors
from clipfarm_assets.encoders.video.bitstream import Unplannable
from clipfarm_assets.encoders.video.decoding import (
    Converter,
    Decoded,
    decode_from_start,
    decode_intervals,
)
from clipfarm_assets.encoders.video.file import open_video
from clipfarm_assets.encoders.video.packets import (
    Listing,
    list_packets,
    plan_intervals,
    presentation_order,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PickedFrames(Generic[_T]):
    """The chosen frames, in order, each as the given transform left it.

    Attributes:
        frames: One value a chosen frame; a frame chosen twice is there twice.
        decoded_frames: Frames that the clip has: those listed, or, where it was decoded from the
            start, those that could be decoded; with `listed` false, as far as was looked.
        decode_errors: Packets that could not be decoded, of those that were tried.
        listed: Whether the frames could be counted before decoding.
        packets_decoded: What the choice cost: packets given to the decoder, over all passes.
        from_start_because: Why the clip was decoded from its start; empty if it was not.
    """

    frames: list[_T]
    decoded_frames: int
    decode_errors: int
    listed: bool
    packets_decoded: int
    from_start_because: str


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
    plan = _Plan(wanted, taken)
    convert = Converter(transform, rotation)
    with media_errors("decode the video"):
        with open_video(raw, strict=True) as (container, video):
            listing = list_packets(len(raw), container, video, deadline)
            try:
                return _pick_planned(video, listing, plan, convert, deadline)
            except Unplannable as reason:
                why, count = str(reason), listing.count
                del listing  # its packets are as large as the file
        return _pick_from_start(raw, count, plan, convert, deadline, why)


@dataclass(frozen=True, slots=True)
class _Plan:
    wanted: int
    taken: int

    def indices(self, available: int) -> list[int]:
        sampled = choose_frames(available, self.wanted)
        thinned = np.linspace(0, self.wanted - 1, self.taken).astype(np.int64)
        return [int(index) for index in sampled[thinned]]


def _pick_planned(
    video: object, listing: Listing, plan: _Plan, convert: Converter[_T], deadline: Deadline
) -> PickedFrames[_T]:
    order = presentation_order(listing.samples)
    if listing.unplannable or not order:
        raise Unplannable(listing.unplannable or "it lists no frames")
    chosen = [order[index] for index in plan.indices(len(order))]
    targets = frozenset(chosen)
    intervals = plan_intervals(listing.samples, targets)
    kept, packets = decode_intervals(video, intervals, targets, convert, deadline)
    return PickedFrames([kept[pts] for pts in chosen], len(order), 0, True, packets, "")


def _pick_from_start(
    raw: bytes,
    listed: int | None,
    plan: _Plan,
    convert: Converter[_T],
    deadline: Deadline,
    why: str,
) -> PickedFrames[_T]:
    def decode(wanted: list[int], stop: int | None = None) -> Decoded[_T]:
        with open_video(raw) as (container, video):
            return decode_from_start(container, video, wanted, convert, deadline, stop)

    if listed is None:
        decoded = decode(list(range(plan.wanted)), stop=plan.wanted)
    else:
        decoded = decode(plan.indices(listed))
    if decoded.count == 0:
        msg = (
            "cannot decode the video: none of its frames is decodable "
            f"({decoded.errors} damaged packets); replace the file"
        )
        raise MediaError(msg)
    packets = decoded.packets
    if listed is not None and decoded.count != listed:
        decoded = decode(plan.indices(decoded.count))
        packets += decoded.packets
    return PickedFrames(
        [decoded.frames[index] for index in plan.indices(decoded.count)],
        decoded.count,
        decoded.errors,
        listed is not None,
        packets,
        why,
    )
