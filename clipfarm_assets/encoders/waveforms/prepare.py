"""Stored sound to mono samples of one rate and one length.

The parts of a file beyond the wanted length are cut off before resampling, as
``librosa.load(duration=...)`` does it, so that an hour-long file costs what its beginning costs.
The same sound gives the same bytes whether it was stored as samples or in a lossless file.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.audio.decoding import (
    SAMPLE_RATES,
    DecodedAudio,
    check_extent,
    decode_file,
)
from clipfarm_assets.encoders.audio.decoding import resample as resample_finite
from clipfarm_assets.encoders.base import MediaError

PREPROCESS_VERSION: Final = "waveform-2"

SampleType = Literal["float32", "float64", "int16", "int32"]
SAMPLE_TYPES: Final[tuple[SampleType, ...]] = get_args(SampleType)

MAX_PEAK: Final = 16.0
"""Times full scale. Louder floats are no sound: another sample type, or a compressed file."""

_ROUNDING: Final = 1e-3  # seconds
_READABLE: Final = "WAV, AIFF, FLAC, Ogg or MP3"
_ID3_MAJORS: Final = (2, 3, 4)
# Of layer III: ISO/IEC 11172-3, 2.4.2.3, and 13818-3. Bit rates of versions 2 and 2.5, then of 1.
_MP3_KBITS: Final = (
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_MP3_RATES: Final = (44_100, 48_000, 32_000)
_MP3_FRAMES: Final = 3


@dataclass(frozen=True, slots=True)
class WaveformSettings:
    """What samples are made to be.

    Attributes:
        sample_rate: Hz that all sound is resampled to.
        seconds: Length that all sound is padded or cut to.
        dtype: Type of stored raw samples, which say nothing of themselves; little-endian.
    """

    sample_rate: int = 16_000
    seconds: float = 15.0
    dtype: SampleType = "float32"

    def __post_init__(self) -> None:
        """Refuse what no sound can be made to be."""
        if self.sample_rate not in SAMPLE_RATES:
            limits = f"{SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}"
            msg = f"sample_rate must be {limits} Hz: found {self.sample_rate}"
            raise ValueError(msg)
        if not 0 < self.seconds < np.inf or self.samples < 1:
            msg = f"seconds must be finite and hold a sample at least: found {self.seconds}"
            raise ValueError(msg)
        if self.dtype not in SAMPLE_TYPES:
            msg = f"dtype must be one of {', '.join(SAMPLE_TYPES)}: found {self.dtype!r}"
            raise ValueError(msg)

    @property
    def samples(self) -> int:
        """Samples of everything prepared."""
        return samples_in(self.seconds, self.sample_rate)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Sound of one rate and length, and what was done to make it so.

    Attributes:
        samples: Float32 of shape (settings.samples,), full scale at 1; no view, which would
            hold all of a longer sound.
        seconds_before: Length of the sound as it was stored.
        padded: Seconds of zeros that were put at its end.
        truncated: Seconds that were cut off its end.
    """

    samples: NDArray[np.float32]
    seconds_before: float
    padded: float
    truncated: float

    def told_cut(self, settings: WaveformSettings) -> str:
        """What was cut off, in words; of what rounding a length may leave over, none."""
        told = f"{self.truncated:.3g} s after {settings.seconds:g} s are left out"
        return told if self.truncated > _ROUNDING else ""


