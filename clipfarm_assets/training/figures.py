"""Figures as PNG bytes: the same numbers give the same bytes.

matplotlib is imported when something is drawn, by way of Figure and its canvas: pyplot would keep
global state and pick a GUI backend.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Name = TypeVar("Name", bound=str)

_DPI: Final = 90
_COLUMNS: Final = 4


def panels_of(
    names: Sequence[Name], height: float, nothing: str, *, share_y: bool = False
) -> tuple["Figure", dict[Name, "Axes"]]:
    """A grid of one panel a name, four beside each other at most; or a line that says why not.

    Args:
        names: Of the panels.
        height: Of each, in inches.
        nothing: What the figure says where there are no panels.
        share_y: Whether all have the y axis of one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure = Figure(figsize=(3.2 * columns, height * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if not names:
        figure.set_size_inches(4.0, 0.6)
        figure.text(0.5, 0.5, nothing, ha="center", va="center", color="0.4")
        return figure, {}
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel()
    for unused in grid[len(names) :]:
        unused.set_axis_off()
    return figure, dict(zip(names, grid[: len(names)], strict=True))


def png(figure: "Figure", title: str, width: float | None = None) -> bytes:
    """The figure's bytes.

    Args:
        figure: Of `panels_of`.
        title: Of the figure; not drawn where it has no panels.
        width: In inches, where not that of `panels_of`.
    """
    if title and figure.axes:
        figure.suptitle(title, fontsize=9)
    if width is not None and figure.axes:
        figure.set_figwidth(width)
    out = io.BytesIO()
    # matplotlib would write its version, and with it other bytes after an upgrade.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
