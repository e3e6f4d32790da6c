import warnings

import numpy as np
import pytest
import torch

from clipfarm_assets.encoders.waveforms.mel import (
    MelSettings,
    log_mel,
    log_mel_torch,
    mel_filters,
    mel_power,
)
from clipfarm_assets_tests.encoders import media

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import librosa

SETTINGS = [
    MelSettings(),
    MelSettings(sample_rate=22_050, n_fft=2048, hop=512, n_mels=128),
    MelSettings(n_fft=400, hop=160, n_mels=40, fmin=50, fmax=7_600),
    MelSettings(sample_rate=48_000, n_fft=1024, hop=480, n_mels=64, fmin=50, fmax=14_000),
]


def by_librosa(samples, settings):
    return librosa.feature.melspectrogram(
        y=samples,
        sr=settings.sample_rate,
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        n_mels=settings.n_mels,
        fmin=settings.fmin,
        fmax=settings.fmax,
    )


def noisy_tone(samples, rate=16_000, seed=0):
    noise = np.random.default_rng(seed).normal(scale=0.05, size=samples)
    return (media.tone(samples / rate + 1, rate)[:samples] + noise).astype(np.float32)


@pytest.mark.parametrize("settings", SETTINGS)
def test_filters_are_librosas(settings):
    expected = librosa.filters.mel(
        sr=settings.sample_rate,
        n_fft=settings.n_fft,
        n_mels=settings.n_mels,
        fmin=settings.fmin,
        fmax=settings.fmax,
    )
    found = mel_filters(settings)
    assert found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= 1e-7 * expected.max()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("samples", [5_000, 8_192, 20_011])
def test_mel_spectrogram_computation(settings, samples):
    wave = noisy_tone(samples, settings.sample_rate)
    power = by_librosa(wave, settings)
    decibels = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    found = log_mel(wave, settings)
    assert found.dtype == np.float32
    assert found.shape == decibels.shape == (settings.n_mels, settings.frames(samples))
    assert np.abs(mel_power(wave, settings) - power).max() <= 1e-6 * power.max()
    assert np.abs(found - decibels).max() <= 1e-5


def test_silence_ends_at_minus_100_decibels():
    assert log_mel(np.zeros(4_000, np.float32), MelSettings()) == pytest.approx(-100)


def test_sounds_shorter_than_a_window():
    assert log_mel(noisy_tone(10), MelSettings()).shape == (64, 1)
    for samples in (np.zeros(0, np.float32), np.zeros((2, 100), np.float32)):
        with pytest.raises(ValueError, match="shape"):
            log_mel(samples, MelSettings())


@pytest.mark.parametrize("settings", SETTINGS)
def test_torch_gives_the_same_by_the_batch(settings):
    waves = np.stack([noisy_tone(9_000, settings.sample_rate, seed) for seed in range(3)])
    found = log_mel_torch(torch.from_numpy(waves), settings)
    assert found.dtype == torch.float32
    for wave, one in zip(waves, found.numpy(), strict=True):
        assert np.abs(one - log_mel(wave, settings)).max() <= 1e-3  # decibels


def test_torch_can_be_differentiated():
    wave = torch.from_numpy(noisy_tone(2_000)[None]).requires_grad_()
    log_mel_torch(wave, MelSettings()).sum().backward()
    assert torch.isfinite(wave.grad).all()
    assert wave.grad.any()
    silence = torch.zeros(1, 2_000, requires_grad=True)
    log_mel_torch(silence, MelSettings()).sum().backward()
    assert torch.isfinite(silence.grad).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_fft": 401}, "n_fft even"),
        ({"n_fft": 0}, "n_fft even"),
        ({"hop": 0}, "hop and n_mels must be positive"),
        ({"n_mels": 0}, "hop and n_mels must be positive"),
        ({"fmax": 9_000.0}, "fmax <= 8000 Hz, half the sample rate: found 0 and 9000"),
        ({"fmin": 500.0, "fmax": 400.0}, "found 500 and 400"),
        ({"fmin": -1.0}, "0 <= fmin"),
    ],
)
def test_settings_that_give_no_spectrogram(changes, message):
    with pytest.raises(ValueError, match=message):
        MelSettings(**changes)


def test_bands_too_narrow_for_the_transform():
    with pytest.raises(ValueError, match="mel bands hold no frequency of a transform of 256"):
        mel_filters(MelSettings(n_fft=256, n_mels=128))
