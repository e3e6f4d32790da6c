from dataclasses import replace

import miditok
import numpy as np
import pytest
import symusic

from clipfarm_assets.encoders.midi.score import read_score
from clipfarm_assets.encoders.midi.tokens import (
    MidiLikeSettings,
    RemiSettings,
    bar_starts,
    midi_like,
    read_midi_like,
    read_remi,
    remi,
)
from clipfarm_assets.encoders.midi.vocabulary import PAD, nearest_level, velocity_levels
from clipfarm_assets_tests.encoders.midi import files
from clipfarm_assets_tests.encoders.midi.files import midi, notes, simple, track

QUARTERS = MidiLikeSettings(clock="quarters", longest_shift=64)
REMI = RemiSettings()
BOTH = pytest.mark.parametrize(
    ("tokenise", "settings"),
    [(midi_like, MidiLikeSettings()), (midi_like, QUARTERS), (remi, REMI)],
    ids=["seconds", "quarters", "remi"],
)


def oracle(tokenizer, data, *, meters=False):
    """miditok's tokens of a file of one track, whose notes are put into order of pitch before."""
    config = miditok.TokenizerConfig(
        pitch_range=(0, 127),
        drums_pitch_range=(0, 127),
        beat_res={(0, 8): 8},
        num_velocities=32,
        use_programs=False,
        use_time_signatures=meters,
        time_signature_range={4: [2, 3, 4, 5]},
    )
    tokenizer = tokenizer(config)
    score = tokenizer.preprocess_score(symusic.Score.from_midi(data))
    for one in score.tracks:
        one.notes.sort(key=lambda n: (n.time, n.pitch, n.duration, n.velocity))
    (sequence,) = tokenizer.encode(score, no_preprocess_score=True)
    return [token for token in sequence.tokens if not token.startswith("TimeSig")]


def as_miditok(sequence, settings):
    """Ours in miditok's words."""
    names = {"note_on": "NoteOn", "note_off": "NoteOff", "drum_on": "DrumOn", "drum_off": "DrumOff"}
    names |= {"pitch": "Pitch", "drum": "PitchDrum", "position": "Position"}
    times = {"time_shift": "TimeShift", "duration": "Duration"}
    levels = velocity_levels(settings.velocity_bins)
    words = []
    for kind, value in settings.vocabulary().read(sequence.tokens):
        if kind == "bar":
            words.append("Bar_None")
        elif kind == "velocity":
            words.append(f"Velocity_{levels[value]}")
        elif kind in times:
            words.append(f"{times[kind]}_{(value + 1) // 8}.{(value + 1) % 8}.8")
        else:
            words.append(f"{names[kind]}_{value}")
    return words


def song(seed, **kwargs):
    return files.random_song(seed, tracks=1, count=60, **{"drums": False, **kwargs}).data


@pytest.mark.parametrize("drums", [False, True])
@pytest.mark.parametrize(("seed", "grid"), [(0, 60), (1, 60), (2, 1), (3, 1), (4, 1)])
def test_event_tokenization(seed, grid, drums):
    """Each note on, note off and wait is an integer, and which one agrees with miditok."""
    data = song(seed, grid=grid, drums=drums)
    found = midi_like(read_score(data), QUARTERS)
    assert found.tokens.dtype == np.int64
    assert as_miditok(found, QUARTERS) == oracle(miditok.MIDILike, data)


@pytest.mark.parametrize("drums", [False, True])
@pytest.mark.parametrize(("seed", "grid"), [(0, 60), (1, 60), (2, 1), (3, 1), (4, 1)])
def test_remi_is_miditok_s(seed, grid, drums):
    data = song(seed, grid=grid, drums=drums)
    assert as_miditok(remi(read_score(data), REMI), REMI) == oracle(miditok.REMI, data)


@pytest.mark.parametrize("meters", [(3,), (4, 3), (5, 2)])
def test_bars_of_other_meters_are_miditok_s(meters):
    data = song(7, meters=meters, grid=60)
    found = remi(read_score(data), REMI)
    assert as_miditok(found, REMI) == oracle(miditok.REMI, data, meters=True)


def expected_notes(score, start, end, steps):
    """The notes rounded to the grid, one by one."""
    levels = velocity_levels(32).tolist()
    rows = []
    for note in score.notes:
        begin = int(note[start] * steps + 0.5)
        length = max(1, int((note[end] - note[start]) * steps + 0.5))
        velocity = min(levels, key=lambda level: (abs(level - note["velocity"]), -level))
        rows.append((begin, length, int(note["pitch"]), velocity, int(note["is_drum"])))
    return sorted(rows)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_give_the_notes_back(seed):
    """Up to the grid, the levels of velocity, and the longest note."""
    # Notes of one pitch on several tracks would be ended first in, first out.
    score = read_score(song(seed))
    seconds = read_midi_like(midi_like(score).tokens)
    assert sorted(seconds.tolist()) == expected_notes(score, "start", "end", 100)
    quarters = read_midi_like(midi_like(score, QUARTERS).tokens, QUARTERS)
    expected = expected_notes(score, "start_tick", "end_tick", 8 / 480)
    assert sorted(quarters.tolist()) == expected
    starts = bar_starts(score, REMI.steps_per_quarter, REMI.longest_bar)
    assert sorted(read_remi(remi(score).tokens, starts).tolist()) == expected
    short = RemiSettings(longest_note=10)
    cut = sorted((start, min(length, 10), *rest) for start, length, *rest in expected)
    assert sorted(read_remi(remi(score, short).tokens, starts, short).tolist()) == cut


