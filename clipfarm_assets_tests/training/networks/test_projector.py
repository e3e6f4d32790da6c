import numpy as np
import pytest
import torch
from torch import nn

from clipfarm_assets.training.config import FitConfig, GbdtConfig
from clipfarm_assets.training.networks.projector import (
    Projector,
    ProjectorArchitecture,
    projector_epochs,
)
from clipfarm_assets_tests.training.networks import plain


def test_layers_are_those_of_the_contract():
    defaults = GbdtConfig()
    network = Projector(
        ProjectorArchitecture(
            fused_dim=2305,
            hidden=defaults.projector_hidden,
            projector_dim=defaults.projector_dim,
            dropout=defaults.projector_dropout,
        )
    )
    assert {key: tuple(value.shape) for key, value in network.named_parameters()} == {
        "core.0.weight": (256, 2305),
        "core.0.bias": (256,),
        "core.3.weight": (128, 256),
        "core.3.bias": (128,),
        "head.weight": (1, 128),
        "head.bias": (1,),
    }
    assert [type(layer) for layer in network.core] == [*(nn.Linear, nn.GELU, nn.Dropout, nn.Linear)]
    assert network.core[2].p == 0.1


def test_projection_and_forward_are_those_of_plain_numpy():
    torch.manual_seed(1)
    network = Projector(
        ProjectorArchitecture(fused_dim=11, hidden=7, projector_dim=4, dropout=0.1), mean=7.0
    ).eval()
    fused = np.random.default_rng(0).normal(size=(9, 11))
    weights = plain.weights_of(network)
    latent = plain.linear(weights, "core.3", plain.gelu(plain.linear(weights, "core.0", fused)))
    with torch.inference_mode():
        tensor = torch.from_numpy(fused).float()
        np.testing.assert_allclose(network.project(tensor).numpy(), latent, rtol=0, atol=1e-5)
        np.testing.assert_allclose(
            network(tensor).numpy(), plain.linear(weights, "head", latent)[:, 0], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(("most", "expected"), [(1, 10), (15, 15), (20, 20), (40, 20)])
def test_epochs(most, expected):
    assert projector_epochs(FitConfig(max_epochs=most)) == expected
