"""Pieces that networks are built of."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipfarm_assets.fusion.learned import layers


def embedding_dim(cardinality: int) -> int:
    """Length of a category's vector: ``min(32, max(2, round(sqrt(cardinality))))``, as deployed.

    Args:
        cardinality: Number of codes, the one for unseen and missing included.
    """
    return min(32, max(2, round(math.sqrt(cardinality))))


class CategoryEmbeddings(nn.Module):
    """A table for every categorical feature, side by side.

    Code 0 stands for unseen and missing. Its vector starts at zero, so that a category which no
    train row prepared the network for adds nothing, rather than something random.
    """

    def __init__(self, cardinalities: Sequence[int]) -> None:
        """Draw tables of `cardinalities` rows."""
        super().__init__()
        self.tables = nn.ModuleList(
            nn.Embedding(cardinality, embedding_dim(cardinality)) for cardinality in cardinalities
        )
        with torch.no_grad():
            for table in self.tables:
                table.weight[0].zero_()
        self.dim = sum(map(embedding_dim, cardinalities))

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int64 ``[b, C]`` to vectors ``[b, dim]``."""
        if not len(self.tables):
            return codes.new_zeros((len(codes), 0), dtype=torch.get_default_dtype())
        vectors = [table(codes[:, index]) for index, table in enumerate(self.tables)]
        return torch.cat(vectors, dim=1)


def mlp(input_dim: int, hidden: Sequence[int], dropout: float, mean: float = 0.0) -> nn.Sequential:
    """``(Linear -> GELU -> Dropout)`` for every hidden width, then ``Linear -> 1``.

    Args:
        input_dim: Width of the input.
        hidden: Widths of the hidden layers.
        dropout: Share of hidden values left out in training.
        mean: What a fresh network predicts, about.
    """
    network = layers.mlp(input_dim, hidden, 1, dropout)
    start_at(network[-1], mean)
    return network


def start_at(layer: nn.Linear, mean: float) -> None:
    """Let a fresh output layer give `mean` on average, which few steps are too few to find."""
    with torch.no_grad():
        layer.bias.fill_(mean)
