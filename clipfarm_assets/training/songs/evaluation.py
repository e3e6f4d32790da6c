"""What a network says of rows, by the modalities that it is shown; each row is encoded once."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipfarm_assets.fusion.learned.network import ENCODER_ROWS, FusionNetwork
from clipfarm_assets.fusion.learned.tokens import StoredEncoder, Tokens
from clipfarm_assets.training.classification.subsets import Subset, presence
from clipfarm_assets.training.classification.values import Labels, class_logits
from clipfarm_assets.training.metrics import Doubles
from clipfarm_assets.training.networks.batches import Batches, Inputs
from clipfarm_assets.training.networks.evaluation import evaluate
from clipfarm_assets.training.networks.reproducible import Stream, generator


@dataclass(frozen=True)
class Said:
    """What a network says of N rows, in the order of their batches.

    Attributes:
        labels: int64 ``(N,)``.
        present: bool ``(N, M)``: what the rows have, in the order of the network's modalities.
        logits: Modalities that it was shown, to float64 ``(N, C)``.
    """

    labels: Labels
    present: NDArray[np.bool_]
    logits: Mapping[Subset, Doubles]


def said_of(network: FusionNetwork, batches: Batches, shown: Sequence[Subset]) -> Said:
    """Ask `network` about all rows, once for each subset of its modalities.

    What encoders cost is paid once, whatever the number of subsets: tokens of one batch are held at
    a time. The logits are those of the whole network, bit for bit.

    Args:
        network: In eval mode; stays where it is.
        batches: In an order of their own, as of validation rows.
        shown: Subsets of the network's modalities.

    Raises:
        ValueError: A subset names another modality; or a logit is not finite.
    """
    columns = {subset: torch.from_numpy(presence(network.modalities, subset)) for subset in shown}
    fusion = _of_stored(network)
    labels: list[Tensor] = []
    present: list[Tensor] = []
    logits: dict[Subset, list[Tensor]] = {subset: [] for subset in shown}
    for inputs, target in batches.epoch(generator(0, Stream.SHUFFLE)):
        there = inputs["present"].cpu()
        tokens = encoded(network, inputs)
        for subset, column in columns.items():
            seen = {**tokens, "present": there & column}
            logits[subset].append(evaluate(fusion, seen, block_rows=batches.batch_size))
        labels.append(target.cpu())
        present.append(there)
    return Said(
        torch.cat(labels).numpy().astype(np.int64),
        torch.cat(present).numpy(),
        {
            subset: class_logits(torch.cat(parts).double().numpy())
            for subset, parts in logits.items()
        },
    )


def encoded(network: FusionNetwork, inputs: Inputs) -> dict[str, Tensor]:
    """The tokens that a network's encoders give for B rows.

    Args:
        network: In eval mode.
        inputs: What it is called with.

    Returns:
        ``<modality>.values`` ``[B, T, D]``, zeros in rows that lack the modality, and
        ``<modality>.mask``: what a network of stored tokens is called with.
    """
    device = next(network.parameters()).device
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        for index, name in enumerate(network.modalities):
            own = {
                key.partition(".")[2] or "values": value.to(device)
                for key, value in inputs.items()
                if key.partition(".")[0] == name
            }
            if not own:  # no row has the modality
                continue
            there = inputs["present"][:, index].to(device)
            tokens = _encoded(network.encoders[name], own, there)
            found |= {f"{name}.values": tokens.values, f"{name}.mask": tokens.mask}
    return found


def _encoded(encoder: nn.Module, inputs: Inputs, there: Tensor) -> Tokens:
    """One modality's tokens, of B rows; in blocks of `ENCODER_ROWS`, as `FusionNetwork` does."""
    rows = there.nonzero().squeeze(1)
    if not len(rows):  # the number of tokens matters where none is real, too
        one: Tokens = encoder(**{key: torch.zeros_like(value[:1]) for key, value in inputs.items()})
        values = one.values.new_zeros(len(there), *one.values.shape[1:])
        return Tokens(values, one.mask.new_zeros(len(there), one.mask.shape[1]))
    spare = rows[:1].expand(-len(rows) % ENCODER_ROWS)
    parts: list[Tokens] = [
        encoder(**{key: value[block] for key, value in inputs.items()})
        for block in torch.cat([rows, spare]).split(ENCODER_ROWS)
    ]
    mask = torch.cat([part.mask for part in parts])[: len(rows)]
    values = torch.cat([part.values for part in parts])[: len(rows)]
    blank = Tokens(
        values.new_zeros(len(there), *values.shape[1:]), mask.new_zeros(len(there), mask.shape[1])
    )
    return Tokens(blank.values.index_copy(0, rows, values), blank.mask.index_copy(0, rows, mask))


def _of_stored(network: FusionNetwork) -> FusionNetwork:
    """The same network over tokens that are encoded already; it shares all other weights."""
    stored = {name: StoredEncoder(encoder.dim) for name, encoder in network.encoders.items()}
    fusion = copy.copy(network)
    fusion._modules = {**network._modules, "encoders": nn.ModuleDict(stored)}
    return fusion
