"""Plots of embeddings and of fits, as PNG bytes and as markdown for the UI."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.orchestration.metadata import Metadata, rounded


def principal_plane(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Project rows ``(N, D)`` onto their first two principal axes, ``(N, 2)``.

    The sign of an axis is fixed so that its largest loading is positive: the same vectors give the
    same picture.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    if len(vectors) < 2:
        return np.zeros((len(vectors), 2))
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    plane = centred @ (axes * signs[:, None]).T
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))


def embedding_map(
    vectors: NDArray[np.float32], labels: Sequence[str], title: str, content: str
) -> bytes:
    """A norm histogram beside a 2-D map of the vectors, coloured by label; PNG bytes.

    Args:
        vectors: Rows ``(N, D)`` of about unit norm.
        labels: One a row.
        title: Of the map.
        content: Hash of what is drawn, in hex; `clips_drawn` tells the picture by it.
    """
    # Figure and canvas directly: pyplot would keep global state and pick a GUI backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    norms, plane = figure.subplots(1, 2, width_ratios=(1, 2))
    norms.hist(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1.0, bins=20)
    norms.set(xlabel="L2 norm - 1", ylabel="clips", title="norms")
    norms.ticklabel_format(axis="x", scilimits=(-2, 2))
    points = principal_plane(vectors)
    for label in sorted(set(labels)):
        mask = np.array([found == label for found in labels])
        plane.scatter(points[mask, 0], points[mask, 1], s=14, label=label or "(none)")
    plane.set(xlabel="1st principal axis", ylabel="2nd", title=title)
    if len(set(labels)) <= 8:
        # To look for the best place takes longer the more clips there are.
        plane.legend(fontsize=7, title="query", title_fontsize=7, loc="upper right")
    out = io.BytesIO()
    comment = f"{_mark(content)}{len(vectors)};"
    figure.savefig(out, format="png", metadata={"Software": None, "Comment": comment})
    return out.getvalue()


def clips_drawn(png: bytes, content: str) -> int | None:
    """How many clips the picture shows; None if it wasn't drawn from that content."""
    found = re.search(_mark(content).encode() + rb"(\d+);", png)
    return int(found[1]) if found else None


def _mark(content: str) -> str:
    """What the number of clips follows in the picture's comment, which PNG keeps uncompressed."""
    return f"content {content} clips "


def inline_png(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG as markdown that the UI shows in place."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def learning_curves(curves: Mapping[str, Mapping[str, Any]], title: str) -> Metadata:
    """Learning curves as a picture, and their ends as numbers.

    Args:
        curves: Name of what was fitted -> its ``train_loss`` an epoch, ``best_epoch`` and more.
        title: Of the picture.
    """
    from clipfarm_assets.training.classification.plots import curves_png

    shown: Metadata = {}
    for name, found in curves.items():
        losses = found["train_loss"]
        shown |= {
            f"{name}/epochs": len(losses),
            f"{name}/best_epoch": found["best_epoch"],
            f"{name}/first_train_loss": rounded(losses[0]),
            f"{name}/last_train_loss": rounded(losses[-1]),
        }
    return {**shown, "plot/curves": inline_png(curves_png(curves, title), "learning curves")}


def inline_files(files: Mapping[str, bytes]) -> Metadata:
    """``plots/<name>.png`` -> PNG bytes as ``plot/<name>`` -> markdown, sorted."""
    return {
        f"plot/{name.removeprefix('plots/').removesuffix('.png')}": inline_png(png, name)
        for name, png in sorted(files.items())
    }
