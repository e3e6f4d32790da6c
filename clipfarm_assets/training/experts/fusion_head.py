"""The fusion of a text and a vision expert: the network, how it is fitted, what is kept of it.

With frozen experts the network sees their stored representations. With experts that are trained
along it holds them as its encoders, see `fusion_encoders`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.fusion.learned.tokens import StoredEncoder
from clipfarm_assets.fusion.options import FusionOptions
from clipfarm_assets.storage.meme_layout import EXPERT_MODALITIES, ExpertModality
from clipfarm_assets.training.classification.values import class_logits
from clipfarm_assets.training.meme_config import MemeFusionConfig, Representation
from clipfarm_assets.training.networks.batches import Batch, Batches
from clipfarm_assets.training.networks.checkpoint import Checkpoint
from clipfarm_assets.training.networks.evaluation import BLOCK_ROWS, as_tensor, evaluate
from clipfarm_assets.training.networks.fit import Curve, Say, fit_batches
from clipfarm_assets.training.networks.fit_state import learning
from clipfarm_assets.training.networks.objectives import (
    Objective,
    balanced_class_weights,
    binary_cross_entropy,
    cross_entropy,
)
from clipfarm_assets.training.networks.parameter_groups import ParameterGroup
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.networks.weights import (
    Architecture,
    BadWeights,
    Count,
    Width,
    from_safetensors,
    load_weights,
    to_pt,
    to_safetensors,
)

ModalityName: TypeAlias = ExpertModality
MODALITIES: Final = EXPERT_MODALITIES
"""The order of every presence mask of memes."""

WEIGHTS_PT: Final = "fusion_model.pt"
WEIGHTS: Final = "fusion_model.safetensors"
ARCHITECTURE: Final = "config.json"


class WrongFeatures(ValueError):  # noqa: N818
    """Features are not of the experts that a head was fitted to."""


class ModalityInput(Architecture):
    """What the head sees of one modality.

    Attributes:
        expert: Version of the expert.
        representation: What of it.
        dim: Its length.
    """

    expert: str
    representation: Representation
    dim: Width


class FusionArchitecture(Architecture):
    """``config.json``: everything of a fusion model beside its weights.

    Attributes:
        label: What it tells.
        classes: Names of the label's classes, in order.
        outputs: Width of the head's output: one a class, or 1, the logit of class 1 of two.
        text, vision: What it sees.
        options: Of the network.
        top_layers: How many of each expert's last layers were trained along.
        lora_rank: Of the low-rank updates that were trained along; 0 for none.
    """

    label: str
    classes: tuple[str, ...]
    outputs: Width
    text: ModalityInput
    vision: ModalityInput
    options: FusionOptions
    top_layers: Count = 0
    lora_rank: Count = 0

    @property
    def inputs(self) -> dict[ModalityName, ModalityInput]:
        """By modality, in the order of `MODALITIES`."""
        return {"text": self.text, "vision": self.vision}

    @property
    def are_experts_frozen(self) -> bool:
        """Whether stored representations are all it needs."""
        return self.top_layers == 0 and self.lora_rank == 0

    @classmethod
    def read(cls, data: bytes) -> Self:
        """That of ``config.json``.

        Raises:
            BadWeights: It is none.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            found = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'json'}: {e['msg']}" for e in error.errors()
            )
            msg = f"{ARCHITECTURE} must be a {cls.__name__}: {found}"
            raise BadWeights(msg) from None


