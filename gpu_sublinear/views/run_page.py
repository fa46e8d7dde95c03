"""A page about a run: one HTML file with everything in it, made from the history that ``train --history`` writes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from types import SimpleNamespace
from typing import Any

from ..devices.clock import PHASES
from ..errors import DataError
from .run_page_figures import figures_of
from .run_text import fired, memory, percent

SECTIONS = ("environment", "settings", "steps", "result")
NOT_SHOWN = ("arguments", "quiet", "history", "figure", "report", "out")  # settings that say nothing about the run


def read_history(path: str | Path) -> dict[str, Any]:
    """Read the history of a run.

    Parameters
    ----------
    path : str or Path
        File written by ``train --history``.

    Returns
    -------
    dict
        Its environment, settings, steps and result.

    Raises
    ------
    DataError
        If it cannot be read or is something else.
    """
    try:
        history = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; give a file written by train --history") from error
    except ValueError as error:
        raise DataError(f"'{path}' is not JSON ({error}); give a file written by train --history") from error
    if not isinstance(history, dict) or not all(history.get(part) for part in SECTIONS):
        raise DataError(
            f"'{path}' is no history of a run ({', '.join(SECTIONS)}); give a file written by train --history"
        )
    return history


def page(history: dict[str, Any]) -> str:
    """Return the page of a run.

    Parameters
    ----------
    history : dict
        As :func:`read_history` returns it; numbers that were not finite are None.

    Returns
    -------
    str
        One HTML document that needs no other file and no network.
    """
    settings, result = history["settings"], history["result"]
    steps = [SimpleNamespace(**step) for step in history["steps"]]
    goal = 0.5 * (settings.get("tolerance") or 0.0) ** 2 * (settings.get("points") or 0)
    figures = figures_of(steps, goal)
    folder = files("gpu_sublinear") / "html"
    return Template((folder / "report.html").read_text(encoding="utf-8")).substitute(
        style=(folder / "report.css").read_text(encoding="utf-8"),
        title=escape(str(settings.get("data"))),
        subtitle=escape(_subtitle(settings)),
        verdict="converged" if result.get("converged") else "not converged",
        verdict_class="good" if result.get("converged") else "open",
        reason=escape(str(result.get("reason"))),
        tiles="".join(_tiles(history)),
        errors=_table(("", "points", "mse / variance", "R²", "accuracy"), _error_rows(result)),
        phases="".join(_phase_rows(steps, result)),
        steps=_table(*_step_table(steps, settings)),
        settings=_pairs({key: value for key, value in settings.items() if key not in NOT_SHOWN}),
        environment=_pairs(history["environment"]),
        command=escape(command_of(settings)),
        **figures,
    )


def _subtitle(settings: dict[str, Any]) -> str:
    return (
        f"{settings.get('points', 0):,} points, {settings.get('features')} features, "
        f"{settings.get('width', 0):,} neurons, shift {settings.get('shift', 0):.4g}, "
        f"{settings.get('dtype')}, on {settings.get('device')}"
    )


def command_of(settings: dict[str, Any]) -> str:
    """Return the command that was given, or, for histories that did not keep it, the settings that matter most."""
    if settings.get("arguments"):
        return f"gpu-sublinear {settings['arguments']}"
    names = ("width", "init", "seed", "dtype", "device", "engine", "tolerance", "max_steps", "test_fraction")
    options = [f"--{name.replace('_', '-')} {settings[name]}" for name in names if settings.get(name) is not None]
    shift = settings.get("shift_option", settings.get("shift"))
    return " ".join(["gpu-sublinear train", str(settings.get("data")), f"--shift {shift}", *options])


def _tiles(history: dict[str, Any]) -> Iterator[str]:
    """Yield the numbers that a reader wants first."""
    result, last = history["result"], history["steps"][-1]
    held_out = result.get("held_out") or {}
    tiles = {
        "training mse": number(last.get("mse")),
        "held-out R²": number(held_out.get("r2"), ".4f"),
        "steps": str(result.get("steps_taken")),
        "seconds": number(result.get("total_seconds"), ".3g"),
        **({"ridge penalty": number(result["alpha"], ".3g")} if result.get("alpha") else {}),
        "fired per point": fired(last.get("fired") or 0.0),
        "peak memory": memory(result.get("peak_bytes") or 0),
    }
    for name, value in tiles.items():
        yield f'<div class="tile"><span>{name}</span><b>{escape(value)}</b></div>\n'


def _error_rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, key in (("training", "training"), ("held out", "held_out")):
        fit = result.get(key)
        if fit:
            accuracy = fit.get("accuracy")
            share = "-" if accuracy is None else f"{accuracy:.2%}"
            yield name, f"{fit['points']:,}", number(fit["mse"], ".3e"), number(fit["r2"], ".6f"), share


def _phase_rows(steps: list[SimpleNamespace], result: dict[str, Any]) -> Iterator[str]:
    """Yield a bar for each phase of the whole run, longest share visible at a glance."""
    seconds = {"first scan (once)": result.get("build_seconds") or 0.0}
    seconds |= {phase: sum(step.phases.get(phase) or 0.0 for step in steps) for phase in PHASES}
    if result.get("checkpoint_seconds"):
        seconds["checkpoints"] = result["checkpoint_seconds"]
    total = result.get("total_seconds") or sum(seconds.values())
    seconds["draw, predict, save"] = max(0.0, total - sum(seconds.values()))
    for name, value in seconds.items():
        share = value / total if total else 0.0
        colour = f"var(--{name})" if name in PHASES else "var(--muted)"
        yield (
            f'<tr><th scope="row">{name}</th><td>{value:.3g} s</td><td>{share:.1%}</td>'
            f'<td class="bar"><i style="width:{100 * share:.1f}%;background:{colour}"></i></td></tr>\n'
        )


def _step_table(
    steps: list[SimpleNamespace], settings: dict[str, Any]
) -> tuple[tuple[str, ...], Iterable[tuple[str, ...]]]:
    """Return header and rows of the table of steps; flipped pairs where the records count them."""
    flips = any(getattr(step, "flipped", None) is not None for step in steps)
    header = (
        "step",
        "mse",
        "fired / point",
        *(("flipped",) if flips else ()),
        "union",
        "solver",
        "residual",
        "seconds",
    )
    return header, (_step_row(step, settings.get("width") or 0, flips) for step in steps)


def _step_row(step: SimpleNamespace, width: int, flips: bool) -> tuple[str, ...]:
    moved = bool(step.moved_neurons)
    flipped = getattr(step, "flipped", None)
    return (
        f"{step.step}",
        number(step.mse, ".3e"),
        fired(step.fired),
        *((("–" if flipped is None else f"{flipped:,}"),) if flips else ()),
        percent(step.union, width),
        f"{step.solver_iterations}" if moved else "–",
        number(step.solver_residual, ".1e") if moved else "–",
        f"{step.seconds:.3g}",
    )


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _pairs(values: dict[str, Any]) -> str:
    """Return names and values as a definition list; a dictionary's entries on one line."""
    entries = []
    for name, value in values.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        shown = "–" if text in (None, "") else str(text)
        entries.append(f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(shown)}</dd></div>\n")
    return f"<dl>{''.join(entries)}</dl>"


def number(value: float | None, form: str = ".2e") -> str:
    """Return a number in a format, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:{form}}"
