import numpy as np
import torch
from torch import nn

from clipfarm_assets.training.config import ConcatMlpConfig
from clipfarm_assets.training.networks.concat_mlp import ConcatMlp, ConcatMlpArchitecture
from clipfarm_assets_tests.training.networks import plain


def architecture(fused_dim=11, hidden=(16, 8, 4)):
    return ConcatMlpArchitecture(
        fused_dim=fused_dim, numeric_dim=3, cardinalities=(4, 13), hidden=hidden, dropout=0.2
    )


def test_layers_are_those_of_the_contract():
    defaults = ConcatMlpConfig()
    network = ConcatMlp(
        ConcatMlpArchitecture(
            fused_dim=2305,
            numeric_dim=20,
            cardinalities=(4, 13),
            hidden=defaults.hidden,
            dropout=defaults.dropout,
        )
    )
    width = 2305 + 20 + 2 + 4
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    assert shapes == {
        "embeddings.tables.0.weight": (4, 2),
        "embeddings.tables.1.weight": (13, 4),
        "head.0.weight": (1024, width),
        "head.0.bias": (1024,),
        "head.3.weight": (512, 1024),
        "head.3.bias": (512,),
        "head.6.weight": (256, 512),
        "head.6.bias": (256,),
        "head.9.weight": (1, 256),
        "head.9.bias": (1,),
    }
    counted = sum(value.numel() for value in network.parameters())
    layers = [(width, 1024), (1024, 512), (512, 256), (256, 1)]
    assert counted == 4 * 2 + 13 * 4 + sum(a * b + b for a, b in layers)
    dropouts = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.20] * 3
    assert not list(network.buffers())


def test_forward_is_that_of_plain_numpy():
    torch.manual_seed(1)
    network = ConcatMlp(architecture(), mean=7.0).eval()
    draw = np.random.default_rng(0)
    fused, numeric = draw.normal(size=(9, 11)), draw.normal(size=(9, 3))
    codes = np.stack([draw.integers(0, 4, 9), draw.integers(0, 13, 9)], axis=1)
    weights = plain.weights_of(network)
    seen = np.concatenate([fused, numeric, plain.embeddings(weights, codes)], axis=1)
    expected = plain.mlp(weights, "head", seen, 3)
    with torch.inference_mode():
        found = network(
            fused=torch.from_numpy(fused).float(),
            numeric=torch.from_numpy(numeric).float(),
            codes=torch.from_numpy(codes),
        )
    assert found.shape == (9,)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3, "a constant would agree with anything"
