"""What an evaluation leaves for people: every prediction, and plots."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from clipfarm_assets.serving.meme_registry import SYSTEMS
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets.training.classification import plots
from clipfarm_assets.training.classification.metrics import (
    calibration_bins,
    confusion_matrix,
)

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.memes.evaluation import JudgedSplit

_DRAWN: Final = ("accuracy", "macro_f1", "auroc", "ece")


def predictions_parquet(splits: "Iterable[JudgedSplit]") -> bytes:
    """One row a meme and system.

    Columns: ``split, id, group, system, label, predicted``, the last two numbers of classes, and
    ``probabilities``, calibrated, one a class.
    """
    frames = [
        pl.DataFrame(
            {
                "split": [judged.split] * len(judged.labels),
                "id": judged.ids.tolist(),
                "group": judged.groups.tolist(),
                "system": [system] * len(judged.labels),
                "label": judged.labels,
                "predicted": judged.predicted[system],
                "probabilities": judged.probabilities[system].tolist(),
            }
        )
        for judged in splits
        for system in SYSTEMS
    ]
    return table_to_parquet(pl.concat(frames).to_arrow())


def evaluation_plots(
    what: str,
    classes: tuple[str, ...],
    judged: "JudgedSplit",
    curves: Mapping[str, Mapping[str, Any]],
) -> dict[str, bytes]:
    """``plots/<name>.png`` -> bytes.

    Args:
        what: Was judged, for the titles.
        classes: Of the label.
        judged: The rows to show.
        curves: Of the fusion model's fit.
    """
    title = f"{what}; {len(judged.labels)} memes of {judged.split}"
    labels = judged.labels
    return {
        "plots/curves.png": plots.curves_png(curves, what),
        "plots/reliability.png": plots.reliability_png(
            {s: calibration_bins(labels, judged.probabilities[s]) for s in SYSTEMS}, title
        ),
        "plots/confusion.png": plots.confusion_png(
            {s: confusion_matrix(labels, judged.predicted[s], len(classes)) for s in SYSTEMS},
            classes,
            title,
        ),
        "plots/roc.png": plots.roc_png(
            labels, {s: judged.probabilities[s] for s in SYSTEMS}, classes, title
        ),
        "plots/intervals.png": plots.intervals_png(
            {s: dict(found.items()) for s, found in judged.metrics.items()}, _DRAWN, title
        ),
    }
