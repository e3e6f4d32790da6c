import math

import pytest
import torch

from clipfarm_assets.fusion.learned.auxiliary import AllLogits
from clipfarm_assets.fusion.learned.gradients import (
    SHARED,
    GradientMonitor,
    clip_by_modality,
    gradient_norms,
    imbalance,
    trained_parameters,
)
from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.fusion.options import FusionOptions
from clipfarm_assets_tests.fusion.learned import kit

B = 16
OPTIONS = FusionOptions(**kit.PLAIN, auxiliary=True)
GROUPS = [*kit.MODALITIES, SHARED]


def backward(network, seed=2, present=None):
    output = network.outputs(**kit.inputs(B, present, seed))
    ((output.logits**2).sum() + (output.unimodal**2).sum()).backward()


def norm(parameters):
    return math.sqrt(sum((p.grad.double() ** 2).sum().item() for p in parameters))


def by_name(network, name):
    if name == SHARED:
        return [p for key, p in network.named_parameters() if key.startswith(("head", "strategy"))]
    prefixes = tuple(
        f"{part}.{name}" for part in ("encoders", "projections", "missing", "unimodal")
    )
    return [p for key, p in network.named_parameters() if key.startswith(prefixes)]


@pytest.mark.parametrize("options", [*kit.ALL, OPTIONS])
def test_each_parameter_is_of_one_group(options):
    network = kit.network(options)
    groups = trained_parameters(network)
    assert list(groups) == GROUPS
    for name, own in groups.items():
        assert {id(p) for p in own} == {id(p) for p in by_name(network, name)}
    total = sum(len(own) for own in groups.values())
    assert total == len(list(network.parameters()))


def test_what_two_modalities_have_in_common_is_shared():
    encoder = kit.Words()
    network = FusionNetwork({"title": encoder, "body": encoder}, FusionOptions(), classes=2)
    groups = trained_parameters(network)
    assert any(p is encoder.table.weight for p in groups[SHARED])
    assert not any(p is encoder.table.weight for p in groups["title"] + groups["body"])


def test_frozen_parameters_are_of_none():
    network = kit.network(OPTIONS)
    network.encoders["text"].requires_grad_(requires_grad=False)
    assert not any(
        p is network.encoders["text"].table.weight for p in trained_parameters(network)["text"]
    )


def test_norms():
    network = kit.network(OPTIONS)
    assert gradient_norms(network) == dict.fromkeys(GROUPS, 0.0)
    backward(network)
    for name, found in gradient_norms(network).items():
        assert found == pytest.approx(norm(by_name(network, name)), rel=1e-5)
        assert found > 0


def test_clipping_leaves_the_others_alone():
    network = kit.network(OPTIONS)
    backward(network)
    norms = gradient_norms(network)
    before = {key: p.grad.clone() for key, p in network.named_parameters()}
    bound = sorted(norms.values())[2]
    assert clip_by_modality(network, bound * 1.001) == pytest.approx(norms, rel=1e-5)
    loudest = max(norms, key=norms.__getitem__)
    assert gradient_norms(network)[loudest] == pytest.approx(bound * 1.001, rel=1e-4)
    for name in set(norms) - {loudest}:
        own = {id(p) for p in by_name(network, name)}
        for key, p in network.named_parameters():
            if id(p) in own:
                assert torch.equal(p.grad, before[key]), key


def test_imbalance_names_who_and_what_to_do():
    norms = {"text": 6.0, "audio": 0.5, "midi": 3.0, SHARED: 100.0}
    advice = imbalance(norms)
    assert advice == (
        "gradients of text are 12 times those of audio (norms 6 and 0.5): lower the learning rate "
        "of text or raise that of audio, or clip each modality on its own"
    )
    told = imbalance(norms, clipped=True)
    assert told == advice.removesuffix(", or clip each modality on its own")
    assert told != advice


@pytest.mark.parametrize(
    "norms",
    [
        {"text": 4.9, "audio": 0.5, SHARED: 100.0},
        {"text": 5.0, "audio": 0.0, "midi": 1.0},
        {"text": 5.0},
        {},
    ],
)
def test_balanced(norms):
    assert imbalance(norms) is None


def test_monitor_tells_the_root_mean_square():
    network = kit.network(OPTIONS)
    no_audio = torch.ones(B, 3, dtype=torch.bool)
    no_audio[:, 1] = False
    squares = {name: [] for name in GROUPS}
    with GradientMonitor(network, ratio=1.0001) as monitor:
        for seed, present in ((1, None), (2, no_audio), (3, None)):
            network.zero_grad(set_to_none=True)
            backward(network, seed, present)
            for name, value in gradient_norms(network).items():
                squares[name].append(value**2)
        network.eval()(**kit.inputs(B))  # validation is no step
    report = monitor.report()
    assert report.steps == dict.fromkeys(GROUPS, 3)
    for name, each in squares.items():
        assert report.norms[name] == pytest.approx(math.sqrt(sum(each) / 3), rel=1e-5)
    assert report.advice.startswith("gradients of ")


def test_monitor_does_not_count_steps_without_a_gradient():
    network = kit.network(FusionOptions(**kit.PLAIN))
    frozen = [network.missing["audio"], *network.encoders["text"].parameters()]
    for parameter in frozen:
        parameter.requires_grad_(requires_grad=False)
    no_audio = torch.ones(B, 3, dtype=torch.bool)
    no_audio[:, 1] = False
    with GradientMonitor(network) as monitor:
        for present in (None, no_audio):
            network.zero_grad(set_to_none=True)
            network(**kit.inputs(B, present)).sum().backward()
    assert monitor.report().steps == {"text": 2, "audio": 1, "midi": 2, SHARED: 2}


def test_monitor_changes_nothing_and_leaves_nothing():
    def fitted(*, watched):
        network = kit.network(OPTIONS)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
        monitor = GradientMonitor(network)
        if watched:
            monitor.__enter__()
        for seed in range(3):
            optimizer.zero_grad()
            backward(network, seed)
            optimizer.step()
        if watched:
            monitor.__exit__(None, None, None)
            seen = monitor.report()
            backward(network)
            assert monitor.report() == seen
        return network.state_dict()

    plain, watched = fitted(watched=False), fitted(watched=True)
    assert all(torch.equal(value, watched[key]) for key, value in plain.items())


def test_monitor_before_any_step():
    report = GradientMonitor(kit.network(OPTIONS)).report()
    assert (report.norms, report.steps, report.advice) == ({}, {}, None)


def test_a_module_around_the_network_will_do():
    network = kit.network(OPTIONS)
    backward(network)
    around = AllLogits(network)
    assert gradient_norms(around) == gradient_norms(network)
    assert list(clip_by_modality(around, 1e-3)) == GROUPS
    with GradientMonitor(around) as monitor:
        network.zero_grad(set_to_none=True)
        around(**kit.inputs(B)).sum().backward()
    assert monitor.report().norms == pytest.approx(gradient_norms(network), rel=1e-5)


def test_other_modules_have_no_modalities():
    with pytest.raises(ValueError, match="expected one FusionNetwork in the Linear: found 0"):
        trained_parameters(torch.nn.Linear(2, 2))
