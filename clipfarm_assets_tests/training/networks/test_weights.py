import hashlib
import io

import pytest
import torch
from safetensors.torch import load as load_safetensors

from clipfarm_assets.training.networks.projector import Projector, ProjectorArchitecture
from clipfarm_assets.training.networks.weights import (
    BadWeights,
    load_network,
    network_artifacts,
    to_pt,
    to_safetensors,
)
from clipfarm_assets_tests.processes import call

ARCHITECTURE = ProjectorArchitecture(fused_dim=5, hidden=4, projector_dim=3, dropout=0.1)


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Projector(ARCHITECTURE)


def artifacts(seed=0):
    return network_artifacts("net", ARCHITECTURE, network(seed))


def load(stored):
    return load_network(stored.__getitem__, "net", ProjectorArchitecture, Projector)


def test_both_files_hold_the_weights():
    stored = artifacts()
    state = network().state_dict()
    # Our own bytes of this test; weights_only reads tensors and runs no code.
    from_pt = torch.load(io.BytesIO(stored["net.pt"]), weights_only=True)
    for read in (from_pt, load_safetensors(stored["net.safetensors"])):
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)
    plain = Projector(ARCHITECTURE)
    plain.load_state_dict(from_pt)


def test_same_weights_same_bytes():
    assert artifacts() == artifacts()
    assert artifacts(0)["net.pt"] != artifacts(1)["net.pt"]


def hash_of_both_files(order):
    state = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3)}
    state = {name: state[name] for name in order}
    return hashlib.sha256(to_pt(state) + to_safetensors(state)).hexdigest()


def test_bytes_are_those_of_another_process():
    there = call(hash_of_both_files, ["weight", "bias"])
    assert there == hash_of_both_files(["bias", "weight"])


def test_bytes_know_neither_order_nor_memory():
    """A view of a larger storage, a transposed tensor, another order: the same tensors."""
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}
    twisted = {
        "b": torch.ones(1000)[10:13],
        "a": torch.arange(6.0).reshape(2, 3).T.contiguous().T,
    }
    assert not twisted["a"].is_contiguous()
    assert to_pt(state) == to_pt(twisted)
    assert to_safetensors(state) == to_safetensors(twisted)


def test_shared_tensors_are_written_twice():
    one = torch.ones(3)
    state = {"a": one, "b": one}
    assert to_pt(state) == to_pt({"a": torch.ones(3), "b": torch.ones(3)})
    assert load_safetensors(to_safetensors(state)).keys() == {"a", "b"}


def test_loaded_network_is_the_same():
    before = torch.get_rng_state()
    architecture, loaded = load(artifacts())
    assert torch.equal(torch.get_rng_state(), before)
    assert architecture == ARCHITECTURE
    assert not loaded.training
    state = network().state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert network_artifacts("net", architecture, loaded) == artifacts()


def changed(change):
    state = dict(network().state_dict())
    change(state)
    return {**artifacts(), "net.safetensors": to_safetensors(state)}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s.pop("head.bias"), "head.bias is missing"),
        (lambda s: s.update(extra=torch.ones(2)), "extra is unknown"),
        (
            lambda s: s.update({"head.weight": torch.ones(1, 4)}),
            "head.weight must be float32 (1, 3), found float32 (1, 4)",
        ),
        (
            lambda s: s.update({"head.bias": torch.ones(1, dtype=torch.float64)}),
            "head.bias must be float32 (1,), found float64 (1,)",
        ),
        (
            lambda s: s["core.0.bias"].fill_(float("nan")),
            "core.0.bias holds values that are not finite",
        ),
    ],
)
def test_other_weights_are_refused(change, problem):
    with pytest.raises(BadWeights) as caught:
        load(changed(change))
    assert str(caught.value) == f"net.safetensors is not of this network: {problem}"


@pytest.mark.parametrize("data", [b"", b"junk", artifacts()["net.pt"]])
def test_what_is_no_safetensors_file_is_refused(data):
    with pytest.raises(BadWeights, match=r"net\.safetensors is not a readable safetensors file"):
        load({**artifacts(), "net.safetensors": data})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{", "json"),
        (b"{}", "fused_dim: Field required"),
        (b'{"fused_dim": 5, "surprise": 1}', "surprise"),
        (b'{"fused_dim": -5}', "fused_dim"),
        (b'{"fused_dim": "five"}', "fused_dim"),
    ],
)
def test_other_architectures_are_refused(data, problem):
    with pytest.raises(
        BadWeights, match=rf"net\.json must be a ProjectorArchitecture: .*{problem}"
    ):
        load({**artifacts(), "net.json": data})
