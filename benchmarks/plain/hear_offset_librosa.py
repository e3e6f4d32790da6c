"""Hearing by how much notes are late the plain way: librosa's onset strength, one lag at a time."""

import numpy as np
from numpy.typing import NDArray

HOP_SECONDS = 0.01


def hear_offset(
    samples: NDArray[np.float32],
    rate: int,
    onsets: NDArray[np.float64],
    velocities: NDArray[np.float64],
    max_seconds: float = 2.0,
) -> tuple[float, float]:
    """The lag whose correlation is highest, in seconds, and its z over all lags."""
    import librosa

    hop = round(HOP_SECONDS * rate)
    sound = librosa.onset.onset_strength(y=samples, sr=rate, hop_length=hop)
    notes = np.zeros(len(sound))
    for onset, velocity in zip(onsets, velocities, strict=True):
        if 0 <= (at := round(onset / HOP_SECONDS)) < len(notes):
            notes[at] += velocity
    lags = round(max_seconds / HOP_SECONDS)
    by_lag = []
    for lag in range(-lags, lags + 1):
        start, stop = max(0, -lag), len(sound) - max(0, lag)
        by_lag.append(np.corrcoef(sound[start:stop], notes[start + lag : stop + lag])[0, 1])
    found = np.nan_to_num(np.array(by_lag))
    best = int(found.argmax())
    return (best - lags) * HOP_SECONDS, float((found[best] - found.mean()) / found.std())