def test_polyphony_handling():
    """Notes at once, also of one pitch and on several tracks, are all there after reading back."""
    chord = [(0, 960, 60, 63), (0, 960, 64, 63), (0, 480, 67, 63), (0, 1920, 60, 127)]
    drum = notes((0, 480, 60, 63), channel=9)
    score = read_score(midi(track(*notes(*chord[:3])), track(*notes(*chord[3:])), track(*drum)))
    expected = [
        (0, 8, 60, 63, 1),
        (0, 16, 60, 63, 0),
        (0, 32, 60, 127, 0),
        (0, 16, 64, 63, 0),
        (0, 8, 67, 63, 0),
    ]
    for found in (
        read_midi_like(midi_like(score, QUARTERS).tokens, QUARTERS),
        read_remi(remi(score).tokens, bar_starts(score, 8, 64)),
    ):
        assert sorted(found.tolist()) == sorted(expected)


@BOTH
def test_the_same_notes_are_the_same_tokens_whatever_their_order(tokenise, settings):
    played = [(0, 480, 60, 64), (0, 960, 64, 64), (3, 483, 67, 64), (480, 960, 60, 90)]
    played += [(0, 960, 60, 64), (0, 480, 64, 30), (0, 480, 67, 99)]
    tracks = [track(*notes(note)) for note in played] + [track(*notes((0, 480, 60), channel=9))]
    one, other = (tokenise(read_score(midi(*t)), settings) for t in (tracks, tracks[::-1]))
    np.testing.assert_array_equal(one.features(), other.features())


@BOTH
def test_tokens_are_of_the_vocabulary(tokenise, settings):
    sequence = tokenise(read_score(files.random_song(9, meters=(5, 3)).data), settings)
    size = settings.vocabulary().size
    assert sequence.tokens.min() > PAD
    assert sequence.tokens.max() < size
    assert (np.diff(sequence.bars) >= 0).all()
    assert sequence.positions.min() >= 0
    assert sequence.positions.max() < settings.longest_bar
    assert sequence.features().shape == (len(sequence), 3)
    assert len(sequence.first(10)) == 10
    np.testing.assert_array_equal(sequence.first(10).features(), sequence.features()[:10])
    assert len(sequence.first(10**6)) == len(sequence)
    first = sequence.first(10)
    assert all(array.base is None for array in (first.tokens, first.bars, first.positions))


def test_vocabularies():
    kinds = MidiLikeSettings().vocabulary()
    assert kinds.size == 1 + 4 * 128 + 32 + 100
    assert kinds.first["note_on"] == 1
    assert RemiSettings().vocabulary().size == 1 + 1 + 64 + 128 + 128 + 32 + 64
    everything = np.arange(kinds.size)
    assert len(set(kinds.read(everything))) == kinds.size - 1, "all but padding, each for itself"


@pytest.mark.parametrize("token", [-1, 645])
def test_tokens_of_another_vocabulary_are_refused(token):
    with pytest.raises(ValueError, match=f"expected tokens of 0 to 644, found {token} to {token}"):
        read_midi_like(np.array([token]))


def test_the_clock_in_seconds_hears_the_tempo_and_the_one_in_quarters_does_not():
    slow, fast = (
        read_score(midi(track((0, files.tempo(us)), *notes((0, 480, 60), (480, 960, 62)))))
        for us in (1_000_000, 250_000)
    )
    np.testing.assert_array_equal(
        midi_like(slow, QUARTERS).tokens, midi_like(fast, QUARTERS).tokens
    )
    np.testing.assert_array_equal(remi(slow).tokens, remi(fast).tokens)
    assert read_midi_like(midi_like(slow).tokens)["start"].tolist() == [0, 100]
    assert read_midi_like(midi_like(fast).tokens)["start"].tolist() == [0, 25]


def test_a_long_wait_is_several_shifts():
    settings = MidiLikeSettings()
    found = midi_like(read_score(simple((2496, 2976, 60, 127))), settings)  # 2.6 s, for 0.5 s
    shifts = [("time_shift", 99)] * 2 + [("time_shift", 59)]
    ends = [("note_on", 60), ("velocity", 31), ("time_shift", 49), ("note_off", 60)]
    assert settings.vocabulary().read(found.tokens) == shifts + ends


