import pytest
import torch
from torch import nn

from clipfarm_assets.fusion.learned.attention import Attention, AttentionLayer

DIM, HEADS = 12, 3


def tokens(seed, length):
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(6, length, generator=draw) < 0.6
    mask[:, 0] = True
    return torch.randn(6, length, DIM, generator=draw), mask


def copy_attention(ours, theirs):
    """torch keeps the three input projections in one matrix."""
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())


@pytest.mark.parametrize("length", [1, 7])
def test_is_that_of_torch(length):
    torch.manual_seed(0)
    ours, theirs = Attention(DIM, HEADS, 0.0), nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    copy_attention(ours, theirs)
    queries, _ = tokens(1, 4)
    keys, mask = tokens(2, length)
    found, weights = ours(queries, keys, mask)
    expected, expected_weights = theirs(
        queries, keys, keys, key_padding_mask=~mask, average_attn_weights=False
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weights, expected_weights)
    assert found.std() > 1e-2, "a constant would agree with anything"


def test_layer_is_that_of_torch():
    torch.manual_seed(0)
    ours = AttentionLayer(DIM, HEADS, 0.0)
    theirs = nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    copy_attention(ours.attention, theirs.self_attn)
    norm, wide, _, narrow = ours.feedforward
    for one, other in (
        (ours.attention_norm, theirs.norm1),
        (norm, theirs.norm2),
        (wide, theirs.linear1),
        (narrow, theirs.linear2),
    ):
        nn.init.normal_(one.bias)
        other.load_state_dict(one.state_dict())
    values, mask = tokens(1, 7)
    found, _ = ours(values, values, mask)
    torch.testing.assert_close(found, theirs(values, src_key_padding_mask=~mask))


def test_masked_keys_do_not_matter():
    torch.manual_seed(0)
    attention = Attention(DIM, HEADS, 0.0)
    queries, _ = tokens(1, 4)
    keys, mask = tokens(2, 7)
    other = torch.where(mask[:, :, None], keys, 1e6)
    found, weights = attention(queries, keys, mask)
    assert torch.equal(found, attention(queries, other, mask)[0])
    hidden = ~mask[:, None, None, :].expand_as(weights)
    assert bool(hidden.any())
    assert bool((weights[hidden] == 0).all())
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(6, HEADS, 4))


def test_dropout_is_on_the_weights_and_in_training_alone():
    torch.manual_seed(0)
    attention = Attention(DIM, HEADS, 0.5)
    queries, _ = tokens(1, 4)
    keys, mask = tokens(2, 7)
    first, weights = attention(queries, keys, mask)
    second, again = attention(queries, keys, mask)
    assert not torch.equal(first, second)
    assert torch.equal(weights, again), "told before dropout"
    attention.eval()
    assert torch.equal(attention(queries, keys, mask)[0], attention(queries, keys, mask)[0])
