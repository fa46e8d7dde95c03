"""How a measurement is taken and summed up: warm up, alternate, medians with quartiles, exponents with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95  # of intervals


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


def power_law(sizes: Sequence[float], values: Sequence[float]) -> dict[str, float] | None:
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
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(x) - 2)) * error
    return {"value": value, "low": value - reach, "high": value + reach}
