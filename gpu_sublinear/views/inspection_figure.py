"""The figure of an inspection: fired neurons, spectra, close pairs and their targets, the error foretold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from ..foresight.inspection import Inspection
from ..model.shifts import firing_probability
from .run_figure import COLOURS, MUTED, panels_of, write_figure

DRAWN, THEORY = COLOURS["query"], COLOURS["update"]


def save_inspection(path: str | Path, found: Inspection, title: str) -> None:
    """Draw an inspection and write the figure, all of it or nothing.

    Parameters
    ----------
    path : str or Path
        Ends in .png, .svg or .pdf.
    found : Inspection
        What to draw.
    title : str
        What was inspected.
    """
    write_figure(path, lambda: draw_inspection(found, title))


def draw_inspection(found: Inspection, title: str) -> Any:
    """Return the matplotlib figure of an inspection; see :func:`save_inspection`."""
    figure, panels = panels_of(14.2, 4.2, 3)
    figure.suptitle(title, fontsize=11.5, fontweight="bold")
    _draw_fired(panels[0], found)
    _draw_spectra(panels[1], found)
    _draw_forecasts(panels[2], found)
    for axes in panels:
        axes.tick_params(which="both", length=0)
        axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_fired(axes: Any, found: Inspection) -> None:
    """Draw how many neurons fire on the points, and Binomial(m, Q(b))."""
    counts, m = found.trial.counts, found.trial.width
    low, high = int(counts.min()), int(counts.max())
    spread = max(1.0, found.binomial_spread)
    k = np.arange(max(0, int(min(low, found.expected_fired - 4 * spread))), int(max(high, found.expected_fired + 4 * spread)) + 1)  # fmt: skip  # noqa: E501
    edges = np.linspace(low - 0.5, high + 0.5, min(30, high - low + 1) + 1)
    axes.hist(counts, edges, color=DRAWN, alpha=0.75, label=f"drawn, m = {m:,}")
    expected = found.points * (edges[1] - edges[0]) * binom.pmf(k, m, firing_probability(found.shift))
    axes.plot(k, expected, color=THEORY, linewidth=2, label="binomial")
    axes.set_xlabel("neurons that fire on a point")
    axes.set_ylabel("points")


def _draw_spectra(axes: Any, found: Inspection) -> None:
    """Draw the eigenvalues of both Gram matrices."""
    sets = [("infinite width", found.limit_eigenvalues, THEORY, "--")]
    if found.trial.eigenvalues is not None:
        sets.insert(0, (f"drawn, m = {found.trial.width:,}", found.trial.eigenvalues, DRAWN, "-"))
    for name, values, colour, line in sets:
        positive = np.where(values > 0, values, np.nan)[::-1]
        axes.plot(np.arange(1, len(values) + 1), positive, line, color=colour, linewidth=2, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("eigenvalue of the Gram matrix, by rank")
    axes.set_ylabel("value")


def _draw_forecasts(axes: Any, found: Inspection) -> None:
    """Draw the errors foretold for the settings that were given and those recommended."""
    given, chosen = found.forecast, found.recommended
    same = chosen is not None and (chosen.width, chosen.shift) == (given.width, given.shift)
    lines = [("as given", given, DRAWN)]
    if chosen is not None and not same:
        lines.append(("recommended", chosen, COLOURS["jacobian"]))
    for name, forecast, colour in lines:
        label = f"{name}: m = {forecast.width:,}, b = {forecast.shift:.3g}"
        axes.plot(range(len(forecast.mse)), forecast.mse, "o-", color=colour, linewidth=2, label=label)
    axes.axhline(1.0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("mse foretold")
    axes.xaxis.get_major_locator().set_params(integer=True)
