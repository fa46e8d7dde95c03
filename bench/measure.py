"""Timing and bookkeeping shared by the benchmarks: check first, warm up, alternate, report medians."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.stats import t as student

from gpu_sublinear.environment import environment
from gpu_sublinear.files.atomic import write_text

RESULTS = Path(__file__).parent / "results"
LEVEL = 0.95  # of confidence intervals


def alternate(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call every function in turn, ``repeats`` rounds after a warm-up round; each returns its own seconds."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(run())
    return seconds


def stopwatch(work: Callable[[], Any], calls: int = 1) -> Callable[[], float]:
    """Return a function that does the work ``calls`` times and returns the seconds of one."""

    def timed() -> float:
        begin = perf_counter()
        for _ in range(calls):
            work()
        return (perf_counter() - begin) / calls

    return timed


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles of a sample."""
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of log seconds against log size (least squares)."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def slope(sizes: Sequence[float], values: Sequence[float]) -> dict[str, float] | None:
    """Return the exponent of a power law with its 95 % interval; None for fewer than three usable points.

    Least squares on the logarithms; the interval is Student's, from the scatter about the line, so curvature widens it.
    """
    kept = [(s, v) for s, v in zip(sizes, values, strict=True) if v and v > 0]
    if len(kept) < 3:
        return None
    x, y = np.log(np.array(kept)).T
    centred = x - x.mean()
    value = float(centred @ y / (centred @ centred))
    scatter = y - y.mean() - value * centred
    error = math.sqrt(float(scatter @ scatter) / (len(x) - 2) / float(centred @ centred))
    reach = float(student.ppf((1 + LEVEL) / 2, len(x) - 2)) * error
    return {"value": value, "low": value - reach, "high": value + reach}


def save(name: str, settings: dict[str, Any], rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write a result with its environment to ``bench/results/NAME.json``."""
    return write_json(
        RESULTS / f"{name}.json", {"environment": environment(), "settings": settings, "rows": rows, **more}
    )


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write plain values, whole or not at all; numbers that JSON cannot hold become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")
    return path


def plain(value: Any) -> Any:
    """Return NumPy values, tuples and keys as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(part) for part in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def power_of_two(value: int) -> str:
    """Return 65536 as ``2^16``."""
    power = math.log2(value)
    return f"2^{int(power)}" if power.is_integer() else f"{value:,}"
