"""The figure of a run: loss, where the seconds of each step went, fired and flipped pairs; all against the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..devices.clock import PHASES
from ..errors import GpuSublinearError, OptionError
from ..files.atomic import write_atomically
from ..step.history import StepRecord

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
    check_matplotlib("--figure")


def check_matplotlib(what: str) -> None:
    """Check before a long computation that matplotlib is there.

    Parameters
    ----------
    what : str
        What needs it, for the message: ``"--figure"``.

    Raises
    ------
    PlotLibraryError
        If it cannot be imported.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise PlotLibraryError(
            f"{what} needs matplotlib, which is not installed; run: pip install 'gpu-sublinear[plot]'"
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
    write_figure(path, lambda: draw(history, title, goal))


def write_figure(path: str | Path, make: Callable[[], Any]) -> None:
    """Write the matplotlib figure that ``make`` returns, in our style, without dates, all of it or nothing."""
    import matplotlib

    kind = FORMATS[Path(path).suffix.lower()]
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with matplotlib.rc_context(STYLE):
        figure = make()
        write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=160, metadata=undated))


def draw(history: Sequence[StepRecord], title: str, goal: float | None = None) -> Any:
    """Return the matplotlib figure of a run; see :func:`save_figure`."""
    figure, panels = panels_of(14.2, 4.2, 3)
    figure.suptitle(title, fontsize=11.5, fontweight="bold")
    draw_loss(panels[0], history, goal)
    draw_seconds(panels[1], history)
    draw_pairs(panels[2], history)
    return figure


def panels_of(width: float, height: float, count: int = 1) -> tuple[Any, list[Any]]:
    """Return an empty figure of ``width`` by ``height`` inches, and the axes of its panels."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03))
    return figure, [figure.add_subplot(1, count, k + 1) for k in range(count)]


def draw_loss(axes: Any, history: Sequence[StepRecord], goal: float | None = None) -> None:
    """Draw the loss of every step, with a penalty also what is minimised, and the loss at which training stops."""
    loss, penalty = _numbers(history, "loss"), _numbers(history, "penalty")  # (steps,)
    loss[~(loss > 0)] = np.nan  # a logarithmic axis has no place for zero
    penalised = bool((penalty > 0).any())
    if penalised:
        axes.plot(_steps(history), loss + penalty, "s--", color=COLOURS["update"], linewidth=2, label="with penalty")
    axes.plot(
        _steps(history), loss, "o-", color=COLOURS["query"], linewidth=2, markersize=6, clip_on=False, label="loss"
    )
    if penalised:
        axes.legend(frameon=False)
    if goal and not (penalised and np.nanmin(loss, initial=np.inf) > goal):  # else it says nothing of the end
        axes.axhline(goal, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate("tolerance", (0, goal), xycoords=("axes fraction", "data"), xytext=(6, 4),
                      textcoords="offset points", ha="left", color=MUTED, fontsize=9)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel(r"training loss  $\frac{1}{2}\,\|f - y\|^2$")
    _finish(axes)


def draw_seconds(axes: Any, history: Sequence[StepRecord]) -> None:
    """Draw the seconds of every step as a stack of its phases."""
    bottom = np.zeros(len(history))
    for phase in PHASES:
        seconds = np.array([record.phases.get(phase) or 0.0 for record in history])  # (steps,)
        if seconds.any():
            axes.bar(_steps(history), seconds, 0.72, bottom, label=phase, color=COLOURS[phase])
        bottom += seconds
    axes.set_ylabel("seconds")
    axes.grid(visible=False, axis="x")
    handles, labels = axes.get_legend_handles_labels()
    if labels:  # reversed: the legend reads in the order of the stack
        axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _finish(axes)


def draw_pairs(axes: Any, history: Sequence[StepRecord]) -> None:
    """Draw the pairs of a neuron and a point that fire, and those that flipped in the step, where records count them.

    A record without the number ``flipped`` leaves a gap; where no record has it, there is no such line.
    """
    fired = _numbers(history, "fired") * points_of(history)  # (steps,)
    flipped = _numbers(history, "flipped")  # (steps,)
    flipped[~(flipped > 0)] = np.nan  # no place for zero on a logarithmic axis
    axes.plot(_steps(history), fired, "o-", color=COLOURS["jacobian"], linewidth=2, markersize=6, label="fired")
    if np.isfinite(flipped).any():
        axes.plot(_steps(history), flipped, "s--", color=COLOURS["update"], linewidth=2, label="flipped in the step")
        axes.legend(frameon=False)
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, max(1.0, 1.15 * np.nanmax(fired, initial=0.0)))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 5), useMathText=True)
    axes.set_ylabel("pairs that fire" if axes.get_legend() is None else "pairs (neuron, point)")
    _finish(axes)


def points_of(history: Sequence[StepRecord]) -> int:
    """Return the number of training points, which every record implies: loss = n mse / 2."""
    return next((round(2 * record.loss / record.mse) for record in history if record.loss and record.mse), 1)


def _steps(history: Sequence[StepRecord]) -> list[int]:
    return [record.step for record in history]


def _numbers(history: Sequence[StepRecord], name: str) -> np.ndarray:
    """Return one number per record, NaN where it is absent or None."""
    values = (getattr(record, name, None) for record in history)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _finish(axes: Any) -> None:
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(which="both", length=0)
