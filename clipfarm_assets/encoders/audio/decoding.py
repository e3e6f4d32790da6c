"""Audio files to mono samples, by the steps that ``librosa.load`` takes."""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.guard import media_errors

MAX_SAMPLES: Final = 2**28
"""Samples decoded at most, over all channels: 1 GiB. A small compressed file can ask for more."""
SAMPLE_RATES: Final = range(1_000, 1_000_001)


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
    """Decode a file of any format that libsndfile reads, up to `max_seconds`; None: all of it.

    These are librosa's own steps, called one by one: `librosa.load` itself looks for audioread's
    backends first, which starts programs, and reads a file whose header was never looked at.

    Raises:
        MediaError: No decodable audio file, or one that would not fit into memory.
    """
    if not raw:
        msg = "cannot decode the audio: the object is empty (0 bytes); upload the file again"
        raise MediaError(msg)
    from librosa import to_mono  # outside: a broken installation is no medium's fault

    with media_errors("decode the audio"):
        with soundfile.SoundFile(BytesIO(raw)) as file:
            rate, channels = file.samplerate, file.channels
            frames = file.frames if max_seconds is None else int(max_seconds * rate)
            check_extent(rate, channels, min(frames, file.frames))
            samples = file.read(frames=frames, dtype="float32").T
            seconds = file.frames / rate
        return DecodedAudio(to_mono(samples), rate, seconds)


def resample(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """Samples at `rate` as samples at `to` Hz, float32 of shape (ceil(samples * to / rate),).

    Raises:
        MediaError: The samples are not finite.
    """
    from librosa import resample as resample_by_soxr

    # soxr wants at least one sample; an empty file is reported as too short by the caller.
    if not samples.size:
        return samples
    with media_errors("decode the audio"):
        resampled: NDArray[np.float32] = resample_by_soxr(samples, orig_sr=rate, target_sr=to)
    return resampled


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
