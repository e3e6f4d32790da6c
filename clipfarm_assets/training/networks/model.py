"""A family that is one network: how it is fitted on clips, what it predicts, what is kept of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.clip_inputs import target_of
from clipfarm_assets.training.networks.fit import Say, predict
from clipfarm_assets.training.networks.fit import fit as fit_network
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.networks.weights import Architecture, network_artifacts

A = TypeVar("A", bound=Architecture)
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class NetworkModel(ABC, Generic[A, N]):
    """A fitted network, with how it was made and what it reads metadata by.

    Attributes:
        name: The family's; artifacts and the curve are named so.
        network: In eval mode.
        architecture: What `network` was made of.
        encoder: Of the metadata.
        curves: As in `families.Model`.
    """

    name: ClassVar[str]

    network: N
    architecture: A
    encoder: MetadataEncoder
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @staticmethod
    @abstractmethod
    def inputs(clips: ClipBatch, encoder: MetadataEncoder, architecture: A) -> dict[str, Tensor]:
        """What the network is called with, tensors of N rows.

        Raises:
            WrongVectors: The clips' vectors are of another length than the network's.
        """

    @classmethod
    def fit(
        cls,
        build: Callable[..., N],
        architecture: A,
        train: Labelled,
        val: Labelled,
        encoder: MetadataEncoder,
        config: FitConfig,
        seed: int,
        say: Say,
    ) -> Self:
        """Fit ``build(architecture, mean=...)`` on `train`; `val` decides when to stop.

        See `networks.fit.fit` for errors.
        """
        with reproducible(seed):
            network = build(architecture, mean=float(train.target_log.mean()))
        curve = fit_network(
            network,
            cls.inputs(train.clips, encoder, architecture),
            target_of(train),
            cls.inputs(val.clips, encoder, architecture),
            target_of(val),
            config,
            seed,
            say=say,
            name=cls.name,
        )
        return cls(network, architecture, encoder, {cls.name: curve.to_fields()})

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views), float64 ``(N,)``; a row's does not depend on the others'."""
        return predict(self.network, self.inputs(clips, self.encoder, self.architecture))

    def artifacts(self) -> Mapping[str, bytes]:
        """``<name>.pt``, ``.safetensors`` and ``.json``."""
        return network_artifacts(self.name, self.architecture, self.network)
