"""The same numbers give the same picture; every case a run can have can be drawn."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipfarm_assets.training import plots

FAMILIES = ("gbdt", "ridge", "mean", "concat_mlp", "pca_gbdt")


def predictions(n=40, families=FAMILIES, *, without_text=0.25, seed=3):
    rng = np.random.default_rng(seed)
    target = rng.normal(8, 2, n)
    frames = [
        pl.DataFrame(
            {
                "family": [family] * n,
                "target_log": target,
                "prediction_log": 4 + target / 2 + rng.normal(size=n),
                "text_present": (rng.random(n) >= without_text).astype(np.int64),
            }
        )
        for family in families
    ]
    return pl.concat(frames)


def residuals(kinds=("random", "chronological"), **options):
    return pl.concat([predictions(**options).with_columns(split=pl.lit(kind)) for kind in kinds])


def gate(n=30, seed=5):
    rng = np.random.default_rng(seed)
    present = rng.random(n) > 0.3
    weights = rng.dirichlet([3, 2, 1], n)
    weights[~present, 2] = 0
    return weights / weights.sum(axis=1, keepdims=True), present


def importance(n):
    rng = np.random.default_rng(n)
    names = [f"feature_{i}" for i in range(n)]
    return pl.DataFrame({"feature": names, "drop": rng.normal(size=n), "spread": rng.random(n)})


def coverage(n=60):
    found = [0.8, 0.9, 1.0, 0.95, 0.7]
    return pl.DataFrame({"family": FAMILIES, "nominal": 0.9, "coverage": found, "n": n})


CURVES = {
    "concat_mlp": {"train_loss": [3, 2, 1], "val_rmse": [2, 1, 1.5], "best_epoch": 1},
    "gbdt_projector": {"train_loss": [3.0], "val_rmse": [2.0], "stopped_early": False},
}
DRAWN = {
    "curves": lambda: plots.curves_png(CURVES),
    "no network": lambda: plots.curves_png({}),
    "predictions": lambda: plots.predictions_png(predictions()),
    "one clip": lambda: plots.predictions_png(predictions(1, ["mean"])),
    "all with text": lambda: plots.predictions_png(predictions(without_text=0)),
    "residuals": lambda: plots.residuals_png(residuals()),
    "one family, no text": lambda: plots.residuals_png(
        residuals(["random"], families=["mean"], without_text=1)
    ),
    "gate": lambda: plots.gate_png(*gate()),
    "no gate": lambda: plots.gate_png(np.empty((0, 3)), np.empty(0, np.bool_)),
    "importance": lambda: plots.importance_png(importance(45)),
    "one feature": lambda: plots.importance_png(importance(1)),
    "coverage": lambda: plots.coverage_png(coverage()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_a_png_and_the_same_each_time(name):
    png = DRAWN[name]()
    assert png == DRAWN[name]()
    image = Image.open(io.BytesIO(png)).convert("L")
    assert min(image.size) >= 50
    assert np.asarray(image).min() < 140, "something is drawn"


@pytest.mark.parametrize(
    ("draw", "one", "other"),
    [
        (plots.predictions_png, predictions(seed=1), predictions(seed=2)),
        (plots.residuals_png, residuals(seed=1), residuals(seed=2)),
        (plots.importance_png, importance(8), importance(9)),
        (plots.coverage_png, coverage(60), coverage(600)),
        (plots.curves_png, CURVES, {**CURVES, "concat_mlp": {"train_loss": [1.0, 2.0]}}),
    ],
)
def test_other_numbers_give_another_picture(draw, one, other):
    assert draw(one) != draw(other)


def test_the_row_order_of_families_is_kept(monkeypatch):
    seen = []
    panels = plots._panels
    monkeypatch.setattr(
        plots, "_panels", lambda names, *a, **k: (seen.append(names), panels(names, *a, **k))[1]
    )
    plots.predictions_png(predictions(5))
    assert seen == [list(FAMILIES)]
