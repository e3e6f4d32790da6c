"""What encoders give: a sequence of vectors a row, and which of them are real."""

from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn

TOKEN_STD: Final = 0.02
"""Spread of freshly drawn tokens that are learned, as in BERT."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Vectors of one modality of B rows.

    Attributes:
        values: ``[B, T, D]``; anything where `mask` is False.
        mask: bool ``[B, T]``: which tokens are real, and not padding.
    """

    values: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ValueError: They are not as above.
        """
        shape = tuple(self.values.shape)
        if len(shape) != 3 or tuple(self.mask.shape) != shape[:2] or self.mask.dtype != torch.bool:
            msg = (
                f"tokens must be [B, T, D] with a bool mask [B, T]: found {list(shape)} with "
                f"{self.mask.dtype} {list(self.mask.shape)}"
            )
            raise ValueError(msg)


class Encoder(Protocol):
    """A module that turns one modality's inputs into tokens.

    A row's tokens must depend on that row alone, so no BatchNorm, and the number of tokens on the
    inputs' shapes alone: rows are encoded in blocks.

    Attributes:
        dim: Width of the tokens.
    """

    dim: int

    def __call__(self, **inputs: Tensor) -> Tokens:
        """Encode B rows, tensors of B rows each."""
        ...


class StoredEncoder(nn.Module):
    """For vectors that are encoded already: gives them as they are."""

    def __init__(self, dim: int) -> None:
        """For vectors of `dim` numbers."""
        super().__init__()
        self.dim = dim

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """One token a row, or T of them.

        Args:
            values: ``[B, dim]`` or ``[B, T, dim]``.
            mask: bool ``[B, T]``; by default all tokens are real.

        Raises:
            ValueError: They are of another width or shape.
        """
        if values.ndim == 2:
            values = values.unsqueeze(1)
        if values.ndim != 3 or values.shape[2] != self.dim:
            msg = f"stored vectors must be of {self.dim} numbers: found shape {list(values.shape)}"
            raise ValueError(msg)
        if mask is None:
            mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Tokens(values, mask)


def masked_mean(tokens: Tokens) -> Tensor:
    """The mean of each row's real tokens, ``[B, D]``; zeros for a row without any."""
    mask = tokens.mask.unsqueeze(2)
    total = torch.where(mask, tokens.values, 0).sum(dim=1)
    return total / mask.sum(dim=1).clamp(min=1)
