"""Batches of song segments: padded to one shape, with a mask of what is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.training.networks.batches import Batch
from clipfarm_assets.training.song_items import SegmentItem, Specs, filled


class SegmentBatch(TypedDict):
    """B segments.

    Attributes:
        text, audio, midi: The encoder's arguments by name, ``[B, ...]``; zeros in rows that lack
            the modality, and where a row is shorter than the others.
        modality_mask: bool ``[B, 3]``: which of `MODALITIES` each row has.
        label: int64 ``[B]``: numbers of classes.
    """

    text: dict[str, Tensor]
    audio: dict[str, Tensor]
    midi: dict[str, Tensor]
    modality_mask: Tensor
    label: Tensor


def collate(items: Sequence[SegmentItem], specs: Specs) -> SegmentBatch:
    """Put items together.

    Their shapes are those of `specs`, whatever the items: what is made of a row must not depend on
    how long its neighbours are.

    Args:
        items: One or more.
        specs: Shapes and types of a row's arguments, by modality.

    Raises:
        ValueError: An item's arrays are others.
    """
    return {
        "text": _stacked(items, "text", specs),
        "audio": _stacked(items, "audio", specs),
        "midi": _stacked(items, "midi", specs),
        "modality_mask": torch.tensor([item.present for item in items]),
        "label": torch.tensor([item.label for item in items]),
    }


def fusion_inputs(
    batch: SegmentBatch, modalities: Sequence[Modality] = MODALITIES
) -> dict[str, Tensor]:
    """A batch as `FusionNetwork` is called with it: ``present``, and ``<modality>.<argument>``.

    Args:
        batch: Of `collate`.
        modalities: Those that the network has.
    """
    columns = [MODALITIES.index(name) for name in modalities]
    inputs = {
        f"{name}.{argument}": value
        for name in modalities
        for argument, value in batch[name].items()
    }
    return {"present": batch["modality_mask"][:, columns], **inputs}


@dataclass(frozen=True)
class CollateSegments:
    """Makes batches of items for a fit.

    Attributes:
        specs: See `collate`.
        modalities: Those that the network has.
    """

    specs: Specs
    modalities: Sequence[Modality] = MODALITIES

    def __call__(self, items: Sequence[SegmentItem]) -> Batch:
        """Inputs of `FusionNetwork`, and classes int64 ``[B]``."""
        batch = collate(items, self.specs)
        return fusion_inputs(batch, self.modalities), batch["label"]


def _stacked(items: Sequence[SegmentItem], name: Modality, specs: Specs) -> dict[str, Tensor]:
    rows = [filled(item.inputs[name], specs[name]) for item in items]
    return {
        argument: torch.from_numpy(np.stack([row[argument] for row in rows]))
        for argument in specs[name]
    }
