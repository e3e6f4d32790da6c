"""How networks of songs are fitted: rates, clipping, own heads, what is watched, through kills."""

import pytest
import torch
from torch import nn

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.learned.auxiliary import AllLogits
from clipfarm_assets.fusion.learned.gradients import (
    SHARED,
    clip_by_modality,
    gradient_norms,
    trained_parameters,
)
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.songs import fit as room
from clipfarm_assets.training.songs.fit import fit_network, objective_of, rate_groups
from clipfarm_assets_tests.training.networks.fit_cases import Kept, Killed, KilledAfter
from clipfarm_assets_tests.training.songs import kit

GROUPS = (*MODALITIES, SHARED)


def fitted(settings, network=None, *, checkpoint=None, lines=None, warnings=None, rates=None):
    network = kit.network(settings) if network is None else network
    found = fit_network(
        network,
        kit.batches(96, 1, shuffle=True, part="train"),
        kit.batches(48, 2),
        [32, 32, 32],
        settings.training,
        rates or settings.encoder_rates(),
        name="late",
        checkpoint=checkpoint,
        say=[].append if lines is None else lines.append,
        warn=[].append if warnings is None else warnings.append,
    )
    return found.curve, found.gradients, network


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_per_modality_gradient_norms(strategy):
    """Logged separately for text, audio and MIDI, a number an epoch each."""
    settings = kit.config()
    curve, history, network = fitted(settings, kit.network(settings, strategy=strategy))
    assert tuple(history.norms) == GROUPS
    assert {len(values) for values in history.norms.values()} == {3}
    assert all(value > 0 for values in history.norms.values() for value in values)
    assert history.norms == curve.watched
    assert curve.train_loss[-1] < curve.train_loss[0]
    assert not network.training


