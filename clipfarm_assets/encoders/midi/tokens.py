"""Scores to sequences of events, one of two ways, and back.

`midi_like` is what the instruments are told: note on, note off, and how long to wait (Oore et al.,
This Time with Feeling, 2018; the events of Music Transformer). `remi` is what a score shows: bars,
positions in them, and notes with their durations (Huang and Yang, Pop Music Transformer, 2020).
With equal settings both give the tokens of miditok, on a grid whose notes are in order of pitch.

Times are rounded to steps. Equal notes on the grid are equal tokens, whatever the order in which a
file has them. Percussion has its own tokens; which program plays is not told.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.midi.score import Score
from clipfarm_assets.encoders.midi.vocabulary import (
    PITCHES,
    Vocabulary,
    nearest_level,
    velocity_levels,
)

STEP_NOTE: Final = np.dtype(
    [(name, np.int64) for name in ("start", "duration", "pitch", "velocity", "is_drum")]
)
"""A note on the grid: start and duration in steps, pitch, velocity, and 1 for percussion."""


@dataclass(frozen=True, slots=True)
class MidiLikeSettings:
    """How `midi_like` counts.

    Attributes:
        clock: ``seconds`` keeps the tempo, and runs as audio does; ``quarters`` is the same music
            at any tempo.
        steps_per_second: Of the clock, if that is ``seconds``.
        steps_per_quarter: Of the clock, if that is ``quarters``; and of positions in bars always.
        longest_shift: Steps that one token can wait; longer waits are several.
        longest_bar: Steps; longer bars are counted as several.
        velocity_bins: Velocities told apart.
    """

    clock: Literal["seconds", "quarters"] = "seconds"
    steps_per_second: int = 100
    steps_per_quarter: int = 8
    longest_shift: int = 100
    longest_bar: int = 64
    velocity_bins: int = 32

    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        on_off = ("note_on", "note_off", "drum_on", "drum_off")
        return Vocabulary(
            (
                *((name, PITCHES) for name in on_off),
                ("velocity", self.velocity_bins),
                ("time_shift", self.longest_shift),
            )
        )


@dataclass(frozen=True, slots=True)
class RemiSettings:
    """How `remi` counts.

    Attributes:
        steps_per_quarter: Of positions and durations.
        longest_note: Steps; longer notes are told as this long.
        longest_bar: Steps; longer bars are counted as several.
        velocity_bins: Velocities told apart.
    """

    steps_per_quarter: int = 8
    longest_note: int = 64
    longest_bar: int = 64
    velocity_bins: int = 32

    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return Vocabulary(
            (
                ("bar", 1),
                ("position", self.longest_bar),
                ("pitch", PITCHES),
                ("drum", PITCHES),
                ("velocity", self.velocity_bins),
                ("duration", self.longest_note),
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class EventSequence:
    """Events in order.

    Attributes:
        tokens: int64 ``[E]``, of the vocabulary that they were made with; never `PAD`.
        bars: The bar of each event, from 0, int64 ``[E]``.
        positions: Its step in the bar, from 0 to ``longest_bar - 1``, int64 ``[E]``.
    """

    tokens: NDArray[np.int64]
    bars: NDArray[np.int64]
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        """How many events there are."""
        return len(self.tokens)

    def features(self) -> NDArray[np.int64]:
        """``[E, 3]``: tokens, bars, positions."""
        return np.stack([self.tokens, self.bars, self.positions], axis=1)

    def first(self, events: int) -> "EventSequence":
        """The first events, or all if there are no more. The caller tells what was left out.

        Copies, which hold nothing of the others.
        """
        if len(self) <= events:
            return self
        arrays = (self.tokens, self.bars, self.positions)
        return EventSequence(*(array[:events].copy() for array in arrays))


def midi_like(score: Score, settings: MidiLikeSettings | None = None) -> EventSequence:
    """NOTE_ON, VELOCITY, NOTE_OFF and TIME_SHIFT events, from second 0 on.

    What lies before second 0 is cut off (see `Score.cut`). At one step notes end before others
    begin, in the order in which they began; they begin in order of pitch. A time shift is at the
    position of the event that it leads to.
    """
    settings = settings or MidiLikeSettings()
    score = _from_zero(score)
    notes = score.notes
    per_tick = settings.steps_per_quarter / score.ticks_per_quarter
    if settings.clock == "seconds":
        on_grid = _on_grid(notes, notes["start"], notes["end"], settings.steps_per_second)
        zero = 0
    else:
        on_grid = _on_grid(notes, notes["start_tick"], notes["end_tick"], per_tick)
        zero = math.floor(score.tick_at(0.0) * per_tick + 0.5)
    order = _note_order(on_grid)
    on_grid, notes = on_grid[order], notes[order]

    is_on, which, times = _ons_and_offs(on_grid)
    first = settings.vocabulary().first
    # Ticks of notes that a part was cut from are rounded: by a step at most.
    waits = np.maximum(np.diff(times, prepend=zero), 0)
    shifts = -(-waits // settings.longest_shift)
    sizes = shifts + 1 + is_on
    ends = np.cumsum(sizes)
    kind = np.where(is_on, first["note_on"], first["note_off"])
    kind_of_drum = np.where(is_on, first["drum_on"], first["drum_off"])
    kind = np.where(on_grid["is_drum"][which] == 1, kind_of_drum, kind)
    tokens = np.full(sizes.sum(), first["time_shift"] + settings.longest_shift - 1, dtype=np.int64)
    begins = ends - sizes
    waited = shifts > 0
    rest = waits - (shifts - 1) * settings.longest_shift
    tokens[(begins + shifts - 1)[waited]] = first["time_shift"] + rest[waited] - 1
    tokens[begins + shifts] = kind + on_grid["pitch"][which]
    levels = nearest_level(notes["velocity"], velocity_levels(settings.velocity_bins))
    tokens[ends[is_on] - 1] = first["velocity"] + levels[which[is_on]]

    if settings.clock == "seconds":
        ticks = np.where(is_on, notes["start_tick"][which], notes["end_tick"][which])
        # Rounded twice, to the clock and to the bar: one may keep an order that the other turns.
        times = np.maximum.accumulate(_rounded(ticks * per_tick))
    starts = bar_starts(score, settings.steps_per_quarter, settings.longest_bar)
    bars, positions = _bars_of(times, starts)
    return EventSequence(tokens, np.repeat(bars, sizes), np.repeat(positions, sizes))


def remi(score: Score, settings: RemiSettings | None = None) -> EventSequence:
    """BAR and POSITION events, and PITCH, VELOCITY and DURATION of each note, from second 0 on.

    What lies before second 0 is cut off (see `Score.cut`). Bar 0 is the one that second 0 is in;
    empty bars are told, up to the last note. Notes at one position are in order of pitch.
    """
    settings = settings or RemiSettings()
    score = _from_zero(score)
    notes = score.notes
    per_tick = settings.steps_per_quarter / score.ticks_per_quarter
    on_grid = _on_grid(notes, notes["start_tick"], notes["end_tick"], per_tick)
    order = _note_order(on_grid)
    on_grid, notes = on_grid[order], notes[order]
    starts = bar_starts(score, settings.steps_per_quarter, settings.longest_bar)
    bars, positions = _bars_of(on_grid["start"], starts)

    first = settings.vocabulary().first
    new_bars = np.diff(bars, prepend=-1)
    moved = np.diff(on_grid["start"], prepend=-1) != 0
    sizes = new_bars + moved + 3
    ends = np.cumsum(sizes)
    tokens = np.full(sizes.sum(), first["bar"], dtype=np.int64)
    tokens[(ends - 4)[moved]] = first["position"] + positions[moved]
    kind = np.where(on_grid["is_drum"] == 1, first["drum"], first["pitch"])
    tokens[ends - 3] = kind + on_grid["pitch"]
    levels = nearest_level(notes["velocity"], velocity_levels(settings.velocity_bins))
    tokens[ends - 2] = first["velocity"] + levels
    longest = np.minimum(on_grid["duration"], settings.longest_note)
    tokens[ends - 1] = first["duration"] + longest - 1
    is_bar = tokens == first["bar"]
    return EventSequence(
        tokens, np.cumsum(is_bar) - 1, np.where(is_bar, 0, np.repeat(positions, sizes))
    )


def bar_starts(score: Score, steps_per_quarter: int, longest_bar: int) -> NDArray[np.int64]:
    """Steps, counted from tick 0, at which bars begin; bars that are too long begin again."""
    starts = _rounded(score.downbeat_ticks * steps_per_quarter / score.ticks_per_quarter)
    long = np.flatnonzero(np.diff(starts) > longest_bar)
    again = [np.arange(starts[n] + longest_bar, starts[n + 1], longest_bar) for n in long]
    return np.unique(np.concatenate([starts, *again]))


def read_midi_like(
    tokens: NDArray[np.int64], settings: MidiLikeSettings | None = None
) -> NDArray[np.void]:
    """The notes of `midi_like` tokens, `STEP_NOTE` ``[N]`` by start, pitch and duration.

    Notes of one pitch end first in, first out; those that don't end are left out.

    Raises:
        ValueError: A token is none of the vocabulary.
    """
    settings = settings or MidiLikeSettings()
    levels = velocity_levels(settings.velocity_bins).tolist()
    now = 0
    sounding: dict[tuple[str, int], list[list[int]]] = {}
    notes: list[tuple[int, ...]] = []
    last: list[int] = [0, 0]
    for kind, value in settings.vocabulary().read(tokens):
        if kind == "time_shift":
            now += value + 1
        elif kind == "velocity":
            last[1] = levels[value]
        elif kind.endswith("_on"):
            last = [now, 0]
            sounding.setdefault((kind[:4], value), []).append(last)
        elif waiting := sounding.get((kind[:4], value)):
            start, velocity = waiting.pop(0)
            notes.append((start, now - start, value, velocity, int(kind == "drum_off")))
    return _sorted_notes(notes)


def read_remi(
    tokens: NDArray[np.int64], starts: NDArray[np.int64], settings: RemiSettings | None = None
) -> NDArray[np.void]:
    """The notes of `remi` tokens, `STEP_NOTE` ``[N]`` by start, pitch and duration.

    Args:
        tokens: Of one sequence, from its beginning.
        starts: Where its bars begin, of `bar_starts`.
        settings: Those that it was made with.

    Raises:
        ValueError: A token is none of the vocabulary.
    """
    settings = settings or RemiSettings()
    levels = velocity_levels(settings.velocity_bins).tolist()
    bar, position, pitch, velocity, is_drum = -1, 0, 0, 0, 0
    notes: list[tuple[int, ...]] = []
    for kind, value in settings.vocabulary().read(tokens):
        if kind == "bar":
            bar += 1
        elif kind == "position":
            position = value
        elif kind == "velocity":
            velocity = levels[value]
        elif kind == "duration":
            notes.append((int(starts[bar]) + position, value + 1, pitch, velocity, is_drum))
        else:
            pitch, is_drum = value, int(kind == "drum")
    return _sorted_notes(notes)


def _from_zero(score: Score) -> Score:
    if not (score.notes["start"] < 0).any():
        return score
    return score.cut(0.0, max(score.end_seconds, float(score.notes["end"].max())) + 1.0)


def _rounded(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Nearest whole numbers, halves upwards: not numpy's way, which would pull beats together."""
    whole: NDArray[np.int64] = np.floor(values + 0.5).astype(np.int64)
    return whole


