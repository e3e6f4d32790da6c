import io
import json
import shutil
import threading
import warnings

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2Model

from clipfarm_assets.encoders.audio.decoding import load_audio
from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.config import AudioConfig
from clipfarm_assets.encoders.decoding import InThread
from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets_tests.encoders import media

STEREO = np.stack([media.tone(1.5, 44_100), media.tone(1.5, 44_100, 660) * 0.3], axis=1)
SOUNDS = {
    "plain": media.wav(media.tone(1.2)),
    "stereo 44.1 kHz": media.wav(STEREO, 44_100),
    "float, 8 kHz": media.wav(media.tone(1.0, 8_000), 8_000, "FLOAT"),
    "silent": media.wav(np.zeros(16_000)),
    "longer than the maximum": media.wav(media.tone(4.0, 22_050), 22_050),
}


def by_librosa(raw, seconds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa.load looks for readers in deprecated modules
        import librosa

        return librosa.load(io.BytesIO(raw), sr=16_000, mono=True, duration=seconds)[0]


@pytest.mark.parametrize("sound", SOUNDS)
def test_samples_are_librosas_bit_for_bit(sound):
    wave, _ = load_audio(SOUNDS[sound], 16_000, 3.0)
    assert wave.dtype == np.float32
    assert wave.tobytes() == by_librosa(SOUNDS[sound], 3.0).tobytes()


@pytest.mark.parametrize("sound", SOUNDS)
def test_equals_the_plain_way(opened, encode, stand_ins, sound):
    path = stand_in_dir("audio", stand_ins)
    config = Wav2Vec2Config.from_dict(json.loads((path / "config.json").read_text()))
    model = Wav2Vec2Model(config)
    model.load_state_dict(load_file(path / "model.safetensors"))
    wave = by_librosa(SOUNDS[sound], 3.0)
    values = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    with torch.no_grad():
        hidden = model.eval()(torch.tensor(values)[None]).last_hidden_state[0]
    expected = hidden.mean(0) / hidden.mean(0).norm()

    found = encode(opened("audio", max_audio_seconds=3.0), SOUNDS[sound]).vector

    assert found.dtype == np.float32
    assert found.shape == (768,)
    assert np.abs(found - expected.numpy()).max() <= 1e-5


def test_same_bytes_in_groups_of_any_size(opened, prepare):
    encoder = opened("audio")
    items = [
        prepare(encoder, media.wav(media.tone(0.2 + 0.13 * index, hertz=200 + 90 * index)))
        for index in range(8)
    ]
    alone = [encoder.encode([item])[0].vector.tobytes() for item in items]
    assert len(set(alone)) == 8
    for group in (3, 8):
        vectors = [
            encoded.vector.tobytes()
            for start in range(0, 8, group)
            for encoded in encoder.encode(items[start : start + group])
        ]
        assert vectors == alone


def test_ninety_seconds_are_used_and_the_rest_is_counted(opened, prepare):
    tone = media.tone(91.5, 8_000)
    encoder = opened("audio")
    whole = prepare(encoder, media.wav(tone, 8_000))
    trimmed = prepare(encoder, media.wav(tone[: 90 * 8_000], 8_000))
    assert whole.notes == {"audio_seconds": 90.0, "audio_seconds_cut": 1.5}
    assert trimmed.notes == {"audio_seconds": 90.0, "audio_seconds_cut": 0.0}
    assert whole.values.shape == (90 * 16_000,)
    assert whole.values.tobytes() == trimmed.values.tobytes()


def test_the_shortest_sound_the_model_takes(opened, encode, prepare):
    assert encode(opened("audio"), media.wav(media.tone(400 / 16_000))).vector.shape == (768,)
    for samples in (399, 100, 0):
        with pytest.raises(MediaError, match=f"{samples} samples at 16000 Hz, .* at least 400"):
            prepare(opened("audio"), media.wav(media.tone(1)[:samples]))


def test_unusable_sounds(opened, prepare):
    encoder = opened("audio")
    plain = SOUNDS["plain"]
    with pytest.raises(MediaError, match="0 bytes"):
        prepare(encoder, b"")
    for raw in (b"RIFF", plain[:20], b"not a sound at all", media.video(1)):
        with pytest.raises(MediaError, match=r"cannot decode the audio: \w+: \S+"):
            prepare(encoder, raw)
    with pytest.raises(MediaError, match="not finite"):
        prepare(encoder, media.wav(np.full(800, np.nan), subtype="FLOAT"))
    with pytest.raises(MediaError, match="sample rate is 10 Hz"):
        prepare(encoder, media.wav(media.tone(1), 10))
    with pytest.raises(MediaError, match="gave up decoding the audio"):
        prepare(encoder, plain, seconds=0)


class StartsLate(InThread):
    """Extends an item's deadline by the time that it takes to start, as processes do."""

    def load_audio(self, raw, sample_rate, max_seconds, deadline):
        return super().load_audio(raw, sample_rate, max_seconds, Deadline.after(60))


def test_the_time_that_a_decoder_takes_to_start_is_no_items(opened, prepare):
    encoder = opened("audio").decoding_by(StartsLate())
    assert prepare(encoder, SOUNDS["plain"], seconds=0).values.size


def test_a_broken_installation_is_no_files_fault(monkeypatch):
    def resample(*_, **__):
        msg = "libsoxr.so.0"
        raise ImportError(msg)

    monkeypatch.setattr(soxr, "resample", resample)
    with pytest.raises(ImportError, match="libsoxr"):
        load_audio(SOUNDS["stereo 44.1 kHz"], 16_000, 3.0)


def test_threads_are_those_of_the_thread_that_encodes(opened, prepare):
    """The pipeline loads a model in one thread and runs it in another."""
    encoder, before = opened("audio", threads=2), torch.get_num_threads()
    item = prepare(encoder, SOUNDS["plain"])
    found = []

    def run():
        torch.set_num_threads(1)
        encoder.encode([item])
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert found == [2]


def test_a_file_cut_off_in_the_middle_gives_what_is_there(opened, prepare):
    plain = SOUNDS["plain"]
    notes = prepare(opened("audio"), plain[: len(plain) // 2]).notes
    assert 0.5 < notes["audio_seconds"] < 0.6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=8),
    st.integers(0, 2_000),
)
def test_garbled_files_give_samples_or_a_media_error(changes, length):
    raw = bytearray(SOUNDS["plain"][:length])
    for at, value in changes:
        if at < len(raw):
            raw[at] = value
    try:
        wave, seconds = load_audio(bytes(raw), 16_000, 90.0)
    except MediaError:
        return
    assert wave.ndim == 1
    assert seconds >= 0


def test_another_sample_rate_than_the_models_is_refused(opened):
    with pytest.raises(ValueError, match="trained at 16000 Hz, but sample_rate is 8000"):
        opened("audio", sample_rate=8_000)


def test_only_the_training_parameter_may_be_missing(stand_ins, tmp_path, opened, encode):
    path = tmp_path / "model"
    shutil.copytree(stand_in_dir("audio", stand_ins), path)
    weights = load_file(path / "model.safetensors")

    def open_with(left_out):
        kept = {key: value for key, value in weights.items() if key != left_out}
        assert len(kept) == len(weights) - 1
        save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
        config = AudioConfig(model=str(path))
        return open_encoder("audio", config, profile="demo", cache_dir=path, models_lock=None)

    found = encode(open_with("masked_spec_embed"), SOUNDS["plain"]).vector
    assert found.tobytes() == encode(opened("audio"), SOUNDS["plain"]).vector.tobytes()
    with pytest.raises(ModelUnavailable, match=r"feature_projection\.projection\.bias"):
        open_with("feature_projection.projection.bias")
