"""A MIDI file's notes on two clocks: ticks, in which music counts, and seconds, in which it sounds.

Audio runs in seconds, so they are what scores are moved and cut by; bars and beats stay in ticks.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipfarm_assets.encoders.midi.smf import DRUM_CHANNEL, BadMidi, MidiLimits, Smf, read_smf

NOTE: Final = np.dtype(
    [
        ("start", np.float64),
        ("end", np.float64),
        ("start_tick", np.int64),
        ("end_tick", np.int64),
        ("pitch", np.int32),
        ("velocity", np.int32),
        ("track", np.int32),
        ("program", np.int32),
        ("channel", np.int32),
        ("is_drum", np.bool_),
        ("held", np.bool_),
    ]
)
"""A note: when it sounds, in seconds and in ticks; pitch and velocity, 0 to 127; the track, from 0,
the program (0 to 127) and the channel (0 to 15) that play it; whether its pitch is a percussion
instrument; whether it began before the part that a score is cut to."""

DEFAULT_BPM: Final = 120.0
"""Quarter notes a minute of a file without a tempo (RP-001)."""
_DEFAULT_SIGNATURE: Final = (4, 4)


class Tempo(NamedTuple):
    """Quarter notes a minute, from a moment on."""

    tick: int
    seconds: float
    bpm: float


class TimeSignature(NamedTuple):
    """How bars are counted, from a moment on."""

    tick: int
    seconds: float
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Notes, and how their clocks run.

    Attributes:
        notes: `NOTE` ``[N]``, by start, then pitch, then end (in ticks).
        ticks_per_quarter: A whole number but for files timed in frames, where a quarter note is
            taken to last half a (nominal) second, and tempos in the file don't count.
        tempos: At least one, by time; the first is at tick 0.
        time_signatures: Likewise.
        downbeats: Seconds at which bars begin, float64 ``[B + 1]`` for B bars: the last one is at
            the end or after it.
        downbeat_ticks: The same in ticks.
        end_seconds: End of the longest track.
        hanging_notes: Of the file, that begin and never end; they are not among the notes.
        smpte_offset: Time of day at which the file begins, in seconds; None where it tells none.
        bad_smpte_offset: What is wrong with one that the file tells and that is not used; or None.
        division: What the file is timed in: ticks of a quarter note, or of an SMPTE frame.
    """

    notes: NDArray[np.void]
    ticks_per_quarter: float
    tempos: tuple[Tempo, ...]
    time_signatures: tuple[TimeSignature, ...]
    downbeats: NDArray[np.float64]
    downbeat_ticks: NDArray[np.float64]
    end_seconds: float
    hanging_notes: int
    smpte_offset: float | None
    bad_smpte_offset: str | None
    division: Literal["ppq", "smpte"]

    def seconds_at(self, ticks: ArrayLike) -> NDArray[np.float64]:
        """Seconds of moments in ticks, of any shape."""
        return _Clock.of(self.tempos, self.ticks_per_quarter).seconds_at(np.asarray(ticks))

    def tick_at(self, seconds: float) -> float:
        """The moment of the score that sounds at `seconds`, in ticks and parts of them."""
        begun = [tempo for tempo in self.tempos if tempo.seconds <= seconds]
        tempo = begun[-1] if begun else self.tempos[0]
        return tempo.tick + (seconds - tempo.seconds) * tempo.bpm * self.ticks_per_quarter / 60

    def onsets(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds at which notes begin, and their velocities over 127, float64 ``[N]``.

        Without notes that began before second 0.
        """
        begun = self.notes[~self.notes["held"] & (self.notes["start"] >= 0)]
        return begun["start"].copy(), begun["velocity"] / 127

    def shifted(self, seconds: float) -> Self:
        """The same, that many seconds later; earlier where it is negative.

        What then lies before second 0 is kept until the score is cut.
        """
        notes = self.notes.copy()
        notes["start"] += seconds
        notes["end"] += seconds
        return replace(
            self,
            notes=notes,
            tempos=tuple(one._replace(seconds=one.seconds + seconds) for one in self.tempos),
            time_signatures=tuple(
                one._replace(seconds=one.seconds + seconds) for one in self.time_signatures
            ),
            downbeats=self.downbeats + seconds,
            end_seconds=self.end_seconds + seconds,
        )

    def faster(self, speed: float) -> Self:
        """The same at `speed` times its tempo, above 0; second 0 and all ticks stay as they are."""
        notes = self.notes.copy()
        notes["start"] /= speed
        notes["end"] /= speed
        return replace(
            self,
            notes=notes,
            tempos=tuple(
                one._replace(seconds=one.seconds / speed, bpm=one.bpm * speed)
                for one in self.tempos
            ),
            time_signatures=tuple(
                one._replace(seconds=one.seconds / speed) for one in self.time_signatures
            ),
            downbeats=self.downbeats / speed,
            end_seconds=self.end_seconds / speed,
        )

    def cut(self, start: float, end: float) -> Self:
        """What sounds from `start` to before `end`, in seconds, with `start` as second 0.

        Notes that reach over are cut; of those that began before, `held` says so. Bars are kept as
        they are: the first one kept may begin before second 0.

        Raises:
            ValueError: `end` is not after `start`.
        """
        if not start < end:
            msg = f"expected a part that ends after it starts, found {start:g} to {end:g} s"
            raise ValueError(msg)
        all_notes = self.notes
        sounds = (all_notes["end"] > start) | (all_notes["start"] >= start)
        notes = all_notes[sounds & (all_notes["start"] < end)]
        held, cut = notes["start"] < start, notes["end"] > end
        notes["held"] |= held
        notes["start"][held], notes["end"][cut] = start, end
        notes["start_tick"][held] = round(self.tick_at(start))
        notes["end_tick"][cut] = round(self.tick_at(end))
        notes["end_tick"] = np.maximum(notes["end_tick"], notes["start_tick"])
        first = int(np.searchsorted(self.downbeats, start, side="right")) - 1
        first = min(max(first, 0), len(self.downbeats) - 2)
        last = int(np.searchsorted(self.downbeats, end, side="left"))
        bars = slice(first, max(last, first + 1) + 1)
        part = replace(
            self,
            notes=in_order(notes),
            downbeats=self.downbeats[bars],
            downbeat_ticks=self.downbeat_ticks[bars],
            end_seconds=max(start, min(self.end_seconds, end)),
        )
        return part.shifted(-start)


def read_score(data: bytes, name: str = "MIDI", limits: MidiLimits | None = None) -> Score:
    """Read a Standard MIDI File of format 0 or 1, timed in quarter notes or in SMPTE frames.

    Notes end first in, first out; two tracks' notes don't end each other. Of several tempos or time
    signatures at one moment the last one counts, from whatever track. A time signature begins a
    bar. Without any, it is 120 quarter notes a minute, in bars of 4/4.

    Args:
        data: The whole file.
        name: What to call it in errors.
        limits: What it may ask for; `MidiLimits()` by default.

    Raises:
        BadMidi: It is no such file, is cut short, corrupt, or asks for more; says what was expected
            and found.
    """
    limits = limits or MidiLimits()
    found = read_smf(data, name, limits)
    tempos = _tempos(found)
    clock = _Clock.of(tempos, found.ticks_per_quarter)
    end_seconds = float(clock.seconds_at(np.asarray(found.end_tick)))
    if end_seconds > limits.seconds:
        msg = f"{name}: expected a file of {limits.seconds:g} s at most, found {end_seconds:.0f} s"
        raise BadMidi(msg)
    signatures = _signatures(found)
    seconds = clock.seconds_at(np.array([tick for tick, _, _ in signatures]))
    downbeat_ticks = _downbeat_ticks(found, signatures, name, limits)
    return Score(
        notes=_notes(found, clock),
        ticks_per_quarter=found.ticks_per_quarter,
        tempos=tempos,
        time_signatures=tuple(
            TimeSignature(tick, float(second), upper, lower)
            for (tick, upper, lower), second in zip(signatures, seconds, strict=True)
        ),
        downbeats=clock.seconds_at(downbeat_ticks),
        downbeat_ticks=downbeat_ticks,
        end_seconds=end_seconds,
        hanging_notes=found.hanging_notes,
        smpte_offset=found.smpte_offset,
        bad_smpte_offset=found.bad_smpte_offset,
        division="smpte" if found.ticks_per_second else "ppq",
    )


def _tempos(found: Smf) -> tuple[Tempo, ...]:
    """The changes of tempo, the last of each moment, from tick 0 on."""
    if found.ticks_per_second:
        return (Tempo(0, 0.0, 60 * found.ticks_per_second / found.ticks_per_quarter),)
    bpm_at = {0: DEFAULT_BPM}
    bpm_at |= {tick: 6e7 / quarter for tick, quarter in sorted(found.tempos, key=lambda at: at[0])}
    tempos: list[Tempo] = []
    seconds, before, per_tick = 0.0, 0, 0.0
    for tick, bpm in bpm_at.items():
        seconds += (tick - before) * per_tick
        before, per_tick = tick, 60 / (bpm * found.ticks_per_quarter)
        tempos.append(Tempo(tick, seconds, bpm))
    return tuple(tempos)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Changes of tempo as arrays: their ticks, their seconds, and seconds a tick from there on."""

    ticks: NDArray[np.float64]
    seconds: NDArray[np.float64]
    per_tick: NDArray[np.float64]

    @classmethod
    def of(cls, tempos: tuple[Tempo, ...], ticks_per_quarter: float) -> Self:
        ticks, seconds, bpm = np.array(tempos, dtype=np.float64).T
        return cls(ticks, seconds, 60 / (bpm * ticks_per_quarter))

    def seconds_at(self, ticks: NDArray[Any]) -> NDArray[np.float64]:
        which = np.maximum(np.searchsorted(self.ticks, ticks, side="right") - 1, 0)
        at: NDArray[np.float64] = (
            self.seconds[which] + (ticks - self.ticks[which]) * self.per_tick[which]
        )
        return at


def _signatures(found: Smf) -> list[tuple[int, int, int]]:
    """Time signatures with their ticks, the last of each moment, from tick 0 on."""
    at = {0: _DEFAULT_SIGNATURE}
    for tick, upper, lower in sorted(found.signatures, key=lambda one: one[0]):
        at[tick] = (upper, lower)
    return [(tick, *numbers) for tick, numbers in at.items()]


def _downbeat_ticks(
    found: Smf, signatures: list[tuple[int, int, int]], name: str, limits: MidiLimits
) -> NDArray[np.float64]:
    """Where bars begin, and the end of the last one: at the end of the file or after it."""
    if found.end_tick > limits.quarters * found.ticks_per_quarter:
        quarters = found.end_tick / found.ticks_per_quarter
        msg = f"{name}: expected {limits.quarters} quarter notes at most, found {quarters:.0f}"
        raise BadMidi(msg)
    lengths = [found.ticks_per_quarter * 4 * upper / lower for _, upper, lower in signatures]
    begins = np.array([tick for tick, _, _ in signatures], dtype=np.float64)
    ends = np.append(begins[1:], max(found.end_tick, begins[-1]))
    # A change of the time signature ends a bar early; each signature has one at least.
    bars = np.maximum(np.ceil((ends - begins) / lengths - 1e-9), 1)
    if bars.sum() > limits.bars:
        msg = f"{name}: expected {limits.bars} bars at most, found {bars.sum():.0f}"
        raise BadMidi(msg)
    bars[-1] += 1
    parts = zip(begins, lengths, bars.astype(int), strict=True)
    return np.concatenate([begin + length * np.arange(count) for begin, length, count in parts])


def _notes(found: Smf, clock: _Clock) -> NDArray[np.void]:
    notes = np.zeros(len(found.notes), dtype=NOTE)
    start, end, pitch, velocity, track, program, channel = found.notes.T
    notes["start_tick"], notes["end_tick"] = start, end
    notes["start"] = clock.seconds_at(start)
    notes["end"] = clock.seconds_at(end)
    notes["pitch"], notes["velocity"], notes["track"] = pitch, velocity, track
    notes["program"], notes["channel"] = program, channel
    notes["is_drum"] = channel == DRUM_CHANNEL
    return in_order(notes)


def in_order(notes: NDArray[np.void]) -> NDArray[np.void]:
    """Sort notes by start, then pitch, then end, in ticks; equal ones stay as they were."""
    return notes[np.lexsort((notes["end_tick"], notes["pitch"], notes["start_tick"]))]
