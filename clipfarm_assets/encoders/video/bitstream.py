"""What a packet tells without being decoded: can decoding start at it, can it be left out.

Containers flag keyframes, but a flag says neither whether later frames reach back beyond it nor
that nothing refers to a frame. The first bytes of the coded data do: the NAL unit headers of H.264
(ITU-T H.264, 7.3.1 and 7.4.1) and HEVC (ITU-T H.265, 7.3.1.2 and 7.4.2.2), and VP9's uncompressed
header (VP9 bitstream specification, 6.2).

Not looked for: slices that ask a decoder not to show a picture (no_output_of_prior_pics_flag,
pic_output_flag). On the way to a frame they are found out by the picture that is missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final


class Unplannable(Exception):  # noqa: N818 - a property of a file, not an error in it
    """Why a clip is decoded as a whole: its packets don't tell which of them a frame needs."""


@dataclass(frozen=True, slots=True)
class Role:
    """A packet's part in decoding others.

    Attributes:
        entry: Decoding may start here: no frame shown after this one needs anything before it.
        droppable: No other frame is predicted from this one.
    """

    entry: bool
    droppable: bool


def role_of(video: Any) -> Callable[[Any], Role]:
    """The function that tells the role of each packet of a stream, called in decoding order.

    It raises `Unplannable` at a packet that is not exactly one shown frame, or that changes how
    later ones are decoded.

    Raises:
        Unplannable: The codec, or how it is stored, is not one of those understood here.
    """
    context = video.codec_context
    codec = context.codec.canonical_name
    if codec == "av1":  # A packet is a temporal unit: exactly one shown frame (AV1, 7.5).
        return lambda packet: Role(entry=packet.is_keyframe, droppable=False)
    if codec == "vp9":
        return _vp9_role
    stored: bytes = context.extradata or b""
    # Both records start with their version, 1; with start codes instead they start with zeros.
    if codec == "h264" and len(stored) > 6 and stored[0] == 1:
        return _H264(stored, (stored[4] & 3) + 1)
    if codec == "hevc" and len(stored) > 22 and stored[0] == 1:
        return _Hevc(stored, (stored[21] & 3) + 1)
    msg = f"{codec} in this form is decoded from the start"
    raise Unplannable(msg)


_MOST_UNITS: Final = 4096
"""NAL units of a packet. Real ones have a few, or one a slice; the deadline is checked between."""


def _nal_units(data: memoryview, length_size: int) -> Iterator[memoryview]:
    at, end, units = 0, len(data), 0
    while at < end:
        start = at + length_size
        at = start + int.from_bytes(data[at:start], "big")
        units += 1
        if start >= at or at > end or units > _MOST_UNITS:
            msg = f"a packet is not a row of up to {_MOST_UNITS} NAL units"
            raise Unplannable(msg)
        yield data[start:at]


class _ParameterSets:
    """Holds a stream to one state of its parameter sets, whatever packet decoding starts at."""

    def __init__(self, stored: bytes) -> None:
        self._stored = stored
        self._first: list[bytes] | None = None

    def check(self, found: list[bytes], *, at_keyframe: bool) -> None:
        """Raise `Unplannable` unless all keyframes bring the same sets and other packets none."""
        new = [unit for unit in found if unit not in self._stored]
        if at_keyframe and self._first is None:
            self._first = new
        if new != (self._first if at_keyframe else []):
            msg = "parameter sets change in mid-stream"
            raise Unplannable(msg)


class _H264:
    """Decoding starts at IDR pictures alone.

    At the keyframes of an open GOP the decoder finds a gap in the frame numbers, and fills it with
    guesses that cannot be told from those about damage.
    """

    _SLICE: Final = 1
    _IDR_SLICE: Final = 5
    _PARAMETER_SETS: Final = frozenset({7, 8, 13})
    _HARMLESS: Final = frozenset({6, 9, 12})  # SEI, delimiter, filler

    def __init__(self, stored: bytes, length_size: int) -> None:
        self._length_size = length_size
        self._sets = _ParameterSets(stored)

    def __call__(self, packet: Any) -> Role:
        slices: set[int] = set()
        sets: list[bytes] = []
        referred = False
        for unit in _nal_units(memoryview(packet), self._length_size):
            kind = unit[0] & 31
            if kind in (self._SLICE, self._IDR_SLICE):
                slices.add(kind)
                referred |= bool(unit[0] & 0x60)
            elif kind in self._PARAMETER_SETS:
                sets.append(bytes(unit))
            elif kind not in self._HARMLESS:
                msg = f"an H.264 packet holds a NAL unit of type {kind}"
                raise Unplannable(msg)
        if len(slices) != 1:
            msg = "an H.264 packet is not one picture"
            raise Unplannable(msg)
        self._sets.check(sets, at_keyframe=packet.is_keyframe)
        return Role(slices == {self._IDR_SLICE}, droppable=not referred)


