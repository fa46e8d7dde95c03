"""The figure of a run: loss against step, and where the seconds of each step went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import GpuSublinearError, OptionError
from .files import write_atomically
from .history import PHASES, StepRecord

FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
COLOURS = {  # Okabe and Ito's palette, distinct to colour-blind readers
    "query": "#0072B2",
    "forward": "#56B4E9",
    "jacobian": "#009E73",
    "sketch": "#CC79A7",
    "solve": "#E69F00",
    "update": "#D55E00",
}
INK, MUTED, GRID = "#222222", "#666666", "#dddddd"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "gpu-sublinear",  # the same run gives the same bytes
}


class PlotLibraryError(GpuSublinearError, ImportError):
    """A figure was asked for and matplotlib is not installed."""


def check_figure(path: str | Path) -> None:
    """Check before a long computation that the figure can be drawn after it.

    Parameters
    ----------
    path : str or Path
        Where the figure will go; its suffix is the format.

    Raises
    ------
    OptionError
        If the suffix is not .png, .svg or .pdf.
    PlotLibraryError
        If matplotlib is not there.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise OptionError(f"--figure: '{path}' must end in .png, .svg or .pdf; choose one of these formats")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise PlotLibraryError(
            "--figure needs matplotlib, which is not installed; run: pip install 'gpu-sublinear[plot]'"
        ) from error


def save_figure(path: str | Path, history: Sequence[StepRecord], title: str, goal: float | None = None) -> None:
    """Draw a run and write the figure, all of it or nothing.

    Parameters
    ----------
    path : str or Path
        Ends in .png, .svg or .pdf.
    history : sequence of StepRecord
        The run, at least one record.
    title : str
        What was trained.
    goal : float, optional
        The loss at which training stops, drawn as a line.
    """
    import matplotlib

    kind = FORMATS[Path(path).suffix.lower()]
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with matplotlib.rc_context(STYLE):
        figure = draw(history, title, goal)
        write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=160, metadata=undated))


def draw(history: Sequence[StepRecord], title: str, goal: float | None = None) -> Any:
    """Return the matplotlib figure of a run; see :func:`save_figure`."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(10, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03))
    figure.suptitle(title, fontsize=11.5, fontweight="bold")
    left, right = figure.subplots(1, 2)
    _draw_loss(left, history, goal)
    _draw_seconds(right, history)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(which="both", length=0)
    return figure


def _draw_loss(axes: Any, history: Sequence[StepRecord], goal: float | None) -> None:
    steps = [record.step for record in history]
    loss = np.array([record.loss for record in history])  # (steps,)
    loss[~(loss > 0)] = np.nan  # a logarithmic axis has no place for zero
    axes.plot(steps, loss, "o-", color=COLOURS["query"], linewidth=2, markersize=6, clip_on=False)
    if goal:
        axes.axhline(goal, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate("tolerance", (0, goal), xycoords=("axes fraction", "data"), xytext=(6, 4),
                      textcoords="offset points", ha="left", color=MUTED, fontsize=9)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel(r"training loss  $\frac{1}{2}\,\|f - y\|^2$")


def _draw_seconds(axes: Any, history: Sequence[StepRecord]) -> None:
    steps = np.array([record.step for record in history])
    bottom = np.zeros(len(steps))
    for phase in PHASES:
        seconds = np.array([record.phases.get(phase, 0.0) for record in history])  # (steps,)
        if seconds.any():
            axes.bar(steps, seconds, 0.72, bottom, label=phase, color=COLOURS[phase])
        bottom += seconds
    axes.set_ylabel("seconds")
    axes.grid(visible=False, axis="x")
    handles, labels = axes.get_legend_handles_labels()
    if labels:  # reversed: the legend reads in the order of the stack
        axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
