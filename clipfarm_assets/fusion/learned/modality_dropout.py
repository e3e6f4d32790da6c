"""Modality dropout: rows that lose a modality in training, so that none is relied on alone."""

import torch
from torch import Tensor


def drop_modalities(present: Tensor, probability: float) -> Tensor:
    """Take each present modality of each row for absent with `probability`.

    Coins are thrown a row and a modality, not a batch. A row that would lose all it has keeps one
    of them, drawn evenly. As many random numbers are drawn whatever is present.

    Args:
        present: bool ``[B, M]``.
        probability: In [0, 1).

    Returns:
        bool ``[B, M]``, a subset of `present`; of a row that has any, at least one.
    """
    device = present.device
    kept = present & (torch.rand(present.shape, device=device) >= probability)
    lots = torch.rand(present.shape, device=device).masked_fill(~present, -1)
    chosen = lots.argmax(dim=1, keepdim=True) == torch.arange(present.shape[1], device=device)
    return kept | (chosen & present & ~kept.any(dim=1, keepdim=True))
