"""Piano rolls: which pitches sound when, as an image."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.midi.score import Score

CHANNELS: Final = ("onset", "frame", "velocity")
_BOUNDARY: Final = 1e-6
"""Share of a frame by which a moment may miss its frame's beginning: seconds are sums of ticks."""
_CELLS_AT_ONCE: Final = 1 << 20
"""So many are drawn together: files may hold many notes that all sound to the end."""


def piano_roll(
    score: Score,
    *,
    seconds: float,
    frames_per_second: float,
    pitches: tuple[int, int] = (0, 128),
    drums: bool = False,
) -> NDArray[np.float32]:
    """Draw a score from second 0 on.

    A note covers the frames from the one that it begins in to before the one that it ends in; one
    at least, unless it began before the part that the score was cut to, which leaves it no onset.
    Where notes of one pitch overlap or touch, their frames run together and the louder one's
    velocity is told; their onsets stay apart.

    Args:
        score: What to draw.
        seconds: How long a time; of shorter scores the rest stays empty.
        frames_per_second: Columns of a second.
        pitches: The first one, and the one after the last one.
        drums: Whether to draw drums as well, whose pitches are no tones.

    Returns:
        float32 ``[3, P, T]``: 1 where a note begins; 1 where one sounds; its velocity over 127.

    Raises:
        ValueError: There would be no frame, or no pitch of 0 to 127.
    """
    frames = round(seconds * frames_per_second)
    low, high = pitches
    if frames < 1 or not 0 <= low < high <= 128:
        msg = (
            "expected at least one frame, and pitches (first, last + 1) within (0, 128): found "
            f"{frames} frames and {pitches}"
        )
        raise ValueError(msg)
    notes = score.notes[drawn(score, pitches, drums)]
    first = np.floor(notes["start"] * frames_per_second + _BOUNDARY)
    last = np.floor(notes["end"] * frames_per_second + _BOUNDARY)
    last = np.where(notes["held"], last, np.maximum(last, first + 1))
    seen = (first < frames) & (last > 0)
    notes, first, last = notes[seen], first[seen].astype(int), last[seen].astype(int)

    roll = np.zeros((len(CHANNELS), high - low, frames), dtype=np.float32)
    rows = notes["pitch"] - low
    begun = ~notes["held"] & (first >= 0)
    roll[0, rows[begun], first[begun]] = 1
    # From quiet to loud, so that the loudest of a cell stays.
    louder = np.argsort(notes["velocity"], kind="stable")
    start = np.maximum(first, 0)[louder]
    lengths = np.minimum(last[louder], frames) - start
    begins = rows[louder] * frames + start
    velocities = (notes["velocity"][louder] / 127).astype(np.float32)
    sounds, tells = roll[1].reshape(-1), roll[2].reshape(-1)
    for some in _slices(lengths, _CELLS_AT_ONCE):
        cells = _ranges(begins[some], lengths[some])
        sounds[cells] = 1
        tells[cells] = np.repeat(velocities[some], lengths[some])
    return roll


def drawn(score: Score, pitches: tuple[int, int], drums: bool) -> NDArray[np.bool_]:
    """Which of N notes `piano_roll` draws, wherever they sound; shape ``(N,)``."""
    notes = score.notes
    found: NDArray[np.bool_] = (notes["pitch"] >= pitches[0]) & (notes["pitch"] < pitches[1])
    return found if drums else found & ~notes["is_drum"]


def _ranges(begins: NDArray[np.int_], lengths: NDArray[np.int_]) -> NDArray[np.int_]:
    """``begins[0], begins[0] + 1, ...``, `lengths[0]` numbers, and so on for all."""
    ends = np.cumsum(lengths)
    found: NDArray[np.int_] = np.arange(lengths.sum())
    found += np.repeat(begins - (ends - lengths), lengths)
    return found


def _slices(lengths: NDArray[np.int_], most: int) -> Iterator[slice]:
    """Neighbours that have about `most` cells together, one at least."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.unique(np.searchsorted(ends, np.arange(0, total, most), side="right"))
    yield from map(slice, cuts.tolist(), [*cuts[1:].tolist(), len(ends)])
