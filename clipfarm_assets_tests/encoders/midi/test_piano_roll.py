import io

import numpy as np
import pretty_midi
import pytest

from clipfarm_assets.encoders.midi.piano_roll import CHANNELS, piano_roll
from clipfarm_assets.encoders.midi.score import read_score
from clipfarm_assets_tests.encoders.midi import files
from clipfarm_assets_tests.encoders.midi.files import midi, notes, simple, track

ONSET, FRAME, VELOCITY = range(3)


def roll(data, seconds=4.0, rate=10.0, **kwargs):
    return piano_roll(read_score(data), seconds=seconds, frames_per_second=rate, **kwargs)


@pytest.mark.parametrize("rate", [10, 16, 43, 100])
def test_piano_roll_conversion(rate):
    """Pitch by time with velocities: pretty_midi's, where that adds up no notes of one pitch."""
    # 1,024 ticks a second: every moment is exact in binary, so that both round alike.
    options = {"division": 512, "tracks": 1, "shortest": 0.25}
    data = files.random_song(rate, tempos=False, drums=False, **options).data
    expected = pretty_midi.PrettyMIDI(io.BytesIO(data)).get_piano_roll(fs=rate)
    found = roll(data, seconds=expected.shape[1] / rate, rate=rate)
    assert found.shape == (len(CHANNELS), *expected.shape)
    assert found.dtype == np.float32
    assert expected.any()
    np.testing.assert_array_equal(found[VELOCITY], (expected / 127).astype(np.float32))
    np.testing.assert_array_equal(found[FRAME], expected > 0)


def test_frames_of_several_tracks_are_pretty_midi_s():
    data = files.random_song(8, division=512, tempos=False).data
    expected = pretty_midi.PrettyMIDI(io.BytesIO(data)).get_piano_roll(fs=20)
    found = roll(data, seconds=expected.shape[1] / 20, rate=20)
    np.testing.assert_array_equal(found[FRAME], expected > 0)


def test_polyphony_handling():
    """Of notes at once none is lost: other pitches have rows of their own, equal ones an onset."""
    found = roll(simple((0, 960, 60, 50), (0, 480, 64, 60), (480, 960, 60, 127), (0, 960, 67, 70)))
    assert found[ONSET].sum() == 4
    assert np.argwhere(found[ONSET]).tolist() == [[60, 0], [60, 5], [64, 0], [67, 0]]
    np.testing.assert_array_equal(found[FRAME].sum(axis=1)[[60, 64, 67]], [10, 5, 10])
    loud, quiet = np.float32(1), np.float32(50 / 127)
    np.testing.assert_array_equal(found[VELOCITY][60, :10], [quiet] * 5 + [loud] * 5)


def test_notes_that_touch_are_told_apart_by_their_onsets():
    once = roll(simple((0, 960, 60)))
    twice = roll(simple((0, 480, 60), (480, 960, 60)))
    np.testing.assert_array_equal(once[FRAME], twice[FRAME])
    assert (once[ONSET].sum(), twice[ONSET].sum()) == (1, 2)


@pytest.mark.parametrize(("long", "short"), [(30, 90), (90, 30)])
def test_of_notes_that_overlap_the_louder_one_is_told_in_any_order(long, short):
    one = track(*notes((0, 960, 60, long)))
    other = track(*notes((192, 480, 60, short), channel=1))
    expected = [long] * 2 + [max(long, short)] * 3 + [long] * 5
    for data in (midi(one, other), midi(other, one)):
        found = roll(data)[VELOCITY][60, :10]
        np.testing.assert_allclose(found * 127, expected, rtol=1e-6)


@pytest.mark.parametrize("most", [1, 7, 64])
def test_however_many_cells_are_drawn_at_once_the_roll_is_the_same(monkeypatch, most):
    """Notes that overlap in slices of their own, too."""
    random = np.random.default_rng(most)
    starts, pitches = random.integers(0, 3000, 60), random.integers(58, 64, 60)
    played = [
        (int(start), int(start + random.integers(1, 1500)), int(pitch), int(velocity))
        for start, pitch, velocity in zip(starts, pitches, random.integers(1, 128, 60), strict=True)
    ]
    tracks = [track(*notes(one, channel=n % 9)) for n, one in enumerate(played)]
    expected = roll(midi(*tracks))
    monkeypatch.setattr("clipfarm_assets.encoders.midi.piano_roll._CELLS_AT_ONCE", most)
    assert expected.any()
    assert roll(midi(*tracks)).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(expected[VELOCITY], one_by_one(played, 4.0, 10.0))


def one_by_one(played, seconds, rate):
    """A note after the other, from quiet to loud; 960 ticks a second."""
    drawn = np.zeros((128, round(seconds * rate)), np.float32)
    for start, end, pitch, velocity in sorted(played, key=lambda note: note[3]):
        first, last = (int(tick / 960 * rate + 1e-6) for tick in (start, end))
        drawn[pitch, first : max(last, first + 1)] = velocity / 127
    return drawn


def test_the_shortest_note_is_seen():
    found = roll(
        midi(
            track((97, files.on(60)), (97, files.off(60)), (98, files.on(61)), (99, files.off(61)))
        )
    )
    assert np.argwhere(found[FRAME]).tolist() == [[60, 1], [61, 1]]


def test_a_note_on_the_boundary_of_a_frame_begins_in_it():
    """0.29 * 100 is 28.999999999999996."""
    data = simple(
        *[(tick, tick + 1000, 60 + n) for n, tick in enumerate((290, 570, 580))], division=500
    )
    assert np.argwhere(roll(data, rate=100)[ONSET]).tolist() == [[60, 29], [61, 57], [62, 58]]


def test_drums_are_left_out_unless_asked_for():
    data = midi(track(*notes((0, 480, 36), channel=9), *notes((0, 480, 60))))
    assert np.argwhere(roll(data)[ONSET]).tolist() == [[60, 0]]
    assert np.argwhere(roll(data, drums=True)[ONSET]).tolist() == [[36, 0], [60, 0]]


def test_a_range_of_pitches():
    data = simple((0, 480, 20), (0, 480, 21), (0, 480, 108), (0, 480, 109))
    found = roll(data, pitches=(21, 109))
    assert found.shape == (3, 88, 40)
    assert np.argwhere(found[ONSET]).tolist() == [[0, 0], [87, 0]]


def test_what_lies_outside_is_not_drawn():
    score = read_score(simple((0, 960, 60), (960, 9600, 61), (9600, 9700, 62))).shifted(-0.5)
    found = piano_roll(score, seconds=1, frames_per_second=10)
    assert np.argwhere(found[ONSET]).tolist() == [[61, 5]]
    assert found[FRAME][60].tolist() == [1] * 5 + [0] * 5
    assert found[FRAME][61].tolist() == [0] * 5 + [1] * 5
    assert not found[:, 62].any()


def test_silence_is_zeros():
    assert not roll(midi(track())).any()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seconds": 0.0}, "found 0 frames"),
        ({"seconds": -1.0}, "found -10 frames"),
        ({"pitches": (60, 60)}, r"\(60, 60\)"),
        ({"pitches": (0, 129)}, r"\(0, 129\)"),
    ],
)
def test_a_roll_without_cells_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        roll(simple((0, 480, 60)), **settings)
