"""What is absent, and what comes along in a batch, is without influence, bit for bit."""

import math

import pytest
import torch

from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.fusion.learned.tokens import StoredEncoder
from clipfarm_assets.training.networks.fit import BLOCK_ROWS, evaluate
from clipfarm_assets_tests.fusion.learned import kit

B = 40
EVERY = pytest.mark.parametrize(
    "options", [*kit.ALL, *kit.DEEP], ids=lambda o: f"{o.strategy}-{o.layers}"
)


def run(options, given, training):
    network = kit.network(options.model_copy(update={"auxiliary": True})).train(training)
    output = network.outputs(**given)
    ((output.logits**2).sum() + (output.unimodal**2).sum()).backward()
    tensors = (output.logits, output.unimodal, output.fused.weights)
    gradients = {key: value.grad for key, value in network.named_parameters()}
    return [tensor.detach() for tensor in tensors], gradients


@EVERY
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_absent_inputs_do_not_matter(options, training, garbage):
    given = kit.inputs(B)
    outputs, gradients = run(options, given, training)
    others, other_gradients = run(options, kit.spoilt(given, garbage), training)
    for output, other in zip(outputs, others, strict=True):
        assert torch.equal(output, other)
        assert bool(output.isfinite().all())
    for key, gradient in gradients.items():
        assert torch.equal(gradient, other_gradients[key]), key
        assert bool(gradient.isfinite().all()), key


@EVERY
def test_rows_with_nothing_at_all(options):
    nothing = torch.zeros(B, 3, dtype=torch.bool)
    (logits, unimodal, weights), gradients = run(options, kit.inputs(B, nothing), training=True)
    assert bool(logits.isfinite().all())
    assert torch.equal(logits, logits[:1].expand_as(logits)), "they are all alike"
    assert not bool(unimodal.any() | weights.any())
    for name in ("encoders.text.table.weight", "projections.audio.0.weight"):
        assert gradients[name] is None
    assert all(bool(g.isfinite().all()) for g in gradients.values() if g is not None)


@EVERY
def test_no_gradient_reaches_what_is_absent(options):
    present = torch.tensor([[True, False, True]]).expand(B, 3)
    _, gradients = run(options, kit.inputs(B, present), training=True)
    assert gradients["projections.audio.0.weight"] is None
    assert bool(gradients["projections.text.0.weight"].any())


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
def test_padding_may_hold_anything(garbage):
    """Also before a projection, whose weights' gradient is a product with it."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(B, 4, 5, generator=draw)
    mask = torch.arange(4) < torch.randint(1, 5, (B, 1), generator=draw)
    spoilt = torch.where(mask[:, :, None], values, garbage)
    for options in kit.ALL:
        results = []
        for each in (values, spoilt):
            torch.manual_seed(1)
            encoders = {"text": StoredEncoder(5), "image": StoredEncoder(5)}
            network = FusionNetwork(encoders, options, classes=2)
            present = torch.ones(B, 2, dtype=torch.bool)
            given = {"text.values": each, "text.mask": mask, "image": values[:, 0]}
            output = network(present=present, **given)
            (output**2).sum().backward()
            results.append([output.detach(), *(p.grad for p in network.parameters())])
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)
            assert bool(one.isfinite().all())


@EVERY
def test_a_row_does_not_depend_on_the_rows_that_come_with_it(options):
    network = kit.network(options)
    rows = BLOCK_ROWS + 70
    given = kit.inputs(rows)
    whole = evaluate(network, given)
    assert whole.std() > 1e-3, "a constant would agree with anything"
    shuffled = torch.randperm(rows, generator=torch.Generator().manual_seed(5))
    for some in (shuffled, shuffled[:1], shuffled[:33], torch.arange(rows).flip(0)):
        found = evaluate(network, {key: value[some] for key, value in given.items()})
        assert torch.equal(found, whole[some])
    # Nor on whether any of them has the modality at all.
    without = (~given["present"][:, 1]).nonzero().squeeze(1)
    found = evaluate(network, {key: value[without] for key, value in given.items()})
    assert torch.equal(found, whole[without])
