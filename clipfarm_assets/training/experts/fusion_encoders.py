"""Experts as the encoders of a fusion network, for fusion that trains them along."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipfarm_assets.fusion.learned.tokens import Tokens
from clipfarm_assets.training.experts.expert import BLOCK_ROWS, Expert
from clipfarm_assets.training.experts.fusion_head import (
    MODALITIES,
    FusionArchitecture,
    FusionModel,
    ModalityName,
)
from clipfarm_assets.training.experts.layers import learning_parts, unfreeze
from clipfarm_assets.training.experts.lora import add_lora
from clipfarm_assets.training.meme_config import Representation
from clipfarm_assets.training.networks.batches import Batch
from clipfarm_assets.training.networks.parameter_groups import ParameterGroup

Experts: TypeAlias = Mapping[ModalityName, Expert[Any, Any]]


class ExpertEncoder(nn.Module):
    """One token a row: an expert's hidden state, or its logits.

    Attributes:
        dim: Width of the token.
    """

    def __init__(self, expert: Expert[Any, Any], representation: Representation) -> None:
        """Take an expert; what of it learns is its caller's to say."""
        super().__init__()
        self.expert = expert
        self.representation = representation
        self.dim = width_of(expert, representation)

    def forward(self, **inputs: Tensor) -> Tokens:
        """Encode B rows, given as the expert's own arguments."""
        output = self.expert(inputs)
        values = output.hidden if self.representation == "hidden" else output.logits
        mask = torch.ones((len(values), 1), dtype=torch.bool, device=values.device)
        return Tokens(values.unsqueeze(1), mask)


def width_of(expert: Expert[Any, Any], representation: Representation) -> int:
    """How many numbers a representation has."""
    return expert.dim if representation == "hidden" else len(expert.classes)


def learning_encoders(
    architecture: FusionArchitecture, experts: Experts, seed: int
) -> dict[str, nn.Module]:
    """The experts as encoders, of which learns what the architecture says, and nothing else.

    An expert's own head learns only where its logits are what fusion sees.

    Args:
        architecture: Says what learns.
        experts: Changed in place.
        seed: Decides the random half of low-rank updates.

    Raises:
        NoLayers: An expert has not as many layers.
        LoraUnavailable: Low-rank updates are wanted, and ``peft`` is not installed.
    """
    encoders: dict[str, nn.Module] = {}
    for name, each in architecture.inputs.items():
        model, head = experts[name].model, each.representation == "logits"
        if architecture.lora_rank:
            add_lora(model, architecture.lora_rank, seed, head=head)
        else:
            unfreeze(model, architecture.top_layers, head=head)
        encoders[name] = ExpertEncoder(experts[name], each.representation)
    return encoders


def expert_groups(experts: Experts, learning_rate: float) -> list[ParameterGroup]:
    """What learns of the experts, by its name in the fusion network, at its own rate."""
    groups = []
    for name in MODALITIES:
        parts = learning_parts(experts[name].model)
        groups += [
            ParameterGroup(f"encoders.{name}.expert.model.{part}", learning_rate)
            for part in (*parts.layers, *parts.head)
        ]
    return groups


@dataclass(frozen=True, slots=True)
class MemeSample:
    """A labelled meme, as a shard has it.

    Attributes:
        key: Its name.
        text: Its words; may be blank.
        image: A file's bytes.
        label: Number of its class.
    """

    key: str
    text: str
    image: bytes
    label: int


EVALUATED_ROWS: Final = BLOCK_ROWS
"""Rows that go through a network over `learning_encoders` at once, outside of training."""


@dataclass(frozen=True)
class CollateMemes:
    """Makes batches of memes for a network over `learning_encoders`.

    Attributes:
        experts: Whose arguments are made.
        is_padded_in_full: Texts are padded to their maximum, so that what a row gives does not
            depend on its neighbours' length; otherwise as far as the longest of them needs.
    """

    experts: Experts
    is_padded_in_full: bool

    def __call__(self, rows: Sequence[MemeSample]) -> Batch:
        """Inputs ``text.<argument>``, ``vision.<argument>`` and ``present``; target int64 ``[b]``.

        Raises:
            MediaError: An image cannot be read.
        """
        text: Any = self.experts["text"]
        texts = [row.text for row in rows]
        arguments: dict[ModalityName, Mapping[str, Tensor]] = {
            "text": text.encode(texts).inputs if self.is_padded_in_full else text.collate(texts),
            "vision": self.experts["vision"].collate([row.image for row in rows]),
        }
        inputs = {
            f"{name}.{argument}": value
            for name in MODALITIES
            for argument, value in arguments[name].items()
        }
        inputs["present"] = torch.tensor([[bool(row.text.strip()), True] for row in rows])
        return inputs, torch.tensor([row.label for row in rows])


def encoded_inputs(
    model: FusionModel, samples: Iterable[MemeSample], seen: NDArray[np.bool_]
) -> Iterator[dict[str, Tensor]]:
    """What a model that trained its experts along is called with, `EVALUATED_ROWS` at a time.

    Args:
        model: Whose encoders are `ExpertEncoder`.
        samples: Taken as needed.
        seen: bool ``(2,)``: which modalities it is shown.
    """
    experts: dict[ModalityName, Any] = {
        name: model.network.encoders[name].expert for name in MODALITIES
    }
    collate = CollateMemes(experts, is_padded_in_full=True)
    stream = iter(samples)
    while rows := list(islice(stream, EVALUATED_ROWS)):
        inputs, _ = collate(rows)
        yield {**inputs, "present": inputs["present"] & torch.from_numpy(seen)}
