import math

import pytest
import torch

from clipfarm_assets.fusion.learned.tokens import StoredEncoder, Tokens, masked_mean

MASK = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])


def test_mean_is_of_real_tokens_alone():
    values = torch.arange(18.0).reshape(3, 3, 2)
    values[~MASK] = math.nan
    assert masked_mean(Tokens(values, MASK)).tolist() == [[1, 2], [6, 7], [0, 0]]


def test_mean_of_one_token_is_the_token():
    values = torch.randn(50, 1, 7)
    assert torch.equal(
        masked_mean(Tokens(values, torch.ones(50, 1, dtype=torch.bool))), values[:, 0]
    )


def test_stored_vectors():
    values = torch.randn(4, 6)
    tokens = StoredEncoder(6)(values)
    assert torch.equal(tokens.values, values[:, None])
    assert tokens.mask.tolist() == [[True]] * 4
    sequence, mask = torch.randn(3, 3, 6), MASK
    tokens = StoredEncoder(6)(values=sequence, mask=mask)
    assert torch.equal(tokens.values, sequence)
    assert torch.equal(tokens.mask, mask)
    assert not list(StoredEncoder(6).parameters())


@pytest.mark.parametrize("shape", [(4, 5), (4, 2, 5), (6,), (2, 2, 2, 6)])
def test_stored_vectors_of_another_width(shape):
    with pytest.raises(ValueError, match=r"must be of 6 numbers: found shape"):
        StoredEncoder(6)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("values", "mask"),
    [
        (torch.zeros(3, 2), MASK),
        (torch.zeros(3, 3, 2), MASK[:2]),
        (torch.zeros(3, 3, 2), MASK.float()),
    ],
)
def test_shapes_are_checked(values, mask):
    with pytest.raises(ValueError, match=r"tokens must be \[B, T, D\] with a bool mask \[B, T\]"):
        Tokens(values, mask)