def prepare(
    stored: bytes | NDArray[np.float32], rate: int | None, settings: WaveformSettings
) -> Prepared:
    """Decode, mix to mono, resample, then pad with zeros or cut.

    Args:
        stored: A file's bytes, raw samples' bytes, or decoded mono samples of shape (n,).
        rate: Of the samples; see `decode_samples`. Decoded samples need one.
        settings: What to make of it.

    Raises:
        MediaError: Nothing that can be decoded, empty, or not finite.
    """
    if isinstance(stored, bytes):
        decoded = _decode(stored, rate, settings.dtype, settings.seconds)
    elif rate is None:
        msg = "decoded samples need a rate: found None"
        raise ValueError(msg)
    else:
        _check(stored)
        decoded = _within(stored, rate, settings.seconds)
    to = settings.sample_rate
    samples = resample(decoded.samples, decoded.rate, to)
    fitted, filled, _ = fit_length(samples, to, settings.seconds)
    return Prepared(
        fitted if fitted.base is None else fitted.copy(),
        decoded.seconds,
        padded=filled / to,
        truncated=max(0, samples_in(decoded.seconds, to) - settings.samples) / to,
    )


def decode_samples(
    blob: bytes, rate: int | None, *, dtype: SampleType = "float32"
) -> tuple[NDArray[np.float32], int]:
    """Mono samples of a file or of raw samples, as they were stored.

    A blob is a file if it begins like one, see `file_kind`. Without a `rate` it can only be a file.

    Args:
        blob: A file (WAV, AIFF, FLAC, Ogg, MP3, ...), or little-endian mono samples.
        rate: Of raw samples in Hz. Where one comes with a file, the file must have it.
        dtype: Of raw samples. Integers are scaled so that full scale is 1, as in files.

    Returns:
        Float32 of shape (samples,), and their rate.

    Raises:
        MediaError: Empty, not decodable, not finite, far beyond full scale, or of another rate.
    """
    decoded = _decode(blob, rate, dtype, None)
    return decoded.samples, decoded.rate


