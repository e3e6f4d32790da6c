import pytest
import torch

from clipfarm_assets.fusion.learned.strategies import (
    CrossAttention,
    Early,
    Gated,
    Late,
    build_strategy,
)
from clipfarm_assets.fusion.learned.tokens import Tokens, masked_mean
from clipfarm_assets.fusion.options import FusionOptions
from clipfarm_assets_tests.fusion.learned import kit

B, DIM, CONTEXT = 12, 8, 2
DIMS = dict.fromkeys(kit.MODALITIES, DIM)
LENGTHS = (4, 3, 1)
EVERY = pytest.mark.parametrize(
    "options", [*kit.ALL, *kit.DEEP], ids=lambda o: f"{o.strategy}-{o.layers}"
)


def built(options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return build_strategy(options, DIMS, CONTEXT)


def batch(seed=2):
    """Tokens as a network gives them: of absent rows the first one alone is real."""
    draw = torch.Generator().manual_seed(seed)
    present = kit.presence(B)
    tokens = []
    for index, length in enumerate(LENGTHS):
        real = torch.randint(1, length + 1, (B, 1), generator=draw)
        real = torch.where(present[:, index, None], real, 1)
        values = torch.randn(B, length, DIM, generator=draw)
        tokens.append(Tokens(values, torch.arange(length) < real))
    return tokens, present, torch.randn(B, CONTEXT, generator=draw)


def with_values(tokens, index, values):
    return [*tokens[:index], Tokens(values, tokens[index].mask), *tokens[index + 1 :]]


def test_names():
    kinds = [type(built(options)) for options in kit.ALL]
    assert kinds == [Late, Early, CrossAttention, Gated]


@EVERY
def test_weights_are_shares_of_those_present(options):
    tokens, present, context = batch()
    strategy = built(options)
    fused = strategy(tokens, present, context)
    assert fused.vector.shape == (B, strategy.out_dim)
    assert bool(fused.vector.isfinite().all())
    assert bool((fused.weights[~present] == 0).all())
    assert bool((fused.weights[present] > 0).all())
    sums = torch.where(present.any(dim=1), 1.0, 0.0)
    torch.testing.assert_close(fused.weights.sum(dim=1), sums)


@EVERY
def test_every_modality_matters_and_every_row_stays_its_own(options):
    tokens, present, context = batch()
    strategy = built(options)
    before = strategy(tokens, present, context).vector
    for index, each in enumerate(tokens):
        values = each.values.clone()
        values[1] += 1 + torch.arange(DIM)  # not one number more for all, which a norm would undo
        after = strategy(with_values(tokens, index, values), present, context).vector
        changed = (after != before).any(dim=1)
        assert changed.tolist() == [row == 1 for row in range(B)], kit.MODALITIES[index]


@EVERY
def test_padding_does_not_matter(options):
    tokens, present, context = batch()
    strategy = built(options)
    other = [
        Tokens(torch.where(each.mask[:, :, None], each.values, 1e6), each.mask) for each in tokens
    ]
    assert not torch.equal(other[0].values, tokens[0].values)
    fused, again = strategy(tokens, present, context), strategy(other, present, context)
    assert torch.equal(fused.vector, again.vector)
    assert torch.equal(fused.weights, again.weights)


@pytest.mark.parametrize("options", [*kit.ALL[1:], *kit.DEEP])
def test_all_parameters_learn(options):
    tokens, present, context = batch()
    strategy = built(options)
    (strategy(tokens, present, context).vector ** 2).sum().backward()
    for name, parameter in strategy.named_parameters():
        # A key's bias is the same for all keys, which a softmax does not see.
        if not name.endswith("key.bias"):
            assert bool(parameter.grad.any()), name
        assert bool(parameter.grad.isfinite().all()), name


def test_late_puts_means_side_by_side():
    tokens, present, context = batch()
    strategy = Late(DIMS)
    fused = strategy(tokens, present, context)
    assert torch.equal(fused.vector, torch.cat([masked_mean(each) for each in tokens], dim=1))
    count = present.sum(dim=1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(fused.weights, present / count)
    assert strategy.out_dim == 3 * DIM
    assert not fused.maps
    assert not list(strategy.parameters())


@pytest.mark.parametrize("on_content", [True, False])
def test_gated_is_the_gate_of_what_it_may_see(on_content):
    tokens, present, context = batch()
    options = FusionOptions(strategy="gated", **kit.PLAIN, gate_on_content=on_content)
    strategy = built(options)
    means = [masked_mean(each) for each in tokens]
    seen = torch.cat([*(means if on_content else []), present.float(), context], dim=1)
    vector, weights = strategy.fusion(means, present, seen)
    fused = strategy(tokens, present, context)
    assert torch.equal(fused.vector, vector)
    assert torch.equal(fused.weights, weights)
    louder = with_values(tokens, 0, 3 * tokens[0].values)
    same = torch.equal(strategy(louder, present, context).weights, weights)
    assert same != on_content


def test_gate_looks_at_the_context():
    tokens, present, context = batch()
    strategy = built(FusionOptions(strategy="gated", **kit.PLAIN))
    weights = strategy(tokens, present, context).weights
    several = present.sum(dim=1) > 1
    changed = (strategy(tokens, present, context + 1).weights != weights).any(dim=1)
    assert torch.equal(changed, several)


@pytest.mark.parametrize("layers", [1, 2])
def test_early_tells_what_the_readout_looked_at(layers):
    tokens, present, context = batch()
    strategy = built(FusionOptions(strategy="early", layers=layers, **kit.PLAIN))
    fused = strategy(tokens, present, context)
    assert list(fused.maps) == ["fused->text", "fused->audio", "fused->midi"]
    for length, each, attention in zip(LENGTHS, tokens, fused.maps.values(), strict=True):
        assert attention.shape == (B, 2, 1, length)
        assert bool((attention.mean(dim=1)[:, 0][~each.mask] == 0).all())
        assert not attention.requires_grad
    whole = torch.cat(list(fused.maps.values()), dim=3).sum(dim=3)
    assert bool((whole < 1).all()), "the readout looks at itself, too"
    received = torch.stack([m.mean(dim=1).sum(dim=(1, 2)) for m in fused.maps.values()], dim=1)
    full = present.all(dim=1)
    expected = received[full] / received[full].sum(dim=1, keepdim=True)
    torch.testing.assert_close(fused.weights[full], expected)


@pytest.mark.parametrize("layers", [1, 2])
def test_cross_attention_is_to_the_others(layers):
    tokens, present, context = batch()
    strategy = built(FusionOptions(strategy="cross_attention", layers=layers, **kit.PLAIN))
    fused = strategy(tokens, present, context)
    length_of = dict(zip(kit.MODALITIES, LENGTHS, strict=True))
    pairs = [(a, b) for a in kit.MODALITIES for b in kit.MODALITIES if a != b]
    assert set(fused.maps) == {f"{a}->{b}" for a, b in pairs}
    for a, b in pairs:
        assert fused.maps[f"{a}->{b}"].shape == (B, 2, length_of[a], length_of[b])
    for a in kit.MODALITIES:
        whole = sum(fused.maps[f"{a}->{b}"].sum(dim=3) for b in kit.MODALITIES if a != b)
        torch.testing.assert_close(whole, torch.ones(B, 2, length_of[a]))


def test_cross_attention_weights_are_what_the_others_pay():
    tokens, present, context = batch()
    strategy = built(FusionOptions(strategy="cross_attention", **kit.PLAIN))
    fused = strategy(tokens, present, context)
    for row in range(B):
        there = [name for name, has in zip(kit.MODALITIES, present[row], strict=True) if has]
        if len(there) < 2:
            continue
        paid = dict.fromkeys(there, 0.0)
        for query in there:
            real = tokens[kit.MODALITIES.index(query)].mask[row]
            for key in there:
                if key != query:
                    attention = fused.maps[f"{query}->{key}"][row].mean(dim=0)[real]
                    paid[key] += attention.sum(dim=1).mean().item()
        for name, value in paid.items():
            found = fused.weights[row, kit.MODALITIES.index(name)].item()
            assert found == pytest.approx(value / sum(paid.values()), abs=1e-5)


def test_two_modalities_have_only_each_other():
    tokens, _, _ = batch()
    strategy = CrossAttention({"text": DIM, "audio": DIM}, 2, 1, 0.0)
    present = torch.ones(B, 2, dtype=torch.bool)
    torch.testing.assert_close(strategy(tokens[:2], present).weights, torch.full((B, 2), 0.5))


@pytest.mark.parametrize("options", [o for o in kit.ALL if o.strategy != "cross_attention"])
def test_one_modality_is_enough(options):
    tokens, present, _ = batch()
    strategy = build_strategy(options, {"text": DIM})
    fused = strategy(tokens[:1], present[:, :1])
    torch.testing.assert_close(fused.weights, present[:, :1].float())


def test_cross_attention_needs_two():
    with pytest.raises(ValueError, match=r"at least two modalities: found \['text'\]"):
        CrossAttention({"text": DIM}, 2, 1, 0.0)


@pytest.mark.parametrize("options", [o for o in kit.ALL if o.strategy != "late"])
def test_one_width(options):
    with pytest.raises(ValueError, match=r"one width: found \{'text': 8, 'audio': 4\}"):
        build_strategy(options, {"text": 8, "audio": 4})
