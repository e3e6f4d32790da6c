"""Piano rolls: which pitches sound when, as an image."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.midi.score import Score

CHANNELS: Final = ("onset", "frame", "velocity")
_BOUNDARY: Final = 1e-6
"""Share of a frame by which a moment may miss its frame's beginning: seconds are sums of ticks."""


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
    notes = score.notes
    drawn = (notes["pitch"] >= low) & (notes["pitch"] < high)
    if not drums:
        drawn &= ~notes["is_drum"]
    notes = notes[drawn]
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
    velocities = roll[2]
    for row, start, end, velocity in zip(
        rows[louder].tolist(),
        np.maximum(first, 0)[louder].tolist(),
        last[louder].tolist(),
        (notes["velocity"][louder] / 127).tolist(),
        strict=True,
    ):
        velocities[row, start:end] = velocity
    roll[1] = velocities > 0  # a note that begins has a velocity of 1 at least
    return roll