def architecture_of(
    config: MemeFusionConfig,
    label: str,
    classes: Sequence[str],
    experts: Mapping[ModalityName, str],
    widths: Mapping[ModalityName, int],
) -> FusionArchitecture:
    """The architecture that a config asks for.

    Args:
        config: All settings.
        label: What is to be told.
        classes: Of the label.
        experts: Version of each.
        widths: Length of each representation.

    Raises:
        ValueError: Binary cross entropy is asked for, and there are more than two classes.
    """
    is_binary = config.objective == "binary_cross_entropy"
    if is_binary and len(classes) != 2:
        msg = (
            f"binary_cross_entropy is for two classes, {label} has {len(classes)}: use "
            "cross_entropy"
        )
        raise ValueError(msg)
    text, vision = (
        ModalityInput(
            expert=experts[name], representation=config.representations[name], dim=widths[name]
        )
        for name in MODALITIES
    )
    return FusionArchitecture(
        label=label,
        classes=tuple(classes),
        outputs=1 if is_binary else len(classes),
        text=text,
        vision=vision,
        options=config.options,
        top_layers=config.unfreeze_top_layers,
        lora_rank=config.lora_rank,
    )


def build_network(
    architecture: FusionArchitecture,
    seed: int,
    encoders: Mapping[str, nn.Module] | None = None,
) -> FusionNetwork:
    """The network, freshly drawn from `seed`.

    Args:
        architecture: What it is.
        seed: Decides its weights.
        encoders: By modality; by default those of stored representations.
    """
    stored: dict[str, nn.Module] = {
        name: StoredEncoder(each.dim) for name, each in architecture.inputs.items()
    }
    with reproducible(seed):
        return FusionNetwork(
            stored if encoders is None else encoders,
            architecture.options,
            classes=architecture.outputs,
        )


def objective_of(config: MemeFusionConfig, counts: Sequence[int]) -> Objective:
    """What a fit minimises.

    Args:
        config: Loss and class weights.
        counts: Train rows of each class.

    Raises:
        ValueError: Classes are to be balanced, and one has no rows.
    """
    weights = balanced_class_weights(counts) if config.class_weights == "balanced" else None
    if config.objective == "binary_cross_entropy":
        ratio = None if weights is None else weights[1] / weights[0]
        return binary_cross_entropy(ratio)
    return cross_entropy(weights)


def fit_fusion(
    network: FusionNetwork,
    train: Batches,
    val: Batches,
    counts: Sequence[int],
    config: MemeFusionConfig,
    *,
    checkpoint: Checkpoint | None,
    say: Say,
    groups: Sequence[ParameterGroup] = (),
    clip_norm: float | None = None,
) -> Curve:
    """Fit `network` in place; see `fit_batches`. A checkpoint of no use is discarded, and counted.

    Args:
        network: Of `build_network`.
        train: Its inputs, and classes.
        val: Likewise; decides when to stop.
        counts: Train rows of each class.
        config: All settings.
        checkpoint: See `fit_batches`.
        say: Gets lines of progress.
        groups: Parts with rates of their own.
        clip_norm: Longest gradient.

    Raises:
        ValueError: See `objective_of`.
        Diverged: The loss became infinite or NaN.
    """
    return fit_batches(
        network,
        train,
        val,
        config.fit,
        config.seed,
        say=say,
        name="fusion",
        objective=objective_of(config, counts),
        groups=groups,
        checkpoint=checkpoint,
        clip_norm=clip_norm,
        restart_foreign=True,
    )


