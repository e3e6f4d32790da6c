"""``gated_fusion_mlp``: modality vectors, weighted by a gate that sees the metadata."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.clip_inputs import (
    check_encoder,
    metadata_inputs,
    modality_inputs,
    present_input,
)
from clipfarm_assets.training.networks.fit import evaluate
from clipfarm_assets.training.networks.gated import GatedArchitecture, GatedFusionNetwork
from clipfarm_assets.training.networks.model import NetworkModel
from clipfarm_assets.training.networks.weights import load_network

NAME = "gated_fusion_mlp"


@dataclass(frozen=True)
class GatedFusionModel(NetworkModel[GatedArchitecture, GatedFusionNetwork]):
    """See `NetworkModel`; tells what its gate says, too."""

    name = NAME

    @staticmethod
    def inputs(
        clips: ClipBatch, encoder: MetadataEncoder, architecture: GatedArchitecture
    ) -> dict[str, Tensor]:
        """Modality vectors, which of them are there, and metadata."""
        return {**modality_inputs(clips, architecture.dims), **metadata_inputs(clips, encoder)}

    def gate_weights(self, clips: ClipBatch) -> NDArray[np.float64]:
        """How much each modality counts, float64 ``(N, 3)`` in the order of `MODALITIES`.

        A row's weights add up to 1; an absent modality has 0.
        """
        inputs = {"present": present_input(clips), **metadata_inputs(clips, self.encoder)}
        weights: NDArray[np.float64] = (
            evaluate(self.network, inputs, self.network.gate_weights).double().numpy()
        )
        return weights


def fit(
    train: Labelled,
    val: Labelled,
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> GatedFusionModel:
    """Fit on `train`; `val` decides when to stop."""
    settings = config.gated_fusion_mlp
    video, audio, text = (train.clips.dims[modality] for modality in MODALITIES)
    architecture = GatedArchitecture(
        dims=(video, audio, text),
        numeric_dim=len(encoder.contract.numeric),
        cardinalities=encoder.cardinalities,
        tower_dim=settings.tower_dim,
        gate_hidden=settings.gate_hidden,
        hidden=settings.hidden,
        dropout=settings.dropout,
    )
    return GatedFusionModel.fit(
        GatedFusionNetwork, architecture, train, val, encoder, settings.fit, seed, say
    )


def load(read: Read, encoder: MetadataEncoder) -> GatedFusionModel:
    """The model whose artifacts `read` gives.

    Raises:
        BadWeights: They are not of such a network, or of one with other metadata features.
    """
    architecture, network = load_network(read, NAME, GatedArchitecture, GatedFusionNetwork)
    check_encoder(NAME, architecture.numeric_dim, architecture.cardinalities, encoder)
    return GatedFusionModel(network, architecture, encoder)
