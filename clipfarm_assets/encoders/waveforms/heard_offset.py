"""By how much notes are late against the sound they are said to belong to, heard from both.

The onset envelopes of sound and notes are correlated at every lag. Where they belong together one
lag stands out; how far, in standard deviations of the correlations at the other lags, tells whether
to believe it.

Both envelopes are whitened before: music repeats itself, so that it fits somewhat at every lag of a
beat, and so does any other of its tempo. What makes a piece itself is in slow and fast changes of
the envelope alike, and the beat in few of them. Source: Knapp and Carter, The Generalized
Correlation Method for Estimation of Time Delay (IEEE TASSP 1976), the phase transform.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.waveforms.onsets import (
    FRAMES_PER_SECOND,
    midi_onset_envelope,
    onset_envelope,
)

HEARD_VERSION: Final = "heard-1"

TRUSTED_Z: Final = 8.0
"""From generated pairs: rhythms on a grid, with other instruments at half the level that no note
tells of. Of those that belong together, late by 0 to 1.5 s, 99% had 8.4 and more in sounds of 6 s,
10 in 10 s, 14 in 15 s; of 300 of each length that do not, half of them of one tempo, none had more
than 7.3. ``python -m benchmarks.heard_offset`` shows the same for other music."""
LEAST_RATIO: Final = 1.33
"""Of the best lag's correlation to that of any other: a loop fits one bar later, too. Of 80 loops
late by 0 to 1.5 s, those that were heard at a wrong bar had 1.31 at most."""
LEAST_ONSETS: Final = 6
"""Different moments at which notes begin. Fewer match something at some lag whatever the sound."""

_MOMENT_SECONDS: Final = 0.03
_PEAK_SECONDS: Final = 0.1
_SMALLEST_VARIANCE: Final = 1e-12
_WHITENED_FROM: Final = 0.05
"""Of an envelope's strongest rate of change: what is below that is left weaker."""
_BLUR_SECONDS: Final = 0.01
"""Standard deviation of the bell that correlations are blurred by: players, and who writes their
notes down, are not more precise."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard.

    Attributes:
        offset_seconds: By how much the notes are late; negative where they are early. Means nothing
            unless it is trusted; 0 where there was nothing to compare.
        z: How far the correlation at that lag lies above those at other lags, in their standard
            deviations; 0 where there was nothing to compare.
        correlation: Pearson's, at that lag.
        is_compared: Whether there was enough to compare.
        is_trusted: Whether sound and notes belong together at that lag.
        reason: Why it is not trusted, as a clause; None where it is.
        alike: Offsets of the lags that fit best, in order: peaks of the correlations, and none of
            them so low that the best is `LEAST_RATIO` times as high. If no lag is trusted, one of
            these may be the offset all the same.
    """

    offset_seconds: float
    z: float
    correlation: float
    is_compared: bool
    is_trusted: bool
    reason: str | None
    alike: tuple[float, ...] = ()


