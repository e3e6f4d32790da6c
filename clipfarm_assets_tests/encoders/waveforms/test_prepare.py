import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.encoders.audio.decoding import load_audio
from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.waveforms.prepare import (
    SAMPLE_TYPES,
    WaveformSettings,
    decode_samples,
    file_kind,
    fit_length,
    prepare,
    resample,
)
from clipfarm_assets_tests.encoders import media

TONE = media.tone(1.0)
SETTINGS = WaveformSettings(sample_rate=16_000, seconds=2.0)


def file_of(samples, rate=16_000, kind="FLAC", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def test_padding_to_fixed_duration():
    prepared = prepare(media.wav(TONE), None, SETTINGS)
    assert prepared.samples.shape == (32_000,)
    assert prepared.samples.dtype == np.float32
    assert prepared.samples[:16_000].tobytes() == decode_samples(media.wav(TONE), None)[0].tobytes()
    assert not prepared.samples[16_000:].any()
    assert (prepared.seconds_before, prepared.padded, prepared.truncated) == (1.0, 1.0, 0.0)


def test_truncation_to_fixed_duration():
    long = media.tone(3.25)
    prepared = prepare(media.wav(long), None, SETTINGS)
    whole, _ = decode_samples(media.wav(long), None)
    assert prepared.samples.tobytes() == whole[:32_000].tobytes()
    assert (prepared.seconds_before, prepared.padded, prepared.truncated) == (3.25, 0.0, 1.25)


def test_of_the_fixed_duration_already():
    prepared = prepare(media.wav(media.tone(2.0)), None, SETTINGS)
    assert (prepared.padded, prepared.truncated) == (0.0, 0.0)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_sample_rate_normalization(rate):
    stored = file_of(media.tone(3.0, rate), rate, "WAV", "FLOAT")
    prepared = prepare(stored, None, SETTINGS)
    expected, _ = load_audio(stored, 16_000, 2.0)  # which another test holds to librosa's bits
    assert prepared.samples.tobytes() == expected.tobytes()
    ideal = media.tone(2.0)
    inner = slice(200, -200)  # the filter sees the ends
    assert np.abs(prepared.samples - ideal)[inner].max() < 1e-3


def test_stored_as_samples_or_in_a_file_it_is_the_same():
    samples = media.tone(2.5, 44_100).astype(np.float32)
    raw = samples.astype("<f4").tobytes()
    by_file = prepare(file_of(samples, 44_100, "WAV", "FLOAT"), 44_100, SETTINGS)
    for found in (prepare(raw, 44_100, SETTINGS), prepare(samples, 44_100, SETTINGS)):
        assert found.samples.tobytes() == by_file.samples.tobytes()
        assert found.truncated == by_file.truncated == 0.5


@pytest.mark.parametrize("dtype", SAMPLE_TYPES)
def test_raw_samples_of_any_type(dtype):
    is_float = dtype.startswith("float")
    stored = TONE if is_float else np.round(TONE * (2.0 ** (8 * np.dtype(dtype).itemsize - 1)))
    found, rate = decode_samples(stored.astype(dtype).tobytes(), 16_000, dtype=dtype)
    assert rate == 16_000
    assert found.dtype == np.float32
    assert np.abs(found - TONE).max() < 1e-4
    if not is_float:
        subtype = {"int16": "PCM_16", "int32": "PCM_32"}[dtype]
        by_file, _ = decode_samples(
            file_of(stored.astype(dtype), kind="WAV", subtype=subtype), None
        )
        assert found.tobytes() == by_file.tobytes()


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "OGG", "MP3", "RF64"])
def test_files_are_told_from_samples_by_how_they_begin(kind):
    stored = file_of(TONE, kind=kind)
    plain, rate = decode_samples(stored, None)
    assert rate == 16_000
    ways = [stored]
    if kind == "MP3":  # of frames: what is left without the last bytes is still a file
        assert stored[0] == 0xFF, "it has no tag"
        title = b"TIT2\0\0\0\x02\0\0\0A"
        ways.append(b"ID3\x03\0\0\0\0\0" + bytes([len(title)]) + title + stored)
        ways.append(stored[: len(stored) - len(stored) % 4])  # as long as raw samples may be
    for each in ways:
        for dtype in ("float32", "int16"):
            declared, _ = decode_samples(each, 16_000, dtype=dtype)
            assert declared.tobytes() == decode_samples(each, None)[0].tobytes()
    shortest = min(len(plain), len(TONE))
    assert np.corrcoef(plain[:shortest], TONE[:shortest])[0, 1] > 0.9


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_frames_of_mp3_are_told_at_every_rate(rate):
    """Of versions 1, 2 and 2.5, whose frames have other lengths."""
    tone = 0.5 * np.sin(np.arange(rate) * 2 * np.pi * 440 / rate)
    file = io.BytesIO()
    soundfile.write(file, tone, rate, format="MP3")
    assert file_kind(file.getvalue()) == "MP3"
    assert file_kind(file.getvalue()[:24]) is None, "one frame alone may be samples"


def test_samples_are_not_taken_for_frames_of_mp3():
    """Noise as loud as it gets, of samples that begin as a frame does."""
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        noise = bytes([0xFF, 0xFB, *rng.integers(0, 256, 4_000, dtype=np.uint8).tolist()])
        assert file_kind(noise) is None


