"""What a run prints: a line per step while it goes, and a table at its end; plain text of at most 88 columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..devices.clock import PHASES
from ..step.history import StepRecord, TrainingResult

RULE = "-" * 78
STEP_HEADER = (
    f"{'step':>4}  {'mse':>9}  {'fired/point':>11}  {'union':>11}  {'solver':>6}  {'residual':>8}  {'seconds':>7}"
)

EXPENDABLE = ("residual", "solver", "union", "seconds", "fired/point")  # left out in this order on narrow terminals


@dataclass(frozen=True)
class Fit:
    """How well predictions agree with targets on one set of points.

    Attributes
    ----------
    points : int
        Number of points.
    mse : float
        Mean squared error divided by the variance of the training targets; the mean over several targets.
    r2 : float or None
        Coefficient of determination on this set, the mean over several targets; None where a target is constant.
    accuracy : float or None
        Share of the points whose class is found; None where targets are no classes.
    """

    points: int
    mse: float
    r2: float | None
    accuracy: float | None = None

    @classmethod
    def of(cls, predicted: np.ndarray, actual: np.ndarray, variance: float | np.ndarray) -> Fit:
        """Compare predictions with targets, (n,) or (n, c), in any unit; ``variance`` of each training target."""
        error, own = np.mean((predicted - actual) ** 2, axis=0), np.var(actual, axis=0)  # () or (c,)
        r2 = float(np.mean(1 - error / np.where(own > 0, own, 1))) if np.all(own > 0) else None
        return cls(len(actual), float(np.mean(error / variance)), r2)


def step_line(record: StepRecord, width: int) -> str:
    """Return the line that a step prints, in the columns of ``STEP_HEADER``."""
    solver = f"{record.solver_iterations:>6}  {record.solver_residual:>8.1e}"
    if not record.moved_neurons:
        solver = f"{'-':>6}  {'-':>8}"
    return (
        f"{record.step:>4}  {record.mse:>9.3e}  {fired(record.fired):>11}  "
        f"{percent(record.union, width):>11}  {solver}  {record.seconds:>7.2f}{_damping(record)}"
    )


def narrowed(line: str, columns: int, header: str = STEP_HEADER, expendable: Sequence[str] = EXPENDABLE) -> str:
    """Return a line of a table without its less important columns, so that it fits into ``columns`` characters.

    Parameters
    ----------
    line : str
        The header or a line in its columns.
    columns : int
        Characters that a line may have.
    header : str
        Names of the columns, aligned right, two spaces or more between them.
    expendable : sequence of str
        Those that may be left out, in this order.

    Returns
    -------
    str
        The line, with at least the other columns.
    """
    spans = {found.group().strip(): found.span() for found in re.finditer(r" *\S+(?: \S+)*", header)}
    for name in expendable:
        if sum(end - start for start, end in spans.values()) > columns:
            spans.pop(name, None)
    return "".join(line[start:end] for start, end in spans.values())


def _damping(record: StepRecord) -> str:
    """Return what a step says of its damping, nothing for a full step."""
    return f"  mu {record.damping:.0e}" if record.damping else ""


def closing_table(result: TrainingResult, width: int, training: Fit, held_out: Fit | None, total_seconds: float) -> str:
    """Return the table that ends a run.

    Parameters
    ----------
    result : TrainingResult
        The run.
    width : int
        m.
    training, held_out : Fit
        Errors; ``held_out`` is None where no points were held out.
    total_seconds : float
        Wall-clock time of the whole command so far, loading and predicting included.

    Returns
    -------
    str
        Lines without a final newline.
    """
    parts = [
        RULE,
        *error_rows(training, held_out),
        RULE,
        *_times(result, total_seconds),
        RULE,
        *_sizes(result.history, width),
    ]
    return "\n".join(parts)


def error_rows(training: Fit, held_out: Fit | None) -> list[str]:
    """Return a table of errors, line by line."""
    sets = [("training", training)] + ([("held out", held_out)] if held_out else [])
    classes = training.accuracy is not None
    last = f"{'accuracy':>12}" if classes else ""
    rows = [f"{'':<22}{'points':>10}{'mse / variance':>17}{'R^2':>12}{last}"]
    for name, fit in sets:
        r2 = "-" if fit.r2 is None else f"{fit.r2:.6f}"
        accuracy = "" if fit.accuracy is None else f"{fit.accuracy:>12.2%}"
        rows.append(f"{name:<22}{fit.points:>10,}{fit.mse:>17.3e}{r2:>12}{accuracy}")
    return rows


def _times(result: TrainingResult, total: float) -> list[str]:
    """Return time by phase over all steps, largest share visible at a glance."""
    seconds = {"first scan (once)": result.build_seconds} | phase_seconds(result.history)
    if result.checkpoint_seconds:
        seconds["checkpoints"] = result.checkpoint_seconds
    seconds["draw, predict, save"] = max(0.0, total - sum(seconds.values()))
    rows = [f"{'time by phase':<22}{'seconds':>10}{'share':>9}"]
    for name, value in seconds.items():
        share = value / total if total > 0 else 0.0
        bar = "#" * round(30 * share)
        rows.append(f"  {name:<20}{value:>10.2f}{share:>9.1%}  {bar}".rstrip())
    return [*rows, f"  {'total':<20}{total:>10.2f}{1:>9.1%}"]


def phase_seconds(history: Sequence[StepRecord]) -> dict[str, float]:
    """Return the seconds of each phase, summed over all steps."""
    return {phase: sum(record.phases.get(phase, 0.0) for record in history) for phase in PHASES}


def _sizes(history: Sequence[StepRecord], width: int) -> list[str]:
    moved = [record.moved_neurons for record in history if record.moved_neurons]
    rows = []
    if moved:
        most, mean = max(moved), sum(moved) / len(moved)
        text = f"{mean:,.0f} of {width:,} per step ({mean / width:.1%}), at most {most:,}"
        rows.append(f"{'neurons touched':<22}{text}")
    peak = max((record.peak_bytes for record in history), default=0)
    return [*rows, f"{'peak memory':<22}{memory(peak)}"]


def fired(value: float) -> str:
    """Return a mean count with one decimal below 1000 and with thousands separators above."""
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def percent(part: int, whole: int) -> str:
    """Return ``part / whole`` as a percentage that shows small shares."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"


def memory(count: int) -> str:
    """Return a number of bytes in the largest binary unit that leaves at least 1."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
