"""Media and words show the traits they are made from."""

import io
import wave
from dataclasses import replace

import av
import numpy as np
import pytest

from clipfarm_assets.demo.pictures import Picture, encode_mp4, paint
from clipfarm_assets.demo.planted import BOUND, TOPICS, Traits
from clipfarm_assets.demo.sounds import Sound, play, to_wav
from clipfarm_assets.demo.words import speak, write_words

NEUTRAL = Traits(0, 0, 0, 0, 0, 0, "music")
LEVELS = np.linspace(-BOUND, BOUND, 7)
SMALL = Picture(width=72, height=128, fps=12, frames=18)


def with_levels(name):
    return [replace(NEUTRAL, **{name: float(level)}) for level in LEVELS]


def decoded(traits):
    data = encode_mp4(paint(traits, SMALL, np.random.default_rng(1)), SMALL)
    with av.open(io.BytesIO(data)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_a_faster_clip_changes_more_from_frame_to_frame():
    shown = [decoded(t).astype(float) for t in with_levels("motion")]
    change = [np.abs(np.diff(frames, axis=0)).mean() for frames in shown]
    assert np.corrcoef(change, LEVELS)[0, 1] > 0.9


def test_a_warmer_clip_is_redder():
    shown = [decoded(t).astype(float) for t in with_levels("warmth")]
    redness = [(frames[..., 0] - frames[..., 2]).mean() for frames in shown]
    assert np.all(np.diff(redness) > 0)


def test_the_same_frames_give_the_same_mp4():
    frames = paint(NEUTRAL, SMALL, np.random.default_rng(1))
    assert encode_mp4(frames, SMALL) == encode_mp4(frames, SMALL)


def test_a_higher_pitch_has_a_higher_peak_in_the_spectrum():
    sound = Sound(seconds=1.0)
    peaks = [
        np.abs(np.fft.rfft(play(t, sound, np.random.default_rng(1)))).argmax()
        for t in with_levels("pitch")
    ]
    assert np.all(np.diff(peaks) > 0)


def test_a_higher_tempo_is_struck_more_often():
    rate = 16_000
    strikes = []
    for traits in with_levels("tempo"):
        samples = play(traits, Sound(seconds=4.0), np.random.default_rng(1))
        loudness = np.abs(samples).reshape(-1, rate // 100).max(axis=1)
        strikes.append(int((np.diff(loudness) > 0.15).sum()))
    assert np.all(np.diff(strikes) > 0)
    assert strikes[-1] == pytest.approx(28, abs=2)  # 7 a second


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_keeps_the_samples_to_half_a_step_of_16_bits(channels):
    sound = Sound(sample_rate=8_000, channels=channels, seconds=0.5)
    samples = play(NEUTRAL, sound, np.random.default_rng(1))
    with wave.open(io.BytesIO(to_wav(samples, 8_000))) as file:
        assert (file.getnchannels(), file.getframerate()) == (channels, 8_000)
        read = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(samples.shape)
    np.testing.assert_allclose(read / 32767, samples, atol=0.51 / 32767)


def test_words_tell_the_sentiment_and_the_topic():
    def glad(level):
        traits = replace(NEUTRAL, sentiment=level)
        spoken = speak(traits, np.random.default_rng(1), sentences=60).lower()
        return sum(spoken.count(word) for word in ("wonderful", "amazing", "happy", "lovely"))

    assert glad(-BOUND) == 0 < glad(0) < glad(BOUND)
    vocabularies = [
        set(
            speak(replace(NEUTRAL, topic=t, sentiment=-BOUND), np.random.default_rng(1), 60).split()
        )
        for t in TOPICS
    ]
    for index, own in enumerate(vocabularies):
        others = set().union(*vocabularies[:index], *vocabularies[index + 1 :])
        assert len(own - others) >= 6


def test_words_have_the_quirks_of_real_ones():
    written = [write_words(NEUTRAL, np.random.default_rng(seed)) for seed in range(60)]
    descriptions = {words.description for words in written}
    assert "" in descriptions
    for quirk in ("\n", "\r\n", '""fair use""', "🥰", "आज", "#music"):
        assert any(quirk in text for text in descriptions), quirk
    assert {words.language for words in written} == {"en", "hi", "id", ""}
    assert any("होली" in words.title for words in written)
