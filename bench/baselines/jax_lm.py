"""Optimistix' Levenberg-Marquardt on the same network (JAX), with matrix-free conjugate gradients.

Its default linear solver factors a matrix of (n + m d) x m d numbers, which fits nowhere.  Optimistix reports only the
end of a run, so runs of 1, 2, 4, ... steps are timed apart and the first that reaches the goal counts: it is told the
number of steps that it needs.  Compilation is in ``first_call``.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from bench.baselines.common import DoesNotFitError, Fit, need
from bench.harness.problems import Problem

STEPS = (1, 2, 4, 8, 16, 32)
BYTES = 2 << 30  # bound of the pre-activations
CG_TOLERANCE, CG_STEPS = 1e-3, 200


def fit(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Run with more and more steps until the mse is below ``tolerance`` or the budget is spent."""
    need("jax", "optimistix", "lineax")
    if 4 * problem.n * problem.m > BYTES:
        raise DoesNotFitError(f"does not fit: {problem.n} x {problem.m} pre-activations")
    solve, W = _solver(problem)
    trajectory, compile_seconds = [(0.0, float(np.mean(solve.residual(W) ** 2)))], 0.0
    for steps in STEPS:
        first = _timed(solve, W, steps)[0]
        seconds, found = _timed(solve, W, steps)
        compile_seconds += max(0.0, first - seconds)
        trajectory.append((seconds, float(np.mean(np.asarray(solve.residual(found)) ** 2))))
        if trajectory[-1][1] <= tolerance or 2 * seconds > budget:
            break
    note = f"at most {steps} steps, CG to {CG_TOLERANCE:g}"
    return Fit(trajectory, lambda X: np.asarray(solve.outputs(found, X), np.float64), note, compile_seconds)


class _Solve:
    """The network as JAX functions, and the compiled optimiser."""

    def __init__(self, problem: Problem, signs: np.ndarray) -> None:
        import jax
        import jax.numpy as jnp
        import lineax
        import optimistix

        X, y, scaled = jnp.asarray(problem.X, jnp.float32), jnp.asarray(problem.y, jnp.float32), signs * problem.m**-0.5
        self.outputs = jax.jit(lambda W, X: jax.nn.relu(X @ W.T - problem.shift) @ scaled)
        self.residual = jax.jit(lambda W: jax.nn.relu(X @ W.T - problem.shift) @ scaled - y)
        inner = lineax.Normal(lineax.CG(rtol=CG_TOLERANCE, atol=1e-8, max_steps=CG_STEPS))
        self.optimiser = optimistix.LevenbergMarquardt(rtol=1e-9, atol=1e-9, linear_solver=inner)
        self.least_squares = optimistix.least_squares

    def __call__(self, W: Any, steps: int) -> Any:
        function = lambda W, args: self.residual(W)  # noqa: E731
        return self.least_squares(function, self.optimiser, W, max_steps=steps, throw=False).value


def _solver(problem: Problem) -> tuple[_Solve, Any]:
    import jax.numpy as jnp

    W, signs = problem.weights()
    return _Solve(problem, signs), jnp.asarray(W)


def _timed(solve: _Solve, W: Any, steps: int) -> tuple[float, Any]:
    begin = perf_counter()
    value = solve(W, steps)
    value.block_until_ready()
    return perf_counter() - begin, value
