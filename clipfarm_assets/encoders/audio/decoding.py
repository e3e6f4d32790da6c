"""Audio files to mono samples, by the steps that ``librosa.load`` takes, and to the same bits.

librosa itself is not called: decoders are processes of their own, and importing it would cost more
than all they decode.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.guard import media_errors

MAX_SAMPLES: Final = 2**28
"""Samples decoded at most, over all channels: 1 GiB. A small compressed file can ask for more."""
SAMPLE_RATES: Final = range(1_000, 1_000_001)

# libsndfile's names. Others that it reads are of telephones and old computers, with much code
# behind them for what they are worth here.
FORMATS: Final = ("AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "W64", "WAV", "WAVEX")
SUBTYPES: Final = (
    "ALAC_16",
    "ALAC_20",
    "ALAC_24",
    "ALAC_32",
    "ALAW",
    "DOUBLE",
    "FLOAT",
    "MPEG_LAYER_III",
    "OPUS",
    "PCM_16",
    "PCM_24",
    "PCM_32",
    "PCM_S8",
    "PCM_U8",
    "ULAW",
    "VORBIS",
)


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """Samples as they were stored, mixed to mono.

    Attributes:
        samples: Float32 of shape (samples,), full scale at 1.
        rate: Samples a second.
        seconds: Length of all that was stored, which may be more than was decoded.
    """

    samples: NDArray[np.float32]
    rate: int
    seconds: float


def load_audio(
    raw: bytes, sample_rate: int, max_seconds: float
) -> tuple[NDArray[np.float32], float]:
    """What ``librosa.load(file, sr=sample_rate, mono=True, duration=max_seconds)`` gives.

    Returns:
        Samples, float32 of shape (samples,), and the whole file's length in seconds.

    Raises:
        MediaError: No decodable audio file, or one that would not fit into memory.
    """
    decoded = decode_file(raw, max_seconds)
    return resample(decoded.samples, decoded.rate, sample_rate), decoded.seconds


def decode_file(raw: bytes, max_seconds: float | None = None) -> DecodedAudio:
    """Decode a file of one of `FORMATS`, up to `max_seconds`; None: all of it.

    These are the steps of ``librosa.load``, which itself looks for audioread's backends first, that
    start programs, and reads a file whose header was never looked at.

    Raises:
        MediaError: No decodable audio file, or one that would not fit into memory.
    """
    if not raw:
        msg = "cannot decode the audio: the object is empty (0 bytes); upload the file again"
        raise MediaError(msg)
    with media_errors("decode the audio"):
        with soundfile.SoundFile(BytesIO(raw)) as file:
            _check_format(file.format, file.subtype)
            rate, channels = file.samplerate, file.channels
            frames = file.frames if max_seconds is None else int(max_seconds * rate)
            check_extent(rate, channels, min(frames, file.frames))
            samples = file.read(frames=frames, dtype="float32")
            seconds = file.frames / rate
        _check_finite(samples)
        mono = samples if samples.ndim == 1 else np.mean(samples.T, axis=(0,))
        return DecodedAudio(mono, rate, seconds)


def resample(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """Samples at `rate` as samples at `to` Hz, float32 of shape (ceil(samples * to / rate),).

    Raises:
        MediaError: The samples are not finite.
    """
    # soxr wants at least one sample; an empty file is reported as too short by the caller.
    if not samples.size:
        return samples
    with media_errors("decode the audio"):
        _check_finite(samples)
        if rate == to:
            return samples
        resampled = soxr.resample(samples, rate, to, quality="soxr_hq")
        # The length that the rates ask for, from which soxr's may differ by a sample.
        length = int(np.ceil(len(samples) * (float(to) / rate)))
        if len(resampled) < length:
            resampled = np.pad(resampled, (0, length - len(resampled)))
    return np.asarray(resampled[:length], dtype=np.float32)


def check_extent(rate: int, channels: int, frames: int) -> None:
    """Refuse a sample rate out of `SAMPLE_RATES`, and more than `MAX_SAMPLES`."""
    if rate not in SAMPLE_RATES:
        limits = f"{SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}"
        msg = f"cannot decode the audio: its sample rate is {rate} Hz, expected {limits}"
        raise MediaError(msg)
    if frames * channels > MAX_SAMPLES:
        msg = (
            f"cannot decode the audio: {frames} frames of {channels} channels at {rate} Hz, "
            f"the limit is {MAX_SAMPLES} samples"
        )
        raise MediaError(msg)


def _check_format(kind: str, subtype: str) -> None:
    """Refuse what libsndfile reads beyond `FORMATS` and `SUBTYPES`."""
    if kind not in FORMATS or subtype not in SUBTYPES:
        msg = (
            f"cannot decode the audio: it is a {kind} file of {subtype} samples, expected "
            f"{', '.join(FORMATS)} of {', '.join(SUBTYPES)}; convert it"
        )
        raise MediaError(msg)


def _check_finite(samples: NDArray[np.float32]) -> None:
    if not np.isfinite(samples).all():
        msg = "cannot decode the audio: it has samples that are not finite numbers"
        raise MediaError(msg)
