"""``ridge``: linear in metadata and fused vector, as a plain scikit-learn pipeline.

The pipeline reads one float64 matrix ``[numeric, NaN where missing | category codes | fused]``.
Source: the training contract, section 6.3, with two departures. The fused vector's dimensions are
scaled as one block: standardising each of them, as the deployed pipeline did, gives two thousand
columns of mostly noise the weight of as many metadata. And how much the block weighs is searched
together with alpha by leave-one-out error, up to where nothing but the mean is left.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Read, Say
from clipfarm_assets.training.leave_one_out import mean_errors, ridge_paths
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.sklearn_files import estimator_artifacts, load_estimator

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_NAME: Final = "ridge"
_BLOCK_ROWS: Final = 4096

STANDARD_ERRORS: Final = 2.0
"""By how many of its standard errors a model must beat the mean, leaving one out, to be believed.

The best of some dozens of models looks better than the mean by chance where rows are few.
"""


@dataclass(frozen=True)
class RidgeModel:
    """A fitted pipeline from `design_matrix` to log1p(views)."""

    encoder: MetadataEncoder
    pipeline: Any
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views), float64 ``(N,)``."""
        blocks = [np.zeros(0)]
        for start in range(0, len(clips), _BLOCK_ROWS):
            part = clips.take(np.arange(start, min(start + _BLOCK_ROWS, len(clips))))
            blocks.append(self.pipeline.predict(design_matrix(part, self.encoder)))
        return np.concatenate(blocks)

    def artifacts(self) -> Mapping[str, bytes]:
        """``ridge.joblib`` and ``ridge.skops``."""
        return estimator_artifacts(_NAME, self.pipeline)


@dataclass(frozen=True)
class _Found:
    """One of the models searched; `squared_errors` of the rows left out, ``(N,)``."""

    scale: float
    alpha: float
    coefficients: Vector
    squared_errors: Vector

    @property
    def mean_squared_error(self) -> float:
        return float(self.squared_errors.mean())


def fit(
    train: Labelled,
    val: Labelled,  # noqa: ARG001 - leaving one out needs train alone
    encoder: MetadataEncoder,
    config: SuiteConfig,
    seed: int,  # noqa: ARG001 - nothing is drawn
    say: Say,
) -> RidgeModel:
    """Search scale and alpha by leave-one-out error. Holds N x dim float64 about twice."""
    fused_dim = train.clips.fused.shape[1]
    columns = _columns(encoder, fused_dim)
    inputs = columns.fit_transform(design_matrix(train.clips, encoder))
    found = _search(inputs[:, :-fused_dim], inputs[:, -fused_dim:], train.target_log, config, say)
    # What the search found is put where RidgeCV keeps it: its own fit would decompose once more.
    ridge = RidgeCV(alphas=list(config.ridge.alphas))
    ridge.n_features_in_ = inputs.shape[1]
    ridge.alpha_ = found.alpha
    ridge.best_score_ = -found.mean_squared_error
    ridge.coef_ = found.coefficients
    ridge.intercept_ = train.target_log.mean() - inputs.mean(axis=0) @ found.coefficients
    return RidgeModel(encoder, Pipeline([("columns", columns), ("ridge", ridge)]))


def load(read: Read, encoder: MetadataEncoder) -> RidgeModel:
    """The model that `RidgeModel.artifacts` wrote.

    Raises:
        RefusedEstimator: The file is not one of such a pipeline.
    """
    return RidgeModel(encoder, load_estimator(read, _NAME))


def design_matrix(clips: ClipBatch, encoder: MetadataEncoder) -> Matrix:
    """``[numeric | codes | fused]``, float64 ``(N, K + C + fused_dim)``."""
    return np.hstack([encoder.numeric(clips.metadata), encoder.codes(clips.metadata), clips.fused])


def _columns(encoder: MetadataEncoder, fused_dim: int) -> ColumnTransformer:
    """Median and standard scale; most frequent and one-hot; fused centred, not scaled.

    Code 0, a missing or unseen category, becomes the most frequent one, as the contract imputes.
    A categorical feature of which train knows no category is left out.
    """
    numeric = len(encoder.contract.numeric)
    known = [numeric + i for i, n in enumerate(encoder.cardinalities) if n > 1]
    first = numeric + len(encoder.cardinalities)
    scale = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", StandardScaler()),
        ]
    )
    one_hot = Pipeline(
        [
            ("impute", SimpleImputer(strategy="most_frequent", missing_values=0)),
            ("one_hot", OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
        ]
    )
    steps = [
        ("numeric", scale, slice(0, numeric)),
        ("categorical", one_hot, known),
        ("fused", StandardScaler(with_std=False), slice(first, first + fused_dim)),
    ]
    present = [numeric > 0, bool(known), True]
    return ColumnTransformer(
        [step for step, is_there in zip(steps, present, strict=True) if is_there],
        sparse_threshold=0.0,
    )


def _unit_scale(block: Matrix) -> float:
    """What gives a centred block the total variance of one standardised column."""
    variance = float(np.einsum("ij,ij->", block, block)) / len(block)
    return 1.0 / math.sqrt(variance) if variance > 0 else 1.0


def _search(rest: Matrix, block: Matrix, target: Vector, config: SuiteConfig, say: Say) -> _Found:
    """The model of least leave-one-out error; the one closest to the mean if in doubt."""
    alphas, unit = config.ridge.alphas, _unit_scale(block)
    scales = sorted(unit * relative for relative in config.ridge.block_scales)
    strongest = int(np.argmax(alphas))
    found: list[_Found] = []
    for path in ridge_paths(rest, block, target, scales, alphas):
        squared = path.errors**2
        best = int(squared.mean(axis=0).argmin())
        wanted = (strongest, best) if not found else (best,)
        found += [
            _Found(path.scale, alphas[i], path.coefficients[:, i].copy(), squared[:, i])
            for i in wanted
        ]
    closest, *others = found
    best_found = min(others, key=lambda model: model.mean_squared_error)
    of_mean = mean_errors(target) ** 2
    gain = of_mean - best_found.squared_errors
    if gain.mean() <= STANDARD_ERRORS * gain.std() / math.sqrt(len(gain)):
        say(
            f"{_NAME}: nothing beats the mean by {STANDARD_ERRORS:g} standard errors of "
            f"leave-one-out error: alpha {closest.alpha:g}, the strongest, leaves little but it"
        )
        return closest
    say(
        f"{_NAME}: alpha {best_found.alpha:g}, fused block times {best_found.scale / unit:g}: "
        f"leave-one-out rmse {math.sqrt(best_found.mean_squared_error):.4f}, the mean's "
        f"{math.sqrt(of_mean.mean()):.4f}"
    )
    return best_found
