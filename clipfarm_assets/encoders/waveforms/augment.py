"""Changed copies of a sound for training: faster or slower, higher or lower, with noise.

What is changed is drawn first and applied then, so that a caller can show it, or change the notes
of the same segment alike. Every draw is a function of the seed, the epoch and the segment alone.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_TIME_STRETCH: Final = 1.0
MAX_SEMITONES: Final = 24.0

VOCODER_WINDOW: Final = 2048
"""Samples. Speed and pitch of shorter sounds are left as they are."""


@dataclass(frozen=True, slots=True)
class AudioAugment:
    """How far sound may be changed. Each of the three happens on its own.

    Attributes:
        time_stretch: Largest change of speed: 0.1 is from 1 / 1.1 to 1.1 times; 0 for none.
        pitch_shift: Largest shift up or down, in semitones; 0 for none. Below 1 is none where only
            whole semitones are drawn.
        noise_snr_db: Lowest and highest signal-to-noise ratio of white noise, in decibels; None
            for no noise.
        probability: Of each of the three, for a sound in an epoch.
    """

    time_stretch: float = 0.1
    pitch_shift: float = 2.0
    noise_snr_db: tuple[float, float] | None = (15.0, 40.0)
    probability: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no augmentation."""
        if not 0 <= self.time_stretch <= MAX_TIME_STRETCH:
            msg = f"time_stretch must be 0 to {MAX_TIME_STRETCH:g}: found {self.time_stretch}"
            raise ValueError(msg)
        if not 0 <= self.pitch_shift <= MAX_SEMITONES:
            msg = f"pitch_shift must be 0 to {MAX_SEMITONES:g} semitones: found {self.pitch_shift}"
            raise ValueError(msg)
        if self.noise_snr_db is not None:
            low, high = self.noise_snr_db
            if not -np.inf < low <= high < np.inf:
                msg = f"noise_snr_db must be (low, high) in decibels: found {self.noise_snr_db}"
                raise ValueError(msg)
        if not 0 <= self.probability <= 1:
            msg = f"probability must be 0 to 1: found {self.probability}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class AudioChange:
    """What is done to one sound.

    Attributes:
        speed: Times as fast; 1 for as it was.
        semitones: Shift of pitch, which leaves the speed.
        snr_db: Signal-to-noise ratio of noise that is added, in decibels; None for none.
    """

    speed: float = 1.0
    semitones: float = 0.0
    snr_db: float | None = None


def rng_for(seed: int, epoch: int, segment_id: str, purpose: str = "audio") -> np.random.Generator:
    """The random numbers of a segment in an epoch: the same in every process and any order.

    Args:
        seed: Of the training.
        epoch: From 0.
        segment_id: The segment's.
        purpose: What they are for: two purposes have independent numbers.
    """
    text = f"{seed}\0{epoch}\0{purpose}\0{segment_id}"
    return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))


def augment(
    samples: NDArray[np.float32], rate: int, settings: AudioAugment, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A randomly changed copy, of the same length; see `draw_change` and `apply_change`."""
    return apply_change(samples, rate, draw_change(settings, rng), rng)


def draw_change(
    settings: AudioAugment, rng: np.random.Generator, *, whole_semitones: bool = False
) -> AudioChange:
    """What to do to a sound.

    Takes the same count of random numbers whatever the settings are: switching one change off
    leaves the others as they were.

    Args:
        settings: How far it may go.
        rng: Draws.
        whole_semitones: Shift by whole ones, as notes can be too; all within the settings alike.
    """
    stretches, shifts, disturbs = rng.random(3) < settings.probability
    stretch, shift = rng.uniform(-1, 1, size=2)
    level = rng.random()
    semitones = settings.pitch_shift * float(shift)
    if whole_semitones:
        most = int(settings.pitch_shift)
        semitones = float(min(math.floor((shift + 1) / 2 * (2 * most + 1)) - most, most))
    snr_db = None
    if disturbs and settings.noise_snr_db is not None:
        low, high = settings.noise_snr_db
        snr_db = low + (high - low) * level
    return AudioChange(
        # Uniform in the logarithm: as often 1 / 1.1 times as fast as 1.1 times.
        speed=float((1 + settings.time_stretch) ** stretch) if stretches else 1.0,
        semitones=semitones if shifts else 0.0,
        snr_db=snr_db,
    )


def apply_change(
    samples: NDArray[np.float32], rate: int, change: AudioChange, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Do what was drawn; cut at the end, or pad with zeros, to the length there was.

    Zeros at the end are taken for padding, and stay free of noise. Silence has no ratio to noise
    and stays silent.

    Args:
        samples: Float32 of shape (samples,).
        rate: Hz.
        change: What to do.
        rng: Draws the noise.

    Returns:
        Float32 of shape (samples,); `samples` itself where nothing is changed.
    """
    changed = _resounded(samples, rate, change)
    return changed if change.snr_db is None else _with_noise(changed, change.snr_db, rng)


def _resounded(samples: NDArray[np.float32], rate: int, change: AudioChange) -> NDArray[np.float32]:
    """Speed and pitch in one go: a phase vocoder stretches, resampling takes the pitch along.

    With one of the two alone it is librosa's ``time_stretch`` or ``pitch_shift``, whose module
    imports scikit-learn.
    """
    used = _without_padding(samples)
    if len(used) < VOCODER_WINDOW or (change.speed == 1 and change.semitones == 0):
        return samples
    from librosa import istft, phase_vocoder, resample, stft

    lower = 2.0 ** (-change.semitones / 12)
    speed = change.speed * lower
    spectrum = phase_vocoder(stft(used, n_fft=VOCODER_WINDOW), rate=speed)
    sound = istft(spectrum, dtype=samples.dtype, length=round(len(used) / speed))
    if change.semitones:
        sound = resample(sound, orig_sr=rate / lower, target_sr=rate)
    changed = np.zeros_like(samples)
    kept = min(len(sound), len(changed))
    changed[:kept] = sound[:kept]
    return changed


def _with_noise(
    samples: NDArray[np.float32], snr_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    used = len(_without_padding(samples))
    power = float(np.mean(np.square(samples[:used], dtype=np.float64))) if used else 0.0
    noise = rng.normal(scale=np.sqrt(power / 10 ** (snr_db / 10)), size=used)
    disturbed = samples.copy()
    disturbed[:used] += noise.astype(np.float32)
    return disturbed


def _without_padding(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    sounding = np.flatnonzero(samples)
    return samples[: sounding[-1] + 1] if sounding.size else samples[:0]
