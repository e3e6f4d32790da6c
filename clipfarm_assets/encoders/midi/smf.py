"""Standard MIDI Files to notes in ticks. Source: MIDI Association, RP-001, Standard MIDI Files 1.0.

Read here and not by a library, because what the songs need is what libraries leave out. symusic, by
far the fastest, gives no channels, refuses files timed in SMPTE frames, does not tell the SMPTE
offset or that a note was never ended, and keeps ticks in 32 and seconds in 24 bits; and native code
would be handed bytes that nobody has looked at. mido and pretty_midi read all of it, at many times
the cost. Tests hold this reader to all three.
"""

from array import array
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.timecode import frame_seconds

COLUMNS: Final = ("start", "end", "pitch", "velocity", "track", "program", "channel")
"""Of `Smf.notes`; start and end in ticks."""
DRUM_CHANNEL: Final = 9
"""The tenth channel, whose pitches are percussion instruments (General MIDI)."""

_HEADER_BYTES: Final = 14
_CHUNK_BYTES: Final = 8
_LONGEST_QUANTITY: Final = 4
_META: Final = 0xFF
_SYSEX: Final = (0xF0, 0xF7)
_END_OF_TRACK: Final = 0x2F
_TEMPO: Final = 0x51
_SMPTE_OFFSET: Final = 0x54
_TIME_SIGNATURE: Final = 0x58
_SHORTEST_BEAT: Final = 6
"""A 64th, as a power of two: bars of a shorter unit are no music."""

_FRAME_RATES: Final = {24: 24.0, 25: 25.0, 29: 30000 / 1001, 30: 30.0}
"""Frames a second by how a header calls them."""
_OFFSET_RATES: Final = ((24.0, False), (25.0, False), (29.97, True), (30.0, False))
"""Frames a second, and whether it is drop-frame, by the two bits of an SMPTE offset."""


class BadMidi(ValueError):  # noqa: N818 - one file's fault, as MediaError is
    """This one file cannot be read: no MIDI, cut short, corrupt or hostile."""


@dataclass(frozen=True, slots=True)
class MidiLimits:
    """What a file may ask for. Reading one of the largest takes about a second.

    Attributes:
        size_bytes: Of the file.
        notes: That begin.
        changes: Of tempo, and of the time signature.
        bars: From its beginning to its end.
        quarters: Likewise, quarter notes.
        seconds: From its beginning to its end.
    """

    size_bytes: int = 4 * 2**20
    notes: int = 200_000
    changes: int = 10_000
    bars: int = 100_000
    quarters: int = 200_000
    seconds: float = 6 * 3600.0


@dataclass(slots=True)
class Smf:
    """What a file says, in ticks.

    Attributes:
        ticks_per_quarter: A whole number where the file is timed in quarter notes. Where it is
            timed in frames, those of half a second as the time code counts it, as if at 120 quarter
            notes a minute.
        ticks_per_second: Of a file timed in SMPTE frames; None otherwise.
        notes: int64 ``[N, 7]``, columns as `COLUMNS`, in the order in which they end.
        tempos: Ticks, and microseconds a quarter note.
        signatures: Ticks, and a time signature's two numbers.
        smpte_offset: Time of day at which the file begins, in seconds; None where it tells none.
        bad_smpte_offset: What is wrong with one that it tells and that is not used.
        hanging_notes: That begin and never end; they are not among the notes.
        end_tick: End of the longest track.
    """

    ticks_per_quarter: float
    ticks_per_second: float | None
    notes: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((0, len(COLUMNS)), dtype=np.int64)
    )
    tempos: list[tuple[int, int]] = field(default_factory=list)
    signatures: list[tuple[int, int, int]] = field(default_factory=list)
    smpte_offset: float | None = None
    bad_smpte_offset: str | None = None
    hanging_notes: int = 0
    end_tick: int = 0


def read_smf(data: bytes, name: str, limits: MidiLimits) -> Smf:
    """Read a file of format 0 or 1.

    Each track's notes end first in, first out, as the file says; a message that ends no note is
    passed over. A note's program is the one that its track chose last, on its channel.

    Args:
        data: The whole file.
        name: What to call it in errors.
        limits: What it may ask for.

    Raises:
        BadMidi: It is none, or asks for more; says what was expected and found.
    """
    try:
        return _read(data, limits)
    except BadMidi as error:
        msg = f"{name}: {error}"
        raise BadMidi(msg) from None


