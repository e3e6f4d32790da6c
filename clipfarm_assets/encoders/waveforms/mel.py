"""Log-mel spectrograms: in numpy, one sound at a time, and in torch, by the batch.

Both are librosa's: Slaney's mel scale and norm, a periodic Hann window, frames centred on
multiples of the hop with zeros beyond the ends, power, then decibels. What is stored is the numpy
one's; torch's differs from it by rounding, and may do so by the size of a batch.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

MEL_VERSION: Final = "mel-1"

SMALLEST_POWER: Final = 1e-10
"""Where decibels end, at -100: silence has none."""

# Slaney's scale: linear up to 1 kHz, 15 mel there, then 27 mel for a factor of 6.4.
# Source: Slaney, Auditory Toolbox (1998), MakeERBFilters and mfcc.
_HZ_PER_MEL: Final = 200.0 / 3
_BREAK_HZ: Final = 1000.0
_BREAK_MEL: Final = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP: Final = float(np.log(6.4) / 27)


@dataclass(frozen=True, slots=True)
class MelSettings:
    """What a spectrogram is made of.

    Attributes:
        sample_rate: Of the sound, Hz.
        n_fft: Samples of a window; even.
        hop: Samples from one frame to the next.
        n_mels: Bands.
        fmin: Lower edge of the lowest band, Hz.
        fmax: Upper edge of the highest band; None for half the sample rate.
    """

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop: int = 256
    n_mels: int = 64
    fmin: float = 0.0
    fmax: float | None = None

    def __post_init__(self) -> None:
        """Refuse what gives no spectrogram."""
        if self.sample_rate < 1 or self.n_fft < 2 or self.n_fft % 2:
            msg = (
                "sample_rate must be positive and n_fft even and positive: "
                f"found {self.sample_rate} and {self.n_fft}"
            )
            raise ValueError(msg)
        if self.hop < 1 or self.n_mels < 1:
            msg = f"hop and n_mels must be positive: found {self.hop} and {self.n_mels}"
            raise ValueError(msg)
        if not 0 <= self.fmin < self.highest <= self.sample_rate / 2:
            msg = (
                f"expected 0 <= fmin < fmax <= {self.sample_rate / 2:g} Hz, half the sample rate: "
                f"found {self.fmin:g} and {self.highest:g}"
            )
            raise ValueError(msg)

    @property
    def highest(self) -> float:
        """Upper edge of the highest band, Hz."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax

    def frames(self, samples: int) -> int:
        """Frames of a sound of so many samples."""
        return 1 + samples // self.hop


@lru_cache(maxsize=16)
def mel_filters(settings: MelSettings) -> NDArray[np.float32]:
    """Triangles on Slaney's mel scale, each of unit area over Hz.

    Returns:
        Float32 of shape (n_mels, 1 + n_fft // 2), equal to ``librosa.filters.mel``; not writable.

    Raises:
        ValueError: A band is so narrow that no frequency of the transform lies in it.
    """
    edges, bins = _edges_and_bins(settings)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    empty = np.flatnonzero(filters.max(axis=1) == 0)
    if empty.size:
        msg = (
            f"{empty.size} of {settings.n_mels} mel bands hold no frequency of a transform of "
            f"{settings.n_fft} samples, the first from {edges[empty[0]]:.1f} to "
            f"{edges[empty[0] + 2]:.1f} Hz; use fewer n_mels or a longer n_fft"
        )
        raise ValueError(msg)
    filters.flags.writeable = False
    return filters


def mel_power(samples: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Power in mel bands over time.

    Args:
        samples: Float32 of shape (samples,).
        settings: What the spectrogram is made of.

    Returns:
        Float32 of shape (n_mels, frames), equal to ``librosa.feature.melspectrogram``.

    Raises:
        ValueError: No samples, or of another shape.
    """
    if samples.ndim != 1 or not samples.size:
        msg = f"expected samples of shape (n,), one at least: found {samples.shape}"
        raise ValueError(msg)
    padded = np.pad(samples, settings.n_fft // 2)
    frames = sliding_window_view(padded, settings.n_fft)[:: settings.hop]
    spectrum = np.fft.rfft(frames * hann(settings.n_fft), axis=-1).astype(np.complex64)
    power: NDArray[np.float32] = np.abs(spectrum) ** 2
    return mel_filters(settings) @ power.T


def log_mel(samples: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Decibels in mel bands over time, 0 at a power of 1 and -100 for silence.

    Returns:
        Float32 of shape (n_mels, frames), frames = ``settings.frames(len(samples))``; equal to
        ``librosa.power_to_db(librosa.feature.melspectrogram(...), top_db=None)``.

    Raises:
        ValueError: No samples, or of another shape.
    """
    power = mel_power(samples, settings)
    decibels: NDArray[np.float32] = np.float32(10) * np.log10(np.maximum(SMALLEST_POWER, power))
    return decibels


def log_mel_torch(batch: Any, settings: MelSettings) -> Any:
    """`log_mel` of a batch, differentiable, on the batch's device.

    Args:
        batch: Float32 tensor of shape (B, samples).
        settings: What the spectrograms are made of.

    Returns:
        Float32 tensor of shape (B, n_mels, frames).
    """
    import torch

    filters = torch.tensor(mel_filters(settings), device=batch.device)
    window = torch.tensor(hann(settings.n_fft), dtype=batch.dtype, device=batch.device)
    spectrum = torch.stft(
        batch,
        settings.n_fft,
        hop_length=settings.hop,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = filters @ (spectrum.real.square() + spectrum.imag.square())
    return 10 * power.clamp(min=SMALLEST_POWER).log10()


@lru_cache(maxsize=16)
def hann(samples: int) -> NDArray[np.float64]:
    """The periodic Hann window, of shape (samples,); not writable."""
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / samples)
    window.flags.writeable = False
    return window


def _edges_and_bins(settings: MelSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of the bands, of shape (n_mels + 2,), and the transform's frequencies, all in Hz."""
    low, high = _hz_to_mel(settings.fmin), _hz_to_mel(settings.highest)
    edges = _mel_to_hz(np.linspace(low, high, settings.n_mels + 2))
    bins = np.fft.rfftfreq(settings.n_fft, 1 / settings.sample_rate)
    return edges, bins.astype(np.float64)


def _hz_to_mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz / _HZ_PER_MEL
    return _BREAK_MEL + float(np.log(hertz / _BREAK_HZ)) / _LOG_STEP


def _mel_to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = np.maximum(mels - _BREAK_MEL, 0)  # so that the exponential stays small
    return np.where(mels < _BREAK_MEL, mels * _HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * above))
