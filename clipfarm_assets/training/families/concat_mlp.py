"""``concat_mlp``: fused vector and metadata through one MLP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.clip_inputs import (
    check_encoder,
    fused_input,
    metadata_inputs,
    target_of,
)
from clipfarm_assets.training.networks.concat_mlp import ConcatMlp, ConcatMlpArchitecture
from clipfarm_assets.training.networks.fit import fit as fit_network
from clipfarm_assets.training.networks.fit import predict
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.networks.weights import load_network, network_artifacts

NAME = "concat_mlp"


@dataclass(frozen=True)
class ConcatMlpModel:
    """A fitted network, with how it was made and what it reads metadata by."""

    network: ConcatMlp
    architecture: ConcatMlpArchitecture
    encoder: MetadataEncoder
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views), float64 ``(N,)``; a row's does not depend on the others'."""
        return predict(self.network, _inputs(clips, self.encoder, self.architecture.fused_dim))

    def artifacts(self) -> Mapping[str, bytes]:
        """``concat_mlp.pt``, ``.safetensors`` and ``.json``."""
        return network_artifacts(NAME, self.architecture, self.network)


def fit(
    train: Labelled,
    val: Labelled,
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> ConcatMlpModel:
    """Fit on `train`; `val` decides when to stop."""
    architecture = ConcatMlpArchitecture(
        fused_dim=train.clips.fused.shape[1],
        numeric_dim=len(encoder.contract.numeric),
        cardinalities=encoder.cardinalities,
        hidden=config.concat_mlp.hidden,
        dropout=config.concat_mlp.dropout,
    )
    with reproducible(seed):
        network = ConcatMlp(architecture, mean=float(train.target_log.mean()))
    curve = fit_network(
        network,
        _inputs(train.clips, encoder, architecture.fused_dim),
        target_of(train),
        _inputs(val.clips, encoder, architecture.fused_dim),
        target_of(val),
        config.concat_mlp.fit,
        seed,
        say=say,
        name=NAME,
    )
    return ConcatMlpModel(network, architecture, encoder, {NAME: curve.to_fields()})


def load(read: Read, encoder: MetadataEncoder) -> ConcatMlpModel:
    """The model whose artifacts `read` gives.

    Raises:
        BadWeights: They are not of such a network, or of one with other metadata features.
    """
    architecture, network = load_network(read, NAME, ConcatMlpArchitecture, ConcatMlp)
    check_encoder(NAME, architecture.numeric_dim, architecture.cardinalities, encoder)
    return ConcatMlpModel(network, architecture, encoder)


def _inputs(clips: ClipBatch, encoder: MetadataEncoder, fused_dim: int) -> dict[str, Tensor]:
    return {**fused_input(clips, fused_dim), **metadata_inputs(clips, encoder)}
