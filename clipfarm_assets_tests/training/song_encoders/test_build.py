"""From settings to a network: every choice is instantiated, and all go together."""

import pytest
import torch

from clipfarm_assets.fusion.learned.gradients import trained_parameters
from clipfarm_assets.fusion.learned.strategies import CrossAttention, Early, Gated, Late
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.training.networks.batches import tensors_hash
from clipfarm_assets.training.song_encoders.audio import ClapEncoder, MelCnn, Wav2Vec2Encoder
from clipfarm_assets.training.song_encoders.build import (
    PrecomputedEncoder,
    build_encoders,
    build_network,
)
from clipfarm_assets.training.song_encoders.midi import EventTransformer, PianoRollCnn
from clipfarm_assets.training.song_encoders.text import DebertaEncoder
from clipfarm_assets_tests.training.song_encoders import kit

ROWS = 6
EVENTS = {"type": "music_transformer", "heads": 2, "layers": 1, "max_events": kit.MAX_EVENTS}


def inputs_of(config, rows=ROWS, seed=0):
    """Something finite for each input that the configuration's encoders have."""
    random = torch.Generator().manual_seed(seed)
    midi = config.preprocessing.midi
    low, high = midi.pitches
    audio = config.preprocessing.audio
    shapes = {
        "text.values": (getattr(config.model.text_encoder, "dim", 0),),
        "audio.mel": (audio.mel.n_mels, audio.mel_settings.frames(audio.waveform_settings.samples)),
        "audio.samples": (audio.waveform_settings.samples,),
        "midi.roll": (3, high - low, 16),
    }
    found = {}
    for name in (name for names in config.inputs().values() for name in names):
        if name in shapes:
            found[name] = torch.randn(rows, *shapes[name], generator=random)
        elif name.endswith("mask"):
            lengths = torch.randint(3, kit.MAX_EVENTS + 1, (rows, 1), generator=random)
            found[name] = torch.arange(kit.MAX_EVENTS) < lengths
        else:
            found[name] = torch.randint(0, 30, (rows, kit.MAX_EVENTS), generator=random)
    return found


@pytest.mark.parametrize(
    ("kind", "expected"), [("wav2vec2", Wav2Vec2Encoder), ("clap", ClapEncoder), ("cnn", MelCnn)]
)
def test_audio_encoder_selection(kind, expected, wav2vec2_dir, clap_dir):
    audio = {"type": kind} | ({"window_seconds": 1} if kind == "clap" else {})
    folder = {"wav2vec2": wav2vec2_dir, "clap": clap_dir}.get(kind)
    encoders = build_encoders(kit.small_config(audio=audio), {"audio": folder} if folder else {})
    assert type(encoders["audio"]) is expected


@pytest.mark.parametrize(
    ("kind", "expected", "bars"),
    [
        ("piano_roll", PianoRollCnn, None),
        ("event_based", EventTransformer, False),
        ("music_transformer", EventTransformer, True),
    ],
)
def test_midi_encoder_selection(kind, expected, bars):
    settings = {"type": kind} if bars is None else {"type": kind, "heads": 2, "layers": 1}
    encoder = build_encoders(kit.small_config(midi=settings))["midi"]
    assert type(encoder) is expected
    assert bars is None or (encoder.bar_positions is not None) == bars


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("late", Late), ("early", Early), ("cross_attention", CrossAttention), ("gated", Gated)],
)
def test_fusion_strategy_selection(strategy, expected):
    network = build_network(kit.small_config(), 3, strategy=strategy)
    assert type(network.strategy) is expected
    assert type(build_network(kit.small_config(), 3).strategy) is Late, "the default"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hidden_dimension_compatibility(strategy, deberta_dir, wav2vec2_dir):
    """Encoders of 32, 32 and 16, and of 12, 16 and 16 numbers, all come to 16."""
    wide = kit.small_config(
        text={"type": "deberta", "max_tokens": kit.MAX_EVENTS},
        audio={"type": "wav2vec2", "tokens": 4},
        midi=EVENTS,
    )
    for config, widths in ((wide, [32, 32, 16]), (kit.small_config(), [12, 16, 16])):
        given = {"text": deberta_dir, "audio": wav2vec2_dir}
        network = build_network(config, 3, given, strategy=strategy).eval()
        assert [each.dim for each in network.encoders.values()] == widths
        present = torch.ones(3, 3, dtype=torch.bool)
        with torch.inference_mode():
            output = network.outputs(present, **inputs_of(config, rows=3))
        assert output.logits.shape == (3, 3)
        assert output.unimodal.shape == (3, 3, 3)
        assert {each.weight.shape[1] for each in network.unimodal.values()} == {16}


