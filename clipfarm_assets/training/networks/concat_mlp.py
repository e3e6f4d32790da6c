"""``concat_mlp``: everything known of a clip side by side, through one MLP."""

import torch
from torch import Tensor, nn

from clipfarm_assets.training.networks.blocks import CategoryEmbeddings, mlp
from clipfarm_assets.training.networks.weights import Architecture, Count, Share, Width


class ConcatMlpArchitecture(Architecture):
    """See `ConcatMlp`."""

    fused_dim: Width
    numeric_dim: Count
    cardinalities: tuple[Width, ...]
    hidden: tuple[Width, ...]
    dropout: Share


class ConcatMlp(nn.Module):
    """``[fused || numeric || category embeddings]`` through an MLP to one number.

    Source: the training contract, section 6.1.
    """

    def __init__(self, architecture: ConcatMlpArchitecture, mean: float = 0.0) -> None:
        """Draw the weights; a fresh network predicts about `mean`."""
        super().__init__()
        self.embeddings = CategoryEmbeddings(architecture.cardinalities)
        width = architecture.fused_dim + architecture.numeric_dim + self.embeddings.dim
        self.head = mlp(width, architecture.hidden, architecture.dropout, mean)

    def forward(self, fused: Tensor, numeric: Tensor, codes: Tensor) -> Tensor:
        """Predict.

        Args:
            fused: ``[b, fused_dim]``.
            numeric: ``[b, numeric_dim]``, standardised.
            codes: int64 ``[b, C]``.

        Returns:
            ``[b]``.
        """
        seen = torch.cat([fused, numeric, self.embeddings(codes)], dim=1)
        output: Tensor = self.head(seen).squeeze(-1)
        return output
