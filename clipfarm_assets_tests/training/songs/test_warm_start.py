"""Each modality is fitted by its own head first, as if alone, and fusion goes on from it."""

import numpy as np
import pytest
import torch

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.learned.gradients import SHARED, trained_parameters
from clipfarm_assets.training.networks.batches import InMemory
from clipfarm_assets.training.networks.checkpoint import SharedCheckpoint
from clipfarm_assets.training.songs.fit import fit_network, objective_of, rate_groups
from clipfarm_assets.training.songs.warm_start import warm_start
from clipfarm_assets_tests.training.networks.fit_cases import Kept, Killed, KilledAfter
from clipfarm_assets_tests.training.songs import kit

TRAIN, VAL = kit.rows(96, 1), kit.rows(48, 2)
WARM = 2


def warmed(settings, network, train=TRAIN, val=VAL, **checkpoints):
    return warm_start(
        network,
        InMemory(*train, 32),
        InMemory(*val, 32, shuffle=False),
        settings.training,
        objective_of(settings.training, [32, 32, 32], has_auxiliary=False),
        rate_groups(network, settings.encoder_rates()),
        name="late",
        checkpoints=checkpoints,
        say=[].append,
    )


def fitted(settings, network=None, train=TRAIN, val=VAL, checkpoint=None, **checkpoints):
    network = network or kit.network(settings)
    found = fit_network(
        network,
        InMemory(*train, 32),
        InMemory(*val, 32, shuffle=False),
        [32, 32, 32],
        settings.training,
        settings.encoder_rates(),
        name="late",
        checkpoint=checkpoint,
        say=[].append,
        warn=[].append,
        warm_checkpoints=checkpoints,
    )
    return found, network


def parts(network):
    """Bytes of each modality's parameters, and of those that all share."""
    return {
        name: [p.detach().numpy().tobytes() for p in own]
        for name, own in trained_parameters(network).items()
    }


def test_encoders_and_own_heads_are_fitted_and_what_fuses_them_stays():
    settings = kit.config(warm_start_epochs=WARM, modality_dropout=0.3)
    network = kit.network(settings, strategy="cross_attention")
    before = parts(network)
    curves = warmed(settings, network)
    after = parts(network)
    assert tuple(curves) == MODALITIES
    for name in MODALITIES:
        assert len(curves[name].train_loss) == WARM
        assert curves[name].train_loss[-1] < curves[name].train_loss[0]
        changed = [a != b for a, b in zip(before[name], after[name], strict=True)]
        assert all(changed), name
    assert after[SHARED] == before[SHARED]
    assert network.modality_dropout == 0.3


def test_no_modality_s_start_depends_on_another():
    """Neither on what it says, nor on how much it would be trained beside it."""
    settings = kit.config(warm_start_epochs=WARM)
    one, other = kit.network(settings), kit.network(settings)
    warmed(settings, one)
    louder = [
        ({**given, "audio.mel": 2 * given["audio.mel"]}, label) for given, label in (TRAIN, VAL)
    ]
    warmed(settings, other, *louder)
    found, expected = parts(other), parts(one)
    assert {name for name in MODALITIES if found[name] != expected[name]} == {"audio"}


def test_each_modality_stops_at_its_own_best_epoch():
    """Of noise the first epoch is as good as any; words are still learnt when that has ended."""
    settings = kit.config(warm_start_epochs=8, fit={"patience": 2})
    noise = torch.Generator().manual_seed(5)
    noisy = [
        ({**given, "audio.mel": 60 * torch.randn(given["audio.mel"].shape, generator=noise)}, label)
        for given, label in (TRAIN, VAL)
    ]
    curves = warmed(settings, kit.network(settings), *noisy)
    assert curves["audio"].stopped_early
    assert len(curves["audio"].train_loss) < len(curves["text"].train_loss)
    for curve in curves.values():
        assert curve.best_epoch == int(np.argmin(curve.val_score))


