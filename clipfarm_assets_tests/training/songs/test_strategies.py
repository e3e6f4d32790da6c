"""The four ways of fusing text, audio and MIDI, attention between them, and doing without one."""

import numpy as np
import pytest
import torch

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.learned.attention import Attention
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.training.classification.subsets import presence
from clipfarm_assets.training.networks.evaluation import evaluate
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.song_encoders.build import embedding
from clipfarm_assets.training.songs.fit import fit_network
from clipfarm_assets_tests.training.songs import kit

ROWS = 24
ALL = torch.ones(ROWS, 3, dtype=torch.bool)
HEADS, WIDTH = 2, 8


def said(strategy, given=None, settings=None):
    network = kit.network(settings, strategy=strategy).eval()
    given = given or kit.rows(ROWS, present=ALL)[0]
    with torch.inference_mode():
        return network, given, network.outputs(**given)


def test_late_fusion_concatenation():
    """Each modality's own embedding, side by side, before the layers that all share."""
    network, given, output = said("late")
    own = []
    with torch.inference_mode():
        for modality in MODALITIES:
            inputs = {k.partition(".")[2]: v for k, v in given.items() if k.startswith(modality)}
            own.append(embedding(network, modality, **inputs))
        assert torch.allclose(output.fused.vector, torch.cat(own, dim=1), atol=1e-6)
        assert torch.allclose(network.head(torch.cat(own, dim=1)), output.logits, atol=1e-6)
    assert output.fused.vector.shape == (ROWS, 3 * WIDTH)


def test_early_fusion():
    """One sequence of all modalities' tokens goes through one shared encoder."""
    _, _, output = said("early")
    lengths = {name.partition("->")[2]: each.shape[3] for name, each in output.fused.maps.items()}
    assert lengths == {"text": 1, "audio": 2, "midi": 2}
    attention = torch.cat(list(output.fused.maps.values()), dim=3).sum(dim=3)
    assert bool((attention < 1).all()), "the rest is paid to the token that reads all of them"
    assert output.fused.vector.shape == (ROWS, WIDTH)


def test_cross_modal_attention_fusion():
    """Each modality attends to the others, and to itself not."""
    _, _, output = said("cross_attention")
    pairs = {(a, b) for a in MODALITIES for b in MODALITIES if a != b}
    assert {tuple(name.split("->")) for name in output.fused.maps} == pairs


def test_gated_fusion():
    """Weights from learned gates: a share for each modality that is there, nothing for others."""
    given, _ = kit.rows(ROWS)
    network, _, output = said("gated", given)
    weights, present = output.fused.weights, given["present"]
    assert torch.allclose(weights.sum(dim=1), torch.ones(ROWS))
    assert bool((weights[~present] == 0).all())
    assert bool((weights[present] > 0).all())
    assert len({tuple(row.tolist()) for row in weights[present.all(dim=1)]}) > 1
    gates = [name for name, _ in network.named_parameters() if ".gate." in name]
    assert gates


def attended(query, key, change):
    """The map of a pair, before and after one modality's input was changed."""
    _, given, before = said("cross_attention")
    _, _, after = said("cross_attention", {**given, **change(given)})
    name = f"{query}->{key}"
    return before.fused.maps[name], after.fused.maps[name]


def louder(given):
    mel = given["audio.mel"].clone()
    mel[:, :, : kit.FRAMES // 2] += 30
    return {"audio.mel": mel}


def test_text_queries_audio_context():
    """Each text token weighs the audio's regions; where another region changes, so do weights."""
    before, after = attended("text", "audio", louder)
    assert before.shape == (ROWS, HEADS, 1, 2)
    assert bool((before > 0).all())
    assert not torch.allclose(before, after)


def test_audio_queries_midi_context():
    def other(given):
        roll = given["midi.roll"].clone()
        roll[:, :, :, kit.FRAMES // 2 :] = 1 - roll[:, :, :, kit.FRAMES // 2 :]
        return {"midi.roll": roll}

    before, after = attended("audio", "midi", other)
    assert before.shape == (ROWS, HEADS, 2, 2)
    assert not torch.allclose(before, after)


def test_what_a_text_token_pays_adds_up_over_the_others():
    _, _, output = said("cross_attention")
    maps = output.fused.maps
    paid = maps["text->audio"].sum(dim=3) + maps["text->midi"].sum(dim=3)
    assert torch.allclose(paid, torch.ones_like(paid))


def test_multi_head_attention():
    """Heads look at different things."""
    _, _, output = said("cross_attention")
    for name, each in output.fused.maps.items():
        assert each.shape[1] == HEADS, name
    first, second = output.fused.maps["audio->midi"].unbind(dim=1)
    assert not torch.allclose(first, second, atol=1e-4)


def test_attention_dropout():
    """Shares of attention are left out in training alone."""
    settings = kit.config()
    fusion = settings.model.fusion.model_copy(update={"attention_dropout": 0.5})
    settings = settings.model_copy(
        update={"model": settings.model.model_copy(update={"fusion": fusion})}
    )
    network = kit.network(settings, strategy="cross_attention")
    layers = [each for each in network.modules() if isinstance(each, Attention)]
    assert layers
    assert {layer.dropout.p for layer in layers} == {0.5}
    network.modality_dropout = 0.0
    given, _ = kit.rows(ROWS, present=ALL)
    with torch.no_grad():
        with reproducible(1):
            first, second = network(**given), network(**given)
        assert not torch.equal(first, second)
        network.eval()
        assert torch.equal(network(**given), network(**given))


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_random_modality_dropout(probability):
    """In training each modality of each row is taken for absent with the probability."""
    network = kit.network(kit.config(modality_dropout=probability))
    count = 4000
    given = {
        "present": torch.ones(count, 3, dtype=torch.bool),
        "text.values": torch.zeros(count, kit.TEXT_DIM),
        "audio.mel": torch.zeros(count, kit.MELS, 2),
        "midi.roll": torch.zeros(count, 3, kit.PITCHES, 2),
    }
    with torch.no_grad(), reproducible(2):
        present = network.outputs(**given).present
    assert bool(present.any(dim=1).all()), "never a row's last one"
    # The last of three stays although its coin fell: a third of p^3 each.
    expected = probability - probability**3 / 3
    lost = 1 - present.double().mean(dim=0)
    assert lost.numpy() == pytest.approx(np.full(3, expected), abs=0.03 if probability else 0)


def accuracy(network, given, label, shown):
    seen = given["present"] & torch.from_numpy(presence(MODALITIES, shown))
    logits = evaluate(network, {**given, "present": seen})
    return float((logits.argmax(dim=1) == label).double().mean())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_graceful_degradation(strategy):
    """Without any one modality it is still far better than chance, a third, at three classes."""
    settings = kit.config(fit={"max_epochs": 8, "patience": 8})
    network = kit.network(settings, strategy=strategy)
    fit_network(
        network,
        kit.batches(192, 1, shuffle=True, part="train"),
        kit.batches(64, 2),
        [100, 100, 100],
        settings.training,
        settings.encoder_rates(),
        name=strategy,
        checkpoint=None,
        say=[].append,
        warn=[].append,
    )
    test = kit.rows(200, 3, torch.ones(200, 3, dtype=torch.bool))
    whole = accuracy(network, *test, MODALITIES)
    assert whole > 0.75
    for removed in MODALITIES:
        rest = tuple(name for name in MODALITIES if name != removed)
        assert accuracy(network, *test, rest) > max(0.5, whole - 0.35), removed