@dataclass(frozen=True)
class FusionModel:
    """A fitted fusion model.

    Attributes:
        architecture: What `network` was made of.
        network: In eval mode.
    """

    architecture: FusionArchitecture
    network: FusionNetwork

    def artifacts(self) -> dict[str, bytes]:
        """``fusion_model.pt``, ``fusion_model.safetensors`` and ``config.json``.

        The weights are those of the head, and of what was trained of the experts. Equal weights
        give equal bytes.
        """
        state = learning(self.network)
        return {
            WEIGHTS_PT: to_pt(state),
            WEIGHTS: to_safetensors(state),
            ARCHITECTURE: (self.architecture.model_dump_json(indent=2) + "\n").encode(),
        }

    @classmethod
    def load(
        cls,
        read: Callable[[str], bytes],
        encoders: Callable[[FusionArchitecture], Mapping[str, nn.Module]] | None = None,
    ) -> Self:
        """The model whose artifacts `read` gives, by their names.

        Args:
            read: Gives an artifact's bytes.
            encoders: Gives the experts as encoders; for a model whose experts were trained along.

        Raises:
            BadWeights: They are not of such a model.
            ValueError: Its experts were trained along, and none are given.
        """
        architecture = FusionArchitecture.read(read(ARCHITECTURE))
        if not architecture.are_experts_frozen and encoders is None:
            msg = (
                "this fusion model trained its experts along: give `encoders`, so that they can "
                "be completed by what it changed of them"
            )
            raise ValueError(msg)
        opened = (
            encoders(architecture) if encoders and not architecture.are_experts_frozen else None
        )
        network = build_network(architecture, 0, opened)
        weights = from_safetensors(read(WEIGHTS), WEIGHTS)
        expected = learning(network)
        frozen = {key: v for key, v in network.state_dict().items() if key not in expected}
        load_weights(network, {**frozen, **weights}, WEIGHTS)
        network.eval()
        return cls(architecture, network)

    def logits(
        self, inputs: Mapping[str, Tensor], block_rows: int = BLOCK_ROWS
    ) -> NDArray[np.float64]:
        """Logits of N rows and C classes; a row's do not depend on the others'.

        Args:
            inputs: What the network is called with: ``present`` bool ``[N, 2]``, ``text`` and
                ``vision`` ``[N, dim]``, or the experts' own arguments.
            block_rows: Rows that go through at once.

        Returns:
            float64 ``(N, C)``; of a head with one output the first column is 0.

        Raises:
            WrongFeatures: A stored representation is of another length.
            ValueError: A logit is not finite.
        """
        for name, each in self.architecture.inputs.items():
            found = inputs.get(name)
            if found is not None and found.shape[1:] != (each.dim,):
                msg = (
                    f"the fusion model of {self.architecture.label} sees {each.dim} numbers of "
                    f"{name} ({each.representation} of expert {each.expert}): found shape "
                    f"{tuple(found.shape)}"
                )
                raise WrongFeatures(msg)
        if not len(inputs["present"]):
            return np.empty((0, len(self.architecture.classes)))
        output = evaluate(self.network, inputs, block_rows=block_rows)
        logits: NDArray[np.float64] = class_logits(output.double().numpy())
        return logits


StoredRow: TypeAlias = tuple[dict[ModalityName, Tensor], Tensor, int]
"""Representations ``[dim]``, which are present ``[2]``, and the class of one row."""


def stored_inputs(
    values: Mapping[ModalityName, NDArray[Any]], present: NDArray[np.bool_]
) -> dict[str, Tensor]:
    """Stored representations as the network is called with them.

    Args:
        values: float32 ``(N, dim)`` by modality.
        present: bool ``(N, 2)``, in the order of `MODALITIES`.
    """
    tensors: dict[str, Tensor] = {
        name: as_tensor(np.asarray(values[name], np.float32)) for name in MODALITIES
    }
    return {**tensors, "present": as_tensor(np.asarray(present, np.bool_))}


def stored_rows(
    values: Mapping[ModalityName, NDArray[Any]],
    present: NDArray[np.bool_],
    labels: NDArray[np.int64],
) -> Iterator[StoredRow]:
    """The rows one by one, copied: in a shuffle buffer none holds the arrays of its shard."""
    tensors = stored_inputs(values, present)
    for row, label in enumerate(labels.tolist()):
        values_of_row = {name: tensors[name][row].clone() for name in MODALITIES}
        yield values_of_row, tensors["present"][row].clone(), label


def collate_stored(rows: Sequence[StoredRow]) -> Batch:
    """Inputs ``text``, ``vision`` and ``present``; target int64 ``[b]``."""
    inputs: dict[str, Tensor] = {
        name: torch.stack([values[name] for values, _, _ in rows]) for name in MODALITIES
    }
    inputs["present"] = torch.stack([present for _, present, _ in rows])
    return inputs, torch.tensor([label for _, _, label in rows])
