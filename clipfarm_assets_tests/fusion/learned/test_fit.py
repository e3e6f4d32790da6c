"""Fusion networks in the one loop that fits every network."""

import torch

from clipfarm_assets.fusion.learned.auxiliary import AllLogits, auxiliary_loss, fused_alone
from clipfarm_assets.fusion.learned.gradients import GradientMonitor, clip_by_modality
from clipfarm_assets.fusion.options import STRATEGIES, FusionOptions
from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.fit import InMemory, Objective, cross_entropy, fit_batches
from clipfarm_assets_tests.fusion.learned import kit

OPTIONS = [
    FusionOptions(
        strategy=name, dim=8, hidden=(6,), heads=2, dropout=0.2, modality_dropout=0.3,
        auxiliary=True,
    )
    for name in STRATEGIES
]  # fmt: skip
CONFIG = FitConfig(learning_rate=0.01, max_epochs=3)


def rows(count, seed):
    given = kit.inputs(count, kit.presence(count, seed), seed)
    return given, (given["midi"][:, 0] > 0).long()


def fitted(options, *, watched=False):
    network = kit.network(options, classes=2)
    loss = cross_entropy()
    train, val = rows(90, 1), rows(40, 2)
    monitor = GradientMonitor(network)
    if watched:
        monitor.__enter__()
    curve = fit_batches(
        AllLogits(network),
        InMemory(*train, 32),
        InMemory(*val, 32, shuffle=False, part="val"),
        CONFIG,
        7,
        say=[].append,
        name="fusion",
        objective=Objective(auxiliary_loss(loss.loss, 0.3), fused_alone(loss.score), "val_loss"),
        clip_norm=0.5,
        clip=clip_by_modality,
    )
    if watched:
        monitor.__exit__(None, None, None)
    return network, curve, monitor.report()


def test_same_seed_same_bits_watched_or_not():
    for options in OPTIONS:
        torch.manual_seed(int(options.heads))
        network, curve, _ = fitted(options)
        torch.manual_seed(99)  # what is drawn elsewhere does not decide
        other, again, report = fitted(options, watched=True)
        assert curve == again
        state = other.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        assert curve.train_loss[-1] < curve.train_loss[0]
        assert report.steps["shared"] == 3 * 3
        assert set(report.norms) == {*kit.MODALITIES, "shared"}
