"""Plots of a training run as PNG bytes, see `figures`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.training.figures import panels_of, png

# Beside each other, blue and orange are told apart by nearly everybody.
_TEXT: Final = ((True, "with text", "tab:blue"), (False, "without text", "tab:orange"))
# More bars would not be read.
_FEATURES: Final = 20


def curves_png(
    curves: Mapping[str, Mapping[str, Any]], title: str = "", *, is_squared: bool = True
) -> bytes:
    """Learning curves: a panel a network or a forest, one line a series.

    Args:
        curves: Network -> series, e.g. ``{"concat_mlp": {"train_loss": [...], "val_rmse": [...],
            "best_epoch": 3}}``. What is no list of numbers is not drawn, but for `best_epoch`
            (counted from 0), which is marked.
        title: Of the figure, as in all functions here: what was fitted, and which rows are shown.
        is_squared: Whether a training loss is a mean squared error, and is drawn as its root beside
            the RMSE on other rows.
    """
    figure, panels = panels_of(sorted(curves), 3.0, "no family of this run has learning curves")
    for name, axes in panels.items():
        for series, values in sorted(curves[name].items()):
            if _is_series(values):
                is_loss = is_squared and series == "train_loss"
                shown = np.sqrt(values) if is_loss else values
                label = "train_rmse" if is_loss else series
                axes.plot(np.arange(len(values)), shown, marker=".", markersize=3, label=label)
        best = curves[name].get("best_epoch")
        if isinstance(best, int) and not isinstance(best, bool):
            axes.axvline(best, color="0.6", linestyle=":", label="kept")
        axes.locator_params(axis="x", integer=True)
        is_boosted = "held_out_rmse" in curves[name]
        axes.set(title=name, xlabel="iteration" if is_boosted else "epoch")
        axes.legend(fontsize=7)
    return png(figure, title)


def predictions_png(frame: pl.DataFrame, title: str = "") -> bytes:
    """Predicted against true log1p(views): a panel a family, coloured by text_present.

    Args:
        frame: Columns ``target_log``, ``prediction_log``, ``text_present``, ``family``.
        title: Of the figure.
    """
    families = _values(frame, "family")
    figure, panels = panels_of(families, 3.0, "no predictions")
    for family, axes in panels.items():
        rows = frame.filter(pl.col("family") == family)
        for present, label, colour in _TEXT:
            part = rows.filter(_has_text(present))
            if part.height:
                axes.scatter(
                    part["target_log"],
                    part["prediction_log"],
                    s=9,
                    alpha=0.6,
                    c=colour,
                    label=label,
                )
        low, high = _limits(rows["target_log"], rows["prediction_log"])
        axes.plot([low, high], [low, high], color="0.6", linewidth=1)
        axes.set(title=family, xlabel="true log1p(views)", ylabel="predicted")
        axes.set_aspect("equal")
        axes.legend(fontsize=7, loc="upper left")  # off the diagonal
    return png(figure, title)


def residuals_png(frame: pl.DataFrame, title: str = "") -> bytes:
    """Residuals, predicted minus true: a panel a split kind, two boxes a family.

    Args:
        frame: Columns ``target_log``, ``prediction_log``, ``text_present``, ``family``, ``split``
            (the split kind).
        title: Of the figure.
    """
    figure, panels = panels_of(_values(frame, "split"), 3.4, "no residuals", share_y=True)
    for split, axes in panels.items():
        rows = frame.filter(pl.col("split") == split).with_columns(
            residual=pl.col("prediction_log") - pl.col("target_log")
        )
        families = _values(rows, "family")
        for offset, (present, label, colour) in zip((-0.2, 0.2), _TEXT, strict=True):
            groups = [
                rows.filter((pl.col("family") == family) & _has_text(present))[
                    "residual"
                ].to_numpy()
                for family in families
            ]
            places = [(i + offset, g) for i, g in enumerate(groups) if len(g)]
            if places:
                axes.boxplot(
                    [group for _, group in places],
                    positions=[place for place, _ in places],
                    widths=0.35,
                    flierprops={"markersize": 2},
                    medianprops={"color": "black"},
                    boxprops={"facecolor": colour, "alpha": 0.6},
                    patch_artist=True,
                    manage_ticks=False,
                )
                count = sum(len(group) for _, group in places)
                axes.plot([], [], color=colour, linewidth=6, alpha=0.6, label=f"{label} ({count})")
        axes.axhline(0, color="0.6", linewidth=1)
        axes.set_xticks(range(len(families)), families, rotation=40, ha="right", fontsize=7)
        axes.set(title=split, ylabel="predicted - true, log1p(views)")
        axes.set_xlim(-1.0, len(families))
        axes.legend(fontsize=7, loc="upper left")
    return png(figure, title)


def gate_png(
    weights: NDArray[np.float64], text_present: NDArray[np.bool_], title: str = ""
) -> bytes:
    """How much the gate trusts each modality: a histogram a modality.

    Args:
        weights: ``(N, 3)``, columns in the order of `MODALITIES`, rows sum to 1.
        text_present: ``(N,)``.
        title: Of the figure.
    """
    names = list(MODALITIES) if len(weights) else []
    figure, panels = panels_of(names, 2.6, "no gate weights", share_y=True)
    bins = np.linspace(0.0, 1.0, 26).tolist()
    for column, axes in enumerate(panels.values()):
        parts = [weights[text_present == present, column] for present, _, _ in _TEXT]
        axes.hist(
            parts,
            bins=bins,
            stacked=True,
            color=[colour for _, _, colour in _TEXT],
            label=[label for _, label, _ in _TEXT],
        )
        mean = float(np.mean(weights[:, column]))
        axes.set(title=f"{names[column]}: mean {mean:.2f}", xlabel="weight", ylabel="clips")
        axes.legend(fontsize=7)
    return png(figure, title)


def importance_png(frame: pl.DataFrame, title: str = "") -> bytes:
    """Permutation importance: how much worse the metric gets when a feature's values are shuffled.

    Args:
        frame: Columns ``feature``, ``drop`` (mean over repetitions) and ``spread`` (their standard
            deviation). The largest are drawn.
        title: Of the figure.
    """
    largest = frame.sort(["drop", "feature"], descending=[True, False]).head(_FEATURES).reverse()
    features = largest["feature"].to_list()
    figure, panels = panels_of(
        ["importance"] if features else [], 0.22 * len(features) + 1.2, "none"
    )
    for axes in panels.values():
        axes.barh(range(len(features)), largest["drop"], xerr=largest["spread"], ecolor="0.5")
        axes.set_yticks(range(len(features)), features, fontsize=7)
        of_all = "" if frame.height <= _FEATURES else f", {_FEATURES} of {frame.height}"
        axes.set(title=f"importance by permutation{of_all}", xlabel="rmse_log added by shuffling")
    return png(figure, title, width=6.5)


def coverage_png(frame: pl.DataFrame, title: str = "") -> bytes:
    """Share of true values inside the intervals, against the share promised: a row a family.

    Args:
        frame: Columns ``family``, ``nominal``, ``coverage``, ``n``. The bars are what chance alone
            gives with n clips, at two standard errors.
        title: Of the figure.
    """
    rows = frame.reverse()
    figure, panels = panels_of(
        ["coverage"] if rows.height else [], 0.26 * rows.height + 1.4, "none"
    )
    for axes in panels.values():
        places = np.arange(rows.height)
        nominal = rows["nominal"].to_numpy()
        chance = 2.0 * np.sqrt(nominal * (1.0 - nominal) / rows["n"].to_numpy())
        axes.errorbar(
            nominal,
            places,
            xerr=chance,
            fmt="|",
            color="0.6",
            capsize=3,
            label="promised, ± 2 s.e. of chance",
        )
        axes.plot(rows["coverage"], places, "o", color="tab:blue", label="found")
        axes.set_yticks(places, [f"{f} ({n})" for f, n in rows.select("family", "n").rows()])
        axes.tick_params(axis="y", labelsize=7)
        axes.margins(y=0.1)
        axes.set(title="interval coverage", xlabel="share of test clips inside")
        axes.legend(fontsize=7)
    return png(figure, title, width=5.2)


def _values(frame: pl.DataFrame, column: str) -> list[str]:
    """The column's values in the order they first come in: that of the leaderboard."""
    found: list[str] = frame[column].unique(maintain_order=True).to_list()
    return found


def _has_text(present: bool) -> pl.Expr:
    return pl.col("text_present").cast(pl.Boolean) == present


def _is_series(values: object) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0


def _limits(*columns: pl.Series) -> tuple[float, float]:
    values = np.concatenate([column.to_numpy() for column in columns])
    return float(values.min()), float(values.max())
