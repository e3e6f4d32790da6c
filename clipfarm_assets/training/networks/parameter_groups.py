"""Which parameters learn, and how fast: parts of a network with rates of their own."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from clipfarm_assets.training.config import FitConfig


@dataclass(frozen=True)
class ParameterGroup:
    """A part of a network that learns at its own rate.

    Attributes:
        module: Dotted name of the part, e.g. ``encoders.text``: all parameters below it.
        learning_rate: In place of the config's.
        weight_decay: In place of the config's.
    """

    module: str
    learning_rate: float
    weight_decay: float | None = None

    def holds(self, parameter: str) -> bool:
        """Whether the parameter of this name is of the part."""
        return parameter == self.module or parameter.startswith(f"{self.module}.")

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def adamw(
    network: nn.Module, config: FitConfig, groups: Sequence[ParameterGroup]
) -> tuple[torch.optim.AdamW, list[str]]:
    """AdamW over the parameters that require gradients.

    Args:
        network: Frozen parameters (``requires_grad`` is False) are left out.
        config: Rates of what no group holds.
        groups: Each parameter is of one at most.

    Returns:
        The optimizer, and the names of its parameters in its order.

    Raises:
        ValueError: Nothing learns; a group holds nothing that learns; two hold the same parameter.
    """
    learning = {key: value for key, value in network.named_parameters() if value.requires_grad}
    if not learning:
        msg = f"all parameters of the {type(network).__name__} are frozen: nothing to fit"
        raise ValueError(msg)
    rest = dict(learning)
    parts: list[dict[str, Any]] = []
    names: list[str] = []
    for group in groups:
        held = [key for key in learning if group.holds(key)]
        if not held:
            parts_there = sorted({key.split(".")[0] for key in learning})
            msg = (
                f"the parameter group {group.module!r} holds no parameter that learns: expected a "
                f"part that is not frozen, such as {parts_there}"
            )
            raise ValueError(msg)
        if twice := [key for key in held if key not in rest]:
            msg = f"two parameter groups hold {twice[0]}: every parameter is of one at most"
            raise ValueError(msg)
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        parts.append(
            {
                "params": [rest.pop(key) for key in held],
                "lr": group.learning_rate,
                "weight_decay": decay,
            }
        )
        names += held
    if rest:
        parts.append({"params": list(rest.values())})
        names += rest
    optimizer = torch.optim.AdamW(parts, lr=config.learning_rate, weight_decay=config.weight_decay)
    return optimizer, names
