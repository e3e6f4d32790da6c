"""A gate that decides how much each modality counts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GatedFusion(nn.Module):
    """Weighs M modality vectors by what is known of the item, and adds them up.

    The weights are a softmax over the modalities that are present: an absent one weighs exactly
    zero and gets no gradient. The training contract's gate knows presence only as an input.
    """

    def __init__(self, modalities: int, context_dim: int, hidden: int) -> None:
        """Draw the gate: ``Linear(context -> hidden) -> GELU -> Linear(hidden -> M)``."""
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(context_dim, hidden), nn.GELU(), nn.Linear(hidden, modalities)
        )

    def forward(
        self, vectors: Sequence[Tensor], present: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            vectors: M projected vectors ``[b, d]``, finite for absent modalities too.
            present: bool ``[b, M]``.
            context: ``[b, C]``.

        Returns:
            ``fused [b, d]`` and ``weights [b, M]``: non-negative with sum 1, or all zero (and so
            is `fused`) where nothing is present.
        """
        scores = self.gate(context)
        # The lowest finite number, not -inf, of which a row without any modality would make NaN.
        scores = scores.masked_fill(~present, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=1) * present
        fused = (weights.unsqueeze(-1) * torch.stack(tuple(vectors), dim=1)).sum(dim=1)
        return fused, weights
