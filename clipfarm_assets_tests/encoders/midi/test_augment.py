import numpy as np
import pytest

from clipfarm_assets.encoders.midi.augment import (
    MidiAugment,
    MidiChange,
    apply_change,
    augment,
    draw_change,
)
from clipfarm_assets.encoders.midi.score import read_score
from clipfarm_assets_tests.encoders.midi import files
from clipfarm_assets_tests.encoders.midi.files import midi, notes, simple, track

ALWAYS = MidiAugment(transpose=5, velocity=0.3, quantise=4, probability=1.0)
SONG = read_score(files.random_song(1).data)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_midi_augmentation():
    """Transposition, velocity scaling and time quantisation happen at random, each on its own."""
    settings = MidiAugment(transpose=5, velocity=0.3, quantise=4, probability=0.5)
    changes = [draw_change(SONG, settings, rng(seed)) for seed in range(200)]
    for happened in (
        [change.semitones != 0 for change in changes],
        [change.loudness != 1 for change in changes],
        [change.grid is not None for change in changes],
    ):
        assert 60 < sum(happened) < 130
    assert {bool(c.semitones) + 2 * (c.loudness != 1) + 4 * bool(c.grid) for c in changes} == {
        *range(8)
    }


def test_the_same_numbers_make_the_same_change():
    one, other = (augment(SONG, ALWAYS, rng(3)) for _ in range(2))
    assert one.notes.tobytes() == other.notes.tobytes()
    assert one.notes.tobytes() != augment(SONG, ALWAYS, rng(4)).notes.tobytes()


def test_nothing_is_changed_without_a_chance_or_an_extent():
    for settings in (
        MidiAugment(probability=0.0),
        MidiAugment(transpose=0, velocity=0.0, quantise=None, probability=1.0),
    ):
        assert augment(SONG, settings, rng()).notes.tobytes() == SONG.notes.tobytes()


def test_all_transpositions_are_drawn_alike_and_drums_stay():
    settings = MidiAugment(transpose=2, velocity=0, quantise=None, probability=1.0)
    score = read_score(midi(track(*notes((0, 480, 60))), track(*notes((0, 480, 36), channel=9))))
    pitches = [augment(score, settings, rng(seed)).notes["pitch"].tolist() for seed in range(500)]
    assert {drum for drum, _ in pitches} == {36}
    found, counts = np.unique([tone for _, tone in pitches], return_counts=True)
    assert found.tolist() == [58, 59, 60, 61, 62]
    assert (counts > 70).all()


@pytest.mark.parametrize(
    ("pitch", "expected"), [(125, {122, 123, 124, 125, 126, 127}), (0, {0, 1, 2, 3})]
)
def test_a_shift_that_would_leave_the_pitches_is_never_drawn(pitch, expected):
    settings = MidiAugment(transpose=3, velocity=0, quantise=None, probability=1.0)
    score = read_score(simple((0, 480, pitch), (480, 960, pitch)))
    found = [augment(score, settings, rng(seed)).notes["pitch"].tolist() for seed in range(200)]
    assert {one for one, _ in found} == expected
    assert all(one == other for one, other in found)


def test_a_shift_that_leaves_the_pitches_is_refused():
    with pytest.raises(ValueError, match=r"pitches of 0 to 127 after \+8 semitones"):
        apply_change(read_score(simple((0, 480, 120))), MidiChange(semitones=8))


def test_velocities_are_scaled_together_and_stay_heard():
    score = read_score(
        simple((0, 480, 60, 1), (0, 480, 61, 50), (0, 480, 62, 100), (0, 480, 63, 127))
    )
    assert apply_change(score, MidiChange(loudness=1.2)).notes["velocity"].tolist() == [
        1,
        60,
        120,
        127,
    ]
    assert apply_change(score, MidiChange(loudness=0.1)).notes["velocity"].tolist() == [
        1,
        5,
        10,
        13,
    ]


def test_onsets_are_moved_to_the_grid_and_durations_stay():
    score = read_score(simple((50, 170, 60), (61, 500, 61), (300, 310, 62), (479, 480, 63)))
    found = apply_change(score, MidiChange(grid=4)).notes
    assert found[["pitch", "start_tick", "end_tick"]].tolist() == [
        (60, 0, 120), (61, 120, 559), (62, 360, 370), (63, 480, 481),
    ]  # fmt: skip
    np.testing.assert_allclose(found["start"], found["start_tick"] / 960, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["end"], found["end_tick"] / 960, rtol=0, atol=1e-12)


def test_the_grid_follows_the_tempo():
    changed = apply_change(SONG, MidiChange(grid=2))
    assert len(SONG.tempos) > 3
    assert (changed.notes["start_tick"] % 240 == 0).all()
    np.testing.assert_allclose(
        changed.notes["start"], SONG.seconds_at(changed.notes["start_tick"]), rtol=0, atol=1e-9
    )


def test_notes_stay_in_order():
    score = read_score(simple((70, 200, 62), (100, 200, 61), (130, 200, 60)))
    found = apply_change(score, MidiChange(grid=4)).notes
    assert found[["start_tick", "pitch"]].tolist() == [(120, 60), (120, 61), (120, 62)]


def test_what_is_on_the_grid_already_stays_wherever_a_part_begins():
    song = read_score(files.random_song(6, grid=120).data)
    for start in np.unique(song.notes["start"]):
        part = song.cut(start, start + 1.0)
        found = apply_change(part, MidiChange(grid=4)).notes
        assert found["start_tick"].tolist() == part.notes["start_tick"].tolist()


def test_notes_held_from_before_a_part_stay():
    part = read_score(simple((0, 960, 60), (475, 960, 61))).cut(470 / 960, 2.0)
    found = apply_change(part, MidiChange(grid=4)).notes
    assert found[["start_tick", "pitch"]].tolist() == [(470, 60), (480, 61)]


def test_of_a_part_no_onset_is_moved_before_its_beginning():
    score = read_score(simple((0, 960, 59), (490, 600, 60), (700, 800, 61))).cut(0.505, 2.0)
    found = apply_change(score, MidiChange(grid=1)).notes
    assert found["pitch"].tolist() == [59, 60, 61]
    assert found["held"].tolist() == [True, False, False]
    assert found["start"].min() >= 0
    assert found["start_tick"].tolist() == [485, 485, 485]


def test_the_original_stays_as_it_was():
    before = SONG.notes.tobytes()
    augment(SONG, ALWAYS, rng())
    assert SONG.notes.tobytes() == before


def test_of_no_notes_there_is_nothing_to_change():
    assert len(augment(read_score(midi(track())), ALWAYS, rng()).notes) == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"transpose": -1}, "transpose must be 0 semitones or more: found -1"),
        ({"velocity": 1.0}, "velocity must be 0 to below 1: found 1.0"),
        ({"quantise": 0}, "quantise must be 1 step of a quarter note or more: found 0"),
        ({"probability": 1.5}, "probability must be 0 to 1: found 1.5"),
    ],
)
def test_what_is_no_augmentation_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        MidiAugment(**settings)
