"""What notes, words and files of generated songs tell, and to whom they are readable."""

import io
import wave

import mido
import numpy as np
import pytest

from clipfarm_assets.demo.songs import lyrics
from clipfarm_assets.demo.songs.files import midi_file, synthesise, wav_file
from clipfarm_assets.demo.songs.music import CHORDS, DRUMS, MELODY, Note, compose, later

SECONDS = 6.0


def rng(seed=7):
    return np.random.default_rng(seed)


def chords(harmony, rhythm, seed=7):
    return [n for n in compose(harmony, rhythm, SECONDS, rng(seed)) if n.channel == CHORDS]


def test_harmony_is_in_the_chords():
    pitches = [{n.pitch % 12 for n in chords(mood, 0)} for mood in (0, 1, 2, None)]
    assert pitches[0] == {0, 4, 7, 11, 2}
    assert pitches[1] == {0, 3, 7, 10, 2}
    assert pitches[2] == {0, 3, 6, 7, 10, 1}
    assert pitches[3] == {0, 7, 2}


def test_rhythm_is_in_how_often_chords_are_struck():
    struck = [len({n.start for n in chords(0, mood)}) for mood in (None, 1, 0, 2)]
    assert struck == sorted(struck)
    assert len(set(struck)) == 4


def test_the_melody_tells_neither():
    notes = [compose(mood, None, SECONDS, rng()) for mood in (0, 1, 2, None)]
    melodies = [[n for n in each if n.channel == MELODY] for each in notes]
    assert all(melody == melodies[0] for melody in melodies)
    assert {n.pitch % 12 for n in melodies[0]} <= {0, 7}


def test_notes_lie_in_the_segment_and_are_struck_once():
    for seed in range(5):
        notes = compose(0, 2, SECONDS, rng(seed))
        assert all(0 <= n.start < n.end <= SECONDS for n in notes)
        assert notes == sorted(notes, key=lambda n: n.start)


def test_later_notes_leave_the_segment():
    notes = [Note(0.5, 1.0, 60, 80, 0), Note(5.0, 5.5, 62, 80, 0)]
    assert [n.start for n in later(notes, 1.5, SECONDS)] == [2.0]
    assert [n.start for n in later(notes, -0.75, SECONDS)] == [4.25]


def test_a_file_is_read_by_others():
    notes = compose(1, 0, SECONDS, rng())
    file = mido.MidiFile(file=io.BytesIO(midi_file(notes)))
    assert file.ticks_per_beat == 480
    now, starts = 0.0, []
    for message in file:
        now += message.time
        if message.type == "note_on" and message.velocity:
            starts.append((message.note, message.channel, now))
    expected = sorted((n.pitch, n.channel, n.start) for n in notes)
    assert np.array(sorted(starts)) == pytest.approx(np.array(expected), abs=1e-3)
    assert {message.program for message in file if message.type == "program_change"} == {0, 48}


def test_frames_and_hanging_notes_are_written_as_asked():
    notes = compose(1, 0, SECONDS, rng())
    plain, frames = midi_file(notes), midi_file(notes, "smpte")
    assert plain[12:14] == (480).to_bytes(2, "big")
    assert frames[12:14] == bytes((256 - 25, 40))
    ended = [
        sum(m.type == "note_off" for m in mido.MidiFile(file=io.BytesIO(data)).tracks[0])
        for data in (plain, midi_file(notes, hanging=2))
    ]
    assert ended == [len(notes), len(notes) - 2]


def test_sound_begins_where_notes_do():
    notes = [Note(1.0, 1.5, 60, 100, 0), Note(3.0, 3.1, 42, 100, DRUMS)]
    sound = synthesise(notes, 4.0, 8000, rng(), snr_db=40)
    assert sound.dtype == np.float32
    assert len(sound) == 32_000
    assert np.abs(sound).max() == pytest.approx(0.5)
    loud = np.abs(sound) > 0.1
    assert np.flatnonzero(loud)[0] == pytest.approx(8000, abs=100)
    assert not loud[16_000:24_000].any()
    assert loud[24_000:24_400].any()


def test_a_wav_file_holds_the_samples():
    samples = np.array([0, 0.5, -1, 1], np.float32)
    with wave.open(io.BytesIO(wav_file(samples, 11_025))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (11_025, 1, 2)
        found = np.frombuffer(file.readframes(4), "<i2") / 32767
    assert found == pytest.approx(samples, abs=1e-4)


def test_words_tell_the_mood_or_none():
    told = [set(lyrics.lyrics(cue, rng()).split()) for cue in (None, 0, 1, 2)]
    of_moods = [set(words) for words in lyrics._OF_MOODS]
    assert [[len(words & mood) for mood in of_moods] for words in told] == [
        [0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 4],
    ]  # fmt: skip
    assert all(len(words) >= 4 for words in told)


def test_embeddings_know_words_and_nothing_else():
    one, same, other = (
        lyrics.embedding(words) for words in ("river ashes", "ashes river", "golden train")
    )
    assert one.shape == (lyrics.TEXT_DIM,)
    assert one.dtype == np.float32
    assert np.linalg.norm(one) == pytest.approx(1)
    assert one @ same == pytest.approx(1)
    assert abs(one @ other) < 0.2
