import io

import numpy as np
import pytest
import torch

from clipfarm_assets.fusion.learned.network import ENCODER_ROWS, FusionNetwork, WrongInputs
from clipfarm_assets.fusion.learned.tokens import StoredEncoder
from clipfarm_assets.fusion.options import FusionOptions
from clipfarm_assets_tests.fusion.learned import kit
from clipfarm_assets_tests.training.networks import plain

B = 12
EVERY = pytest.mark.parametrize(
    "options", [*kit.ALL, *kit.DEEP], ids=lambda o: f"{o.strategy}-{o.layers}"
)


def counts(present):
    return present.sum(dim=0).tolist()


def test_head_is_that_of_the_design():
    """Unprojected: ``concat -> Linear -> GELU -> Dropout -> Linear``, in plain numpy."""
    torch.manual_seed(1)
    encoders = {"text": StoredEncoder(7), "image": StoredEncoder(2)}
    options = FusionOptions(dim=None, hidden=(6,), dropout=0.1)
    network = FusionNetwork(encoders, options, classes=2).eval()
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    assert shapes == {
        "missing.text": (7,),
        "missing.image": (2,),
        "head.0.weight": (6, 9),
        "head.0.bias": (6,),
        "head.3.weight": (2, 6),
        "head.3.bias": (2,),
    }
    assert network.head[2].p == 0.1
    text, image = torch.randn(B, 7), torch.randn(B, 2)
    present = torch.ones(B, 2, dtype=torch.bool)
    present[0, 1] = False
    weights = plain.weights_of(network)
    seen = np.concatenate([text.double().numpy(), image.double().numpy()], axis=1)
    seen[0, 7:] = weights["missing.image"]
    expected = plain.linear(weights, "head.3", plain.gelu(plain.linear(weights, "head.0", seen)))
    with torch.inference_mode():
        found = network(present=present, text=text, image=image)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-2, "a constant would agree with anything"


def test_projected_modalities_have_a_layer_of_their_own():
    network = kit.network(kit.ALL[0])
    own = {
        f"projections.{name}.{layer}": shape
        for name, dim in (("text", 7), ("audio", 6), ("midi", 4))
        for layer, shape in (
            ("0.weight", (8, dim)), ("0.bias", (8,)), ("2.weight", (8,)), ("2.bias", (8,)),
        )
    }  # fmt: skip
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    assert shapes == own | {
        "encoders.text.table.weight": (kit.WORDS, 7),
        "encoders.audio.linear.weight": (18, 5),
        "encoders.audio.linear.bias": (18,),
        **{f"missing.{name}": (8,) for name in kit.MODALITIES},
        "head.0.weight": (6, 24),
        "head.0.bias": (6,),
        "head.3.weight": (3, 6),
        "head.3.bias": (3,),
    }


@EVERY
def test_only_present_rows_are_encoded(options):
    network = kit.network(options)
    present = kit.presence(100)
    given = kit.inputs(100, present)
    text, audio, _ = counts(present)
    network.train()(**given)
    assert (network.encoders["text"].rows, network.encoders["audio"].rows) == ([text], [audio])
    network.encoders["text"].rows.clear()
    network.eval()(**given)
    assert network.encoders["text"].rows == [ENCODER_ROWS] * -(-text // ENCODER_ROWS)


@EVERY
def test_a_modality_that_no_row_has_may_be_left_out(options):
    present = torch.tensor([[True, False, True]]).expand(B, 3)
    given = kit.inputs(B, present)
    left_out = {key: value for key, value in given.items() if key != "audio"}
    for training in (True, False):
        network = kit.network(options).train(training)
        torch.testing.assert_close(network(**left_out), network(**given))
    assert network.encoders["audio"].rows == [1], "for the number of tokens, out of training"


@EVERY
def test_present_inputs_matter(options):
    network = kit.network(options).eval()
    given = kit.inputs(B, torch.ones(B, 3, dtype=torch.bool))
    before = network(**given)
    for key in ("text.ids", "audio", "midi"):
        after = network(**{**given, key: given[key].roll(1, 0)})
        assert bool((after != before).any(dim=1).sum() > B / 2), key


@EVERY
def test_absence_matters(options):
    """Each subset of modalities has a result of its own."""
    network = kit.network(options).eval()
    row = {key: value[:1].expand(8, *value.shape[1:]) for key, value in kit.inputs(2).items()}
    subsets = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)
    with torch.inference_mode():
        output = network(**{**row, "present": subsets})
    assert len({tuple(logits) for logits in output.tolist()}) == 8