def resample(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """Samples at `rate` as samples at `to` Hz, as librosa does it by soxr in high quality.

    Returns:
        Float32 of shape (ceil(samples * to / rate),); `samples` itself where the rates are equal.

    Raises:
        MediaError: The samples are not finite.
    """
    return samples if rate == to else resample_finite(samples, rate, to)


def fit_length(
    samples: NDArray[np.float32], rate: int, seconds: float
) -> tuple[NDArray[np.float32], int, int]:
    """Pad with zeros at the end, or cut there.

    Returns:
        Float32 of shape (round(seconds * rate),), how many samples were filled, how many were cut.
    """
    wanted = samples_in(seconds, rate)
    filled, cut = max(0, wanted - len(samples)), max(0, len(samples) - wanted)
    fitted = np.pad(samples, (0, filled)) if filled else samples[:wanted]
    return fitted, filled, cut


def samples_in(seconds: float, rate: int) -> int:
    """Whole samples in `seconds`."""
    return round(seconds * rate)


def _decode(
    blob: bytes, rate: int | None, dtype: SampleType, max_seconds: float | None
) -> DecodedAudio:
    if not blob:
        msg = "cannot decode the audio: it is empty (0 bytes)"
        raise MediaError(msg)
    kind = file_kind(blob)
    if kind in ("MP4", "Matroska"):
        msg = f"cannot decode the audio: found {kind}, expected {_READABLE}; convert it"
        raise MediaError(msg)
    if kind is None and rate is not None:
        return _raw_samples(blob, rate, dtype, max_seconds)
    decoded = decode_file(blob, max_seconds)
    if rate is not None and decoded.rate != rate:
        msg = (
            f"cannot decode the audio: its sample rate is stored as {rate} Hz, but it is a "
            f"{kind} file of {decoded.rate} Hz; correct the stored one"
        )
        raise MediaError(msg)
    _check(decoded.samples)
    return decoded


def _raw_samples(
    blob: bytes, rate: int, dtype: SampleType, max_seconds: float | None
) -> DecodedAudio:
    """Of all samples none may be wrong; those within `max_seconds` are converted."""
    stored = np.dtype(dtype).newbyteorder("<")
    count, rest = divmod(len(blob), stored.itemsize)
    if rest:
        msg = (
            f"cannot decode the audio: {len(blob)} bytes are no whole number of {dtype} samples "
            f"of {stored.itemsize} bytes, and they begin like no {_READABLE} file"
        )
        raise MediaError(msg)
    check_extent(rate, 1, count)
    values = np.frombuffer(blob, dtype=stored)
    kept = values[: _kept_of(rate, max_seconds)]
    if values.dtype.kind == "i":
        # Rounded once, from float64, where 32 bits are more than float32 holds.
        samples = (kept / 2.0 ** (8 * stored.itemsize - 1)).astype(np.float32)
    else:
        _check(values)
        samples = kept.astype(np.float32)
    return DecodedAudio(samples, rate, count / rate)


def _check(samples: NDArray[np.floating[Any]]) -> None:
    if not samples.size:
        msg = "cannot decode the audio: it holds no sample"
        raise MediaError(msg)
    with np.errstate(invalid="ignore"):  # signalling NaN, which any bytes may be
        peak = max(float(samples.max()), -float(samples.min()))
    if not np.isfinite(peak):
        msg = "cannot decode the audio: it has samples that are not finite numbers"
        raise MediaError(msg)
    if peak > MAX_PEAK:
        msg = (
            f"cannot decode the audio: its peak is {peak:.4g} times full scale, at most "
            f"{MAX_PEAK:g} is expected; are its samples of another type?"
        )
        raise MediaError(msg)


def _within(samples: NDArray[np.float32], rate: int, max_seconds: float) -> DecodedAudio:
    check_extent(rate, 1, len(samples))
    return DecodedAudio(samples[: _kept_of(rate, max_seconds)], rate, len(samples) / rate)


def _kept_of(rate: int, max_seconds: float | None) -> int | None:
    """How many samples are kept at most; None: all of them."""
    return None if max_seconds is None else int(max_seconds * rate)


def file_kind(blob: bytes) -> str | None:
    """What file the bytes begin like; None for samples, or for a file that can't be told apart.

    Files are told by several bytes that no sound begins with; an MP3 file without an ID3 tag by
    three frames, each where the one before says.
    """
    start, kind = blob[:4], blob[8:12]
    if start in (b"RIFF", b"RIFX", b"RF64") and kind == b"WAVE":
        return "WAV"
    if start == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return "AIFF"
    # The first block of metadata is STREAMINFO, of 34 bytes: RFC 9639, 8.1 and 8.2.
    if start == b"fLaC" and len(blob) > 8 and blob[4] & 0x7F == 0 and blob[5:8] == b"\0\0\x22":
        return "FLAC"
    if start == b"OggS" and blob[4:5] == b"\0":  # stream structure version 0: RFC 3533, 6
        return "Ogg"
    # Version, then a size of four bytes below 128: ID3v2.4, 3.1.
    if start[:3] == b"ID3" and len(blob) > 10 and blob[3] in _ID3_MAJORS and max(blob[6:10]) < 128:
        return "MP3"
    if blob[4:8] == b"ftyp":
        return "MP4"
    if start == b"\x1a\x45\xdf\xa3":
        return "Matroska"
    return "MP3" if _begins_with_mp3_frames(blob) else None


def _begins_with_mp3_frames(blob: bytes) -> bool:
    at, before = 0, None
    for _ in range(_MP3_FRAMES):
        header = int.from_bytes(blob[at : at + 4], "big")
        version, layer, bits = header >> 19 & 3, header >> 17 & 3, header >> 12 & 15
        rate, padding = header >> 10 & 3, header >> 9 & 1
        # Synchronised, of layer III, of a version and bit rate that exist, as the frame before it.
        if header >> 21 != 0x7FF or layer != 1 or version == 1 or bits in (0, 15) or rate == 3:
            return False
        if before not in (None, (version, rate)):
            return False
        before = version, rate
        hertz = _MP3_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
        samples_of_8 = 144 if version == 3 else 72
        at += samples_of_8 * _MP3_KBITS[version == 3][bits - 1] * 1000 // hertz + padding
    return True
