"""Dense structured Gauss-Newton, as the library has it: on the host on BLAS, in cache blocks, from packed bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.baselines.common import Fit
from bench.baselines.ours import MAX_STEPS, moments
from bench.harness.problems import Problem
from gpu_sublinear.opponents.dense import CACHE_BLOCK, DenseGaussNewton


class _Late(Exception):
    """The budget is spent."""


def all_at_once(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Use matrix products over all neurons (BLAS; cuBLAS on a GPU)."""
    return train(problem, tolerance, budget)


def blocks(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Use blocks that stay in the cache, one per core, and drop the neurons that never fired."""
    return train(problem, tolerance, budget, block=CACHE_BLOCK, drop_silent=True)


def bits(problem: Problem, tolerance: float, budget: float) -> Fit:
    """The same with the Gram matrix by AND and population count."""
    return train(problem, tolerance, budget, block=CACHE_BLOCK, drop_silent=True, bits=True)


def train(problem: Problem, tolerance: float, budget: float, **options: Any) -> Fit:
    """Train until the mse is below ``tolerance`` or the budget is spent."""
    network, records = problem.network(), []

    def late(record: Any, network: Any) -> None:
        records.append(record)
        if sum(one.seconds for one in records) > budget:
            raise _Late

    relative = min(float(np.sqrt(tolerance / np.mean(problem.y**2))), 0.999)
    try:
        trainer = DenseGaussNewton(tolerance=relative, max_steps=MAX_STEPS, **options)
        trainer.fit(network, problem.X, problem.y, late)
    except _Late:
        pass
    return Fit(moments(records, 0.0), network.predict, f"{len(records) - 1} steps")
