"""MIDI files byte by byte, good and bad: no library writes all of them."""

import struct
from dataclasses import dataclass

import numpy as np

END = b"\xff\x2f\x00"


def quantity(value):
    """A number as the format writes it: seven bits a byte, the last one below 128."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))


def track(*events, end=0):
    """A track of (tick, bytes), in the order given where ticks are equal."""
    body, now = bytearray(), 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        body += quantity(tick - now) + message
        now = tick
    body += quantity(max(0, end - now)) + END
    return b"MTrk" + struct.pack(">I", len(body)) + bytes(body)


def header(tracks, division, kind):
    if isinstance(division, tuple):  # frames a second, ticks a frame
        return struct.pack(">4sIHHbB", b"MThd", 6, kind, tracks, -division[0], division[1])
    return struct.pack(">4sIHHH", b"MThd", 6, kind, tracks, division)


def midi(*tracks, division=480, kind=1):
    return header(len(tracks), division, kind) + b"".join(tracks)


def on(pitch, velocity=64, channel=0):
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch, channel=0):
    return bytes([0x80 | channel, pitch, 0])


def program(number, channel=0):
    return bytes([0xC0 | channel, number])


def tempo(microseconds):
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def meter(numerator, denominator):
    return bytes([0xFF, 0x58, 4, numerator, denominator.bit_length() - 1, 24, 8])


def smpte_offset(rate, hours, minutes, seconds, frames, hundredths):
    return bytes([0xFF, 0x54, 5, rate << 5 | hours, minutes, seconds, frames, hundredths])


def notes(*played, channel=0):
    """Events of (start, end, pitch) or (start, end, pitch, velocity); ends come before starts."""
    ends = [(end, off(pitch, channel)) for _, end, pitch, *_ in played]
    return ends + [
        (start, on(pitch, *(rest or [64]), channel)) for start, _, pitch, *rest in played
    ]


def simple(*played, division=480, **kwargs):
    """A file with these notes alone, 960 ticks a second."""
    return midi(track(*notes(*played), **kwargs), division=division)


@dataclass(frozen=True)
class Song:
    data: bytes
    notes: int


def random_song(
    seed,
    *,
    division=480,
    tracks=3,
    count=40,
    grid=1,
    shortest=0.125,
    tempos=True,
    drums=True,
    meters=(4,),
):
    """Tracks of random notes, none of which overlaps another one of its channel and pitch.

    Args:
        grid: Ticks that all times are multiples of.
        shortest: Quarters that a note lasts.
        meters: Quarters of each two bars, one after the other.
    """
    rng = np.random.default_rng(seed)
    bar_tick, first = 0, []
    for quarters in meters:
        first.append((bar_tick, meter(quarters, 4)))
        bar_tick += 2 * quarters * division
    if tempos:
        changes = np.sort(rng.integers(1, 30 * division, 4))
        first.append((0, tempo(500_000)))
        first += [(int(tick), tempo(int(rng.integers(300_000, 900_000)))) for tick in changes]
    bodies = [track(*first)]
    for index in range(tracks):
        channel = 9 if drums and index == tracks - 1 else index
        events, free = [(0, program(int(rng.integers(128)), channel))], {}
        for _ in range(count):
            pitch = int(rng.integers(0, 127))
            start = int(rng.integers(0, 30 * division // grid)) * grid
            start = max(start, free.get(pitch, 0))
            length = (
                int(rng.integers(int(shortest * division) // grid + 1, 3 * division // grid)) * grid
            )
            free[pitch] = start + length + grid
            played = (start, start + length, pitch, int(rng.integers(1, 128)))
            events += notes(played, channel=channel)
        bodies.append(track(*events))
    return Song(midi(*bodies, division=division), tracks * count)
