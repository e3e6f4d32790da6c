"""The four ways of fusing text, audio and MIDI, attention between them, and doing without one."""

import numpy as np
import pytest
import torch

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.learned.attention import Attention
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.training.classification.subsets import presence
from clipfarm_assets.training.networks.batches import InMemory
from clipfarm_assets.training.networks.evaluation import evaluate
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.song_config import song_config
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


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_multi_head_attention(heads):
    """A map a head; heads that begin as one and the same learn to look at different things."""
    network = kit.network(settings_of_fusion(heads=heads), strategy="cross_attention")
    layers = [each for each in network.modules() if isinstance(each, Attention)]
    with torch.no_grad():
        for layer in layers:
            for linear in (layer.query, layer.key, layer.value):
                first = WIDTH // heads
                linear.weight.copy_(linear.weight[:first].repeat(heads, 1))
                linear.bias.copy_(linear.bias[:first].repeat(heads))
    given, _ = kit.rows(ROWS, present=ALL)
    network.eval()
    before = maps_of(network, given)
    fit(network, kit.config(fit={"max_epochs": 1}))
    after = maps_of(network, given)
    for name, each in after.items():
        assert each.shape[:2] == before[name].shape[:2] == (ROWS, heads), name
        assert torch.equal(before[name], before[name][:, :1].expand_as(before[name]))
    apart = [(each - each[:, :1]).abs().max() for each in after.values()]
    assert bool(max(apart) > 1e-3) is (heads > 1)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_attention_dropout(share):
    """Shares of attention are left out in training alone, and nothing else is, here."""
    settings = settings_of_fusion(attention_dropout=share)
    settings = settings.model_copy(
        update={"training": settings.training.model_copy(update={"modality_dropout": 0.0})}
    )
    network = kit.network(settings, strategy="cross_attention").train()
    plain = kit.network(settings_of_fusion(attention_dropout=0.0), strategy="cross_attention")
    given, _ = kit.rows(ROWS, present=ALL)
    with torch.no_grad():
        with reproducible(1):
            first, second = network(**given), network(**given)
        assert torch.equal(first, second) is (share == 0)
        with reproducible(1):
            assert torch.equal(network(**given), first)
        network.eval()
        assert torch.equal(network(**given), network(**given))
        assert torch.equal(network(**given), plain.eval()(**given))


def settings_of_fusion(**changes):
    told = kit.config().model_dump()
    told["model"]["fusion"] |= {"attention_dropout": 0.0, **changes}
    return song_config(told)


def maps_of(network, given):
    with torch.inference_mode():
        return network.outputs(**given).fused.maps


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


def fit(network, settings, train=None, val=None):
    fit_network(
        network,
        train or kit.batches(192, 1, shuffle=True, part="train"),
        val or kit.batches(64, 2),
        [100, 100, 100],
        settings.training,
        settings.encoder_rates(),
        name="songs",
        checkpoint=None,
        say=[].append,
        warn=[].append,
    )


def complete(count, seed):
    """Rows that have all, so that nothing but modality dropout shows what absence is like."""
    return kit.rows(count, seed, torch.ones(count, 3, dtype=torch.bool))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_graceful_degradation(strategy):
    """Without any one modality it is far better than chance, a third, and than without dropout."""
    test, lost = complete(200, 3), {}
    for dropout in (0.3, 0.0):
        # One sequence of all tokens takes longer to learn what each of them is.
        epochs = {"max_epochs": 10 if strategy == "early" else 5, "patience": 10}
        settings = kit.config(modality_dropout=dropout, fit=epochs)
        network = kit.network(settings, strategy=strategy)
        batches = InMemory(*complete(160, 1), 32), InMemory(*complete(48, 2), 48, shuffle=False)
        fit(network, settings, *batches)
        whole = accuracy(network, *test, MODALITIES)
        left = [accuracy(network, *test, set(MODALITIES) - {each}) for each in MODALITIES]
        lost[dropout] = whole - min(left)
        if dropout:
            assert whole > 0.75
            assert min(left) > 0.6
    assert lost[0.3] < lost[0.0], lost
