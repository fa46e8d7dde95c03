"""The figures of a run as SVG elements for a page: they take their colours from its style sheet, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from .run_figure import COLOURS, GRID, INK, MUTED, STYLE, draw_loss, draw_pairs, draw_seconds, panels_of

INCHES = (6.2, 3.7)
LABELS = {
    "loss": "Training loss against step, on a logarithmic scale.",
    "seconds": "Seconds of every step, by phase.",
    "pairs": "Pairs of a neuron and a point that fire, and pairs that flip, against step.",
}


def figures_of(steps: Sequence[Any], goal: float | None) -> dict[str, str]:
    """Draw a run.

    Parameters
    ----------
    steps : sequence
        Records with the attributes of :class:`gpu_sublinear.step.history.StepRecord`; a number may be None.
    goal : float or None
        The loss at which training stops.

    Returns
    -------
    dict of str to str
        SVG elements by name: loss, seconds, pairs.
    """
    drawings: dict[str, Callable[[Any], None]] = {
        "loss": lambda axes: draw_loss(axes, steps, goal),
        "seconds": lambda axes: draw_seconds(axes, steps),
        "pairs": lambda axes: draw_pairs(axes, steps),
    }
    return {name: inline_svg(draw, name) for name, draw in drawings.items()}


def inline_svg(draw: Callable[[Any], None], name: str) -> str:
    """Return one panel as an SVG element with its own identifiers and the page's colours."""
    import matplotlib

    with matplotlib.rc_context(STYLE | {"font.size": 13, "svg.hashsalt": f"gpu-sublinear {name}"}):
        figure, (axes,) = panels_of(*INCHES)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = _distinct(svg, name)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(LABELS[name])}" ', 1)
    return _themed(svg).strip()


def _distinct(svg: str, name: str) -> str:
    """Prefix all identifiers, because several figures share one page."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('href="#', f'href="#{name}-')
    return svg.replace("url(#", f"url(#{name}-")


def _themed(svg: str) -> str:
    """Replace the colours of ink, grid and phases by variables of the style sheet."""
    variables = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}
    variables |= {colour: f"var(--{phase})" for phase, colour in COLOURS.items()}
    for colour, variable in variables.items():
        svg = re.sub(re.escape(colour), variable, svg, flags=re.IGNORECASE)
    return svg
