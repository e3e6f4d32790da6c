"""Multi-head attention that tells what it looked at."""

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Scaled dot-product attention with H heads.

    Written out because its weights are wanted: torch's fused kernels don't give them.
    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        """Draw the weights; `heads` must divide `dim`."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Let every query look at the keys.

        Args:
            queries: ``[B, Q, d]``.
            keys: ``[B, K, d]``, finite where masked, too.
            mask: bool ``[B, K]``: which keys are real, at least one a row.

        Returns:
            ``[B, Q, d]``, and the weights before dropout ``[B, H, Q, K]``, which add up to 1 over
            the keys and are exactly zero where masked.
        """
        query, key, value = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, queries), (self.key, keys), (self.value, keys))
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=3)
        mixed = (self.dropout(weights) @ value).transpose(1, 2).flatten(2)
        return self.output(mixed), weights


class AttentionLayer(nn.Module):
    """A transformer layer, normalised first, whose queries and keys may be different tokens."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        """Draw the weights; the feed-forward part is four times as wide."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As `Attention.forward`, added onto the queries."""
        norm = self.attention_norm
        attended, weights = self.attention(norm(queries), norm(keys), mask)
        tokens = queries + attended
        return tokens + self.feedforward(tokens), weights
