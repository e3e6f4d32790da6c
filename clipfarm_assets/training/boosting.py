"""Boosted trees on a matrix of features, as every family that uses them fits them."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.training.config import BoostingConfig
from clipfarm_assets.training.metadata_encoder import MetadataEncoder

Matrix = NDArray[np.float64]

VALIDATION_SHARE: Final = 0.1
"""Of the train rows, to stop by: scikit-learn's default, and so the deployed pipeline's."""

FEWEST_TO_STOP_EARLY: Final = 40
"""With fewer rows, the one to three that could be held out would stop the trees by chance."""


def fit_trees(
    name: str,
    features: Matrix,
    target: NDArray[np.float64],
    config: BoostingConfig,
    seed: int,
    say: Callable[[str], None],
) -> tuple[Any, dict[str, Any]]:
    """Fit a ``HistGradientBoostingRegressor``.

    Args:
        name: What is fitted, as lines of progress say it.
        features: float64 ``(N, K)``; NaN is missing, and stays so.
        target: float64 ``(N,)``.
        config: Its hyperparameters.
        seed: Draws the rows that decide when to stop.
        say: Gets a line on how it went.

    Returns:
        The estimator, and its learning curve: ``train_rmse`` and ``held_out_rmse``, on the train
        rows held out, by iteration; empty where it doesn't stop early.

    Raises:
        ValueError: There are no features.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    if not features.shape[1]:
        msg = f"{name} needs at least one feature: the feature contract has none"
        raise ValueError(msg)
    stops = config.early_stopping and len(target) >= FEWEST_TO_STOP_EARLY
    if config.early_stopping and not stops:
        say(
            f"{name}: all {config.max_iter} iterations, without early stopping: {len(target)} "
            f"train rows are fewer than {FEWEST_TO_STOP_EARLY}"
        )
    estimator = HistGradientBoostingRegressor(
        learning_rate=config.learning_rate,
        max_depth=config.max_depth,
        max_iter=config.max_iter,
        min_samples_leaf=config.min_samples_leaf,
        l2_regularization=config.l2_regularization,
        early_stopping=stops,
        random_state=seed,
    )
    if not stops:
        estimator.fit(_learnable(features), target)
        return estimator, {}
    # Drawn here rather than inside of scikit-learn, which fails on a column that is missing from
    # all of the rows that it draws: here they are known in time.
    order = np.random.default_rng(seed).permutation(len(target))
    held_out, fitted = np.split(order, [round(len(target) * VALIDATION_SHARE)])
    estimator.fit(
        _learnable(features[fitted]),
        target[fitted],
        X_val=features[held_out],
        y_val=target[held_out],
    )
    curve = {
        # The loss is half the squared error, the score its negative.
        "train_rmse": np.sqrt(-2.0 * estimator.train_score_).tolist(),
        "held_out_rmse": np.sqrt(-2.0 * estimator.validation_score_).tolist(),
    }
    say(
        f"{name}: {estimator.n_iter_} of {config.max_iter} iterations, held-out rmse "
        f"{curve['held_out_rmse'][-1]:.4f} from {curve['held_out_rmse'][0]:.4f}"
    )
    return estimator, curve


def predict_trees(trees: Any, features: Matrix) -> NDArray[np.float64]:
    """What fitted trees give for ``(N, K)`` features: float64 ``(N,)``; of no rows, nothing."""
    if not len(features):  # which scikit-learn refuses
        return np.zeros(0)
    prediction: NDArray[np.float64] = trees.predict(features)
    return prediction


def metadata_matrix(encoder: MetadataEncoder, metadata: pl.DataFrame) -> Matrix:
    """Metadata as trees take them: ``[numeric, NaN where missing | one-hot]``.

    One-hot rather than scikit-learn's native categories, whose files need a function to be loaded.
    """
    return np.hstack([encoder.numeric(metadata), encoder.one_hot(metadata)])


def _learnable(features: Matrix) -> Matrix:
    """The features, with zeros where a column has no value at all, which can't be binned.

    A constant is never split on, so that later values of such a column change nothing.
    """
    return np.where(np.isnan(features).all(axis=0), 0.0, features)
