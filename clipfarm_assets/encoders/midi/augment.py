"""Changed copies of a score for training: higher or lower, louder or softer, moved to a grid.

What is changed is drawn first and applied then, so that a caller can show it.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clipfarm_assets.encoders.midi.score import Score, in_order

HIGHEST: Final = 127
"""The highest pitch, and the loudest velocity."""


@dataclass(frozen=True, slots=True)
class MidiAugment:
    """How far a score may be changed. Each of the three happens on its own.

    Attributes:
        transpose: Semitones up or down at most; 0 for none. Drums stay as they are.
        velocity: Share by which velocities are scaled up or down at most; 0 for none.
        quantise: Grid that onsets are moved to, in steps of a quarter note; None for none.
            Durations stay.
        probability: Of each of the three, for a score in an epoch.
    """

    transpose: int = 6
    velocity: float = 0.2
    quantise: int | None = 4
    probability: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no augmentation."""
        if self.transpose < 0:
            msg = f"transpose must be 0 semitones or more: found {self.transpose}"
            raise ValueError(msg)
        if not 0 <= self.velocity < 1:
            msg = f"velocity must be 0 to below 1: found {self.velocity}"
            raise ValueError(msg)
        if self.quantise is not None and self.quantise < 1:
            msg = f"quantise must be 1 step of a quarter note or more: found {self.quantise}"
            raise ValueError(msg)
        if not 0 <= self.probability <= 1:
            msg = f"probability must be 0 to 1: found {self.probability}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class MidiChange:
    """What is done to one score.

    Attributes:
        semitones: Added to all pitches but those of drums.
        loudness: Times the velocity, of which 1 to 127 is kept.
        grid: Steps of a quarter note that onsets are moved to; None for as they were.
    """

    semitones: int = 0
    loudness: float = 1.0
    grid: int | None = None


def augment(score: Score, settings: MidiAugment, rng: np.random.Generator) -> Score:
    """A changed copy; the same for the same random numbers."""
    return apply_change(score, draw_change(score, settings, rng))


def draw_change(score: Score, settings: MidiAugment, rng: np.random.Generator) -> MidiChange:
    """What `augment` does to a score.

    Transpositions are drawn among those that keep every pitch within 0 to 127: no note is left out
    or moved by octaves. As many random numbers are used whatever is in the score.
    """
    happens = rng.random(3) < settings.probability
    transposed, louder = rng.random(2)
    low, high = semitones_within(score, settings.transpose)
    return MidiChange(
        semitones=low + int(transposed * (high - low + 1)) if happens[0] else 0,
        loudness=1 + settings.velocity * (2 * louder - 1) if happens[1] else 1.0,
        grid=settings.quantise if happens[2] else None,
    )


def semitones_within(score: Score, most: int) -> tuple[int, int]:
    """How far down, as a negative number, and up a score goes with every pitch in 0 to 127.

    Args:
        score: Its drums stay as they are.
        most: Semitones either way at most.
    """
    pitches = score.notes["pitch"][~score.notes["is_drum"]]
    low = max(-most, -int(pitches.min(initial=HIGHEST)))
    return low, min(most, HIGHEST - int(pitches.max(initial=0)))


def apply_change(score: Score, change: MidiChange) -> Score:
    """A changed copy.

    An onset is moved to the nearest step of the grid, but not to before second 0; notes that began
    before the part that the score was cut to stay where they are.

    Raises:
        ValueError: A pitch would leave 0 to 127.
    """
    notes = score.notes.copy()
    notes["pitch"] += np.where(notes["is_drum"], 0, change.semitones).astype(np.int32)
    if len(notes) and not 0 <= notes["pitch"].min() <= notes["pitch"].max() <= HIGHEST:
        msg = f"expected pitches of 0 to {HIGHEST} after {change.semitones:+d} semitones"
        raise ValueError(msg)
    if change.loudness != 1.0:
        louder = np.rint(notes["velocity"] * change.loudness)
        notes["velocity"] = np.clip(louder, 1, HIGHEST)
    if change.grid is not None:
        step = score.ticks_per_quarter / change.grid
        first = int(np.ceil(score.tick_at(0.0) - 1e-6))
        ticks = np.floor(notes["start_tick"] / step + 0.5) * step
        ticks = np.maximum(np.rint(ticks).astype(np.int64), first)
        moves = ~notes["held"] & (notes["start"] >= 0)
        by = np.where(moves, ticks - notes["start_tick"], 0)
        for side in ("start", "end"):
            notes[f"{side}_tick"] += by
            moved = score.seconds_at(notes[f"{side}_tick"])
            notes[side] = np.where(by == 0, notes[side], moved)
    return replace(score, notes=in_order(notes))
