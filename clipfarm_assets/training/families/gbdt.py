"""``gbdt``: a network projects the fused vector to few numbers; trees see those and the metadata.

Source: the training contract, section 6.4.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipfarm_assets.training.boosting import fit_trees, metadata_matrix, predict_trees
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.clip_inputs import fused_input, target_of
from clipfarm_assets.training.networks.fit import evaluate
from clipfarm_assets.training.networks.fit import fit as fit_network
from clipfarm_assets.training.networks.projector import (
    Projector,
    ProjectorArchitecture,
    projector_epochs,
)
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.networks.weights import load_network, network_artifacts
from clipfarm_assets.training.sklearn_files import estimator_artifacts, load_estimator

NAME: Final = "gbdt"
PROJECTOR: Final = "gbdt_projector"


@dataclass(frozen=True)
class GbdtModel:
    """Projector and trees over ``[latent | numeric | one-hot]``."""

    encoder: MetadataEncoder
    architecture: ProjectorArchitecture
    projector: Projector
    trees: Any
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views), float64 ``(N,)``."""
        features = _features(clips, self.architecture, self.projector, self.encoder)
        return predict_trees(self.trees, features)

    def artifacts(self) -> Mapping[str, bytes]:
        """``gbdt_projector.pt``, ``.safetensors``, ``.json``, ``gbdt.joblib`` and ``.skops``."""
        return {
            **network_artifacts(PROJECTOR, self.architecture, self.projector),
            **estimator_artifacts(NAME, self.trees),
        }


def fit(
    train: Labelled,
    val: Labelled,
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> GbdtModel:
    """Fit the projector on `train`, `val` saying when to stop, then the trees on `train` alone."""
    architecture = ProjectorArchitecture(
        fused_dim=train.clips.fused.shape[1],
        hidden=config.gbdt.projector_hidden,
        projector_dim=config.gbdt.projector_dim,
        dropout=config.gbdt.projector_dropout,
    )
    with reproducible(seed):
        projector = Projector(architecture, mean=float(train.target_log.mean()))
    projector_curve = fit_network(
        projector,
        fused_input(train.clips, architecture.fused_dim),
        target_of(train),
        fused_input(val.clips, architecture.fused_dim),
        target_of(val),
        config.gbdt.fit,
        seed,
        say=say,
        name=PROJECTOR,
        max_epochs=projector_epochs(config.gbdt.fit),
    )
    features = _features(train.clips, architecture, projector, encoder)
    trees, curve = fit_trees(NAME, features, train.target_log, config.gbdt.boosting, seed, say)
    curves = {PROJECTOR: projector_curve.to_fields()} | ({NAME: curve} if curve else {})
    return GbdtModel(encoder, architecture, projector, trees, curves)


def load(read: Read, encoder: MetadataEncoder) -> GbdtModel:
    """The model that `GbdtModel.artifacts` wrote.

    Raises:
        BadWeights: The projector's weights are not its own.
        RefusedEstimator: The trees' file is not one of trees.
    """
    architecture, projector = load_network(read, PROJECTOR, ProjectorArchitecture, Projector)
    return GbdtModel(encoder, architecture, projector, load_estimator(read, NAME))


def _features(
    clips: ClipBatch,
    architecture: ProjectorArchitecture,
    projector: Projector,
    encoder: MetadataEncoder,
) -> NDArray[np.float64]:
    """What the trees see, float64 ``(N, projector_dim + metadata)``.

    The latent is computed in double precision and rounded to single. Trees put a threshold on the
    very value of a train row: a last bit that depends on where a row lies among others could send
    the same clip down another branch.
    """
    double = copy.deepcopy(projector).double()

    def project(fused: Tensor) -> Tensor:
        return double.project(fused.double())

    inputs = fused_input(clips, architecture.fused_dim)
    latent = evaluate(double, inputs, call=project).float().double().numpy()
    return np.hstack([latent, metadata_matrix(encoder, clips.metadata)])
