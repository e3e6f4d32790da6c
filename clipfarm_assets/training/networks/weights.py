"""A network as artifacts: what it is (json) and its weights (safetensors, and a ``.pt`` beside)."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

StateDict = Mapping[str, Tensor]

Width = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class BadWeights(ValueError):  # noqa: N818
    """An artifact is not of the network that it is read for."""


class Architecture(BaseModel):
    """Everything that the shapes and the function of a network follow from, beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")


A = TypeVar("A", bound=Architecture)
N = TypeVar("N", bound=nn.Module)


def network_artifacts(
    name: str, architecture: Architecture, network: nn.Module
) -> dict[str, bytes]:
    """``<name>.pt``, ``<name>.safetensors`` and ``<name>.json``; equal weights give equal bytes."""
    state = network.state_dict()
    return {
        f"{name}.pt": to_pt(state),
        f"{name}.safetensors": to_safetensors(state),
        f"{name}.json": (architecture.model_dump_json(indent=2) + "\n").encode(),
    }


def load_network(
    read: Callable[[str], bytes], name: str, kind: type[A], build: Callable[[A], N]
) -> tuple[A, N]:
    """The network that `network_artifacts` wrote, in eval mode.

    Args:
        read: Gives an artifact by its name.
        name: As it was written under.
        kind: Type of the architecture.
        build: Makes the network of an architecture.

    Raises:
        BadWeights: The json is no such architecture, or the weights don't fit it.
    """
    data = read(f"{name}.json")
    try:
        architecture = kind.model_validate_json(data)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'json'}: {e['msg']}" for e in error.errors()
        )
        msg = f"{name}.json must be a {kind.__name__}: {found}"
        raise BadWeights(msg) from None
    weights = from_safetensors(read(f"{name}.safetensors"), f"{name}.safetensors")
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and replaced at once
        network = build(architecture)
    load_weights(network, weights, f"{name}.safetensors")
    network.eval()
    return architecture, network


def load_weights(network: nn.Module, weights: StateDict, name: str) -> None:
    """Put `weights` into `network`.

    Raises:
        BadWeights: A tensor is missing, unknown, or of another shape or dtype, or holds values
            that are not finite.
    """
    expected = {key: _form(value) for key, value in network.state_dict().items()}
    found = {key: _form(value) for key, value in weights.items()}
    problems = [f"{key} is missing" for key in sorted(expected.keys() - found.keys())]
    problems += [f"{key} is unknown" for key in sorted(found.keys() - expected.keys())]
    problems += [
        f"{key} must be {expected[key]}, found {found[key]}"
        for key in sorted(expected.keys() & found.keys())
        if expected[key] != found[key]
    ]
    problems += [
        f"{key} holds values that are not finite"
        for key, value in sorted(weights.items())
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if problems:
        msg = f"{name} is not of this network: {'; '.join(problems)[:1000]}"
        raise BadWeights(msg)
    network.load_state_dict(dict(weights))


def to_pt(state: StateDict) -> bytes:
    """A state dict as ``torch.load(weights_only=True)`` reads it; equal tensors, equal bytes.

    Tensors are copied: a view would drag its whole storage along, and module state carries
    version marks beside its tensors.
    """
    buffer = io.BytesIO()
    torch.save(_plain(state), buffer)
    return buffer.getvalue()


def to_safetensors(state: StateDict, metadata: Mapping[str, str] | None = None) -> bytes:
    """A state dict as safetensors; equal arguments, equal bytes.

    Args:
        state: Tensors by name; may share memory.
        metadata: Text beside them, one entry at most: the format keeps no order among several.
    """
    data: bytes = save_safetensors(_plain(state), None if metadata is None else dict(metadata))
    return data


def safetensors_metadata(data: bytes) -> dict[str, str]:
    """The text beside the tensors of a file that `from_safetensors` has read."""
    # 8 bytes of length, little endian, then JSON: the library gives it of files on disk only.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata


def from_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        BadWeights: It is none.
    """
    try:
        tensors: dict[str, Tensor] = load_safetensors(data)
    except SafetensorError as error:
        msg = f"{name} is not a readable safetensors file: {error}"
        raise BadWeights(msg) from None
    return tensors


def _plain(state: StateDict) -> dict[str, Tensor]:
    """Tensors on the CPU with storage of their own, in the order of their names."""
    return {
        key: state[key].detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key in sorted(state)
    }


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
