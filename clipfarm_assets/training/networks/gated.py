"""``gated_fusion_mlp``: a tower a modality, and a gate that decides how much each one counts."""

import torch
from torch import Tensor, nn

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.fusion.learned.gated import GatedFusion
from clipfarm_assets.fusion.learned.layers import projection
from clipfarm_assets.training.networks.blocks import CategoryEmbeddings, mlp
from clipfarm_assets.training.networks.weights import Architecture, Count, Share, Width


class GatedArchitecture(Architecture):
    """See `GatedFusionNetwork`. `dims` are those of `MODALITIES`, in their order."""

    dims: tuple[Width, Width, Width]
    numeric_dim: Count
    cardinalities: tuple[Width, ...]
    tower_dim: Width
    gate_hidden: Width
    hidden: tuple[Width, ...]
    dropout: Share


class GatedFusionNetwork(nn.Module):
    """``Linear -> GELU -> LayerNorm`` a modality, gated sum, and a head that sees the context too.

    The context of gate and head is ``[numeric || category embeddings || text_present]``. Source:
    the training contract, section 6.2.
    """

    def __init__(self, architecture: GatedArchitecture, mean: float = 0.0) -> None:
        """Draw the weights; a fresh network predicts about `mean`."""
        super().__init__()
        tower_dim = architecture.tower_dim
        self.towers = nn.ModuleDict(
            {
                modality: projection(dim, tower_dim)
                for modality, dim in zip(MODALITIES, architecture.dims, strict=True)
            }
        )
        self.embeddings = CategoryEmbeddings(architecture.cardinalities)
        context_dim = architecture.numeric_dim + self.embeddings.dim + 1
        self.fusion = GatedFusion(len(MODALITIES), context_dim, architecture.gate_hidden)
        width = tower_dim + context_dim
        self.head = mlp(width, architecture.hidden, architecture.dropout, mean)

    def forward(
        self,
        video: Tensor,
        audio: Tensor,
        text: Tensor,
        present: Tensor,
        numeric: Tensor,
        codes: Tensor,
    ) -> Tensor:
        """Predict.

        Args:
            video: ``[b, video_dim]``; of this and the next two, rows that are not present may
                hold anything.
            audio: ``[b, audio_dim]``.
            text: ``[b, text_dim]``.
            present: bool ``[b, 3]``, in the order of `MODALITIES`.
            numeric: ``[b, numeric_dim]``, standardised.
            codes: int64 ``[b, C]``.

        Returns:
            ``[b]``.
        """
        context = self._context(present, numeric, codes)
        vectors = [
            # Zeros, not a product with the mask: NaN times zero is NaN.
            tower(torch.where(present[:, index, None], vector, 0))
            for index, (tower, vector) in enumerate(
                zip(self.towers.values(), (video, audio, text), strict=True)
            )
        ]
        fused, _ = self.fusion(vectors, present, context)
        output: Tensor = self.head(torch.cat([fused, context], dim=1)).squeeze(-1)
        return output

    def gate_weights(self, present: Tensor, numeric: Tensor, codes: Tensor) -> Tensor:
        """The weight of every modality ``[b, 3]``; the gate does not see the vectors."""
        context = self._context(present, numeric, codes)
        no_vectors = [context.new_zeros((len(context), 0))] * len(MODALITIES)
        weights: Tensor = self.fusion(no_vectors, present, context)[1]
        return weights

    def _context(self, present: Tensor, numeric: Tensor, codes: Tensor) -> Tensor:
        text_present = present[:, MODALITIES.index("text"), None]
        return torch.cat([numeric, self.embeddings(codes), text_present.to(numeric.dtype)], dim=1)
