"""``gated_fusion_mlp``: modality vectors, weighted by a gate that sees the metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    target_of,
)
from clipfarm_assets.training.networks.fit import evaluate, predict
from clipfarm_assets.training.networks.fit import fit as fit_network
from clipfarm_assets.training.networks.gated import GatedArchitecture, GatedFusionNetwork
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.networks.weights import load_network, network_artifacts

NAME = "gated_fusion_mlp"


@dataclass(frozen=True)
class GatedFusionModel:
    """A fitted network, with how it was made and what it reads metadata by."""

    network: GatedFusionNetwork
    architecture: GatedArchitecture
    encoder: MetadataEncoder
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views), float64 ``(N,)``; a row's does not depend on the others'."""
        return predict(self.network, _inputs(clips, self.encoder, self.architecture.dims))

    def gate_weights(self, clips: ClipBatch) -> NDArray[np.float64]:
        """How much each modality counts, float64 ``(N, 3)`` in the order of `MODALITIES`.

        A row's weights add up to 1; an absent modality has 0.
        """
        inputs = {"present": present_input(clips), **metadata_inputs(clips, self.encoder)}
        weights: NDArray[np.float64] = (
            evaluate(self.network, inputs, self.network.gate_weights).double().numpy()
        )
        return weights

    def artifacts(self) -> Mapping[str, bytes]:
        """``gated_fusion_mlp.pt``, ``.safetensors`` and ``.json``."""
        return network_artifacts(NAME, self.architecture, self.network)


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
    with reproducible(seed):
        network = GatedFusionNetwork(architecture, mean=float(train.target_log.mean()))
    curve = fit_network(
        network,
        _inputs(train.clips, encoder, architecture.dims),
        target_of(train),
        _inputs(val.clips, encoder, architecture.dims),
        target_of(val),
        settings.fit,
        seed,
        say=say,
        name=NAME,
    )
    return GatedFusionModel(network, architecture, encoder, {NAME: curve.to_fields()})


def load(read: Read, encoder: MetadataEncoder) -> GatedFusionModel:
    """The model whose artifacts `read` gives.

    Raises:
        BadWeights: They are not of such a network, or of one with other metadata features.
    """
    architecture, network = load_network(read, NAME, GatedArchitecture, GatedFusionNetwork)
    check_encoder(NAME, architecture.numeric_dim, architecture.cardinalities, encoder)
    return GatedFusionModel(network, architecture, encoder)


def _inputs(clips: ClipBatch, encoder: MetadataEncoder, dims: tuple[int, ...]) -> dict[str, Tensor]:
    return {**modality_inputs(clips, dims), **metadata_inputs(clips, encoder)}