@pytest.mark.parametrize("length", [None, 1.0])
def test_gradient_imbalance_detection(length):
    """An encoder whose gradients are much larger than others' is warned of, with advice."""

    class Loud(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder, self.dim = encoder, encoder.dim

        def forward(self, **inputs):
            tokens = self.encoder(**inputs)
            if tokens.values.requires_grad:
                tokens.values.register_hook(lambda gradient: 1000 * gradient)
            return tokens

    settings = kit.config(clip_per_modality=length, fit={"max_epochs": 2, "learning_rate": 1e-5})
    network = kit.network(settings)
    network.encoders["audio"] = Loud(network.encoders["audio"])
    warnings = []
    _, history, _ = fitted(settings, network, warnings=warnings)
    assert list(history.advice) == [1, 2]
    assert all(told.startswith("late: gradients of audio are ") for told in warnings)
    assert "lower the learning rate of audio or raise that of" in warnings[0]
    for told in (*warnings, *history.advice.values()):
        assert told.endswith("or clip each modality on its own") is (length is None)
    quiet = []
    fitted(settings, warnings=quiet)
    assert len(quiet) < 2


def test_gradient_clipping_per_modality():
    """Each encoder's gradients are cut to the length on their own; what is shorter stays."""

    network = AllLogits(kit.network())
    given, label = kit.rows(64)
    with reproducible(1):
        logits = network(**given)
    nn.functional.cross_entropy(logits[:, 0], label).backward()
    before = gradient_norms(network)
    limit = sorted(before[name] for name in MODALITIES)[1] * 0.999
    kept = {
        name: [p.grad.clone() for p in own if p.grad is not None]
        for name, own in trained_parameters(network).items()
    }
    clip_by_modality(network, limit)
    after = gradient_norms(network)
    for name in GROUPS:
        now = [p.grad for p in trained_parameters(network)[name] if p.grad is not None]
        if before[name] <= limit:
            assert all(torch.equal(a, b) for a, b in zip(kept[name], now, strict=True))
        else:
            assert after[name] == pytest.approx(limit, rel=1e-3)
    assert sum(before[name] > limit for name in MODALITIES) == 2


def test_a_fit_clips_each_modality_on_its_own(monkeypatch):
    """Before each step no part is longer than the bound; shorter ones are as they were."""
    limit, steps = 0.05, []

    def seen(network, max_norm):
        before = gradient_norms(network)
        told = clip_by_modality(network, max_norm)
        steps.append((before, gradient_norms(network)))
        return told

    monkeypatch.setattr(room, "clip_by_modality", seen)
    fitted(kit.config(clip_per_modality=limit))
    assert len(steps) == 3 * 3
    for before, after in steps:
        for name in GROUPS:
            expected = min(before[name], limit)
            assert after[name] == pytest.approx(expected, rel=1e-4), name
    for name in GROUPS:
        assert any(before[name] > limit for before, _ in steps), f"{name} was never clipped"
    unclipped = len(steps)
    fitted(kit.config(clip_per_modality=None))
    assert len(steps) == unclipped


def test_encoders_learn_at_their_own_rates():
    settings = kit.config(
        encoder_learning_rates={"audio": 1e-12}, fit={"weight_decay": 0.0, "max_epochs": 1}
    )
    before = kit.network(settings)
    groups = rate_groups(before, settings.encoder_rates())
    assert [(g.module, g.learning_rate) for g in groups] == [
        ("projections.text", 0.01),
        ("missing.text", 0.01),
        ("unimodal.text", 0.01),
        ("encoders.audio", 1e-12),
        ("encoders.midi", 0.01),
    ], "stored text has nothing to train but what comes after"
    _, _, after = fitted(settings)
    moved = {
        name: max(
            float((a - b).detach().abs().max())
            for a, b in zip(
                before.encoders[name].parameters(), after.encoders[name].parameters(), strict=True
            )
        )
        for name in ("audio", "midi")
    }
    assert moved["audio"] < 1e-6 < moved["midi"]


def test_a_rate_of_stored_text_is_that_of_what_learns_of_it():
    settings = kit.config(
        encoder_learning_rates={"text": 1e-12}, fit={"weight_decay": 0.0, "max_epochs": 1}
    )
    before = trained_parameters(kit.network(settings))
    _, _, network = fitted(settings)
    after = trained_parameters(network)
    moved = {
        name: max(
            float((a - b).detach().abs().max())
            for a, b in zip(before[name], after[name], strict=True)
        )
        for name in MODALITIES
    }
    assert moved["text"] < 1e-6 < min(moved["audio"], moved["midi"])


def test_own_heads_are_fitted_along_and_fused_logits_decide():
    settings = kit.config(auxiliary_weight=0.5)
    objective = objective_of(settings.training, [1, 1, 1], has_auxiliary=True)
    assert objective.identity.startswith("cross_entropy(class_weights=none) + 0.5 of each")
    logits = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(1))
    label = torch.arange(8) % 3
    own = [nn.functional.cross_entropy(logits[:, place], label) for place in range(4)]
    expected = own[0] + 0.5 * (own[1] + own[2] + own[3]) / 3
    assert float(objective.loss(logits, label)) == pytest.approx(float(expected), rel=1e-6)
    assert float(objective.score(logits, label)) == pytest.approx(float(own[0]), rel=1e-6)
    with_heads, without = kit.network(settings), kit.network(kit.config(auxiliary_weight=0.0))
    assert set(with_heads.unimodal) == set(MODALITIES)
    assert not without.unimodal
    start = {key: value.clone() for key, value in with_heads.unimodal.state_dict().items()}
    fitted(settings, with_heads)
    assert all(not torch.equal(v, start[k]) for k, v in with_heads.unimodal.state_dict().items())
    curve, _, _ = fitted(kit.config(auxiliary_weight=0.0), without)
    assert set(curve.other_scores) == {"val_accuracy", "val_macro_f1"}


def test_classes_are_weighed_unless_one_has_no_rows():
    balanced = kit.config(class_weights="balanced").training
    objective = objective_of(balanced, [10, 20, 30], has_auxiliary=False)
    assert "class_weights=[2.0, 1.0, 0.6666666666666666]" in objective.identity
    with pytest.raises(ValueError, match="every class needs train rows"):
        objective_of(balanced, [10, 0, 30], has_auxiliary=False)


@pytest.mark.parametrize("saves", [1, 2])
def test_killed_after_an_epoch_it_ends_in_the_same_bits(saves):
    settings = kit.config()
    curve, history, network = fitted(settings)
    killed = KilledAfter(saves)
    with pytest.raises(Killed):
        fitted(settings, checkpoint=killed)
    again, same, other = fitted(settings, checkpoint=Kept(killed.data))
    assert again.resumed_after == saves
    assert (again, same) == (curve, history)
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
