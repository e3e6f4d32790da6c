"""``ProjectorRegressor``: a fused vector's few numbers that tell most of the target."""

from torch import Tensor, nn

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.blocks import start_at
from clipfarm_assets.training.networks.weights import Architecture, Share, Width


class ProjectorArchitecture(Architecture):
    """See `Projector`."""

    fused_dim: Width
    hidden: Width = 256
    projector_dim: Width = 128
    dropout: Share = 0.1


class Projector(nn.Module):
    """``Linear(fused -> hidden) -> GELU -> Dropout -> Linear(hidden -> projector_dim)``.

    A linear head on the latent supervises it. Source: the training contract, section 6.4.
    """

    def __init__(self, architecture: ProjectorArchitecture, mean: float = 0.0) -> None:
        """Draw the weights; a fresh network predicts about `mean`."""
        super().__init__()
        self.core = nn.Sequential(
            nn.Linear(architecture.fused_dim, architecture.hidden),
            nn.GELU(),
            nn.Dropout(architecture.dropout),
            nn.Linear(architecture.hidden, architecture.projector_dim),
        )
        self.head = nn.Linear(architecture.projector_dim, 1)
        start_at(self.head, mean)

    def project(self, fused: Tensor) -> Tensor:
        """``[b, fused_dim] -> [b, projector_dim]``."""
        latent: Tensor = self.core(fused)
        return latent

    def forward(self, fused: Tensor) -> Tensor:
        """``[b, fused_dim] -> [b]``."""
        output: Tensor = self.head(self.project(fused)).squeeze(-1)
        return output


def projector_epochs(config: FitConfig) -> int:
    """Most epochs of stage one: ``max(10, min(max_epochs, 20))``, as deployed."""
    return max(10, min(config.max_epochs, 20))
