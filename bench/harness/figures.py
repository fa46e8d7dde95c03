"""Draws the panels of an experiment as a PNG of few colours; the same result gives the same bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from bench.harness.experiment import Panel
from gpu_sublinear.views.run_figure import MUTED, STYLE

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8C510A")  # Okabe and Ito
MARKERS = "osD^vPX*"
COLUMNS, WIDTH, HEIGHT = 3, 4.6, 3.4  # panels a row, inches of a panel
PALETTE = 64  # colours of a picture
LEGEND_ROW, LEGEND_COLUMNS = 0.21, 2  # inches of a line of the legend below a panel, names in a line


def draw(panels: list[Panel], path: Path) -> Path | None:
    """Draw all panels into a file; return it (None without matplotlib or panels)."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return None
    panels = [panel for panel in panels if any(panel.curves.values())]
    if not panels:
        return None
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))  # one style a name, in all panels
    lines = max(len(panel.curves) for panel in panels) / LEGEND_COLUMNS
    with matplotlib.rc_context(STYLE):
        size = (WIDTH * columns, rows * (HEIGHT + LEGEND_ROW * lines))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, panel in zip(axes, panels, strict=False):
            _panel(axis, panel, names)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=110)
    return _save(picture, path)


def _save(picture: io.BytesIO, path: Path) -> Path:
    """Write a drawing with a palette: a third of the bytes, and no difference to be seen."""
    from PIL import Image  # matplotlib needs it, too

    path.parent.mkdir(parents=True, exist_ok=True)
    few = Image.open(picture).convert("RGB").quantize(PALETTE, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    return path


def _panel(axis: Any, panel: Panel, names: list[str]) -> None:
    for name, points in panel.curves.items():
        if points:
            k = names.index(name)
            x, y = zip(*points, strict=True)
            style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]}
            dashed = "-" if k < len(COLOURS) else "--"
            axis.plot(x, y, dashed, markersize=3.5, linewidth=1.4, label=name, **style)
    if panel.line is not None:
        axis.axhline(panel.line, color=MUTED, linewidth=1, linestyle=":")
    values = [x for points in panel.curves.values() for x, _ in points]
    if "x" in panel.log:
        _scale(axis, values)
    elif all(float(x).is_integer() for x in values):  # steps, splits
        axis.xaxis.get_major_locator().set_params(integer=True)
    if "y" in panel.log:
        axis.set_yscale("log")
    axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    if len(panel.curves) > 1:
        axis.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=LEGEND_COLUMNS)


def _scale(axis: Any, values: list[float]) -> None:
    """Make x logarithmic; under two decades with ticks at powers of two, since one power of ten says little."""
    few = max(values) < 100 * min(values)
    axis.set_xscale("log", base=2 if few else 10)
    if few and min(values) < 64:  # seconds, penalties: as they are read; widths stay powers
        axis.xaxis.set_major_formatter("{x:g}")
