"""Layers that all fusion networks are built of."""

from collections.abc import Sequence

from torch import nn


def projection(input_dim: int, dim: int) -> nn.Sequential:
    """``Linear -> GELU -> LayerNorm``: one modality's way into the width that all share."""
    return nn.Sequential(nn.Linear(input_dim, dim), nn.GELU(), nn.LayerNorm(dim))


def mlp(input_dim: int, hidden: Sequence[int], output_dim: int, dropout: float) -> nn.Sequential:
    """``(Linear -> GELU -> Dropout)`` for every hidden width, then ``Linear -> output_dim``.

    Args:
        input_dim: Width of the input.
        hidden: Widths of the hidden layers.
        output_dim: Width of the output.
        dropout: Share of hidden values left out in training.
    """
    layers: list[nn.Module] = []
    width = input_dim
    for next_width in hidden:
        layers += [nn.Linear(width, next_width), nn.GELU(), nn.Dropout(dropout)]
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, output_dim))