def test_fusion_goes_on_from_there_and_all_of_it_is_told():
    settings = kit.config(warm_start_epochs=WARM)
    found, _ = fitted(settings)
    assert {len(each.train_loss) for each in found.warm_start.values()} == {WARM}
    assert len(found.curve.train_loss) == 3
    fields = found.to_fields()
    for name in MODALITIES:
        assert fields["warm_start"][name]["train_loss"] == list(found.warm_start[name].train_loss)
        assert len(found.gradients.warm_start[name]) == WARM
        assert all(norm > 0 for norm in found.gradients.warm_start[name])
        scores = found.warm_scores()[name]
        assert scores["val_loss"] == min(found.warm_start[name].val_score)
        assert scores["epochs"] == WARM


def test_fusion_starts_from_where_the_modalities_stand():
    """As if a network that was fitted so before were handed to a fit without a warm start."""
    settings = kit.config(warm_start_epochs=WARM)
    in_one, network = fitted(settings)
    start = kit.network(settings)
    warmed(settings, start)
    by_hand, expected = fitted(kit.config(), start)
    assert by_hand.warm_start == {}
    assert by_hand.to_fields()["warm_start"] == {}
    assert in_one.curve.train_loss == by_hand.curve.train_loss
    assert parts(network) == parts(expected)
    cold, _ = fitted(kit.config())
    assert in_one.curve.train_loss[0] < cold.curve.train_loss[0]


def test_heads_that_only_the_start_fits_are_left_alone_by_fusion():
    settings = kit.config(warm_start_epochs=WARM, auxiliary_weight=0.0)
    start = kit.network(settings)
    warmed(settings, start)
    _, network = fitted(settings)
    state = network.unimodal.state_dict()
    assert all(torch.equal(value, state[k]) for k, value in start.unimodal.state_dict().items())


@pytest.mark.parametrize("killed", ["text", "midi", "fusion"])
def test_killed_in_any_phase_it_ends_in_the_same_bits(killed):
    settings = kit.config(warm_start_epochs=WARM)
    whole, network = fitted(settings)
    stores = {name: Kept() for name in (*MODALITIES, "fusion")} | {killed: KilledAfter(1)}

    def run(**stores):
        checkpoint = stores.pop("fusion")
        return fitted(settings, checkpoint=checkpoint, **stores)

    with pytest.raises(Killed):
        run(**stores)
    again, other = run(**{name: Kept(each.data) for name, each in stores.items()})
    done = {"fusion": 1}
    assert again.resumed_after == done.get(killed, 0)
    assert (again.curve, again.warm_start, again.gradients) == (
        whole.curve, whole.warm_start, whole.gradients,
    )  # fmt: skip
    assert parts(other) == parts(network)
    lost, same = run(**{**{name: Kept() for name in MODALITIES}, "fusion": stores["fusion"]})
    assert parts(same) == parts(network), "a start that was lost is made again, to the same bits"
    assert lost.discarded == 0


def test_strategies_share_one_start():
    """The second one's heads and encoders are those of the first, and no epoch is done again."""
    settings = kit.config(warm_start_epochs=WARM)
    remembered, found = {}, {}
    for strategy in ("late", "gated"):
        stored = {name: Kept() for name in MODALITIES}
        shared = {n: SharedCheckpoint(stored[n], remembered, n) for n in MODALITIES}
        network = kit.network(settings, strategy=strategy)
        curves = warmed(settings, network, **shared)
        found[strategy] = parts(network), curves, [len(stored[n].saved) for n in MODALITIES]
        own = kit.network(settings, strategy=strategy)
        warmed(settings, own)
        assert parts(own) == parts(network), "as without sharing"
    late, gated = found["late"], found["gated"]
    assert all(late[0][name] == gated[0][name] for name in MODALITIES)
    assert late[1] == gated[1]
    assert (late[2], gated[2]) == ([WARM] * 3, [0] * 3)
    other = kit.config(warm_start_epochs=WARM, seed=7)
    foreign = {n: SharedCheckpoint(Kept(), remembered, n) for n in MODALITIES}
    curves = warmed(other, kit.network(other), **foreign)
    assert {each.discarded for each in curves.values()} == {1}, "of other fits there is nothing"
