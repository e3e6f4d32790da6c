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


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, to be looked into."""
    figures = []
    png = plots.png
    monkeypatch.setattr(
        plots, "png", lambda figure, *a, **k: (figures.append(figure), png(figure, *a, **k))[1]
    )
    return figures


def coverage(n=60):
    found = [0.8, 0.9, 1.0, 0.95, 0.7]
    return pl.DataFrame({"family": FAMILIES, "nominal": 0.9, "coverage": found, "n": n})


CURVES = {
    "concat_mlp": {"train_loss": [3, 2, 1], "val_rmse": [2, 1, 1.5], "best_epoch": 1},
    "gbdt_projector": {"train_loss": [3.0], "val_rmse": [2.0], "stopped_early": False},
}
BOOSTED = {"gbdt": {"train_rmse": [2.0, 1.0, 0.5], "held_out_rmse": [2.5, 1.5, 1.25]}}
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
    "residuals, all with text": lambda: plots.residuals_png(residuals(without_text=0)),
    "boosted": lambda: plots.curves_png({**CURVES, **BOOSTED}, "a title"),
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


def lines(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}


def test_a_loss_is_drawn_as_the_root_that_it_is_beside(drawn):
    before = str(CURVES)
    plots.curves_png(CURVES)
    (figure,) = drawn
    by_name = {axes.get_title(): axes for axes in figure.axes}
    found = lines(by_name["concat_mlp"])
    assert found.keys() == {"train_rmse", "val_rmse", "kept"}
    np.testing.assert_allclose(found["train_rmse"], np.sqrt([3, 2, 1]))
    assert found["val_rmse"] == [2, 1, 1.5]
    assert set(lines(by_name["gbdt_projector"])) == {"train_rmse", "val_rmse"}
    assert str(CURVES) == before


def test_trees_go_by_iterations_and_networks_by_epochs(drawn):
    plots.curves_png({**CURVES, **BOOSTED})
    axis = {axes.get_title(): axes.get_xlabel() for axes in drawn[0].axes if axes.axison}
    assert axis == {"concat_mlp": "epoch", "gbdt_projector": "epoch", "gbdt": "iteration"}
    trees = next(axes for axes in drawn[0].axes if axes.get_title() == "gbdt")
    assert lines(trees) == BOOSTED["gbdt"], "which are roots already"


def test_residuals_say_how_many_clips_each_group_has(drawn):
    frame = residuals(["random"], n=40)
    plots.residuals_png(frame)
    (axes,) = drawn[0].axes
    without = int((frame["text_present"] == 0).sum())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"with text ({len(frame) - without})",
        f"without text ({without})",
    ]
    assert len(axes.patches) == 2 * len(FAMILIES)


@pytest.mark.parametrize(("without_text", "label"), [(0, "with text"), (1, "without text")])
def test_residuals_of_one_group_are_drawn_where_they_are_among_two(drawn, without_text, label):
    plots.residuals_png(residuals(["random", "grouped"], without_text=without_text))
    both, one = residuals(["random"]), drawn[0].axes
    plots.residuals_png(both)
    (among_two,) = drawn[1].axes
    for axes in one:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"{label} (200)"]
        assert len(axes.patches) == len(FAMILIES)
        assert axes.get_xlim() == among_two.get_xlim() == (-1.0, len(FAMILIES))


TITLED = {
    "curves": lambda title: plots.curves_png(CURVES, title),
    "predictions": lambda title: plots.predictions_png(predictions(), title),
    "residuals": lambda title: plots.residuals_png(residuals(), title),
    "gate": lambda title: plots.gate_png(*gate(), title),
    "importance": lambda title: plots.importance_png(importance(8), title),
    "coverage": lambda title: plots.coverage_png(coverage(), title),
}


@pytest.mark.parametrize("name", TITLED)
def test_a_figure_has_the_title_it_is_given(drawn, name):
    titled, untitled = TITLED[name]("concat, 7 days"), TITLED[name]("")
    assert [figure.get_suptitle() for figure in drawn] == ["concat, 7 days", ""]
    assert titled != untitled


def test_nothing_to_draw_needs_no_title(drawn):
    assert plots.curves_png({}, "concat, 7 days") == plots.curves_png({})
    assert drawn[0].get_suptitle() == ""


def test_the_row_order_of_families_is_kept(monkeypatch):
    seen = []
    panels = plots.panels_of
    monkeypatch.setattr(
        plots, "panels_of", lambda names, *a, **k: (seen.append(names), panels(names, *a, **k))[1]
    )
    plots.predictions_png(predictions(5))
    assert seen == [list(FAMILIES)]