def test_weights_are_those_of_the_strategy():
    network = kit.network(FusionOptions(strategy="gated", **kit.PLAIN)).eval()
    given = kit.inputs(B)
    assert torch.equal(network.weights(**given), network.outputs(**given).fused.weights)


def test_a_row_without_a_real_token_counts_as_absent():
    given = kit.inputs(B, torch.ones(B, 3, dtype=torch.bool))
    given["text.mask"][4] = False
    absent = {**given, "present": given["present"].clone()}
    absent["present"][4, 0] = False
    for options in kit.ALL:
        network = kit.network(options).eval()
        output, expected = network.outputs(**given), network.outputs(**absent)
        assert torch.equal(output.present, absent["present"])
        assert torch.equal(output.logits, expected.logits)
        assert torch.equal(output.fused.weights, expected.fused.weights)


def test_context_is_seen_by_the_head():
    for options in kit.ALL:
        network = kit.network(options, context_dim=2).eval()
        given, context = kit.inputs(B), torch.zeros(B, 2)
        before = network(**given, context=context)
        context[3, 1] = 1
        changed = (network(**given, context=context) != before).any(dim=1)
        assert changed.tolist() == [row == 3 for row in range(B)]


def test_modality_dropout_is_of_training_alone():
    network = kit.network(FusionOptions(**kit.PLAIN, modality_dropout=0.5))
    given = kit.inputs(200, torch.ones(200, 3, dtype=torch.bool))
    torch.manual_seed(0)
    output = network.train().outputs(**given)
    kept = counts(output.present)
    assert all(80 < count < 140 for count in kept)
    assert bool(output.present.any(dim=1).all())
    assert network.encoders["text"].rows == [kept[0]], "what is left out is not encoded"
    assert not torch.equal(network(**given), network(**given))
    network.eval()
    assert bool(network.outputs(**given).present.all())
    assert torch.equal(network(**given), network(**given))


@EVERY
def test_reloads_to_the_same_bits(options):
    network = kit.network(options).eval()
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    other = kit.network(options, seed=2).eval()
    given = kit.inputs(B)
    assert not torch.equal(network(**given), other(**given))
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(network(**given), other(**given))
    same = kit.network(options).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"present": torch.ones(B, 2, dtype=torch.bool)}, r"present must be bool \[B, 3\].*12, 2"),
        ({"present": torch.ones(B, 3)}, "found torch.float32"),
        ({"lyrics": torch.ones(B, 3)}, "lyrics is of none of the modalities"),
        ({"midi": torch.ones(B - 1, 4)}, "midi must have 12 rows, as present: found 11"),
        ({"midi": None}, r"midi has no inputs, and is present in \d rows"),
        ({"context": torch.ones(B, 1)}, r"context must be of shape None: found \(12, 1\)"),
    ],
)
def test_wrong_inputs(change, problem):
    given = {**kit.inputs(B), **change}
    given = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(WrongInputs, match=problem):
        kit.network(kit.ALL[0])(**given)


def test_a_context_that_is_not_given():
    with pytest.raises(WrongInputs, match=r"context must be of shape \(12, 2\): found None"):
        kit.network(kit.ALL[0], context_dim=2)(**kit.inputs(B))


@pytest.mark.parametrize("names", [[], ["text", "present"], ["context"]])
def test_wrong_encoders(names):
    encoders = {name: StoredEncoder(3) for name in names}
    with pytest.raises(ValueError, match="encoders must be by modality, other than"):
        FusionNetwork(encoders, FusionOptions(), classes=2)