class _Hevc:
    """Decoding starts at IDR and CRA pictures; what leads a CRA picture needs what is before it."""

    _FIRST_OTHER: Final = 32  # below are slices
    _INTRA_FIRST: Final = 16
    _ENTRIES: Final = frozenset({19, 20, 21})  # IDR with and without leading pictures, CRA
    _PARAMETER_SETS: Final = frozenset({32, 33, 34})
    _HARMLESS: Final = frozenset({35, 38, 39, 40})  # delimiter, filler, SEI

    def __init__(self, stored: bytes, length_size: int) -> None:
        self._length_size = length_size
        self._sets = _ParameterSets(stored)

    def __call__(self, packet: Any) -> Role:
        slices: set[int] = set()
        sets: list[bytes] = []
        for unit in _nal_units(memoryview(packet), self._length_size):
            kind = unit[0] >> 1 & 63
            if len(unit) < 2 or unit[1] & 7 != 1 or unit[0] & 1 or unit[1] >> 3:
                # A picture that its own layer doesn't refer to may be referred to by a higher one.
                msg = "an HEVC stream has layers"
                raise Unplannable(msg)
            if kind < self._FIRST_OTHER:
                slices.add(kind)
            elif kind in self._PARAMETER_SETS:
                sets.append(bytes(unit))
            elif kind not in self._HARMLESS:
                msg = f"an HEVC packet holds a NAL unit of type {kind}"
                raise Unplannable(msg)
        if len(slices) != 1:
            msg = "an HEVC packet is not one picture"
            raise Unplannable(msg)
        kind = slices.pop()
        if kind >= self._INTRA_FIRST and kind not in self._ENTRIES:
            msg = "an HEVC stream is spliced"
            raise Unplannable(msg)
        self._sets.check(sets, at_keyframe=packet.is_keyframe)
        # Even types below 16 are sub-layer non-reference pictures.
        droppable = kind < self._INTRA_FIRST and kind % 2 == 0
        return Role(kind in self._ENTRIES, droppable)


def _vp9_role(packet: Any) -> Role:
    """The role of a frame or superframe. Even one that nothing refers to adapts probabilities."""
    headers = [_vp9_header(frame) for frame in _vp9_frames(memoryview(packet))]
    if [shown for _, shown in headers] != [False] * (len(headers) - 1) + [True]:
        msg = "a VP9 packet is not exactly one shown frame"
        raise Unplannable(msg)
    return Role(entry=headers[0][0], droppable=False)


def _vp9_frames(data: memoryview) -> list[memoryview]:
    """The frames of a superframe (Annex B), or the one frame that the packet is."""
    marker = data[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = len(data) - 2 - count * width
    if marker & 0xE0 != 0xC0 or index < 0 or data[index] != marker:
        return [data]
    frames, at = [], 0
    for number in range(count):
        place = index + 1 + number * width
        size = int.from_bytes(data[place : place + width], "little")
        frames.append(data[at : at + size])
        at += size
    return [frame for frame in frames if len(frame)]


def _vp9_header(frame: memoryview) -> tuple[bool, bool]:
    """Whether it is a keyframe, and whether it is shown."""
    bits = f"{int.from_bytes(frame[:2], 'big') << (8 if len(frame) == 1 else 0):016b}"
    at = 5 if bits[2:4] == "11" else 4  # profile 3 has one reserved bit
    if bits[at] == "1":  # show_existing_frame
        return False, True
    return bits[at + 1] == "0", bits[at + 2] == "1"
