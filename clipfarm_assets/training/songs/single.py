"""One modality of songs alone: what fusion has to beat."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from clipfarm_assets.training.networks.batches import Batch, Batches


@dataclass(frozen=True, eq=False)
class OneModality:
    """Batches of which one modality alone is seen.

    Attributes:
        batches: Of all modalities.
        modality: Which one.
        column: Its place in ``present``.
    """

    batches: Batches
    modality: str
    column: int

    @property
    def rows(self) -> int:
        """Those of all: rows without the modality, too."""
        return self.batches.rows

    @property
    def batch_size(self) -> int:
        """That of all."""
        return self.batches.batch_size

    def epoch(self, order: torch.Generator) -> Iterator[Batch]:
        """See `Batches`."""
        for inputs, target in self.batches.epoch(order):
            own = {k: v for k, v in inputs.items() if k.partition(".")[0] == self.modality}
            present = inputs["present"][:, self.column : self.column + 1]
            yield {**own, "present": present}, target

    def identity(self) -> str:
        """That of all, and which modality."""
        return f"{self.batches.identity()}, {self.modality} alone"
