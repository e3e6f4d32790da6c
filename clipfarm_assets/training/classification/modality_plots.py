"""Plots of what each modality does for models that fuse several, as PNG bytes, see `figures`."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from clipfarm_assets.training.figures import Name, panels_of, png

# Told apart by nearly everybody, also in grey.
_COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "black", "tab:brown")


def subsets_png(scores: Mapping[Name, Mapping[str, float | None]], title: str = "") -> bytes:
    """A score by the modalities that a model is shown: a panel a model, a bar a subset.

    Args:
        scores: Model -> subset, by its name -> score from 0 to 1; None where it has no meaning.
        title: Of the figure, as in all functions here.
    """
    most = max((len(found) for found in scores.values()), default=1)
    figure, panels = panels_of(list(scores), 0.22 * most + 1.0, "no models")
    for name, axes in panels.items():
        found = scores[name]
        places = range(len(found))
        values = [np.nan if value is None else value for value in found.values()]
        axes.barh(places, values, color="tab:blue")
        for place, value in zip(places, values, strict=True):
            told = "-" if np.isnan(value) else f"{value:.3f}"
            axes.text(0.01, place, told, va="center", fontsize=7, color="black")
        axes.set_yticks(places, list(found), fontsize=7)
        axes.set(title=name, xlim=(0, 1))
        axes.invert_yaxis()
    return png(figure, title)


def shares_png(shares: Mapping[Name, Mapping[str, float]], title: str = "") -> bytes:
    """Shapley shares: a panel a model, a bar a modality.

    Args:
        shares: Model -> modality -> share; may be below 0.
        title: Of the figure.
    """
    figure, panels = panels_of(list(shares), 2.4, "no shares", share_y=True)
    for name, axes in panels.items():
        found = shares[name]
        colours = [_COLOURS[place % len(_COLOURS)] for place in range(len(found))]
        axes.bar(range(len(found)), list(found.values()), color=colours)
        axes.axhline(0.0, color="0.6", linewidth=1)
        axes.set_xticks(range(len(found)), list(found), fontsize=8)
        axes.set(title=f"{name}: {sum(found.values()):+.3f} in all")
    return png(figure, title)


def degradation_png(
    lost: Mapping[Name, Mapping[str, Mapping[str, float]]],
    bounds: Mapping[str, float],
    title: str = "",
) -> bytes:
    """What is lost where a modality is taken away: a panel a model, bars beside each other a kind.

    Args:
        lost: Model -> kind, e.g. ``with modality dropout`` -> modality -> loss.
        bounds: Modality -> most that may be lost; drawn as a line over its bars.
        title: Of the figure.
    """
    figure, panels = panels_of(list(lost), 2.6, "no losses", share_y=True)
    for name, axes in panels.items():
        kinds = lost[name]
        width = 0.8 / max(len(kinds), 1)
        for number, (kind, found) in enumerate(kinds.items()):
            places = np.arange(len(found)) + (number - (len(kinds) - 1) / 2) * width
            axes.bar(
                places,
                list(found.values()),
                width=width,
                color=_COLOURS[number % len(_COLOURS)],
                label=kind,
            )
            axes.set_xticks(range(len(found)), list(found), fontsize=8)
        axes.axhline(0.0, color="0.6", linewidth=1)
        names = list(dict.fromkeys(name for found in kinds.values() for name in found))
        axes.hlines(
            [bounds[name] for name in names],
            np.arange(len(names)) - 0.45,
            np.arange(len(names)) + 0.45,
            color="tab:red",
            linewidth=1,
            linestyle=":",
            label="bound",
        )
        axes.set(title=name)
        axes.legend(fontsize=7)
    return png(figure, title)


def gradients_png(norms: Mapping[Name, Mapping[str, Sequence[float]]], title: str = "") -> bytes:
    """Gradient norms by epoch: a panel a model, a line a modality; norms of 0 are not drawn.

    Args:
        norms: Model -> modality -> norm of each epoch.
        title: Of the figure.
    """
    figure, panels = panels_of(list(norms), 2.8, "no gradients")
    for name, axes in panels.items():
        drawn = False
        for number, (modality, values) in enumerate(norms[name].items()):
            shown = np.array([value if value > 0 else np.nan for value in values])
            colour = _COLOURS[number % len(_COLOURS)]
            epochs = np.arange(1, len(shown) + 1)
            axes.plot(epochs, shown, marker=".", markersize=3, color=colour, label=modality)
            drawn = drawn or bool(np.isfinite(shown).any())
        if drawn:
            axes.set_yscale("log")
        axes.locator_params(axis="x", integer=True)
        axes.set(title=name, xlabel="epoch", ylabel="gradient norm")
        axes.legend(fontsize=7)
    return png(figure, title)
