"""This package: the fast engine, the faithful method with eagerly kept trees, and plain CG instead of n^3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.baselines.common import Fit
from bench.harness.problems import Problem
from gpu_sublinear import GaussNewton

MAX_STEPS = 60


def fast(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Run the engine with its defaults."""
    return train(GaussNewton, problem, tolerance, budget)


def faithful(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Run the published method."""
    return train(GaussNewton.faithful, problem, tolerance, budget)


def plain_cg(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Run the engine with unpreconditioned conjugate gradients."""
    return train(GaussNewton, problem, tolerance, budget, solver="cg")


def train(make: Any, problem: Problem, tolerance: float, budget: float, paired: bool = False, **options: Any) -> Fit:
    """Train until the mse is below ``tolerance`` or the budget is spent."""
    spent = 0.0

    def late(record: Any, network: Any) -> bool:
        nonlocal spent
        spent += record.seconds
        return spent > budget

    relative = float(np.sqrt(tolerance / np.mean(problem.y**2)))
    trainer = make(tolerance=min(relative, 0.999), **{"max_steps": MAX_STEPS} | options)
    result = trainer.fit(problem.network(paired), problem.X, problem.y, callbacks=[late])
    trained = result.network
    return Fit(
        moments(result.history, result.build_seconds),
        trained.predict,
        result.reason,
        weights=lambda: trained.device.to_host(trained.W),
    )


def moments(history: Sequence[Any], begin: float) -> list[tuple[float, float]]:
    """Return (seconds, mse): a record's error is known when its step begins, the last one's when it ends."""
    ends = begin + np.cumsum([record.seconds for record in history])
    times = [begin, *ends[:-2], ends[-1]] if len(history) > 1 else [float(ends[-1])]
    return [(float(time), float(record.mse)) for time, record in zip(times, history, strict=True)]