def test_the_seed_decides_all_weights_and_strategies_begin_with_the_same_encoders():
    def drawn(config, strategy):
        network = build_network(config, 3, strategy=strategy)
        return tensors_hash(network.state_dict()), tensors_hash(network.encoders.state_dict())

    torch.manual_seed(1)
    config = kit.small_config(midi=EVENTS)
    first = drawn(config, "late")
    torch.manual_seed(2)
    assert drawn(config, "late") == first
    assert drawn(config, "gated")[1] == first[1]
    training = config.training.model_copy(update={"seed": 7})
    assert drawn(config.model_copy(update={"training": training}), "late")[1] != first[1]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_absent_inputs_filled_with_nan_change_no_bit(strategy):
    config = kit.small_config(midi=EVENTS)
    network = build_network(config, 3, strategy=strategy).eval()
    inputs = inputs_of(config)
    present = torch.tensor([[m != n for n in range(3)] for m in range(3)] * 2)
    present[3] = False
    spoiled = {}
    for name, values in inputs.items():
        row_is_there = present[:, network.modalities.index(name.partition(".")[0])]
        shape = [-1] + [1] * (values.ndim - 1)
        junk = torch.nan if values.is_floating_point() else values.flip(0)
        spoiled[name] = torch.where(row_is_there.reshape(shape), values, junk)
    with torch.inference_mode():
        clean, dirty = network(present, **inputs), network(present, **spoiled)
    assert torch.equal(clean, dirty)
    assert clean.isfinite().all()


def test_all_that_is_trained_belongs_to_a_modality_or_is_shared_and_gets_gradients(deberta_dir):
    config = kit.small_config(
        text={"type": "deberta", "max_tokens": kit.MAX_EVENTS, "top_layers": 1}, midi=EVENTS
    )
    network = build_network(config, 3, {"text": deberta_dir}).train()
    groups = trained_parameters(network)
    present = torch.ones(ROWS, 3, dtype=torch.bool)
    present[0] = torch.tensor([False, False, True])
    output = network.outputs(present, **inputs_of(config))
    (output.logits.square().sum() + output.unimodal.square().sum()).backward()
    for name in network.modalities:
        norms = [each.grad.norm() for each in groups[name] if each.grad is not None]
        assert sum(norms) > 0, name
    frozen = [each for each in network.encoders["text"].parameters() if not each.requires_grad]
    assert frozen
    assert all(each.grad is None for each in frozen)


def test_precomputed_audio_needs_no_model():
    audio = {"type": "wav2vec2", "precomputed": True, "stored_dim": 24}
    encoders = build_encoders(kit.small_config(audio=audio))
    assert type(encoders["audio"]) is PrecomputedEncoder
    assert encoders["audio"].dim == 24


def test_a_pretrained_encoder_without_a_directory_is_refused(wav2vec2_dir):
    config = kit.small_config(text={"type": "deberta"})
    with pytest.raises(ValueError, match=r"text encoder 'deberta' needs.*found \['audio'\]"):
        build_encoders(config, {"audio": wav2vec2_dir})


def test_a_network_of_one_modality_has_its_encoder_alone(deberta_dir):
    config = kit.small_config(text={"type": "deberta"})
    network = build_network(config, 2, {"text": deberta_dir}, modalities=("text",))
    assert network.modalities == ("text",)
    assert type(network.encoders["text"]) is DebertaEncoder
