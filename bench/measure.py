"""Timing and bookkeeping shared by the benchmarks: check first, warm up, alternate, report medians."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gpu_sublinear.environment import environment
from gpu_sublinear.files import write_text

RESULTS = Path(__file__).parent / "results"


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


def save(name: str, settings: dict[str, Any], rows: list[dict[str, Any]], **more: Any) -> Path:
    """Write a result with its environment to ``bench/results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"environment": environment(), "settings": settings, "rows": rows, **more}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def power_of_two(value: int) -> str:
    """Return 65536 as ``2^16``."""
    power = math.log2(value)
    return f"2^{int(power)}" if power.is_integer() else f"{value:,}"
