"""The one interface of all opponents: ``fit(problem, tolerance, budget_seconds) -> Fit``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from bench.harness.problems import Problem

Predictor = Callable[[np.ndarray], np.ndarray]
KEPT = 200  # points of a trajectory that are written to a result


class NotInstalledError(Exception):
    """An opponent needs an optional package that is not here."""


class DoesNotFitError(Exception):
    """An opponent would need more memory than the bound of its module."""


@dataclass
class Fit:
    """What an opponent did.

    ``trajectory`` holds (seconds, mse) without the drawing of the weights, without compilation and without predictions;
    ``first_call`` the seconds of compilation where they are known.
    """

    trajectory: list[tuple[float, float]]
    predict: Predictor
    note: str = ""
    first_call: float | None = None
    weights: Callable[[], np.ndarray] | None = None  # (m, d) at the end

    def time_to(self, mse: float) -> float | None:
        """Return the first moment at which the training error was at or below ``mse``."""
        return next((seconds for seconds, error in self.trajectory if error <= mse), None)

    @property
    def best(self) -> float:
        """The least training error seen."""
        return min((error for _, error in self.trajectory if np.isfinite(error)), default=float("inf"))

    def thinned(self) -> list[tuple[float, float]]:
        """Return the trajectory with at most ``KEPT`` points, first and last among them."""
        if len(self.trajectory) <= KEPT:
            return self.trajectory
        places = np.unique(np.geomspace(1, len(self.trajectory), KEPT).astype(int) - 1)
        return [self.trajectory[place] for place in places]


Baseline = Callable[[Problem, float, float], Fit]


class Watch:
    """A stopwatch that a callback can pause, so that looking at a run does not lengthen it."""

    def __init__(self, budget: float) -> None:
        self.budget, self.begin = budget, perf_counter()
        self.trajectory: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        return perf_counter() - self.begin

    def see(self, mse: float) -> None:
        """Note the error that holds now."""
        self.trajectory.append((self.seconds, float(mse)))

    def over(self, tolerance: float) -> bool:
        """Tell whether the goal is reached, the budget spent, or the run lost."""
        mse = self.trajectory[-1][1]
        return mse <= tolerance or not np.isfinite(mse) or self.seconds >= self.budget


def need(*modules: str) -> None:
    """Raise NotInstalledError if an optional package is missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise NotInstalledError(f"not installed: {', '.join(missing)}")


def attempt(baseline: Baseline, problem: Problem, tolerance: float, budget: float) -> dict[str, Any]:
    """Run an opponent once; return plain values, or why there are none."""
    try:
        fit = baseline(problem, tolerance, budget)
    except (NotInstalledError, DoesNotFitError) as reason:
        return {"note": str(reason), "trajectory": [], "time": None, "best": None, "r2": None, "first_call": None}
    return {
        "note": fit.note, "trajectory": fit.thinned(), "time": fit.time_to(tolerance), "best": fit.best,
        "r2": problem.r2(fit.predict(problem.X_test)) if np.isfinite(fit.best) else None, "first_call": fit.first_call,
    }  # fmt: skip
