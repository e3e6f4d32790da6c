"""Averaging tokens over time, and what of a pretrained model is trained."""

import pytest
import torch

from clipfarm_assets.fusion.learned.tokens import Tokens, masked_mean
from clipfarm_assets.training.experts.layers import NoLayers
from clipfarm_assets.training.song_encoder_config import ClapAudio, DebertaText, Wav2Vec2Audio
from clipfarm_assets.training.song_encoders.audio import ClapEncoder, Wav2Vec2Encoder
from clipfarm_assets.training.song_encoders.base import PRETRAINED_ROWS, all_real, averaged
from clipfarm_assets.training.song_encoders.text import DebertaEncoder
from clipfarm_assets_tests.training.song_encoders import kit


def random_tokens(rows, length, dim=3):
    random = torch.Generator().manual_seed(5)
    mask = torch.rand(rows, length, generator=random) < 0.6
    mask[0] = False
    return Tokens(torch.randn(rows, length, dim, generator=random), mask)


@pytest.mark.parametrize(("length", "most"), [(7, 7), (7, 9), (8, 4), (7, 4), (7, 3), (9, 1)])
def test_neighbours_are_averaged_as_a_loop_would(length, most):
    tokens = random_tokens(4, length)
    found = averaged(tokens, most)
    size = -(-length // most)
    assert found.mask.shape[1] <= most
    for row in range(4):
        for place in range(found.mask.shape[1]):
            part = slice(place * size, (place + 1) * size)
            real = tokens.mask[row, part]
            assert bool(found.mask[row, place]) == bool(real.any())
            if real.any():
                expected = tokens.values[row, part][real].mean(dim=0)
                torch.testing.assert_close(found.values[row, place], expected)


def test_what_is_masked_has_no_influence_on_an_average_bit_for_bit():
    tokens = random_tokens(4, 10)
    junk = torch.where(tokens.mask.unsqueeze(2), tokens.values, torch.nan)
    clean, dirty = averaged(tokens, 3), averaged(Tokens(junk, tokens.mask), 3)
    assert torch.equal(clean.values, dirty.values)
    assert torch.equal(clean.mask, dirty.mask)


def test_averaging_evenly_keeps_the_mean():
    values = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(1))
    whole = all_real(values)
    torch.testing.assert_close(masked_mean(averaged(whole, 4)), masked_mean(whole))


def learning(encoder):
    return [name for name, each in encoder.named_parameters() if each.requires_grad]


def test_by_default_nothing_of_a_pretrained_model_is_trained_and_no_graph_is_kept(wav2vec2_dir):
    encoder = Wav2Vec2Encoder.load(wav2vec2_dir, Wav2Vec2Audio(), 16_000).train()
    assert encoder.is_frozen
    assert learning(encoder) == []
    assert not encoder(samples=kit.sounds(2, 1600)).values.requires_grad


def test_the_last_layers_are_trained_on_request_and_nothing_below(deberta_dir):
    encoder = DebertaEncoder.load(deberta_dir, DebertaText(top_layers=1))
    names = learning(encoder)
    assert all(name.startswith(("model.encoder.layer.2.", "model.encoder.")) for name in names)
    assert not any("layer.0." in name or "layer.1." in name for name in names)
    assert not any("embeddings.word" in name for name in names)
    ids = torch.tensor([[2, 9, 3]])
    encoder.pooled(input_ids=ids, attention_mask=torch.ones_like(ids)).sum().backward()
    assert encoder.model.encoder.layer[2].output.dense.weight.grad.abs().sum() > 0
    assert encoder.model.encoder.layer[1].output.dense.weight.grad is None


def test_of_clap_the_last_stage_and_its_projection_are_trained_and_no_batch_norm(clap_dir):
    encoder = ClapEncoder.load(clap_dir, ClapAudio(window_seconds=1, top_layers=1), 48_000).train()
    names = learning(encoder)
    assert any(".layers.3." in name for name in names)
    assert any("audio_projection" in name for name in names)
    assert not any(".layers.2." in name or "batch_norm" in name for name in names)
    statistics = encoder.model.audio_model.audio_encoder.batch_norm.running_mean.clone()
    encoder.pooled(samples=kit.sounds(2, 48_000, 48_000)).square().sum().backward()
    after = encoder.model.audio_model.audio_encoder.batch_norm.running_mean
    assert torch.equal(statistics, after)
    parameters = dict(encoder.named_parameters())
    assert all(parameters[name].grad is not None for name in names)


def test_more_layers_than_there_are_is_refused(wav2vec2_dir):
    with pytest.raises(NoLayers, match=r"has 3 layers at model\.encoder\.layers"):
        Wav2Vec2Encoder.load(wav2vec2_dir, Wav2Vec2Audio(top_layers=4), 16_000)


def test_in_training_too_a_rows_tokens_are_what_they_are_alone(wav2vec2_dir):
    """Its dropout, layer drop and masks, which numpy would draw, are off."""
    encoder = Wav2Vec2Encoder.load(wav2vec2_dir, Wav2Vec2Audio(top_layers="all"), 16_000).train()
    samples = kit.sounds(2 * PRETRAINED_ROWS, 1600)
    first, second = encoder(samples=samples), encoder(samples=samples)
    assert torch.equal(first.values, second.values)
    turned = encoder(samples=samples.flip(0)).values.flip(0)
    assert torch.equal(first.values, turned)
    assert first.values.requires_grad
