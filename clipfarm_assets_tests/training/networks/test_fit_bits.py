"""The loop's numbers are those of the plain loop that it replaced, bit for bit."""

import pytest
import torch
from torch import nn

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.concat_mlp import ConcatMlp, ConcatMlpArchitecture
from clipfarm_assets.training.networks.fit import Objective, fit
from clipfarm_assets.training.networks.gated import GatedArchitecture, GatedFusionNetwork
from clipfarm_assets.training.networks.projector import Projector, ProjectorArchitecture
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets_tests.training.networks.fit_cases import bits
from clipfarm_assets_tests.training.networks.plain_fit import plain_fit

CONFIG = FitConfig(learning_rate=0.01, batch_size=32, max_epochs=5, patience=3)


def projector():
    return Projector(ProjectorArchitecture(fused_dim=24, hidden=16, projector_dim=8), mean=2.0)


def concat_mlp():
    architecture = ConcatMlpArchitecture(
        fused_dim=24, numeric_dim=3, cardinalities=(4, 2), hidden=(16, 8), dropout=0.2
    )
    return ConcatMlp(architecture, mean=2.0)


def gated():
    architecture = GatedArchitecture(
        dims=(8, 6, 4),
        numeric_dim=3,
        cardinalities=(4, 2),
        tower_dim=8,
        gate_hidden=8,
        hidden=(8,),
        dropout=0.15,
    )
    return GatedFusionNetwork(architecture, mean=2.0)


def rows(build, count, seed):
    draw = torch.Generator().manual_seed(seed)

    def normal(width):
        return torch.randn(count, width, generator=draw)

    context = {
        "numeric": normal(3),
        "codes": torch.stack(
            [
                torch.randint(4, (count,), generator=draw),
                torch.randint(2, (count,), generator=draw),
            ],
            dim=1,
        ),
    }
    if build is gated:
        present = torch.ones(count, 3, dtype=torch.bool)
        present[::3, 2] = False
        vectors = {"video": normal(8), "audio": normal(6), "text": normal(4)}
        inputs = {**vectors, "present": present, **context}
    else:
        inputs = {"fused": normal(24), **(context if build is concat_mlp else {})}
    return inputs, 2.0 + context["numeric"][:, 0] + 0.1 * torch.randn(count, generator=draw)


def both(build, train, val, config=CONFIG, seed=0, max_epochs=None, objective=None):
    """Weights and curve of the plain loop, and those of ours."""
    networks = []
    for _ in range(2):
        with reproducible(seed):
            networks.append(build())
    args = (*train, *val, config, seed)
    ours, given = {}, {}
    if objective is not None:
        ours = {"objective": objective}
        given = {"loss_of": objective.loss, "score_of": objective.score}
    plain = plain_fit(networks[0], *args, max_epochs=max_epochs, **given)
    curve = fit(networks[1], *args, say=[].append, name="fit", max_epochs=max_epochs, **ours)
    found = (curve.train_loss, curve.val_score, curve.best_epoch, curve.stopped_early)
    return (plain, bits(networks[0])), (found, bits(networks[1]))


@pytest.mark.parametrize("build", [projector, concat_mlp, gated])
@pytest.mark.parametrize(("train_rows", "val_rows"), [(1, 1), (33, 256), (100, 300)])
def test_networks_of_clips(build, train_rows, val_rows):
    """Batches that fill and don't; validation of less than a block, of one, of more."""
    plain, ours = both(build, rows(build, train_rows, 1), rows(build, val_rows, 2))
    assert ours == plain


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_seeds(seed):
    plain, ours = both(concat_mlp, rows(concat_mlp, 70, 1), rows(concat_mlp, 20, 2), seed=seed)
    assert ours == plain


def test_early_stop():
    """Noise alone: the score rises soon."""
    train, val = rows(projector, 40, 1), rows(projector, 20, 2)
    config = CONFIG.model_copy(update={"learning_rate": 0.3, "max_epochs": 40, "patience": 2})
    plain, ours = both(projector, train, val, config)
    assert ours == plain
    assert plain[0][3], "the case must stop early"
    assert len(plain[0][1]) < 40


def test_max_epochs_in_place_of_the_configs():
    train, val = rows(projector, 40, 1), rows(projector, 20, 2)
    for last in (1, 7):
        plain, ours = both(projector, train, val, max_epochs=last)
        assert ours == plain
        assert len(ours[0][0]) <= last


def test_another_objective():
    absolute = Objective(
        nn.functional.l1_loss, lambda output, target: (output - target).abs().max(), "val_worst"
    )
    plain, ours = both(
        projector, rows(projector, 50, 1), rows(projector, 20, 2), objective=absolute
    )
    assert ours == plain


def test_frozen_parts_stay():
    def frozen():
        network = projector()
        network.core[0].requires_grad_(False)
        return network

    with reproducible(0):
        before = frozen().core[0].weight
    plain, ours = both(frozen, rows(projector, 50, 1), rows(projector, 20, 2))
    assert ours == plain
    assert ours[1]["core.0.weight"] == before.numpy().tobytes()