def _on_grid(
    notes: NDArray[np.void],
    start: NDArray[np.floating],
    end: NDArray[np.floating],
    steps_per_unit: float,
) -> NDArray[np.void]:
    """Notes rounded to steps, one of duration at least; velocities stay as they are."""
    on_grid = np.zeros(len(notes), dtype=STEP_NOTE)
    on_grid["start"] = _rounded(start * steps_per_unit)
    on_grid["duration"] = np.maximum(_rounded((end - start) * steps_per_unit), 1)
    for name in ("pitch", "velocity", "is_drum"):
        on_grid[name] = notes[name]
    return on_grid


def _ons_and_offs(
    notes: NDArray[np.void],
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Beginnings and ends by time, ends first: whether it is a beginning, which note's, when."""
    is_on = np.repeat([True, False], len(notes))
    which = np.tile(np.arange(len(notes)), 2)
    times = np.concatenate([notes["start"], notes["start"] + notes["duration"]])
    order = np.lexsort((which, is_on, times))
    return is_on[order], which[order], times[order]


def _note_order(notes: NDArray[np.void]) -> NDArray[np.int64]:
    """By start, pitch, drums last, duration, velocity: nothing of a note is left to chance."""
    names = ("velocity", "duration", "is_drum", "pitch", "start")
    return np.lexsort(tuple(notes[name] for name in names))


def _sorted_notes(notes: list[tuple[int, ...]]) -> NDArray[np.void]:
    found = np.array(notes, dtype=STEP_NOTE)
    return found[_note_order(found)]


def _bars_of(
    steps: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bar of each moment, and its step in the bar."""
    bars = np.maximum(np.searchsorted(starts, steps, side="right") - 1, 0)
    return bars, np.maximum(steps - starts[bars], 0)
