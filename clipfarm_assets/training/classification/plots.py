"""Plots of how well classes are told apart, as PNG bytes, see `figures`.

Each takes what is compared by name, e.g. ``text``, ``vision`` and ``fusion``, in the order in which
it is to be drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from clipfarm_assets.training import plots
from clipfarm_assets.training.classification.confidence import Interval
from clipfarm_assets.training.classification.metrics import CalibrationBins, Metric, auroc
from clipfarm_assets.training.classification.values import (
    Labels,
    class_labels,
    class_probabilities,
)
from clipfarm_assets.training.figures import Name, panels_of, png
from clipfarm_assets.training.metrics import Doubles

# Told apart by nearly everybody, also in grey.
_COLOURS: Final = ("tab:blue", "tab:orange", "black", "tab:green", "tab:purple", "tab:brown")


def curves_png(curves: Mapping[str, Mapping[str, Any]], title: str = "") -> bytes:
    """Learning curves as they are, a panel a network: see `training.plots.curves_png`."""
    return plots.curves_png(curves, title, is_squared=False)


def reliability_png(bins: Mapping[Name, CalibrationBins], title: str = "") -> bytes:
    """Accuracy against confidence, a panel a model: on the diagonal it is as sure as it is right.

    Args:
        bins: Model -> `metrics.calibration_bins`.
        title: Of the figure, as in all functions here.
    """
    figure, panels = panels_of(list(bins), 3.0, "no calibration")
    for name, axes in panels.items():
        found = bins[name]
        there = found.counts > 0
        edges = np.linspace(0.0, 1.0, len(found.counts) + 1)
        share = found.counts / found.counts.sum()
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axes.bar(
            edges[:-1],
            share,
            width=np.diff(edges),
            align="edge",
            color="0.85",
            label=f"share of {found.counts.sum()} rows",
        )
        axes.plot(
            found.confidence[there], found.accuracy[there], "o-", color="tab:blue", markersize=4
        )
        axes.set(
            title=f"{name}: ECE {found.ece:.3f}",
            xlabel="confidence",
            ylabel="share right",
            xlim=(0, 1),
            ylim=(0, 1.02),
        )
        axes.legend(fontsize=7)
    return png(figure, title)


def confusion_png(
    matrices: Mapping[Name, Labels], classes: Sequence[str], title: str = ""
) -> bytes:
    """Confusion counts, a panel a model, shaded by their share of the true class.

    Args:
        matrices: Model -> int64 ``(C, C)``, see `metrics.confusion_matrix`.
        classes: C names.
        title: Of the figure.

    Raises:
        ValueError: A matrix is of another number of classes.
    """
    figure, panels = panels_of(list(matrices), 3.0, "no predictions")
    for name, axes in panels.items():
        matrix = matrices[name]
        if matrix.shape != (len(classes), len(classes)):
            msg = (
                f"the confusion matrix of {name} must be of {len(classes)} classes "
                f"({', '.join(classes)}): found shape {matrix.shape}"
            )
            raise ValueError(msg)
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
        for true, predicted in np.ndindex(*matrix.shape):
            axes.text(
                predicted,
                true,
                f"{matrix[true, predicted]}\n{share[true, predicted]:.0%}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share[true, predicted] > 0.5 else "black",
            )
        axes.set_xticks(range(len(classes)), classes, fontsize=7, rotation=20, ha="right")
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
        axes.set(title=name, xlabel="predicted", ylabel="true")
    return png(figure, title)


def roc_png(
    labels: ArrayLike, scores: Mapping[Name, ArrayLike], classes: Sequence[str], title: str = ""
) -> bytes:
    """ROC curves, one line a model: a panel for the second of two classes, or one for each.

    Args:
        labels: ``(N,)``, shared by all models.
        scores: Model -> probabilities ``(N, C)``.
        classes: C names.
        title: Of the figure.

    Raises:
        ValueError: As `values.class_labels` and `values.class_probabilities`.
    """
    shown = list(classes[1:]) if len(classes) == 2 else list(classes)
    figure, panels = panels_of(shown if scores else [], 3.2, "no predictions")
    for name, axes in panels.items():
        target = list(classes).index(name)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        for number, (model, values) in enumerate(scores.items()):
            array = class_probabilities(values)
            is_class = class_labels(labels, array.shape[1], len(array)) == target
            pair = np.column_stack([1.0 - array[:, target], array[:, target]])
            area = auroc(is_class.astype(np.int64), pair)
            if area is None:
                axes.plot([], [], label=f"{model}: rows of one class")
                continue
            false_rate, true_rate = roc_points(is_class.astype(np.int64), array[:, target])
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(false_rate, true_rate, color=colour, label=f"{model}: {area:.3f}")
        axes.set(title=f"ROC of {name}", xlabel="false positive rate", ylabel="true positive rate")
        axes.legend(fontsize=7, loc="lower right")
    return png(figure, title)


def roc_points(labels: Labels, scores: Doubles) -> tuple[Doubles, Doubles]:
    """False and true positive rates at each distinct score, from (0, 0) to (1, 1).

    Args:
        labels: ``(N,)``, 0 and 1, both there.
        scores: ``(N,)``.
    """
    _, place = np.unique(-scores, return_inverse=True)
    rates = []
    for target in (0, 1):
        counts = np.bincount(place[labels == target], minlength=int(place.max()) + 1)
        rates.append(np.concatenate([[0.0], np.cumsum(counts) / counts.sum()]))
    return rates[0], rates[1]


def intervals_png(
    found: Mapping[Name, Mapping[Metric, Interval]], metrics: Sequence[Metric], title: str = ""
) -> bytes:
    """Metrics with their intervals: a panel a metric, a row a model.

    Args:
        found: Model -> metric -> interval, see `confidence.intervals`.
        metrics: Which to draw.
        title: Of the figure.
    """
    models = list(found)
    height = 0.3 * len(models) + 1.2
    figure, panels = panels_of(list(metrics) if models else [], height, "no metrics")
    for metric, axes in panels.items():
        for place, model in enumerate(models):
            interval = found[model][metric]
            colour = _COLOURS[place % len(_COLOURS)]
            if interval.low is not None and interval.high is not None:
                axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
            if interval.value is not None:
                axes.plot([interval.value], [place], "o", color=colour)
        axes.set_yticks(range(len(models)), models, fontsize=7)
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set(title=metric)
    return png(figure, title)