def _read(data: bytes, limits: MidiLimits) -> Smf:
    if len(data) > limits.size_bytes:
        msg = f"expected a MIDI file of {limits.size_bytes} bytes at most, found {len(data)}"
        raise BadMidi(msg)
    if data[:4] != b"MThd":
        msg = f"expected a MIDI file beginning with b'MThd', found {data[:4]!r}"
        raise BadMidi(msg)
    header_size = int.from_bytes(data[4:_CHUNK_BYTES], "big")
    if len(data) < _HEADER_BYTES or header_size < _HEADER_BYTES - _CHUNK_BYTES:
        msg = f"expected a header of 14 bytes, found {len(data)} that declare {header_size} + 8"
        raise BadMidi(msg)
    kind, tracks, division = (int.from_bytes(data[at : at + 2], "big") for at in (8, 10, 12))
    if kind not in (0, 1):
        msg = f"expected MIDI of format 0 or 1, found format {kind}: export it as format 1"
        raise BadMidi(msg)
    found = _timing(division)
    notes = array("q")
    bodies = _track_bodies(data, _CHUNK_BYTES + header_size, tracks)
    for index, body in enumerate(bodies):
        try:
            _read_track(body, index, found, notes, limits)
        except IndexError:
            msg = f"expected track {index + 1} to end with an event, found it cut short"
            raise BadMidi(msg) from None
        except ValueError as error:
            msg = f"track {index + 1}: {error}"
            raise BadMidi(msg) from None
    for changes, what in ((found.tempos, "tempo"), (found.signatures, "time signature")):
        if len(changes) > limits.changes:
            msg = f"expected {limits.changes} changes of {what} at most, found {len(changes)}"
            raise BadMidi(msg)
    found.notes = np.array(notes, dtype=np.int64).reshape(-1, len(COLUMNS))
    return found


def _timing(division: int) -> Smf:
    """An empty file, timed as a header says."""
    if not division & 0x8000:
        if not division:
            msg = "expected at least 1 tick a quarter note, found 0"
            raise BadMidi(msg)
        return Smf(float(division), None)
    frames, ticks = 256 - (division >> 8), division & 0xFF
    if frames not in _FRAME_RATES or not ticks:
        rates = ", ".join(map(str, _FRAME_RATES))
        msg = f"expected {rates} frames a second of 1 to 255 ticks, found {frames} of {ticks}"
        raise BadMidi(msg)
    counted = 30 if frames == 29 else frames
    return Smf(counted * ticks / 2, _FRAME_RATES[frames] * ticks)


def _track_bodies(data: bytes, at: int, tracks: int) -> list[bytes]:
    """The declared tracks' events. Chunks of another kind are passed over, as the format asks."""
    bodies: list[bytes] = []
    while len(bodies) < tracks:
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + _CHUNK_BYTES], "big")
        at += _CHUNK_BYTES
        if at + size > len(data):
            here = f"track {len(bodies) + 1} of {tracks}"
            msg = f"expected {here} of {size} bytes, found {max(0, len(data) - at)}: cut short"
            raise BadMidi(msg)
        if kind == b"MTrk":
            bodies.append(data[at : at + size])
        at += size
    if data[at : at + 4] == b"MTrk":
        msg = f"expected the {tracks} tracks that the header declares, found more"
        raise BadMidi(msg)
    return bodies


