"""How strongly something begins at each moment, in sound and in notes, on one time grid.

Sound's is the spectral flux: by how much the loudness in mel bands rises from one frame to the
next. Source: Dixon, Onset Detection Revisited (DAFx 2006); the logarithmic compression is that of
Böck, Krebs and Schedl, Evaluating the Online Capabilities of Onset Detection Methods (ISMIR 2012).
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.waveforms.mel import MelSettings, hann, mel_filters

FRAMES_PER_SECOND: Final = 100

_WINDOW_SECONDS: Final = 0.032
_BANDS: Final = 40
_LOWEST_HZ: Final = 50.0
_HIGHEST_HZ: Final = 8_000.0
_COMPRESSION: Final = 100.0
"""Power is measured by the sound's mean power in a band, and 1 / 100 of that begins to count: the
envelope does not depend on how loud the sound is, and ignores noise 20 dB below it."""
_NOTE_WIDTH_SECONDS: Final = 0.01
_MAX_VELOCITY: Final = 127.0


def onset_envelope(samples: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """How strongly something begins in the sound, over time.

    Args:
        samples: Float32 of shape (samples,), finite.
        rate: Hz, 8,000 at least.

    Returns:
        Float64 of shape (frames,), not negative, with frame t at ``t / FRAMES_PER_SECOND`` seconds
        and as many frames as `frames_in` says. All zero for silence.
    """
    frames = frames_in(len(samples) / rate)
    if not samples.any():
        return np.zeros(frames)
    n_fft = 2 * round(_WINDOW_SECONDS * rate / 2)
    settings = MelSettings(
        rate, n_fft, n_mels=_BANDS, fmin=_LOWEST_HZ, fmax=min(_HIGHEST_HZ, rate / 2)
    )
    # Not a fixed hop: at 22,050 Hz a frame is no whole number of samples.
    starts = np.round(np.arange(frames) * rate / FRAMES_PER_SECOND).astype(np.int64)
    padded = np.pad(samples, (n_fft // 2, n_fft))
    windows = padded[starts[:, None] + np.arange(n_fft)] * hann(n_fft)
    power = np.abs(np.fft.rfft(windows, axis=-1)) ** 2 @ mel_filters(settings).T
    loudness = np.log1p(_COMPRESSION * power / power.mean())
    rise = np.maximum(0, np.diff(loudness, axis=0, prepend=loudness[:1]))
    envelope: NDArray[np.float64] = rise.mean(axis=1)
    return envelope


def midi_onset_envelope(
    onset_seconds: NDArray[np.float64], velocities: NDArray[np.floating[Any]], frames: int
) -> NDArray[np.float64]:
    """How strongly something begins in the notes, over time.

    A note is a bell of 10 ms standard deviation at its beginning, exact between frames, of the
    height of its velocity. Notes at once add up, and the sum's square root is taken: a chord of
    four stands out from a note as two notes would.

    Args:
        onset_seconds: When notes begin, of shape (notes,), in any order; those out of the frames
            are left out.
        velocities: 0 to 127, of shape (notes,).
        frames: Of the result.

    Returns:
        Float64 of shape (frames,), on the grid of `onset_envelope`.

    Raises:
        ValueError: As many velocities as notes, and finite ones, are expected.
    """
    onsets = np.asarray(onset_seconds, dtype=np.float64)
    weights = np.asarray(velocities, dtype=np.float64) / _MAX_VELOCITY
    if onsets.ndim != 1 or onsets.shape != weights.shape:
        msg = f"expected a velocity for each note: found {weights.shape} and {onsets.shape}"
        raise ValueError(msg)
    if not (np.isfinite(onsets).all() and np.isfinite(weights).all()):
        msg = "expected finite onsets and velocities: found others"
        raise ValueError(msg)
    width = _NOTE_WIDTH_SECONDS * FRAMES_PER_SECOND
    reach = round(4 * width)
    at = onsets * FRAMES_PER_SECOND
    nearest = np.round(at)
    near = (nearest >= 0) & (nearest < frames)
    at, nearest, weights = at[near], nearest[near].astype(np.int64), weights[near]
    around = nearest[:, None] + np.arange(-reach, reach + 1)
    bells = weights[:, None] * np.exp(-0.5 * ((around - at[:, None]) / width) ** 2)
    # Bells at the ends reach beyond them.
    envelope = np.bincount((around + reach).ravel(), bells.ravel(), minlength=frames + 2 * reach)
    return np.sqrt(envelope[reach : reach + frames])


def frames_in(seconds: float) -> int:
    """Frames of an envelope of so many seconds."""
    return int(seconds * FRAMES_PER_SECOND) + 1
