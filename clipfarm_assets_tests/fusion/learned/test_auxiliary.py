import pytest
import torch
from torch import nn

from clipfarm_assets.fusion.learned.auxiliary import (
    AllLogits,
    auxiliary_loss,
    fused_alone,
    own_network,
)
from clipfarm_assets.fusion.learned.tokens import masked_mean
from clipfarm_assets.fusion.options import FusionOptions
from clipfarm_assets_tests.fusion.learned import kit

B = 12
OPTIONS = FusionOptions(**kit.PLAIN, auxiliary=True)
LABEL = torch.arange(B) % 3


def test_each_modality_has_a_linear_head():
    network = kit.network(OPTIONS).eval()
    given = kit.inputs(B)
    output = network.outputs(**given)
    assert output.unimodal.shape == (B, 3, 3)
    present = given["present"]
    assert not bool(output.unimodal[~present].any())
    for index, name in enumerate(kit.MODALITIES):
        arguments = {
            key.partition(".")[2] or "values": value
            for key, value in given.items()
            if key.partition(".")[0] == name
        }
        tokens = network.encoders[name](**arguments)
        projected = network.projections[name](tokens.values)
        expected = network.unimodal[name](masked_mean(type(tokens)(projected, tokens.mask)))
        rows = present[:, index]
        torch.testing.assert_close(output.unimodal[rows, index], expected[rows])


def test_all_logits_are_the_fused_ones_and_each_modality_s():
    network = kit.network(OPTIONS).eval()
    given = kit.inputs(B)
    logits = AllLogits(network)(**given)
    assert logits.shape == (B, 4, 3)
    output = network.outputs(**given)
    assert torch.equal(logits[:, 0], output.logits)
    assert torch.equal(logits[:, 1:], output.unimodal)


def test_loss_is_the_weighted_sum():
    logits = torch.randn(B, 4, 3, generator=torch.Generator().manual_seed(0))
    loss = nn.functional.cross_entropy
    own = [loss(logits[:, index], LABEL) for index in (1, 2, 3)]
    expected = loss(logits[:, 0], LABEL) + 0.3 * sum(own) / 3
    torch.testing.assert_close(auxiliary_loss(loss, 0.3)(logits, LABEL), expected)
    assert torch.equal(fused_alone(loss)(logits, LABEL), loss(logits[:, 0], LABEL))


def test_an_absent_modality_is_not_taught():
    network = AllLogits(kit.network(OPTIONS))
    present = torch.ones(B, 3, dtype=torch.bool)
    present[:, 1] = False
    loss = auxiliary_loss(nn.functional.cross_entropy, 1.0)
    loss(network(**kit.inputs(B, present)), LABEL).backward()
    heads = network.network.unimodal
    assert not bool(heads["audio"].weight.grad.any())
    assert bool(heads["text"].weight.grad.any())


def test_a_network_without_such_heads():
    assert kit.network(kit.ALL[0]).outputs(**kit.inputs(B)).unimodal is None
    with pytest.raises(ValueError, match="no heads but the fused one: make it with auxiliary=True"):
        AllLogits(kit.network(kit.ALL[0]))


HEADED = [options.model_copy(update={"auxiliary": True}) for options in kit.ALL]


@pytest.mark.parametrize("options", HEADED)
def test_a_modality_s_own_network_says_what_its_head_does(options):
    network = kit.network(options).eval()
    given = kit.inputs(B)
    said = network.outputs(**given).unimodal
    for index, name in enumerate(kit.MODALITIES):
        own = own_network(network, name)
        inputs = {key: value for key, value in given.items() if key.partition(".")[0] == name}
        rows = given["present"][:, index]
        logits = own(present=rows.unsqueeze(1), **inputs)
        torch.testing.assert_close(logits[rows], said[rows, index], rtol=1e-5, atol=1e-6)
        assert {id(p) for p in own.parameters()} < {id(p) for p in network.parameters()}
    assert network.modalities == kit.MODALITIES
    assert torch.equal(network.outputs(**given).unimodal, said), "it is as it was"


def test_a_modality_without_a_head_has_no_network_of_its_own():
    with pytest.raises(ValueError, match="no head of 'text' alone: make it with auxiliary=True"):
        own_network(kit.network(kit.ALL[0]), "text")
