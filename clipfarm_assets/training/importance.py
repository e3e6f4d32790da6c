"""What a model relies on: how much worse it gets when one input is shuffled among clips.

Source: permutation importance, Breiman (2001), "Random Forests", section 10; a modality is permuted
as one block, and the fused vector is made again from the permuted modality.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.schema_lock import fused_dim
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.families import Model

REPEATS: Final = 5


def permutation_importance(
    model: Model, rows: Labelled, strategy: Strategy, *, seed: int, repeats: int = REPEATS
) -> pl.DataFrame:
    """Importance of every modality and metadata feature, largest first.

    Args:
        model: A fitted model.
        rows: N rows it was not fitted on.
        strategy: How their fused vectors were made.
        seed: Of the permutations.
        repeats: Permutations an input.

    Returns:
        ``feature``, ``kind`` (modality or metadata), ``drop`` (mean increase of RMSE on log1p
        views) and ``spread`` (its standard deviation over the permutations).
    """
    base = _rmse(model, rows.clips, rows.target_log)
    inputs: list[tuple[Any, str]] = [(name, "modality") for name in MODALITIES]
    inputs += [(name, "metadata") for name in rows.clips.metadata.columns]
    records: list[dict[str, Any]] = []
    for number, (name, kind) in enumerate(inputs):
        rng = np.random.default_rng([seed, number])
        drops = []
        for _ in range(repeats):
            order = rng.permutation(len(rows))
            if kind == "modality":
                permuted = with_permuted_modality(rows.clips, strategy, name, order)
            else:
                permuted = _with_permuted_feature(rows.clips, name, order)
            drops.append(_rmse(model, permuted, rows.target_log) - base)
        records.append(
            {
                "feature": name,
                "kind": kind,
                "drop": float(np.mean(drops)),
                "spread": float(np.std(drops)),
            }
        )
    return pl.DataFrame(records).sort(["drop", "feature"], descending=[True, False])


def with_permuted_modality(
    clips: ClipBatch, strategy: Strategy, modality: Modality, order: NDArray[np.intp]
) -> ClipBatch:
    """Every clip with another's vector of one modality; presence of text goes with the text."""
    changed = clips.with_modality(modality, clips.modality(modality)[order])
    if modality == "text":
        changed = replace(changed, text_present=clips.text_present[order])
    return fused_again(changed, strategy)


def without_modality(clips: ClipBatch, strategy: Strategy, modality: Modality) -> ClipBatch:
    """The clips with one modality's vectors zero, as an ablation; text counts as absent then."""
    changed = clips.with_modality(modality, np.zeros_like(clips.modality(modality)))
    if modality == "text":
        changed = replace(changed, text_present=np.zeros(len(clips), np.bool_))
    return fused_again(changed, strategy)


def fused_again(clips: ClipBatch, strategy: Strategy) -> ClipBatch:
    """The clips with their fused vectors made again from their modalities."""
    dims = clips.dims
    masked = fused_dim(
        strategy, video_dim=dims["video"], audio_dim=dims["audio"], text_dim=dims["text"]
    )
    fused = fuse(
        strategy,
        clips.video,
        clips.audio,
        clips.text,
        clips.text_present,
        append_mask=clips.fused.shape[1] == masked,
    )
    return replace(clips, fused=fused)


def _with_permuted_feature(clips: ClipBatch, name: str, order: NDArray[np.intp]) -> ClipBatch:
    permuted = clips.metadata[name].gather(order)
    return replace(clips, metadata=clips.metadata.with_columns(permuted.alias(name)))


def _rmse(model: Model, clips: ClipBatch, target: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((model.predict(clips) - target) ** 2)))
