import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.encoders.waveforms.augment import (
    VOCODER_WINDOW,
    AudioAugment,
    AudioChange,
    apply_change,
    augment,
    draw_change,
    rng_for,
)
from clipfarm_assets_tests.encoders import media

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import librosa

RATE = 16_000
WAVE = media.tone(1.0).astype(np.float32)
ALWAYS = AudioAugment(probability=1.0)


def changed(samples=WAVE, seed=0, **change):
    return apply_change(samples, RATE, AudioChange(**change), np.random.default_rng(seed))


def draws(settings, count=400):
    return [draw_change(settings, rng_for(1, epoch, "a")) for epoch in range(count)]


def loudest_hertz(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * RATE / len(samples)


def test_audio_augmentation():
    """Each of the three is applied, and nothing else of the sound changes: length and type."""
    seen = set()
    for epoch in range(12):
        rng = rng_for(0, epoch, "segment")
        change = draw_change(AudioAugment(), rng_for(0, epoch, "segment"))
        found = augment(WAVE, RATE, AudioAugment(), rng)
        assert found.shape == WAVE.shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        is_changed = change != AudioChange()
        assert (found.tobytes() != WAVE.tobytes()) == is_changed
        seen |= {
            name
            for name in ("speed", "semitones", "snr_db")
            if getattr(change, name) != getattr(AudioChange(), name)
        }
    assert seen == {"speed", "semitones", "snr_db"}


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_time_stretch_is_librosas(speed):
    expected = librosa.effects.time_stretch(WAVE, rate=speed)
    found = changed(speed=speed)
    kept = min(len(expected), len(WAVE))
    assert found[:kept].tobytes() == expected[:kept].tobytes()
    assert not found[kept:].any()


@pytest.mark.parametrize("semitones", [-2.0, 1.5])
def test_pitch_shift_is_librosas(semitones):
    expected = librosa.effects.pitch_shift(WAVE, sr=RATE, n_steps=semitones)
    assert changed(semitones=semitones).tobytes() == expected.tobytes()


def test_both_at_once_do_both():
    steady = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    found = changed(steady, speed=1.25, semitones=3.0)
    sounding = found[: round(2 * RATE / 1.25)]
    assert loudest_hertz(sounding) == pytest.approx(440 * 2**0.25, rel=0.01)
    assert not found[len(sounding) + 10 :].any()
    assert np.abs(sounding[-2_000:-500]).max() > 0.5


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_ratio_drawn(snr_db):
    noise = changed(snr_db=snr_db) - WAVE
    found = 10 * np.log10(np.mean(WAVE**2) / np.mean(noise**2))
    assert found == pytest.approx(snr_db, abs=0.2)


def test_padding_stays_silent_and_counts_for_nothing():
    padded = np.pad(WAVE, (0, RATE))
    found = changed(padded, snr_db=10.0)
    assert found[: len(WAVE)].tobytes() == changed(WAVE, snr_db=10.0).tobytes()
    assert not found[len(WAVE) :].any()
    slower = changed(padded, speed=0.9)
    expected = librosa.effects.time_stretch(WAVE, rate=0.9)
    assert slower[: len(expected)].tobytes() == expected.tobytes()
    assert not slower[len(expected) :].any()


def test_silence_and_the_shortest_sounds():
    silence = np.zeros(RATE, np.float32)
    assert not changed(silence, speed=1.1, semitones=2.0, snr_db=0.0).any()
    assert changed(silence[:0], speed=1.1, snr_db=0.0).shape == (0,)
    short = WAVE[: VOCODER_WINDOW - 1]
    assert changed(short, speed=1.1, semitones=2.0).tobytes() == short.tobytes()


def test_the_sound_given_is_not_written_to():
    before = WAVE.copy()
    changed(speed=0.9, semitones=1.0, snr_db=3.0)
    assert WAVE.tobytes() == before.tobytes()


def test_changes_stay_within_the_settings():
    found = draws(AudioAugment(0.2, 3.0, (10.0, 20.0), probability=1.0))
    speeds = np.array([change.speed for change in found])
    assert 1 / 1.2 <= speeds.min() < 0.9
    assert 1.1 < speeds.max() <= 1.2
    assert abs(np.log(speeds).mean()) < 0.02  # neither direction is preferred
    assert max(abs(change.semitones) for change in found) <= 3
    assert all(10 <= change.snr_db <= 20 for change in found)


def test_whole_semitones_are_drawn_alike_and_leave_the_others():
    settings = AudioAugment(0.2, 2.9, (10.0, 20.0), probability=1.0)
    found = [draw_change(settings, rng_for(1, n, "a"), whole_semitones=True) for n in range(400)]
    shifts, counts = np.unique([change.semitones for change in found], return_counts=True)
    assert shifts.tolist() == [-2, -1, 0, 1, 2]
    assert (counts > 50).all()
    others = [replace(change, semitones=0.0) for change in draws(settings)]
    assert [replace(change, semitones=0.0) for change in found] == others
    little = replace(settings, pitch_shift=0.9)
    assert draw_change(little, rng_for(1, 0, "a"), whole_semitones=True).semitones == 0


def test_probability_is_of_each_change():
    found = draws(AudioAugment(probability=0.25))
    for share in (
        np.mean([change.speed != 1 for change in found]),
        np.mean([change.semitones != 0 for change in found]),
        np.mean([change.snr_db is not None for change in found]),
    ):
        assert 0.17 < share < 0.33
    assert set(draws(AudioAugment(probability=0.0), 50)) == {AudioChange()}


def test_switching_one_change_off_leaves_the_others():
    for epoch in range(20):
        both, one = (
            draw_change(settings, rng_for(0, epoch, "a"))
            for settings in (ALWAYS, replace(ALWAYS, time_stretch=0.0, noise_snr_db=None))
        )
        assert one == AudioChange(semitones=both.semitones)


def test_draws_are_of_seed_epoch_segment_and_purpose_alone():
    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 0, "a", "midi"), (0, 0, "a\0")]
    found = {key: rng_for(*key).random(4).tobytes() for key in keys}
    assert len(set(found.values())) == len(keys)
    assert rng_for(0, 0, "a").random(4).tobytes() == found[0, 0, "a"]
    assert rng_for(11, 1, "a").random() != rng_for(1, 11, "a").random()


def test_draws_are_the_same_in_every_process():
    program = (
        "from clipfarm_assets.encoders.waveforms.augment import rng_for\n"
        "import sys; sys.stdout.write(rng_for(3, 2, 'Ünï').random(4).tobytes().hex())\n"
        "assert not {'librosa', 'torch', 'scipy'} & set(sys.modules)"
    )
    by_other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert by_other.stdout == rng_for(3, 2, "Ünï").random(4).tobytes().hex()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_stretch": -0.1}, "time_stretch must be 0 to 1: found -0.1"),
        ({"pitch_shift": 30.0}, "pitch_shift must be 0 to 24 semitones: found 30.0"),
        ({"noise_snr_db": (20.0, 10.0)}, r"noise_snr_db must be \(low, high\)"),
        ({"noise_snr_db": (0.0, float("nan"))}, r"noise_snr_db must be \(low, high\)"),
        ({"probability": 1.5}, "probability must be 0 to 1: found 1.5"),
    ],
)
def test_settings_that_are_no_augmentation(changes, message):
    with pytest.raises(ValueError, match=message):
        AudioAugment(**changes)
