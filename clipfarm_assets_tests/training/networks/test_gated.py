import math

import numpy as np
import pytest
import torch
from torch import nn

from clipfarm_assets.training.config import GatedConfig
from clipfarm_assets.training.networks.gated import GatedArchitecture, GatedFusionNetwork
from clipfarm_assets_tests.training.networks import plain

B = 12


def small_network():
    torch.manual_seed(1)
    return GatedFusionNetwork(
        GatedArchitecture(
            dims=(5, 6, 7),
            numeric_dim=3,
            cardinalities=(4, 13),
            tower_dim=8,
            gate_hidden=9,
            hidden=(10, 4),
            dropout=0.15,
        ),
        mean=7.0,
    ).eval()


def small_inputs(present=None):
    draw = torch.Generator().manual_seed(2)
    if present is None:
        present = torch.ones(B, 3, dtype=torch.bool)
        present[::3, 2] = False
    return {
        "video": torch.randn(B, 5, generator=draw),
        "audio": torch.randn(B, 6, generator=draw),
        "text": torch.randn(B, 7, generator=draw),
        "present": present,
        "numeric": torch.randn(B, 3, generator=draw),
        "codes": torch.randint(0, 4, (B, 2), generator=draw),
    }


def gate_inputs(inputs):
    return {key: inputs[key] for key in ("present", "numeric", "codes")}


def test_layers_are_those_of_the_contract():
    defaults = GatedConfig()
    network = GatedFusionNetwork(
        GatedArchitecture(
            dims=(768, 768, 384),
            numeric_dim=20,
            cardinalities=(4, 13),
            tower_dim=defaults.tower_dim,
            gate_hidden=defaults.gate_hidden,
            hidden=defaults.hidden,
            dropout=defaults.dropout,
        )
    )
    context = 20 + 2 + 4 + 1
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    towers = {}
    for modality, dim in (("video", 768), ("audio", 768), ("text", 384)):
        towers |= {
            f"towers.{modality}.0.weight": (256, dim),
            f"towers.{modality}.0.bias": (256,),
            f"towers.{modality}.2.weight": (256,),
            f"towers.{modality}.2.bias": (256,),
        }
    assert shapes == towers | {
        "embeddings.tables.0.weight": (4, 2),
        "embeddings.tables.1.weight": (13, 4),
        "fusion.gate.0.weight": (128, context),
        "fusion.gate.0.bias": (128,),
        "fusion.gate.2.weight": (3, 128),
        "fusion.gate.2.bias": (3,),
        "head.0.weight": (256, 256 + context),
        "head.0.bias": (256,),
        "head.3.weight": (128, 256),
        "head.3.bias": (128,),
        "head.6.weight": (1, 128),
        "head.6.bias": (1,),
    }
    counted = sum(value.numel() for value in network.parameters())
    assert counted == sum(math.prod(shape) for shape in shapes.values())
    for tower in network.towers.values():
        assert [type(layer) for layer in tower] == [nn.Linear, nn.GELU, nn.LayerNorm]
    dropouts = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.15] * 2


def test_forward_is_that_of_plain_numpy():
    network, inputs = small_network(), small_inputs()
    weights = plain.weights_of(network)
    values = {key: value.double().numpy() for key, value in inputs.items() if key != "codes"}
    present = values["present"]
    context = np.concatenate(
        [
            values["numeric"],
            plain.embeddings(weights, inputs["codes"].numpy()),
            present[:, 2:],
        ],
        axis=1,
    )
    hidden = plain.gelu(plain.linear(weights, "fusion.gate.0", context))
    odds = np.exp(plain.linear(weights, "fusion.gate.2", hidden)) * present
    gates = odds / odds.sum(axis=1, keepdims=True)
    fused = sum(
        gates[:, [index]]
        * plain.layer_norm(
            weights,
            f"towers.{modality}.2",
            plain.gelu(plain.linear(weights, f"towers.{modality}.0", values[modality])),
        )
        for index, modality in enumerate(("video", "audio", "text"))
    )
    expected = plain.mlp(weights, "head", np.concatenate([fused, context], axis=1), 2)
    with torch.inference_mode():
        found = network(**inputs)
        found_gates = network.gate_weights(**gate_inputs(inputs))
    np.testing.assert_allclose(found_gates.numpy(), gates, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3, "a constant would agree with anything"


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_absent_vectors_do_not_matter(garbage):
    """Outputs and gradients are the same bits; nothing that is not finite comes out."""
    present = torch.rand(B, 3, generator=torch.Generator().manual_seed(3)) < 0.5
    present[0] = False
    present[1] = True

    def run(inputs):
        network = small_network()
        output = network(**inputs)
        (output**2).sum().backward()
        gradients = {key: value.grad for key, value in network.named_parameters()}
        return output.detach(), gradients

    inputs = small_inputs(present)
    output, gradients = run(inputs)
    dirty = dict(inputs)
    for index, modality in enumerate(("video", "audio", "text")):
        dirty[modality] = inputs[modality].clone()
        dirty[modality][~present[:, index]] = garbage
    dirty_output, dirty_gradients = run(dirty)
    assert torch.equal(output, dirty_output)
    assert bool(output.isfinite().all())
    for key, gradient in gradients.items():
        assert torch.equal(gradient, dirty_gradients[key]), key
        assert bool(gradient.isfinite().all()), key


def test_present_vectors_do_matter():
    network, inputs = small_network(), small_inputs(torch.ones(B, 3, dtype=torch.bool))
    for modality in ("video", "audio", "text"):
        other = {**inputs, modality: inputs[modality].flip(0)}
        assert not torch.equal(network(**inputs), network(**other)), modality


def test_gate_weights_add_up_and_are_zero_for_the_absent():
    present = torch.rand(B, 3, generator=torch.Generator().manual_seed(3)) < 0.5
    present[0] = False
    weights = small_network().gate_weights(**gate_inputs(small_inputs(present)))
    assert bool((weights[~present] == 0).all())
    assert bool((weights[present] > 0).all())
    sums = torch.where(present.any(dim=1), 1.0, 0.0)
    assert torch.allclose(weights.sum(dim=1), sums, atol=1e-6)


def test_no_gradient_reaches_an_absent_tower():
    network = small_network()
    present = torch.tensor([[True, True, False]]).expand(B, 3)
    network(**small_inputs(present)).sum().backward()
    for parameter in network.towers["text"].parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    assert bool(network.towers["video"][0].weight.grad.any())
