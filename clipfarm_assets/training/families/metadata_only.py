"""``metadata_only``: boosted trees on the metadata alone. Do the embeddings help?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.training.boosting import fit_trees, metadata_matrix, predict_trees
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.sklearn_files import estimator_artifacts, load_estimator

_NAME: Final = "metadata_only"


@dataclass(frozen=True)
class MetadataOnlyModel:
    """Trees over ``[numeric | one-hot]``."""

    encoder: MetadataEncoder
    trees: Any
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views), float64 ``(N,)``."""
        return predict_trees(self.trees, metadata_matrix(self.encoder, clips.metadata))

    def artifacts(self) -> Mapping[str, bytes]:
        """``metadata_only.joblib`` and ``.skops``."""
        return estimator_artifacts(_NAME, self.trees)


def fit(
    train: Labelled,
    val: Labelled,  # noqa: ARG001 - the trees hold out train rows of their own
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> MetadataOnlyModel:
    """Fit on the metadata of the train rows."""
    features = metadata_matrix(encoder, train.clips.metadata)
    trees, curve = fit_trees(_NAME, features, train.target_log, config.metadata_only, seed, say)
    return MetadataOnlyModel(encoder, trees, {_NAME: curve} if curve else {})


def load(read: Read, encoder: MetadataEncoder) -> MetadataOnlyModel:
    """The model that `MetadataOnlyModel.artifacts` wrote."""
    return MetadataOnlyModel(encoder, load_estimator(read, _NAME))
