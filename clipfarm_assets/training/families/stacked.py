"""``stacked``: base families weighted by what they predict of rows they were not fitted on.

Source: Breiman (1996), "Stacked Regressions": non-negative weights of out-of-fold predictions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import FamilyName, Model, Read, Say, open_family
from clipfarm_assets.training.metadata_encoder import MetadataEncoder

Vector = NDArray[np.float64]

_NAME: Final = "stacked"
_ARTIFACT: Final = "stacked.json"

FEWEST_ROWS_A_FOLD: Final = 5
"""Predictions of fewer rows say nothing about weights."""


@dataclass(frozen=True)
class StackedModel:
    """``intercept + sum of weight * base prediction``."""

    bases: Mapping[FamilyName, Model]
    weights: Mapping[FamilyName, float]
    intercept: float
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> Vector:
        """log1p(views), float64 ``(N,)``."""
        prediction = np.full(len(clips), self.intercept)
        for name, model in self.bases.items():
            prediction += self.weights[name] * model.predict(clips)
        return prediction

    def artifacts(self) -> Mapping[str, bytes]:
        """``stacked.json``, and the bases' below ``stacked/<family>/``."""
        fields = {"intercept": self.intercept, "weights": dict(self.weights)}
        artifacts = {_ARTIFACT: (json.dumps(fields, indent=2) + "\n").encode()}
        for name, model in self.bases.items():
            artifacts |= {_key(name, key): data for key, data in model.artifacts().items()}
        return artifacts


def fit(
    train: Labelled,
    val: Labelled,
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> StackedModel:
    """Weigh the base families by out-of-fold predictions, then fit them on all of `train`.

    Folds are drawn at random, not by channel or time: they decide between families that all see
    the same rows of a fold, and a family that knows a clip's channel, as it mostly will when
    serving, must not be judged as if it never did. What is judged is judged on val and test.
    """
    names: tuple[FamilyName, ...] = config.stacked.base
    folds = min(config.stacked.folds, len(train) // FEWEST_ROWS_A_FOLD)
    if folds < 2:  # one leaves nothing to fit on
        say(
            f"{_NAME}: equal weights: {len(train)} train rows are too few for two folds of "
            f"{FEWEST_ROWS_A_FOLD}"
        )
        weights, intercept = np.full(len(names), 1.0 / len(names)), 0.0
    else:
        if folds < config.stacked.folds:
            say(f"{_NAME}: {folds} folds instead of {config.stacked.folds}: too few train rows")
        predictions = _out_of_fold(names, folds, train, val, encoder, config, seed, say)
        weights, intercept = _weigh(predictions, train.target_log)
    shown = ", ".join(f"{name} {weight:.3f}" for name, weight in zip(names, weights, strict=True))
    say(f"{_NAME}: weights {shown}")
    bases = {name: open_family(name).fit(train, val, encoder, config, seed, say) for name in names}
    return StackedModel(
        bases,
        dict(zip(names, weights.tolist(), strict=True)),
        intercept,
        {f"{_NAME}_{key}": c for model in bases.values() for key, c in model.curves.items()},
    )


def load(read: Read, encoder: MetadataEncoder) -> StackedModel:
    """The model that `StackedModel.artifacts` wrote."""
    fields = json.loads(read(_ARTIFACT))

    def of(name: FamilyName) -> Read:
        return lambda key: read(_key(name, key))

    bases = {name: open_family(name).load(of(name), encoder) for name in fields["weights"]}
    return StackedModel(bases, fields["weights"], fields["intercept"])


def _out_of_fold(
    names: tuple[FamilyName, ...],
    folds: int,
    train: Labelled,
    val: Labelled,
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,
    say: Say,
) -> NDArray[np.float64]:
    """Predictions of every train row by models that were fitted without it, ``(N, families)``."""
    predictions = np.zeros((len(train), len(names)))
    order = np.random.default_rng(seed).permutation(len(train))
    for number, held_out in enumerate(np.array_split(order, folds), start=1):
        rest = train.take(np.setdiff1d(np.arange(len(train)), held_out))
        fold_encoder = MetadataEncoder.fit(rest.clips.metadata, encoder.contract)
        left_out = train.take(held_out).clips
        for column, name in enumerate(names):
            say(f"{_NAME}: fold {number}/{folds}, {name}")
            model = open_family(name).fit(rest, val, fold_encoder, config, seed, say)
            predictions[held_out, column] = model.predict(left_out)
    return predictions


def _weigh(predictions: NDArray[np.float64], target: Vector) -> tuple[Vector, float]:
    """Non-negative least squares of the centred target on centred predictions, and intercept.

    Weights needn't sum to 1: predictions that are all too bold are shrunk towards the mean.
    """
    means, mean = predictions.mean(axis=0), target.mean()
    weights: Vector = nnls(predictions - means, target - mean)[0]
    return weights, float(mean - means @ weights)


def _key(name: FamilyName, artifact: str) -> str:
    return f"{_NAME}/{name}/{artifact}"
