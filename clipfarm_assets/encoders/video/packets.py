"""Listing a clip's packets without decoding them, and planning which of them its frames need."""

from bisect import bisect, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import av

from clipfarm_assets.encoders.base import Deadline
from clipfarm_assets.encoders.video.bitstream import Role, Unplannable, role_of

# Others store no presentation times, or packets that are not whole frames.
_PLANNABLE_CONTAINERS: Final = frozenset({"mov", "matroska"})

_INTERLACED_FROM: Final = 2  # AVFieldOrder: 0 unknown, 1 progressive, then the interlaced ones

# What keeping packets may take: a hostile index names the same bytes many times, or single bytes.
_MOST_TIMES_FILE: Final = 2
_SPARE_BYTES: Final = 64 * 2**20
_BYTES_A_PACKET: Final = 512  # of Python's and the library's objects


@dataclass(frozen=True, slots=True)
class Sample:
    """One packet: a frame that is shown at `pts`, or only decoded for others (edit lists)."""

    packet: Any
    pts: int
    shown: bool
    role: Role


@dataclass(frozen=True, slots=True)
class Listing:
    """What a file's packets say of its frames.

    Attributes:
        count: Frames that decoding should yield; None if packets lack timestamps.
        samples: All packets in decoding order; empty where `unplannable`.
        unplannable: Why frames cannot be had from a part of the packets; empty if they can.
    """

    count: int | None
    samples: Sequence[Sample]
    unplannable: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Packets to decode by a fresh decoder: an entry first, then what targets may need.

    Attributes:
        samples: In decoding order, without droppable ones that are not targets.
        starts_at: The pts of the entry. Frames before it may refer to what is not decoded here.
    """

    samples: Sequence[Sample]
    starts_at: int


def list_packets(raw_size: int, container: Any, video: Any, deadline: Deadline) -> Listing:
    """Read all packets of the video stream; those of one that can be planned are kept.

    Args:
        raw_size: Bytes of the file.
        container: The open container, at its start.
        video: Its stream.
        deadline: When to give up.
    """
    keeper = _Keeper(raw_size, container, video)
    count = 0
    try:
        for packet in container.demux(video):
            deadline.check("listing the video's packets")
            if packet.size == 0:
                continue  # the flush packet at the end
            if packet.pts is None:
                return Listing(None, (), "its packets have no timestamps")
            # Discarded packets are decoded for others' sake and not shown (edit lists).
            count += not packet.is_discard
            keeper.keep(packet)
    except av.error.FFmpegError:
        # Decoding reads it again and counts what there is.
        keeper.give_up("it cannot be read to its end")
    keeper.check_order()
    return Listing(count, keeper.samples, keeper.reason)


class _Keeper:
    """Keeps packets until one shows that they cannot be planned."""

    def __init__(self, raw_size: int, container: Any, video: Any) -> None:
        self.samples: list[Sample] = []
        self.reason = ""
        self._room = _MOST_TIMES_FILE * raw_size + _SPARE_BYTES
        self._reorder_depth = video.codec_context.reorder_depth
        self._role: Callable[[Any], Role]
        if not _PLANNABLE_CONTAINERS.intersection(container.format.name.split(",")):
            self.give_up(f"{container.format.name} is read from the start")
        elif video.codec_context.field_order >= _INTERLACED_FROM:
            self.give_up("its frames are interlaced")
        else:
            try:
                self._role = role_of(video)
            except Unplannable as error:
                self.give_up(str(error))

    def give_up(self, reason: str) -> None:
        self.samples.clear()
        self.reason = self.reason or reason

    def keep(self, packet: Any) -> None:
        if self.reason:
            return
        self._room -= packet.size + _BYTES_A_PACKET
        if self._room < 0:
            self.give_up("its packets overlap, or are too many to keep")
        elif packet.is_corrupt or _changes_decoder(packet):
            self.give_up("a packet is damaged or changes the decoder")
        else:
            try:
                role = self._role(packet)
            except Unplannable as error:
                self.give_up(str(error))
            else:
                self.samples.append(Sample(packet, packet.pts, not packet.is_discard, role))

    def check_order(self) -> None:
        """Give up unless the decoder will put frames out by their pts, one a packet."""
        if self.reason or not self.samples:
            return
        times = [sample.pts for sample in self.samples]
        if len(set(times)) != len(times):
            self.give_up("several packets have one timestamp")
        elif not self.samples[0].role.entry or min(times) != times[0]:
            self.give_up("it does not start with a keyframe")
        elif not within_reorder_depth(times, self._reorder_depth):
            self.give_up("its frames are further out of order than its header says")


def _changes_decoder(packet: Any) -> bool:
    return bool(packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change"))


def within_reorder_depth(times: Sequence[int], depth: int) -> bool:
    """Whether a decoder that holds back `depth` frames puts these out by their pts.

    Args:
        times: The pts of all packets, in decoding order.
        depth: Frames held back; each packet may follow so many with a later pts.
    """
    before: list[int] = []
    for pts in times:
        if len(before) - bisect(before, pts) > depth:
            return False
        insort(before, pts)
    return True


def presentation_order(samples: Sequence[Sample]) -> list[int]:
    """The pts of the shown frames, sorted."""
    return sorted(sample.pts for sample in samples if sample.shown)


def plan_intervals(samples: Sequence[Sample], targets: frozenset[int]) -> Iterator[Interval]:
    """The packets, as few as they tell, that give the frames at `targets`; in pts order.

    A target is decoded from the last entry before it in decoding order that is not shown after it:
    frames shown between an entry and those decoded before it (leading pictures) need the interval
    before. Where that makes intervals overlap they are decoded as one.
    """
    entries: list[int] = []
    spans: list[tuple[int, int]] = []
    for index, sample in enumerate(samples):
        if sample.role.entry:
            entries.append(index)
        if sample.pts not in targets:
            continue
        start = next(entry for entry in reversed(entries) if samples[entry].pts <= sample.pts)
        while spans and start <= spans[-1][1]:
            start = min(start, spans.pop()[0])
        spans.append((start, index))
    for start, last in spans:
        needed = [
            sample
            for sample in samples[start : last + 1]
            if sample.pts in targets or not sample.role.droppable
        ]
        yield Interval(needed, samples[start].pts)