def heard_offset(
    samples: NDArray[np.float32],
    rate: int,
    onset_seconds: NDArray[np.float64],
    onset_weights: NDArray[np.floating[Any]],
    *,
    max_seconds: float = 2.0,
    z_threshold: float = TRUSTED_Z,
) -> Heard:
    """Hear by how much the notes are late against the sound.

    Zeros at the end of the sound are taken for padding and left out.

    Args:
        samples: The sound, float32 of shape (samples,), finite.
        rate: Its samples a second, 8,000 at least.
        onset_seconds: When notes begin, counted from the sound's beginning, shape (notes,).
        onset_weights: Their velocities, 0 to 127, shape (notes,).
        max_seconds: Lags looked at, either way; at most half of the sound.
        z_threshold: What `Heard.z` must reach to be trusted.

    Raises:
        ValueError: Notes and weights do not fit together.
    """
    sounding = np.flatnonzero(samples)
    sound = onset_envelope(samples[: sounding[-1] + 1 if sounding.size else 0], rate)
    notes = midi_onset_envelope(onset_seconds, onset_weights, len(sound))
    lags = int(min(max_seconds * FRAMES_PER_SECOND, len(sound) // 2))
    if not sound.any():
        return _nothing("the sound is silent")
    moments = _moments(onset_seconds, len(sound) / FRAMES_PER_SECOND)
    if moments < LEAST_ONSETS:
        return _nothing(f"notes begin at {moments} moments, {LEAST_ONSETS} are needed")
    by_lag = lagged_correlation(_whitened(sound), _whitened(notes), lags)
    peak = int(by_lag.argmax())
    others = np.abs(np.arange(len(by_lag)) - peak) > _PEAK_SECONDS * FRAMES_PER_SECOND
    spread = float(by_lag[others].std()) if others.any() else 0.0
    if spread == 0:
        return _nothing("there are too few lags to compare")
    z = float((by_lag[peak] - by_lag[others].mean()) / spread)
    offset = (peak - lags + _beside(by_lag, peak)) / FRAMES_PER_SECOND
    reason = None
    if z < z_threshold:
        reason = f"no lag stands out: z {z:.1f}, expected {z_threshold:g} at least"
    elif by_lag[peak] < LEAST_RATIO * (second := float(by_lag[others].max())):
        other = (int(np.flatnonzero(by_lag == second)[0]) - lags) / FRAMES_PER_SECOND
        reason = f"two lags fit alike, {offset:+.2f} s and {other:+.2f} s"
    elif peak in (0, len(by_lag) - 1):
        reason = f"the best lag is the last that was looked at, {offset:+.2f} s"
    return Heard(
        offset,
        z,
        float(by_lag[peak]),
        is_compared=True,
        is_trusted=reason is None,
        reason=reason,
        alike=_alike(by_lag, lags),
    )


def lagged_correlation(
    sound: NDArray[np.float64], notes: NDArray[np.float64], lags: int
) -> NDArray[np.float64]:
    """Pearson's correlation of what overlaps when the notes are moved.

    Args:
        sound: Of shape (frames,).
        notes: Of shape (frames,).
        lags: Frames to move by either way, less than there are.

    Returns:
        Of shape (2 * lags + 1,): entry ``lags + k`` compares ``sound[t]`` with ``notes[t + k]``,
        so that its place is by how much the notes are late. 0 where one of them does not vary.
    """
    frames = len(sound)
    # Correlations don't change with these, and sums lose fewer digits.
    sound, notes = sound - sound.mean(), notes - notes.mean()
    lag = np.arange(-lags, lags + 1)
    size = 2 * frames  # so that ends do not run into beginnings
    transformed = np.fft.rfft(notes, size) * np.fft.rfft(sound, size).conj()
    products = np.fft.irfft(transformed, size)[lag]
    sound_from, sound_to = np.maximum(0, -lag), frames - np.maximum(0, lag)
    notes_from, notes_to = np.maximum(0, lag), frames - np.maximum(0, -lag)
    count = sound_to - sound_from
    sound_sum, sound_var = _sums(sound, sound_from, sound_to, count)
    notes_sum, notes_var = _sums(notes, notes_from, notes_to, count)
    covariance = products - sound_sum * notes_sum / count
    varies = (sound_var > _SMALLEST_VARIANCE) & (notes_var > _SMALLEST_VARIANCE)
    by_lag: NDArray[np.float64] = np.zeros(len(lag))
    by_lag[varies] = covariance[varies] / np.sqrt(sound_var[varies] * notes_var[varies])
    return by_lag


def _whitened(envelope: NDArray[np.float64]) -> NDArray[np.float64]:
    """The envelope with its slow and fast changes alike strong, of the same shape."""
    size = 2 * len(envelope)  # so that its end does not run into its beginning
    spectrum = np.fft.rfft(envelope - envelope.mean(), size)
    strength = np.abs(spectrum)
    if not strength.any():
        return envelope
    spectrum /= np.maximum(strength, _WHITENED_FROM * strength.max())
    hertz = np.fft.rfftfreq(size, 1 / FRAMES_PER_SECOND)
    # A bell's transform; both envelopes have it, so that its square blurs the correlation.
    spectrum *= np.exp(-((np.pi * _BLUR_SECONDS * hertz) ** 2))
    whitened: NDArray[np.float64] = np.fft.irfft(spectrum, size)[: len(envelope)]
    return whitened


def _sums(
    values: NDArray[np.float64],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    count: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and summed squared deviation of ``values[start:stop]`` for each start and stop."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    squares = np.concatenate([[0.0], np.cumsum(values * values)])
    total = sums[stop] - sums[start]
    return total, squares[stop] - squares[start] - total * total / count


def _beside(values: NDArray[np.float64], peak: int) -> float:
    """Where the top of the parabola through the peak and its neighbours lies, -0.5 to 0.5."""
    if peak in (0, len(values) - 1):
        return 0.0
    before, top, after = values[peak - 1 : peak + 2]
    curvature = before - 2 * top + after
    return 0.0 if curvature >= 0 else float(0.5 * (before - after) / curvature)


def _alike(by_lag: NDArray[np.float64], lags: int) -> tuple[float, ...]:
    """Offsets of the peaks that the highest one does not stand out from, in seconds."""
    around = np.pad(by_lag, 1, constant_values=-np.inf)
    is_peak = (by_lag >= around[:-2]) & (by_lag > around[2:])
    places = np.flatnonzero(is_peak & (by_lag * LEAST_RATIO > by_lag.max())).tolist()
    return tuple((each - lags + _beside(by_lag, each)) / FRAMES_PER_SECOND for each in places)


def _moments(onset_seconds: NDArray[np.float64], seconds: float) -> int:
    """At how many different moments within the sound notes begin: a chord is one."""
    onsets = np.sort(np.asarray(onset_seconds, dtype=np.float64))
    onsets = onsets[(onsets >= 0) & (onsets < seconds)]
    if not onsets.size:
        return 0
    return 1 + int(np.count_nonzero(np.diff(onsets) > _MOMENT_SECONDS))


def _nothing(reason: str) -> Heard:
    return Heard(0.0, 0.0, 0.0, is_compared=False, is_trusted=False, reason=reason)
