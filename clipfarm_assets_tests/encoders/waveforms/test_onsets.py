import numpy as np
import pytest

from clipfarm_assets.encoders.waveforms.onsets import (
    FRAMES_PER_SECOND,
    frames_in,
    midi_onset_envelope,
    onset_envelope,
)
from clipfarm_assets_tests.encoders.waveforms.songs import Notes, sound

ONSETS = np.array([0.5, 1.2, 2.0, 3.1])


@pytest.fixture(scope="module")
def four_notes():
    notes = Notes(ONSETS, np.array([48, 60, 67, 72]), np.full(4, 100))
    return sound(notes, np.random.default_rng(0), 4.0, others_db=None)


def test_the_envelope_rises_where_notes_begin(four_notes):
    envelope = onset_envelope(four_notes, 16_000)
    assert envelope.shape == (frames_in(4.0),)
    assert (envelope >= 0).all()
    for onset in ONSETS:
        at = round(onset * FRAMES_PER_SECOND)
        around = slice(at - 5, at + 6)
        assert abs(int(envelope[around].argmax()) - 5) <= 2
    quiet = np.ones(len(envelope), dtype=bool)
    for onset in ONSETS:
        at = round(onset * FRAMES_PER_SECOND)
        quiet[at - 5 : at + 6] = False
    peaks = [
        envelope[round(onset * FRAMES_PER_SECOND) + np.arange(-2, 3)].max() for onset in ONSETS
    ]
    assert envelope[quiet].max() < min(peaks) / 2


def test_silence_has_no_onsets():
    assert not onset_envelope(np.zeros(16_000, np.float32), 16_000).any()
    assert onset_envelope(np.zeros(0, np.float32), 16_000).shape == (1,)


def test_frames_lie_on_one_grid_at_any_rate():
    for rate in (8_000, 16_000, 22_050, 44_100, 48_000):
        assert len(onset_envelope(np.ones(round(1.237 * rate), np.float32), rate)) == 124


def test_notes_are_bells_where_they_begin():
    envelope = midi_onset_envelope(np.array([0.5, 1.204]), np.array([127, 63.5]), 200)
    assert envelope[50] == pytest.approx(1.0)
    assert envelope.argmax() == 50
    moved = midi_onset_envelope(np.array([0.504]), np.array([127]), 200)
    centre = (moved**2 * np.arange(200)).sum() / (moved**2).sum()
    assert centre == pytest.approx(50.4, abs=1e-3)
    assert envelope[120] == pytest.approx(np.sqrt(0.5 * np.exp(-0.5 * 0.4**2)))


def test_chords_add_up_below_their_sum():
    chord = midi_onset_envelope(np.full(4, 0.5), np.full(4, 127), 100)
    assert chord[50] == pytest.approx(2.0)


def test_notes_out_of_the_frames_are_left_out_and_bells_at_the_ends_are_cut():
    assert not midi_onset_envelope(np.array([-0.1, 1.5, 1e9, -1e9]), np.full(4, 100), 100).any()
    ends = midi_onset_envelope(np.array([0.0, 0.99]), np.full(2, 127), 100)
    assert ends[[0, 99]] == pytest.approx([1, 1])
