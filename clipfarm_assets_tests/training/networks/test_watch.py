"""What is seen of each epoch is kept with the fit, through kills, and changes nothing."""

import pytest
import torch

from clipfarm_assets.fusion.learned.gradients import SHARED, GradientMonitor
from clipfarm_assets.fusion.options import FusionOptions
from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.checkpoint import BadCheckpoint
from clipfarm_assets.training.networks.fit import InMemory, cross_entropy, fit_batches
from clipfarm_assets.training.networks.watch import GradientWatch
from clipfarm_assets_tests.fusion.learned import kit
from clipfarm_assets_tests.training.networks.fit_cases import Kept, Killed, KilledAfter

OPTIONS = FusionOptions(**kit.PLAIN, modality_dropout=0.3)
CONFIG = FitConfig(learning_rate=0.01, max_epochs=4)
GROUPS = (*kit.MODALITIES, SHARED)


def rows(count, seed):
    given = kit.inputs(count, kit.presence(count, seed), seed)
    return given, (given["midi"][:, 0] > 0).long()


def fitted(*, watched=True, checkpoint=None, warnings=None, ratio=10.0, config=CONFIG):
    network = kit.network(OPTIONS, classes=2)
    watch = GradientWatch(
        network, ratio, name="songs", warn=[].append if warnings is None else warnings.append
    )
    curve = fit_batches(
        network,
        InMemory(*rows(64, 1), 32),
        InMemory(*rows(40, 2), 32, shuffle=False, part="val"),
        config,
        7,
        say=[].append,
        name="songs",
        objective=cross_entropy(),
        clip_norm=0.1,
        checkpoint=checkpoint,
        watch=watch if watched else None,
    )
    return curve, {key: value.tolist() for key, value in network.state_dict().items()}


def test_watching_changes_nothing_and_gives_a_number_an_epoch_and_modality():
    curve, weights = fitted()
    plain, same = fitted(watched=False)
    assert weights == same
    assert plain.watched == {}
    assert (curve.train_loss, curve.val_score) == (plain.train_loss, plain.val_score)
    assert curve.to_fields() == plain.to_fields()
    assert tuple(curve.watched) == GROUPS
    assert {len(values) for values in curve.watched.values()} == {4}
    assert all(value > 0 for values in curve.watched.values() for value in values)


def test_an_epoch_is_that_of_its_own_steps_and_is_not_clipped():
    """The first epoch's norms are those that a monitor of that epoch alone sees."""
    curve, _ = fitted()
    network = kit.network(OPTIONS, classes=2)
    with GradientMonitor(network) as monitor:
        fit_batches(
            network,
            InMemory(*rows(64, 1), 32),
            InMemory(*rows(40, 2), 32, shuffle=False, part="val"),
            CONFIG.model_copy(update={"max_epochs": 1}),
            7,
            say=[].append,
            name="songs",
            objective=cross_entropy(),
            clip_norm=0.1,
        )
    found = monitor.report()
    for name in GROUPS:
        assert curve.watched[name][0] == pytest.approx(found.norms[name], rel=1e-12)
    assert curve.watched["text"][0] != curve.watched["text"][1]


@pytest.mark.parametrize("saves", [1, 3])
def test_epochs_before_a_kill_are_there_too(saves):
    whole = fitted()
    killed = KilledAfter(saves)
    with pytest.raises(Killed):
        fitted(checkpoint=killed)
    again = fitted(checkpoint=Kept(killed.data))
    assert again[0].resumed_after == saves
    assert again == whole
    assert tuple(again[0].watched) == GROUPS, "whatever the order in the checkpoint is"


def test_a_checkpoint_of_an_unwatched_fit_is_another_fit_s():
    killed = KilledAfter(2)
    with pytest.raises(Killed):
        fitted(checkpoint=killed, watched=False)
    with pytest.raises(BadCheckpoint, match="watch is null there"):
        fitted(checkpoint=Kept(killed.data))


def test_imbalance_is_said_after_its_epoch():
    warnings = []
    curve, _ = fitted(warnings=warnings, ratio=1.0001)
    assert len(warnings) == 4
    strongest = max(kit.MODALITIES, key=lambda name: curve.watched[name][0])
    assert warnings[0].startswith(f"songs: gradients of {strongest} are ")
    assert "lower the learning rate" in warnings[0]
    quiet = []
    fitted(warnings=quiet, ratio=1e9)
    assert quiet == []


def test_a_modality_without_gradients_is_zero():
    network = kit.network(FusionOptions(**kit.PLAIN))
    watch = GradientWatch(Around(network), 10.0, name="songs", warn=print)
    with watch:
        network(**kit.inputs(8)).sum().backward()
        first = watch.epoch()
        assert all(norm > 0 for norm in first.values())
        assert watch.epoch() == dict.fromkeys(GROUPS, 0.0)
    network.zero_grad(set_to_none=True)
    network(**kit.inputs(8)).sum().backward()
    assert watch.epoch() == dict.fromkeys(GROUPS, 0.0), "nobody watches any more"


class Around(torch.nn.Module):
    """A module around the network."""

    def __init__(self, network):
        super().__init__()
        self.network = network
