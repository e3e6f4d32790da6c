"""Notes as files: Standard MIDI, and audio.

A writer of its own, because it must also write what libraries refuse to: time in SMPTE frames, a
note without an end, half a file.
"""

import io
import struct
import wave
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.demo.songs.music import DRUMS, Note

Division = Literal["ppq", "smpte"]

_TICKS_PER_QUARTER: Final = 480
_MICROSECONDS_PER_QUARTER: Final = 500_000
_SMPTE_FPS: Final = 25
_SMPTE_TICKS_PER_FRAME: Final = 40
_PROGRAMS: Final = ((0, 0), (1, 48))
"""Channel and General MIDI program: piano and strings."""

_PARTIALS: Final = (1.0, 0.5, 0.3, 0.15)
_HIT_SECONDS: Final = 0.05
_ATTACK_SECONDS: Final = 0.005
_DECAY_SECONDS: Final = 0.6


def midi_file(notes: Sequence[Note], division: Division = "ppq", *, hanging: int = 0) -> bytes:
    """A file of format 0 at 120 beats a minute in 4/4.

    Args:
        notes: None starts before 0.
        division: Whether time is counted in parts of a quarter, or of a 25th of a second.
        hanging: How many of the last notes are never ended.
    """
    second = _ticks_per_second(division)
    events: list[tuple[int, int, bytes]] = [
        (0, 0, b"\xff\x51\x03" + _MICROSECONDS_PER_QUARTER.to_bytes(3, "big")),
        (0, 0, b"\xff\x58\x04\x04\x02\x18\x08"),
        *((0, 1, bytes((0xC0 | channel, program))) for channel, program in _PROGRAMS),
    ]
    for place, note in enumerate(notes):
        start, end = round(note.start * second), round(note.end * second)
        events.append((start, 3, bytes((0x90 | note.channel, note.pitch, note.velocity))))
        if place < len(notes) - hanging:
            # Ends before starts where both fall on one tick: the same pitch may be struck again.
            ended = bytes((0x80 | note.channel, note.pitch, 0))
            events.append((max(end, start + 1), 2, ended))
    events.sort(key=lambda event: event[:2])
    track, now = bytearray(), 0
    for tick, _, message in events:
        track += _variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    header = struct.pack(">4sIHH2s", b"MThd", 6, 0, 1, _division_bytes(division))
    return header + struct.pack(">4sI", b"MTrk", len(track)) + bytes(track)


def _ticks_per_second(division: Division) -> float:
    if division == "smpte":
        return _SMPTE_FPS * _SMPTE_TICKS_PER_FRAME
    return _TICKS_PER_QUARTER * 1e6 / _MICROSECONDS_PER_QUARTER


def _division_bytes(division: Division) -> bytes:
    if division == "smpte":
        return struct.pack(">bB", -_SMPTE_FPS, _SMPTE_TICKS_PER_FRAME)
    return struct.pack(">H", _TICKS_PER_QUARTER)


def _variable_length(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))


def synthesise(
    notes: Sequence[Note], seconds: float, rate: int, rng: np.random.Generator, snr_db: float = 20.0
) -> NDArray[np.float32]:
    """The notes as sound ``(samples,)`` at `rate` Hz, with noise under it, at a peak of 0.5.

    Args:
        notes: What is played: decaying tones of four partials, and bursts of noise for drums.
        seconds: How long it is.
        rate: Samples a second.
        rng: Of noise.
        snr_db: The music's power over that of the noise.
    """
    sound = np.zeros(round(seconds * rate))
    for note in notes:
        first = round(note.start * rate)
        length = _HIT_SECONDS if note.channel == DRUMS else note.end - note.start
        count = min(round(length * rate), len(sound) - first)
        if count <= 0:
            continue
        time = np.arange(count) / rate
        tone = rng.normal(size=count) if note.channel == DRUMS else _tone(note.pitch, time, rate)
        envelope = np.minimum(time / _ATTACK_SECONDS, 1) * np.exp(-time / _DECAY_SECONDS)
        sound[first : first + count] += note.velocity / 127 * envelope * tone
    power = float(np.mean(sound**2))
    sound += rng.normal(size=len(sound)) * np.sqrt(power / 10 ** (snr_db / 10))
    return (sound * (0.5 / max(float(np.abs(sound).max()), 1e-9))).astype(np.float32)


def _tone(pitch: int, time: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    tone = np.zeros(len(time))
    for partial, amplitude in enumerate(_PARTIALS, 1):
        if partial * frequency < rate / 2:
            tone += amplitude * np.sin(2 * np.pi * partial * frequency * time)
    return tone


def wav_file(samples: NDArray[np.float32], rate: int) -> bytes:
    """Samples within ±1 as a RIFF file of 16 bits, mono."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()
