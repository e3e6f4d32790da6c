"""``pca_gbdt``: principal components a modality, as-of channel history and metadata to trees.

What the contract's ``gbdt`` learns with a network, which a few thousand rows can't feed, is here
the directions in which each modality's vectors vary; and a clip's channel tells more of its views
than its content does, as long as only what was known at publication is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.storage.npz import arrays_to_npz, npz_to_arrays
from clipfarm_assets.training.boosting import fit_trees, metadata_matrix, predict_trees
from clipfarm_assets.training.channel_history import ChannelHistory
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Floats, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.principal_components import PrincipalComponents
from clipfarm_assets.training.sklearn_files import estimator_artifacts, load_estimator

_NAME: Final = "pca_gbdt"
_ARRAYS: Final = "pca_gbdt.npz"


@dataclass(frozen=True)
class PcaGbdtModel:
    """Trees over ``[components by modality | text_present | history | numeric | one-hot]``."""

    encoder: MetadataEncoder
    components: Mapping[Modality, PrincipalComponents]
    history: ChannelHistory
    trees: Any
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views), float64 ``(N,)``."""
        features = _features(clips, self.components, self.history, self.encoder)
        return predict_trees(self.trees, features)

    def artifacts(self) -> Mapping[str, bytes]:
        """``pca_gbdt.npz`` with components and history, ``pca_gbdt.joblib`` and ``.skops``."""
        arrays = self.history.to_arrays()
        for modality, components in self.components.items():
            arrays[f"{modality}_mean"] = components.mean
            arrays[f"{modality}_axes"] = components.axes
        return {_ARRAYS: arrays_to_npz(arrays), **estimator_artifacts(_NAME, self.trees)}


def fit(
    train: Labelled,
    val: Labelled,  # noqa: ARG001 - the trees hold out train rows of their own
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> PcaGbdtModel:
    """Fit components, history and trees on `train`; text components on the clips with text."""
    settings = config.pca_gbdt
    history = ChannelHistory.fit(train)
    unusable = len(train) - len(history.target_log)
    if unusable:
        say(
            f"{_NAME}: {unusable} of {len(train)} train labels are no part of any channel history: "
            "captured at an unknown moment, or not after their clip was published"
        )
    components = {
        modality: PrincipalComponents.fit(_present(train.clips, modality), settings.components)
        for modality in MODALITIES
    }
    features = _features(train.clips, components, history, encoder)
    trees, curve = fit_trees(_NAME, features, train.target_log, settings.boosting, seed, say)
    return PcaGbdtModel(encoder, components, history, trees, {_NAME: curve} if curve else {})


def load(read: Read, encoder: MetadataEncoder) -> PcaGbdtModel:
    """The model that `PcaGbdtModel.artifacts` wrote.

    Raises:
        BadShard: The arrays are not its own.
        RefusedEstimator: The trees' file is not one of trees.
    """
    arrays = npz_to_arrays(read(_ARRAYS))
    components = {
        modality: PrincipalComponents(arrays[f"{modality}_mean"], arrays[f"{modality}_axes"])
        for modality in MODALITIES
    }
    history = ChannelHistory.from_arrays(arrays)
    return PcaGbdtModel(encoder, components, history, load_estimator(read, _NAME))


def _present(clips: ClipBatch, modality: Modality) -> Floats:
    """The vectors of one modality that show something."""
    vectors = clips.modality(modality)
    return vectors[clips.text_present] if modality == "text" else vectors


def _features(
    clips: ClipBatch,
    components: Mapping[Modality, PrincipalComponents],
    history: ChannelHistory,
    encoder: MetadataEncoder,
) -> NDArray[np.float64]:
    """What the trees see; components of absent text are zero, whatever its vector holds."""
    blocks = []
    for modality, fitted in components.items():
        there = clips.text_present if modality == "text" else np.ones(len(clips), np.bool_)
        block = np.zeros((len(clips), fitted.axes.shape[1]))
        block[there] = fitted.transform(clips.modality(modality)[there])
        blocks.append(block)
    return np.hstack(
        [
            *blocks,
            clips.text_present[:, None].astype(np.float64),
            history.features(clips.channel_id, clips.published_at),
            metadata_matrix(encoder, clips.metadata),
        ]
    )
