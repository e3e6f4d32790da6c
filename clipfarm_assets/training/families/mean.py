"""``mean``: predicts the mean of the train targets. The floor for every other family."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.metadata_encoder import MetadataEncoder

_ARTIFACT: Final = "mean.json"


@dataclass(frozen=True)
class MeanModel:
    """One number for every clip."""

    mean: float
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """The mean, N times."""
        return np.full(len(clips), self.mean)

    def artifacts(self) -> Mapping[str, bytes]:
        """``mean.json``."""
        return {_ARTIFACT: (json.dumps({"mean": self.mean}) + "\n").encode()}


def fit(
    train: Labelled,
    val: Labelled,  # noqa: ARG001 - every family is given the same
    encoder: MetadataEncoder,  # noqa: ARG001
    config: SuiteConfig,  # noqa: ARG001
    seed: int,  # noqa: ARG001
    say: Say,  # noqa: ARG001
) -> MeanModel:
    """The mean of the train targets, summed exactly: whatever their order."""
    return MeanModel(math.fsum(train.target_log.tolist()) / len(train))


def load(read: Read, encoder: MetadataEncoder) -> MeanModel:  # noqa: ARG001 - as above
    """The model that `MeanModel.artifacts` wrote."""
    return MeanModel(json.loads(read(_ARTIFACT))["mean"])
