"""What of an expert other models see: one vector a row, beside its logits."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipfarm_assets.training.expert_config import TextPooling


class NoRepresentation(ValueError):  # noqa: N818
    """A model's classes cannot be looked behind: there is no hidden state to be found."""


class ExpertOutput(NamedTuple):
    """What an expert gives for B rows."""

    hidden: Tensor
    """``[B, dim]``."""
    logits: Tensor
    """``[B, C]``."""


class Represented(NamedTuple):
    """What an expert gives for N rows, whichever rows came with them."""

    hidden: NDArray[np.float32]
    """``[N, dim]``."""
    logits: NDArray[np.float32]
    """``[N, C]``."""


def pool_text(output: Any, mask: Tensor, pooling: TextPooling) -> Tensor:
    """The hidden state of texts, ``[B, dim]``.

    Args:
        output: A text model's, with ``last_hidden_state [B, T, dim]``.
        mask: ``[B, T]``, 1 where a token is the text's; texts begin at token 0.
        pooling: ``cls`` takes the first token, ``mean`` the mean of the text's own.

    Raises:
        NoRepresentation: There is no such state.
    """
    states = getattr(output, "last_hidden_state", None)
    if states is None or states.ndim != 3:
        raise _none_found(output, "last_hidden_state [B, T, dim]")
    if pooling == "cls":
        return states[:, 0]
    weights = mask.to(states.dtype).unsqueeze(2)
    total = (states * weights).sum(dim=1)
    return total / weights.sum(dim=1).clamp(min=1)


def pool_image(output: Any) -> Tensor:
    """The hidden state of images, ``[B, dim]``, as `ImagePooling` calls ``pooled``.

    Args:
        output: An image model's: ``pooler_output`` of B vectors or of B maps of one pixel, or else
            a ``last_hidden_state`` of tokens ``[B, T, dim]``, the first of which stands for the
            image, or of maps ``[B, dim, h, w]``, whose mean does.

    Raises:
        NoRepresentation: There is none.
    """
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    states = getattr(output, "last_hidden_state", None)
    if states is not None and states.ndim == 3:
        return states[:, 0]
    if states is not None and states.ndim == 4:
        return states.mean(dim=(2, 3))
    raise _none_found(output, "pooler_output, or last_hidden_state of tokens or maps")


def to_arrays(hidden: list[Tensor], logits: list[Tensor], dim: int, classes: int) -> Represented:
    """Blocks one after the other, on the CPU, as float32 arrays; also of no rows at all."""
    hidden = [torch.empty((0, dim)), *hidden]
    logits = [torch.empty((0, classes)), *logits]
    return Represented(
        torch.cat([block.float().cpu() for block in hidden]).numpy(),
        torch.cat([block.float().cpu() for block in logits]).numpy(),
    )


def _none_found(output: Any, expected: str) -> NoRepresentation:
    found = sorted(output.keys()) if hasattr(output, "keys") else type(output).__name__
    return NoRepresentation(
        f"cannot find a hidden state in the model's backbone: expected {expected}, found {found}; "
        "use another model"
    )
