"""Sound and notes of one segment, changed for training, still belong to each other."""

import numpy as np
import pytest

from clipfarm_assets.encoders.midi.tokens import read_midi_like
from clipfarm_assets.encoders.waveforms.heard_offset import heard_offset
from clipfarm_assets.training.networks.reproducible import Stream, generator
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets_tests.pipelines.songs.dataset_kit import DIM, dataset_of, usual
from clipfarm_assets_tests.pipelines.songs.pair_kit import SECONDS, midi_of, song
from clipfarm_assets_tests.pipelines.songs.segment_kit import RATE, media_of, midi

AUDIO = {"enabled": True, "probability": 1.0, "noise_snr_db": None}
# The grid moves single notes by up to half of a step, whatever the sound.
MIDI = {"enabled": True, "probability": 1.0, "quantise": None}


def config(seconds, audio=None, midi=None):
    return song_config(
        {
            "model": {
                "text_encoder": {"type": "precomputed", "dim": DIM},
                "audio_encoder": {"type": "wav2vec2"},
                "midi_encoder": {"type": "event_based", "max_events": 4000},
                "hidden_dim": 16,
            },
            "preprocessing": {
                "audio": {"seconds": seconds, "augment": audio or {}},
                "midi": {"augment": midi or {}},
            },
            "training": {"fit": {"batch_size": 4}},
        }
    )


def epoch(dataset, seed):
    """By number of the segment: its samples, and its notes as `read_midi_like` gives them."""
    found = {}
    batches = dataset.as_batches("train", training=True)
    settings = dataset.config.preprocessing.midi.token_settings("midi_like")
    for inputs, _ in batches.epoch(generator(seed, Stream.SHUFFLE)):
        numbers = inputs["text.values"][:, 0].tolist()
        for place, number in enumerate(numbers):
            tokens = inputs["midi.tokens"][place][inputs["midi.mask"][place]].numpy()
            notes = read_midi_like(tokens, settings)
            found[round(number / 0.1)] = inputs["audio.samples"][place].numpy(), notes
    return found


def hear(samples, notes, start=0.0):
    """The offset of what is after `start`."""
    at = notes["start"] / 100 - start
    later = at >= 0
    return heard_offset(
        samples[round(start * RATE) :], RATE, at[later], notes["velocity"][later] / 127
    )


@pytest.mark.parametrize("stretch", [0.1, 0.25])
def test_changed_notes_stay_in_step_with_changed_sound(counting, stretch):
    """At the beginning and at the end, also where the notes were late and are corrected."""
    late = (0.0, 0.8, 0.0, -0.4)
    songs = [song(n) for n in range(4)]
    media = [
        media_of(n, audio_waveform=samples.tobytes(), midi_binary=midi_of(notes, late[n]))
        for n, (notes, samples) in enumerate(songs)
    ]
    settings = config(SECONDS, {**AUDIO, "time_stretch": stretch, "pitch_shift": 0}, MIDI)
    corrections = {f"s{n}": -by for n, by in enumerate(late)}
    rows = [usual(n) for n in range(4)]
    dataset = dataset_of(counting, rows, media, settings, corrections=corrections)
    plain = {n: item.inputs["audio"]["samples"] for n, item in enumerate(dataset.items("train"))}
    found = epoch(dataset, seed=stretch > 0.1)
    assert sorted(found) == [0, 1, 2, 3]
    for n, (samples, notes) in found.items():
        assert samples.tobytes() != plain[n].tobytes()
        for start in (0.0, SECONDS / 2):
            heard = hear(samples, notes, start)
            assert heard.z > 5, (n, start, heard)
            assert abs(heard.offset_seconds) < 0.05, (n, start, heard)


def test_notes_follow_the_sound_where_midi_is_not_augmented(counting):
    (notes, samples), settings = song(0), config(SECONDS, {**AUDIO, "time_stretch": 0.5})
    media = [media_of(0, audio_waveform=samples.tobytes(), midi_binary=midi_of(notes))]
    dataset = dataset_of(counting, [usual(0)], media, settings)
    changed, told = epoch(dataset, seed=4)[0]  # which makes it faster
    last = np.flatnonzero(changed)[-1] / RATE
    assert told["start"].max() / 100 < last < SECONDS - 0.5
    assert abs(hear(changed, told).offset_seconds) < 0.05


def loudest_hertz(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * RATE / len(samples)


def test_notes_stay_in_the_key_of_the_sound(counting):
    """By whole semitones, as far as the sound goes; alone they go as far as notes may."""
    time = np.arange(RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype("<f4").tobytes()
    media = [media_of(n, audio_waveform=tone, midi_binary=midi((69,), 2.0)) for n in range(12)]
    rows = [usual(n, has_audio=n < 9) for n in range(12)]
    settings = config(1.0, {**AUDIO, "time_stretch": 0, "pitch_shift": 2.5}, MIDI)
    dataset = dataset_of(counting, rows, media, settings)
    shifts, alone = set(), set()
    for seed in range(3):
        for n, (samples, notes) in epoch(dataset, seed).items():
            semitones = int(notes["pitch"][0]) - 69
            (shifts if n < 9 else alone).add(semitones)
            if n < 9:
                expected = 440 * 2 ** (semitones / 12)
                assert loudest_hertz(samples) == pytest.approx(expected, rel=0.01)
    assert shifts == {-2, -1, 0, 1, 2}
    assert max(map(abs, alone)) > 2


def test_notes_that_cannot_follow_go_as_far_as_they_can(counting):
    """No note leaves 0 to 127, none is left out."""
    media = [media_of(n, midi_binary=midi((127, 60), 0.5)) for n in range(8)]
    settings = config(1.0, {**AUDIO, "time_stretch": 0, "pitch_shift": 3})
    dataset = dataset_of(counting, [usual(n) for n in range(8)], media, settings)
    found = [sorted(notes["pitch"].tolist()) for _, notes in epoch(dataset, 0).values()]
    assert {high - low for low, high in found} == {67}
    assert max(high for _, high in found) == 127
    assert min(high for _, high in found) < 127
