import numpy as np
import pytest

from clipfarm_assets.encoders.waveforms.heard_offset import (
    LEAST_ONSETS,
    TRUSTED_Z,
    heard_offset,
    lagged_correlation,
)
from clipfarm_assets_tests.encoders.waveforms.songs import RATE, SECONDS, Notes, play, sound


def hear(samples, notes, rate=RATE, **options):
    return heard_offset(samples, rate, notes.onsets, notes.velocities, **options)


def steady(onsets):
    onsets = onsets[(onsets >= 0) & (onsets < SECONDS)]
    return Notes(onsets, np.full(len(onsets), 60), np.full(len(onsets), 90))


@pytest.fixture(scope="module")
def songs():
    """Twelve songs, notes and sound; half of them at one tempo."""
    made = []
    for seed in range(12):
        rng = np.random.default_rng([7, seed])
        notes = play(rng, bpm=120 if seed % 2 else None)
        made.append((notes, sound(notes, rng)))
    return made


def test_known_offsets_are_heard(songs):
    for (notes, samples), offset in zip(songs, np.linspace(0, 1.5, len(songs)), strict=True):
        heard = hear(samples, notes.later(offset))
        assert heard.is_trusted, heard
        assert heard.reason is None
        assert abs(heard.offset_seconds - offset) < 0.02


def test_known_offsets_are_heard_in_short_sounds():
    for seed, offset in enumerate((0.0, 0.5, 1.0)):
        rng = np.random.default_rng([8, seed])
        notes = play(rng, 6.0)
        heard = hear(sound(notes, rng, 6.0), notes.later(offset))
        assert heard.is_trusted, heard
        assert abs(heard.offset_seconds - offset) < 0.02


def test_notes_that_are_early_have_a_negative_offset(songs):
    notes, samples = songs[0]
    assert abs(hear(samples, notes.later(-0.7)).offset_seconds + 0.7) < 0.02


def test_unrelated_pairs_are_rejected(songs):
    for one in range(len(songs)):
        for other in ((one + 1) % len(songs), (one + 2) % len(songs)):
            heard = hear(songs[one][1], songs[other][0])
            assert not heard.is_trusted, (one, other, heard)
            assert heard.is_compared
            assert "no lag stands out" in heard.reason


def test_the_threshold_lies_between_related_and_unrelated(songs):
    """With room on both sides, so that rounding on another machine does not turn a verdict."""
    related = [hear(samples, notes).z for notes, samples in songs]
    unrelated = [hear(songs[i][1], songs[i - 1][0]).z for i in range(len(songs))]
    assert max(unrelated) + 0.5 < TRUSTED_Z < min(related) - 0.5


def test_the_offset_has_no_bias(songs):
    """Neither by what an envelope adds nor by the frames: offsets fall between frames."""
    offsets = 0.3 + 0.0013 * np.arange(len(songs))
    errors = [
        hear(samples, notes.later(offset)).offset_seconds - offset
        for (notes, samples), offset in zip(songs, offsets, strict=True)
    ]
    assert abs(np.mean(errors)) < 0.003


@pytest.mark.parametrize("rate", [22_050, 44_100])
def test_any_sample_rate(rate):
    rng = np.random.default_rng(3)
    notes = play(rng, 8.0)
    heard = hear(sound(notes, rng, 8.0, rate), notes.later(0.4), rate)
    assert heard.is_trusted
    assert abs(heard.offset_seconds - 0.4) < 0.02


def test_loudness_and_padding_change_nothing(songs):
    notes, samples = songs[0]
    plain = hear(samples, notes)
    assert hear(samples / 1024, notes).offset_seconds == pytest.approx(plain.offset_seconds)
    assert hear(samples / 1024, notes).z == pytest.approx(plain.z)
    assert hear(np.pad(samples, (0, 5 * RATE)), notes) == plain


def test_a_loop_is_not_trusted_at_another_bar():
    """It fits at every bar that is in sight, so that a cut of it tells little."""
    trusted = 0
    for seed in range(8):
        rng = np.random.default_rng([9, seed])
        onsets = np.unique(play(rng, 20.0, bpm=rng.uniform(120, 190), loop=True).onsets)
        start, late = rng.uniform(1, 4), rng.uniform(0, 1.5)
        played, told = (steady(onsets - start + by) for by in (0, late))
        heard = hear(sound(played, rng, others_db=None), told)
        assert heard.is_compared
        assert not heard.is_trusted or abs(heard.offset_seconds - late) < 0.02, heard
        # It is one of those that fit, so that who knows it can be borne out.
        assert min(abs(each - late) for each in heard.alike) < 0.03, heard
        trusted += heard.is_trusted
    assert trusted <= 2


def test_beats_tell_nothing():
    played = steady(np.arange(0, SECONDS, 1 / 3))
    samples = sound(played, np.random.default_rng(5))
    assert not hear(samples, played).is_trusted
    assert "two lags fit alike" in hear(samples, played, z_threshold=0.0).reason


def test_an_offset_beyond_the_lags_is_not_trusted(songs):
    notes, samples = songs[0]
    assert not hear(samples, notes.later(1.2), max_seconds=0.5).is_trusted
    edge = hear(samples, notes.later(0.5), max_seconds=0.5, z_threshold=0.0)
    assert not edge.is_trusted
    assert "the last that was looked at" in edge.reason
    assert hear(samples, notes.later(1.2), max_seconds=1.5).is_trusted


def test_too_little_to_compare(songs):
    notes, samples = songs[0]
    few = notes.onsets < np.unique(notes.onsets.round(1))[LEAST_ONSETS - 2]
    few = Notes(notes.onsets[few], notes.pitches[few], notes.velocities[few])
    nothing = Notes(np.array([]), np.array([]), np.array([]))
    for heard, reason in (
        (hear(samples, few), f"{LEAST_ONSETS} are needed"),
        (hear(samples, nothing), "notes begin at 0 moments"),
        (hear(samples, notes.later(100)), "notes begin at 0 moments"),
        (hear(samples, notes, max_seconds=0.05), "too few lags"),
        (hear(np.zeros(RATE, np.float32), notes), "the sound is silent"),
        (hear(np.zeros(0, np.float32), notes), "the sound is silent"),
    ):
        assert reason in heard.reason
        assert not heard.is_compared
        assert (heard.is_trusted, heard.z, heard.offset_seconds) == (False, 0.0, 0.0)


def test_correlation_is_numpys_at_every_lag():
    rng = np.random.default_rng(0)
    sound_like, notes_like = rng.random((2, 60))
    found = lagged_correlation(sound_like, notes_like, 20)
    for lag in range(-20, 21):
        beginning, end = max(0, -lag), 60 - max(0, lag)
        expected = np.corrcoef(sound_like[beginning:end], notes_like[beginning + lag : end + lag])[
            0, 1
        ]
        assert found[20 + lag] == pytest.approx(expected)


def test_what_does_not_vary_correlates_with_nothing():
    flat, varied = np.ones(30), np.random.default_rng(0).random(30)
    assert not lagged_correlation(flat, varied, 5).any()
    assert not lagged_correlation(varied, flat, 5).any()


def test_notes_must_fit_together():
    with pytest.raises(ValueError, match="a velocity for each note"):
        heard_offset(np.ones(RATE, np.float32), RATE, np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        heard_offset(np.ones(RATE, np.float32), RATE, np.array([np.nan]), np.zeros(1))
