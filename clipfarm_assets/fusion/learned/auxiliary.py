"""Fitting the modalities' own heads along with the fused one."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.fusion.learned.strategies import Late

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(logits [b, C], target [b, ...]) -> scalar``."""


class AllLogits(nn.Module):
    """A fusion network that gives the logits of all its heads, for a fit; it shares its weights."""

    def __init__(self, network: FusionNetwork) -> None:
        """Wrap `network`.

        Raises:
            ValueError: It has no auxiliary heads.
        """
        super().__init__()
        if not network.unimodal:
            msg = "the network has no heads but the fused one: make it with auxiliary=True"
            raise ValueError(msg)
        self.network = network

    def forward(self, present: Tensor, context: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """``[B, 1 + M, classes]``: the fused logits, and each modality's, zeros where absent."""
        output = self.network.outputs(present, context, **inputs)
        return torch.cat([output.logits.unsqueeze(1), output.unimodal], dim=1)


def auxiliary_loss(loss: Loss, weight: float) -> Loss:
    """``loss(fused) + weight * mean over modalities of loss(modality)``, of `AllLogits`.

    Absent modalities have constant logits: they add a constant, and no gradient.
    """

    def total(logits: Tensor, target: Tensor) -> Tensor:
        fused, *unimodal = logits.unbind(dim=1)
        own = torch.stack([loss(each, target) for each in unimodal])
        return loss(fused, target) + weight * own.mean()

    return total


def fused_alone(score: Loss) -> Loss:
    """`score` of the fused logits of `AllLogits`."""
    return lambda logits, target: score(logits[:, 0], target)


def own_network(network: FusionNetwork, modality: str) -> FusionNetwork:
    """One modality of `network` as a network of its own, with its own head for the fused one.

    It shares encoder, projection, missing token and head with `network`: to fit it is to fit these.
    No modality is dropped in training, as it has no other.

    Raises:
        ValueError: The network has no heads but the fused one.
    """
    if modality not in network.unimodal:
        msg = f"the network has no head of {modality!r} alone: make it with auxiliary=True"
        raise ValueError(msg)
    own = copy.copy(network)
    own.modalities = (modality,)
    own.context_dim, own.modality_dropout = 0, 0.0
    token = network.missing[modality]
    own._modules = {
        **network._modules,
        "encoders": nn.ModuleDict({modality: network.encoders[modality]}),
        "projections": nn.ModuleDict({modality: network.projections[modality]}),
        "missing": nn.ParameterDict({modality: token}),
        "strategy": Late({modality: len(token)}),
        "head": network.unimodal[modality],
        "unimodal": nn.ModuleDict(),
    }
    return own
