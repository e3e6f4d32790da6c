"""Waveforms and spectrograms to tokens."""

import shutil

import numpy as np
import pytest
import torch
import transformers

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.encoders.waveforms.mel import MelSettings, log_mel
from clipfarm_assets.training.song_encoder_config import ClapAudio, CnnAudio, Wav2Vec2Audio
from clipfarm_assets.training.song_encoders.audio import ClapEncoder, MelCnn, Wav2Vec2Encoder
from clipfarm_assets.training.song_encoders.build import build_network, embedding
from clipfarm_assets_tests.training.song_encoders import kit

CLAP_RATE = 48_000
MEL = MelSettings(n_mels=16, hop=512)


def cnn(dim=10, **settings):
    torch.manual_seed(3)
    return MelCnn(MEL, dim, CnnAudio(channels=(4, 8), **settings)).eval()


@torch.inference_mode()
def test_wav2vec2_encoding(wav2vec2_dir):
    encoder = Wav2Vec2Encoder.load(wav2vec2_dir, Wav2Vec2Audio(tokens=5), 16_000)
    samples = kit.sounds(6, 8000)
    found = encoder(samples=samples)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(wav2vec2_dir)
    plain = transformers.Wav2Vec2Model.from_pretrained(wav2vec2_dir).eval()
    assert found.mask.all()
    assert encoder.dim == 32
    for row, wave in enumerate(samples):
        values = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        states = plain(values).last_hidden_state[0]
        assert len(states) == 24
        expected = torch.stack([part.mean(dim=0) for part in states.split(5)])
        torch.testing.assert_close(found.values[row], expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_clap_encoding(clap_dir):
    """Window by window what its extractor and the model give: 1 s, and the half that is left."""
    encoder = ClapEncoder.load(clap_dir, ClapAudio(window_seconds=1), CLAP_RATE)
    samples = kit.sounds(5, 72_000, CLAP_RATE)
    samples[4, 30_000:] = 0
    found = encoder(samples=samples)
    assert found.values.shape == (5, 2, 16)
    extractor = transformers.ClapFeatureExtractor.from_pretrained(clap_dir)
    plain = transformers.ClapAudioModelWithProjection.from_pretrained(clap_dir).eval()
    for place, part in enumerate((samples[:, :48_000], samples[:, 48_000:])):
        features = extractor(
            list(part.numpy()), sampling_rate=CLAP_RATE, return_tensors="pt"
        ).input_features
        torch.testing.assert_close(encoder.features(part), features.float(), atol=1e-3, rtol=0)
        expected = plain(input_features=features.float()).audio_embeds
        torch.testing.assert_close(found.values[:, place], expected, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_clap_tokens_have_the_direction_of_what_texts_are_compared_with(clap_dir, tmp_path):
    """From a directory of the whole CLAP, as published ones are."""
    audio = transformers.ClapAudioConfig.from_pretrained(clap_dir)
    text = transformers.ClapTextConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    config = transformers.ClapConfig(
        text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=16
    )
    torch.manual_seed(0)
    whole = transformers.ClapModel(config).eval()
    whole.save_pretrained(tmp_path)
    transformers.ClapFeatureExtractor.from_pretrained(clap_dir).save_pretrained(tmp_path)
    encoder = ClapEncoder.load(tmp_path, ClapAudio(window_seconds=1), CLAP_RATE)
    samples = kit.sounds(2, 48_000, CLAP_RATE)
    expected = whole.get_audio_features(input_features=encoder.features(samples)).pooler_output
    found = torch.nn.functional.normalize(encoder.pooled(samples=samples), dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_custom_cnn_encoding():
    """From the spectrogram, or from the waveform that it is made of."""
    encoder = cnn(tokens=4)
    samples = kit.sounds(4, 16_000)
    mel = torch.from_numpy(np.stack([log_mel(wave, MEL) for wave in samples.numpy()]))
    with torch.inference_mode():
        found, same = encoder(mel=mel), encoder(samples=samples)
    assert found.values.shape == (4, 4, 10)
    assert found.mask.all()
    torch.testing.assert_close(found.values, same.values, atol=1e-4, rtol=1e-4)
    encoder.pooled(mel=mel).square().sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in encoder.parameters())


@torch.inference_mode()
def test_a_rows_tokens_do_not_depend_on_its_neighbours_bit_for_bit():
    encoder = cnn()
    samples = kit.sounds(6, 16_000)
    mel = torch.from_numpy(np.stack([log_mel(wave, MEL) for wave in samples.numpy()]))
    others = mel.clone()
    others[1:] = 1e6
    assert torch.equal(encoder(mel=mel).values[0], encoder(mel=others).values[0])


@torch.inference_mode()
def test_pitch_and_time_reach_the_tokens():
    encoder = cnn(tokens=8)
    silence = torch.full((1, 16, 32), -100.0)
    low, high, late = silence.clone(), silence.clone(), silence.clone()
    low[0, 3, :8], high[0, 12, :8], late[0, 3, 24:] = 0, 0, 0
    low, high, late = (encoder(mel=each).values[0] for each in (low, high, late))
    assert not torch.allclose(low[0], high[0], atol=1e-3)
    assert not torch.allclose(low[0], late[0], atol=1e-3)


@pytest.mark.parametrize("kind", ["wav2vec2", "clap", "cnn"])
@torch.inference_mode()
def test_waveform_to_embedding(kind, wav2vec2_dir, clap_dir):
    audio = {"type": kind} | ({"window_seconds": 1} if kind == "clap" else {})
    config = kit.small_config(audio=audio)
    folders = {"audio": {"wav2vec2": wav2vec2_dir, "clap": clap_dir}.get(kind)}
    network = build_network(config, 2, folders).eval()
    samples = kit.sounds(3, config.preprocessing.audio.waveform_settings.samples)
    found = embedding(network, "audio", samples=samples)
    assert found.shape == (3, config.model.hidden_dim)
    assert found.isfinite().all()
    assert len(found.unique(dim=0)) == 3
    encoder = network.encoders["audio"]
    assert encoder.pooled(samples=samples).shape == (3, encoder.dim)


def test_models_and_settings_that_do_not_go_together_are_refused(wav2vec2_dir, clap_dir, tmp_path):
    with pytest.raises(ModelUnavailable, match=r"trained at 16000 Hz.*sample_rate, 8000"):
        Wav2Vec2Encoder.load(wav2vec2_dir, Wav2Vec2Audio(), 8_000)
    with pytest.raises(ModelUnavailable, match="takes 1 s at most: set `window_seconds`, 2"):
        ClapEncoder.load(clap_dir, ClapAudio(window_seconds=2), CLAP_RATE)
    shutil.copy(clap_dir / "config.json", tmp_path)
    with pytest.raises(ModelUnavailable, match="cannot read the preprocessing"):
        ClapEncoder.load(tmp_path, ClapAudio(), CLAP_RATE)
    encoder = Wav2Vec2Encoder.load(wav2vec2_dir, Wav2Vec2Audio(), 16_000)
    with pytest.raises(ValueError, match="300 samples are too few"):
        encoder(samples=kit.sounds(1, 300))


def test_a_fused_clap_is_refused(clap_dir):
    extractor = transformers.ClapFeatureExtractor.from_pretrained(clap_dir)
    model = transformers.ClapAudioModelWithProjection.from_pretrained(clap_dir)
    model.config.enable_fusion = True
    with pytest.raises(ModelUnavailable, match=r"of the unfused kind.*laion/clap-htsat-unfused"):
        ClapEncoder(model, extractor, ClapAudio(window_seconds=1))


def test_spectrograms_of_other_bands_and_both_or_neither_are_refused():
    encoder = cnn()
    with pytest.raises(ValueError, match=r"expected mel \[B, 16, frames\]: found \[1, 20, 8\]"):
        encoder(mel=torch.zeros(1, 20, 8))
    with pytest.raises(ValueError, match="both or neither"):
        encoder()
    with pytest.raises(ValueError, match="both or neither"):
        encoder(mel=torch.zeros(1, 16, 8), samples=torch.zeros(1, 8000))