def test_silence_is_sound():
    assert not prepare(bytes(64_000), 16_000, SETTINGS).samples.any()


@pytest.mark.parametrize(
    ("blob", "rate", "message"),
    [
        (b"", None, r"empty \(0 bytes\)"),
        (b"", 16_000, r"empty \(0 bytes\)"),
        (b"abcde", 16_000, "5 bytes are no whole number of float32 samples of 4 bytes"),
        (b"no sound at all", None, r"cannot decode the audio: \w+: \S+"),
        (media.wav(TONE)[:20], None, r"cannot decode the audio: \w+: \S+"),
        (media.wav(TONE[:0]), None, "holds no sample"),
        (media.wav(TONE), 44_100, "stored as 44100 Hz, but it is a WAV file of 16000 Hz"),
        (media.sound_only_mp4(), None, "found MP4, expected WAV, AIFF, FLAC, Ogg or MP3"),
        (np.full(4, np.nan, "<f4").tobytes(), 16_000, "not finite"),
        (np.full(4, -np.inf, "<f4").tobytes(), 16_000, "not finite"),
        (b"\x01\0\x80\x7f" * 4, 16_000, "not finite"),  # signalling
        (media.wav(np.full(800, np.nan), subtype="FLOAT"), None, "not finite"),
        ((TONE * 32_767).astype("<f4").tobytes(), 16_000, "peak is .* are its samples of another"),
        (TONE.astype("<f4").tobytes(), 10, "sample rate is 10 Hz, expected 1000 to 1000000"),
        (TONE.astype("<f4").tobytes(), 0, "sample rate is 0 Hz"),
        (TONE.astype("<f4").tobytes(), -1, "sample rate is -1 Hz"),
    ],
)
def test_unusable_sounds(blob, rate, message):
    with pytest.raises(MediaError, match=message):
        decode_samples(blob, rate)
    with pytest.raises(MediaError, match=message):
        prepare(blob, rate, SETTINGS)


def test_doubles_beyond_float32_are_refused():
    with pytest.raises(MediaError, match="peak is 1e"):
        decode_samples(np.full(4, 1e300, "<f8").tobytes(), 16_000, dtype="float64")


def test_decoded_samples_are_held_to_the_same():
    with pytest.raises(ValueError, match="need a rate"):
        prepare(TONE.astype(np.float32), None, SETTINGS)
    with pytest.raises(MediaError, match="not finite"):
        prepare(np.full(9, np.nan, np.float32), 16_000, SETTINGS)
    with pytest.raises(MediaError, match="holds no sample"):
        prepare(np.zeros(0, np.float32), 16_000, SETTINGS)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(
        [b"", b"RIFF\0\0\0\0WAVE", b"fLaC\0\0\0\x22", b"OggS\0", b"ID3\x03\0\0\0\0\0\0"]
    ),
    st.binary(max_size=400),
    st.sampled_from([None, 16_000]),
)
def test_any_bytes_give_samples_or_a_media_error(start, rest, rate):
    try:
        samples, found = decode_samples(start + rest, rate)
    except MediaError:
        return
    assert rate in (None, found)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def test_fit_length_counts_what_it_does():
    ten = np.arange(10, dtype=np.float32)
    for seconds, length, filled, cut in ((1.0, 10, 0, 0), (1.5, 15, 5, 0), (0.35, 4, 0, 6)):
        fitted, *counts = fit_length(ten, 10, seconds)
        assert (len(fitted), *counts) == (length, filled, cut)
        assert (fitted[: min(10, length)] == ten[:length]).all()
        assert not fitted[10:].any()


def test_resampling_to_the_same_rate_is_nothing():
    samples = TONE.astype(np.float32)
    assert resample(samples, 16_000, 16_000) is samples


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 10}, "sample_rate must be 1000 to 1000000 Hz: found 10"),
        ({"seconds": 0.0}, "seconds must be finite"),
        ({"seconds": float("inf")}, "seconds must be finite"),
        ({"seconds": float("nan")}, "seconds must be finite"),
        ({"seconds": 1e-6}, "hold a sample at least"),
        ({"dtype": "int8"}, "dtype must be one of float32, float64, int16, int32: found 'int8'"),
    ],
)
def test_settings_that_no_sound_can_have(changes, message):
    with pytest.raises(ValueError, match=message):
        WaveformSettings(**changes)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_what_is_prepared_holds_nothing_of_a_longer_sound(rate):
    long = np.tile(media.tone(1.0, rate), 20).astype(np.float32)
    stored = [long.astype("<f4").tobytes(), long, file_of(long, rate), file_of(long, rate, "WAV")]
    for each in (*stored, long[: 2 * rate], long[: rate // 2]):
        samples = prepare(each, rate, SETTINGS).samples
        assert samples.base is None
        assert samples.nbytes == 4 * 32_000


@pytest.mark.parametrize("dtype", SAMPLE_TYPES)
def test_of_raw_samples_the_beginning_alone_is_converted(dtype):
    blob = np.zeros(100 * 16_000, dtype).tobytes()
    prepare(blob, 16_000, WaveformSettings(dtype=dtype, seconds=1.0))
    tracemalloc.start()
    prepare(blob, 16_000, WaveformSettings(dtype=dtype, seconds=1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000  # 100 s would be 6.4 MB as float32