def _read_track(
    body: bytes, index: int, found: Smf, notes: "array[int]", limits: MidiLimits
) -> None:
    """Read one track's events into `found`, and its notes to the end of `notes`.

    One loop without helpers for what there are thousands of: calls would double its time.

    Raises:
        IndexError: The track is cut short.
        ValueError: It is corrupt, or asks for more than the limits.
    """
    program = [0] * 16
    sounding: defaultdict[int, deque[tuple[int, int, int]]] = defaultdict(deque)
    at = tick = status = begun = 0
    most = limits.notes - len(notes) // len(COLUMNS) - found.hanging_notes
    end_note = notes.extend
    size = len(body)
    while at < size:
        delta = body[at]
        at += 1
        if delta > 0x7F:
            delta, at = _quantity(body, at - 1)
        tick += delta
        first = body[at]
        if first > 0x7F:
            if first >= 0xF0:
                what, payload, at = _long_event(body, at)
                if what == _END_OF_TRACK:
                    break
                if what is not None:
                    _meta(what, payload, tick, index, found)
                continue
            status, at = first, at + 1
        elif not status:
            msg = f"expected an event at byte {at}, found data {first:#04x}"
            raise BadMidi(msg)
        if 0xC0 <= status < 0xE0:
            if body[at] > 0x7F:
                raise BadMidi(_not_data(body, at))
            if status < 0xD0:
                program[status & 0x0F] = body[at]
            at += 1
            continue
        pitch, velocity = body[at], body[at + 1]
        if pitch | velocity > 0x7F:
            raise BadMidi(_not_data(body, at))
        at += 2
        if status >= 0xA0:
            continue
        channel = status & 0x0F
        waiting = sounding[channel << 7 | pitch]
        if velocity and status >= 0x90:
            begun += 1
            if begun > most:
                msg = f"expected {limits.notes} notes at most, found more"
                raise BadMidi(msg)
            waiting.append((tick, velocity, program[channel]))
        elif waiting:
            start, struck, chosen = waiting.popleft()
            end_note((start, tick, pitch, struck, index, chosen, channel))
    found.hanging_notes += sum(map(len, sounding.values()))
    found.end_tick = max(found.end_tick, tick)


def _quantity(body: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity: seven bits a byte, the last one below 128. And where it ends."""
    value = 0
    for place in range(at, at + _LONGEST_QUANTITY):
        value = value << 7 | body[place] & 0x7F
        if body[place] < 0x80:
            return value, place + 1
    msg = f"expected a number of {_LONGEST_QUANTITY} bytes at most at byte {at}, found more"
    raise BadMidi(msg)


def _long_event(body: bytes, at: int) -> tuple[int | None, bytes, int]:
    """An event that tells its length: a meta event's kind and content, or None; where it ends."""
    status = body[at]
    if status == _META:
        kind: int | None = body[at + 1]
        size, at = _quantity(body, at + 2)
    elif status in _SYSEX:
        kind = None
        size, at = _quantity(body, at + 1)
    else:
        msg = f"expected an event that a file may hold at byte {at}, found {status:#04x}"
        raise BadMidi(msg)
    if at + size > len(body):
        raise IndexError
    return kind, body[at : at + size], at + size


def _meta(kind: int, payload: bytes, tick: int, track: int, found: Smf) -> None:
    """File what is known of a meta event."""
    if kind == _TEMPO:
        quarter = int.from_bytes(payload, "big")
        if len(payload) != 3 or not quarter:
            msg = f"expected a tempo of 3 bytes above 0, found {payload[:8].hex() or 'none'}"
            raise BadMidi(msg)
        found.tempos.append((tick, quarter))
    elif kind == _TIME_SIGNATURE:
        if len(payload) < 2 or not payload[0] or payload[1] > _SHORTEST_BEAT:
            told = f"{payload[0]}/2^{payload[1]}" if len(payload) > 1 else "too few bytes"
            msg = f"expected a time signature from 1/1 to 255/64, found {told}"
            raise BadMidi(msg)
        found.signatures.append((tick, payload[0], 2 ** payload[1]))
    elif kind == _SMPTE_OFFSET and not track and found.smpte_offset is None:
        # It belongs to the first track; elsewhere it has no meaning.
        try:
            found.smpte_offset = _offset_seconds(payload)
        except ValueError as error:  # of the time of day alone: the notes are what they are
            found.bad_smpte_offset = str(error)


def _offset_seconds(payload: bytes) -> float:
    """Seconds of hours, minutes, seconds, frames and hundredths of a frame; or `ValueError`."""
    if len(payload) != 5:
        msg = f"expected an SMPTE offset of 5 bytes, found {len(payload)}"
        raise ValueError(msg)
    hours, minutes, seconds, frames, hundredths = payload
    fps, drop_frame = _OFFSET_RATES[hours >> 5 & 3]
    return frame_seconds(
        hours & 0x1F,
        minutes,
        seconds,
        frames,
        hundredths=hundredths,
        fps=fps,
        drop_frame=drop_frame,
    )


def _not_data(body: bytes, at: int) -> str:
    return f"expected data below 128 at byte {at}, found {body[at : at + 2].hex(' ')}"
