"""What fusion is for: to learn what no modality tells alone, and to do without one."""

import pytest
import torch
from torch import nn

from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.fusion.learned.tokens import StoredEncoder
from clipfarm_assets.fusion.options import FusionOptions
from clipfarm_assets_tests.fusion.learned import kit

ROWS = 400


def fitted(options, given, label, epochs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoders = {name: StoredEncoder(value.shape[1]) for name, value in given.items()}
        network = FusionNetwork(encoders, options, classes=2)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
        both = torch.ones(ROWS, 2, dtype=torch.bool)
        for _ in range(epochs):
            for rows in torch.randperm(ROWS).split(100):
                optimizer.zero_grad()
                some = {key: value[rows] for key, value in given.items()}
                logits = network(present=both[rows], **some)
                nn.functional.cross_entropy(logits, label[rows]).backward()
                optimizer.step()
    return network.eval()


def accuracy(network, given, label, present):
    mask = torch.tensor([present]).expand(ROWS, 2)
    right = network(present=mask, **given).argmax(dim=1) == label
    return right.double().mean().item()


def noisy(bits, directions, draw):
    """Bits ``[N, k]`` along k directions ``[k, d]``, in noise: ``[N, d]``."""
    return (2.0 * bits - 1) @ directions + 0.3 * torch.randn(ROWS, 6, generator=draw)


def xor_rows(seed):
    """Text and image say a bit each; the label is their XOR."""
    draw = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 2, (ROWS, 2), generator=draw)
    directions = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(9))
    text, image = (noisy(bits[:, [each]], directions[each], draw) for each in (0, 1))
    return {"text": text, "image": image}, bits[:, 0] ^ bits[:, 1]


def redundant_rows(seed):
    """Text says the label plainly, image says it as the parity of three bits."""
    draw = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 2, (ROWS, 3), generator=draw)
    label = bits.sum(dim=1) % 2
    text, image = (
        noisy(each, torch.eye(6)[: each.shape[1]], draw) for each in (label[:, None], bits)
    )
    return {"text": text, "image": image}, label


@pytest.mark.parametrize("options", kit.ALL, ids=lambda o: o.strategy)
def test_every_strategy_learns_what_only_both_tell(options):
    options = options.model_copy(update={"dim": 64, "hidden": (64,)})
    network = fitted(options, *xor_rows(1), epochs=15)
    test = xor_rows(2)
    assert accuracy(network, *test, (True, True)) > 0.97
    assert accuracy(network, *test, (True, False)) < 0.6
    assert accuracy(network, *test, (False, True)) < 0.6


def test_modality_dropout_pays_when_a_modality_is_missing():
    """Only a network that loses the easy modality now and then reads the hard one."""
    test = redundant_rows(2)
    scores = {}
    for probability in (0.0, 0.3):
        options = FusionOptions(dim=32, hidden=(32,), modality_dropout=probability)
        network = fitted(options, *redundant_rows(1), epochs=25)
        assert accuracy(network, *test, (True, True)) > 0.98
        scores[probability] = accuracy(network, *test, (False, True))
    assert scores[0.3] > 0.9
    assert scores[0.0] < 0.7
