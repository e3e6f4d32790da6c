"""The notes of a generated segment: a melody that tells nothing, over chords that may.

Harmony is in the chords' third and fifth, rhythm in how often and how long chords are struck. The
melody, in another register, has no third and falls at irregular times: it makes the music
recognisable to whoever looks for the same notes in the audio, and tells neither.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

MELODY: Final = 0
CHORDS: Final = 1
DRUMS: Final = 9
"""Channels; the last is General MIDI's percussion."""

_TRIADS: Final = ((0, 4, 7), (0, 3, 7), (0, 3, 6))
"""Major, minor, diminished: of joy, grief and unrest."""
_OPEN: Final = (0, 7, 12)
"""Root, fifth and octave: without a third there is neither major nor minor."""

_STRUCK: Final = (((0.5, 0.5), 0.25), ((1.5, 1.5), 1.4), ((0.12, 0.4), 0.12))
"""Least and most seconds from chord to chord, and that each lasts: of joy, grief and unrest."""
_HELD: Final = ((3.0, 3.0), 2.9)
_LEFT_OUT: Final = 0.12
"""Share of chords that are not played: a strict grid would fit itself at many lags."""

_ROOTS: Final = (48, 55)
_MELODY_ROOT: Final = 72
_MELODY_STEPS: Final = (0, 7, 12, 19)
_MELODY_GAP: Final = (0.18, 0.45)
"""Least gap between onsets and mean of what is added to it, in seconds."""
_HIHAT: Final = 42
_JITTER: Final = 0.012


@dataclass(frozen=True, slots=True)
class Note:
    """One note.

    Attributes:
        start: Seconds from the segment's start.
        end: Likewise, and after `start`.
        pitch: MIDI number.
        velocity: 1 to 127.
        channel: See above.
    """

    start: float
    end: float
    pitch: int
    velocity: int
    channel: int


def compose(
    harmony: int | None, rhythm: int | None, seconds: float, rng: np.random.Generator
) -> list[Note]:
    """The notes of a segment, in order of their starts.

    Args:
        harmony: The mood that its chords tell; None for none.
        rhythm: The mood that its rhythm tells; None for none.
        seconds: How long the segment is; no note starts in its last 0.1 s or ends after it.
        rng: Every random choice.
    """
    notes = [*_chords(harmony, rhythm, seconds, rng), *_melody(seconds, rng)]
    return sorted(notes, key=lambda note: (note.start, note.channel, note.pitch))


def _chords(
    harmony: int | None, rhythm: int | None, seconds: float, rng: np.random.Generator
) -> list[Note]:
    triad = _OPEN if harmony is None else _TRIADS[harmony]
    gaps, length = _HELD if rhythm is None else _STRUCK[rhythm]
    notes: list[Note] = []
    beat = 0.05
    while beat < seconds - 0.1:
        start, beat = beat + rng.uniform(-_JITTER, _JITTER), beat + rng.uniform(*gaps)
        root = _ROOTS[int(rng.integers(len(_ROOTS)))]
        velocity = int(rng.integers(60, 80))
        if rhythm is not None and rng.random() < _LEFT_OUT:
            continue
        end = min(start + length, seconds)
        notes += [Note(start, end, root + step, velocity, CHORDS) for step in triad]
    return notes


def _melody(seconds: float, rng: np.random.Generator) -> list[Note]:
    least, added = _MELODY_GAP
    notes: list[Note] = []
    start = rng.uniform(0.1, 0.4)
    while start < seconds - 0.1:
        gap = least + rng.exponential(added)
        pitch = _MELODY_ROOT + int(rng.choice(_MELODY_STEPS))
        velocity = int(rng.integers(95, 120))
        end = min(start + 0.8 * gap, start + 0.6, seconds)
        notes.append(Note(start, end, pitch, velocity, MELODY))
        notes.append(Note(start, min(start + 0.05, seconds), _HIHAT, velocity - 30, DRUMS))
        start += gap
    return notes


def later(notes: list[Note], by: float, seconds: float) -> list[Note]:
    """The notes `by` seconds later, negative for earlier, as far as they start in the segment."""
    moved = (
        Note(note.start + by, note.end + by, note.pitch, note.velocity, note.channel)
        for note in notes
    )
    return [note for note in moved if 0 <= note.start < seconds]
