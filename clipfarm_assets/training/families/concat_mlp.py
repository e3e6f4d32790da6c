"""``concat_mlp``: fused vector and metadata through one MLP."""

from dataclasses import dataclass

from torch import Tensor

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.clip_inputs import (
    check_encoder,
    fused_input,
    metadata_inputs,
)
from clipfarm_assets.training.networks.concat_mlp import ConcatMlp, ConcatMlpArchitecture
from clipfarm_assets.training.networks.model import NetworkModel
from clipfarm_assets.training.networks.weights import load_network

NAME = "concat_mlp"


@dataclass(frozen=True)
class ConcatMlpModel(NetworkModel[ConcatMlpArchitecture, ConcatMlp]):
    """See `NetworkModel`."""

    name = NAME

    @staticmethod
    def inputs(
        clips: ClipBatch, encoder: MetadataEncoder, architecture: ConcatMlpArchitecture
    ) -> dict[str, Tensor]:
        """Fused vectors and metadata."""
        return {**fused_input(clips, architecture.fused_dim), **metadata_inputs(clips, encoder)}


def fit(
    train: Labelled,
    val: Labelled,
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> ConcatMlpModel:
    """Fit on `train`; `val` decides when to stop."""
    settings = config.concat_mlp
    architecture = ConcatMlpArchitecture(
        fused_dim=train.clips.fused.shape[1],
        numeric_dim=len(encoder.contract.numeric),
        cardinalities=encoder.cardinalities,
        hidden=settings.hidden,
        dropout=settings.dropout,
    )
    return ConcatMlpModel.fit(ConcatMlp, architecture, train, val, encoder, settings.fit, seed, say)


def load(read: Read, encoder: MetadataEncoder) -> ConcatMlpModel:
    """The model whose artifacts `read` gives.

    Raises:
        BadWeights: They are not of such a network, or of one with other metadata features.
    """
    architecture, network = load_network(read, NAME, ConcatMlpArchitecture, ConcatMlp)
    check_encoder(NAME, architecture.numeric_dim, architecture.cardinalities, encoder)
    return ConcatMlpModel(network, architecture, encoder)
