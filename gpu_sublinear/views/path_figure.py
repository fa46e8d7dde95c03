"""The figure of a path of penalties: errors in training and on points left out, and the steps, against the penalty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .run_figure import COLOURS, MUTED, panels_of, write_figure

if TYPE_CHECKING:
    from .path_rows import PathRow

Target = tuple[str, Sequence["PathRow"], float]
LEFT_OUT, TRAINING = COLOURS["update"], COLOURS["query"]


def save_path(path: str | Path, targets: Sequence[Target], title: str) -> None:
    """Draw a path and write the figure, all of it or nothing.

    Parameters
    ----------
    path : str or Path
        Ends in .png, .svg or .pdf.
    targets : sequence of (str, sequence of PathRow, float)
        Name of each target, its penalties, at least one, and which was chosen.
    title : str
        What was trained.
    """
    write_figure(path, lambda: draw_path(targets, title))


def draw_path(targets: Sequence[Target], title: str) -> Any:
    """Return the matplotlib figure of a path, a panel for each target and one for steps; see :func:`save_path`."""
    figure, panels = panels_of(5.2 * (len(targets) + 1), 4.2, len(targets) + 1)
    figure.suptitle(title, fontsize=11.5, fontweight="bold")
    for axes, (name, rows, chosen) in zip(panels, targets, strict=False):
        _draw_errors(axes, rows, chosen)
        axes.set_title(name, fontsize=10)
    _draw_steps(panels[-1], targets)
    for axes in panels:
        axes.set_xscale("log")
        axes.invert_xaxis()  # as the path runs
        axes.set_xlabel("alpha")
        axes.tick_params(which="both", length=0)
        axes.legend(facecolor="white", edgecolor="none", framealpha=0.85, fontsize=9)  # lines may pass behind it
    return figure


def _draw_errors(axes: Any, rows: Sequence[PathRow], chosen: float) -> None:
    alphas = [row.alpha for row in rows]
    left_out, spread = (np.array([getattr(row, name) for row in rows]) for name in ("left_out", "standard_error"))
    axes.fill_between(alphas, left_out - spread, left_out + spread, color=LEFT_OUT, alpha=0.18, linewidth=0)
    axes.plot(alphas, left_out, "o-", color=LEFT_OUT, linewidth=2, markersize=5, label="points left out, and s.e.")
    axes.plot(
        alphas, [row.training for row in rows], "s--", color=TRAINING, linewidth=2, markersize=4, label="training"
    )
    axes.axvline(chosen, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label=f"chosen: {chosen:.3g}")
    axes.set_ylabel("mean squared error / variance")
    axes.set_ylim(bottom=0)


def _draw_steps(axes: Any, targets: Sequence[Target]) -> None:
    colours = list(COLOURS.values())
    for number, (name, rows, _) in enumerate(targets):
        alphas, folds = [row.alpha for row in rows], [float(np.mean(row.fold_steps)) for row in rows]
        colour = colours[number % len(colours)]
        of = f", {name}" if len(targets) > 1 else ""
        axes.plot(alphas, [row.steps for row in rows], "s--", color=colour, linewidth=2, label=f"all points{of}")
        axes.plot(alphas, folds, "o-", color=colour, linewidth=2, label=f"mean of folds{of}")
    axes.set_ylabel("steps")
    axes.set_ylim(bottom=0)