def test_bars_and_positions_of_events():
    score = read_score(simple((480, 960, 60), (5760, 6000, 62)))
    events = remi(score)
    kinds = [kind for kind, _ in REMI.vocabulary().read(events.tokens)]
    note = ["position", "pitch", "velocity", "duration"]
    assert kinds == ["bar", *note, *["bar"] * 3, *note]
    assert events.bars.tolist() == [0] * 5 + [1, 2, 3, 3, 3, 3, 3]
    assert events.positions.tolist() == [0, 8, 8, 8, 8] + [0] * 7
    events = midi_like(score, QUARTERS)
    kinds = [kind for kind, _ in QUARTERS.vocabulary().read(events.tokens)]
    note = ["time_shift", "note_on", "velocity", "time_shift", "note_off"]
    assert kinds == [*note, "time_shift", *note]
    assert events.bars.tolist() == [0] * 5 + [3] * 6
    assert events.positions.tolist() == [8, 8, 8, 16, 16, 0, 0, 0, 0, 4, 4]


@BOTH
def test_positions_never_go_back(tokenise, settings):
    """One note ends just after another one begins: on the clock both are at one step."""
    events = tokenise(read_score(simple((0, 31, 60), (29, 100, 62))), settings)
    assert (np.diff(events.positions) >= 0).all()


@BOTH
def test_the_shortest_note_lasts_a_step(tokenise, settings):
    score = read_score(midi(track((1, files.on(60)), (1, files.off(60)))))
    starts = bar_starts(score, 8, 64)
    tokens = tokenise(score, settings).tokens
    read = read_remi(tokens, starts) if tokenise is remi else read_midi_like(tokens, settings)
    assert read[["duration", "pitch"]].tolist() == [(1, 60)]


@BOTH
@pytest.mark.parametrize("shift", [1, 64])
def test_bars_and_parts_finer_than_a_tick(tokenise, settings, shift):
    """A part begins at tick 8.45, in a bar that began at 8.375: its held note is at tick 8."""
    data = midi(track((0, files.meter(1, 64)), *notes((0, 16, 60))), division=2)
    part = read_score(data).cut(8.45 / 4, 3.0)
    if tokenise is midi_like:
        settings = replace(settings, longest_shift=shift)
    events = tokenise(part, settings)
    names = [kind for kind, _ in settings.vocabulary().read(events.tokens)]
    assert names[0] == ("bar" if tokenise is remi else "note_on")
    assert events.positions.min() >= 0


def test_long_bars_are_counted_as_several():
    score = read_score(midi(track((0, files.meter(9, 4)), *notes((480 * 8, 480 * 9, 60)))))
    assert bar_starts(score, 8, 64).tolist() == [0, 64, 72]
    events = remi(score)
    assert events.bars.tolist() == [0, 1, 1, 1, 1, 1]
    assert events.positions.tolist() == [0] * 6
    assert read_remi(events.tokens, bar_starts(score, 8, 64))["start"].tolist() == [64]


def test_of_a_part_bars_count_from_the_one_it_begins_in():
    played = [(480 * n, 480 * n + 240, 60 + n) for n in range(16)]
    part = read_score(simple(*played)).cut(2.5, 5.0)  # from the second beat of the second bar
    events = remi(part)
    pitches = [value for kind, value in REMI.vocabulary().read(events.tokens) if kind == "pitch"]
    assert pitches == [65, 66, 67, 68, 69]
    assert events.bars.tolist() == [0] * 13 + [1] * 9
    assert sorted(set(events.positions.tolist())) == [0, 8, 16, 24]
    for settings in (MidiLikeSettings(), QUARTERS):
        first = settings.vocabulary().read(midi_like(part, settings).tokens)[0]
        assert first == ("note_on", 65), "second 0 is where the part begins"


@BOTH
def test_what_lies_before_second_0_is_cut_off(tokenise, settings):
    score = read_score(simple((0, 960, 60), (0, 4800, 61), (4800, 5000, 62)))
    moved = tokenise(score.shifted(-2.0), settings)
    np.testing.assert_array_equal(
        moved.features(), tokenise(score.cut(2.0, 6.0), settings).features()
    )
    assert {
        v for k, v in settings.vocabulary().read(moved.tokens) if k in ("pitch", "note_on")
    } == {
        61,
        62,
    }


@BOTH
def test_no_notes_are_no_events(tokenise, settings):
    events = tokenise(read_score(midi(track(end=5000))), settings)
    assert events.features().shape == (0, 3)
    assert events.features().dtype == np.int64


def test_notes_without_an_end_are_left_out_when_reading():
    tokens = midi_like(read_score(simple((0, 480, 60), (0, 960, 62))), QUARTERS)
    assert read_midi_like(tokens.tokens[:-1], QUARTERS)["pitch"].tolist() == [60]


def test_velocities_go_to_the_nearest_level_and_the_louder_of_two():
    levels = velocity_levels(32)
    assert levels[[0, 1, -1]].tolist() == [3, 7, 127]
    assert levels[nearest_level(np.array([1, 3, 5, 6, 126, 127], np.int32), levels)].tolist() == [
        3, 3, 7, 7, 127, 127,
    ]  # fmt: skip
