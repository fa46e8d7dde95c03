"""Dense Levenberg-Marquardt: ``(G + mu I) g = f - y`` with the gain-ratio rule (H. B. Nielsen, IMM-REP-1999-05).

The linear system has the size of the points, not of the weights; G comes from one product of the 0/1 mask.  A rejected
step reuses G.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from bench.baselines.common import DoesNotFitError, Fit, Watch
from bench.harness.problems import Problem

FIRST_DAMPING = 1e-3  # of the mean diagonal of G
SMALLEST_DAMPING = 1e-10
LARGEST_DAMPING = 1e12  # in the same units: steps are nothing from there on
BYTES = 4 << 30  # bound of pre-activations and mask


class Dense:
    """The network on plain NumPy arrays, all neurons at once."""

    def __init__(self, problem: Problem) -> None:
        if 8 * problem.n * problem.m > BYTES:
            raise DoesNotFitError(f"does not fit: {problem.n} x {problem.m} pre-activations")
        self.X = problem.X.astype(np.float32)  # (n, d)
        self.W, self.signs = (part.copy() for part in problem.weights())  # (m, d), (m,)
        self.b, self.scale = np.float32(problem.shift), np.float32(problem.m**-0.5)
        self.K = problem.X @ problem.X.T  # (n, n)

    def outputs(self, W: np.ndarray, X: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return outputs (n,) and mask (n, m)."""
        P = (self.X if X is None else X.astype(np.float32)) @ W.T - self.b  # (n, m)
        return (P.clip(0) @ self.signs).astype(np.float64) * float(self.scale), P > 0

    def gram(self, mask: np.ndarray) -> np.ndarray:
        """Return ``(X X^T) o (M M^T) / m``, (n, n)."""
        M = mask.astype(np.float32)  # (n, m)
        return self.K * (M @ M.T) / len(self.W)

    def step(self, mask: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Return ``J^T g`` as (m, d)."""
        weighted = (g[:, None] * self.X).astype(np.float32)  # (n, d)
        return (self.signs * self.scale)[:, None] * (mask.T.astype(np.float32) @ weighted)


def fit(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Train until the mse is below ``tolerance`` or the budget is spent."""
    net, y = Dense(problem), problem.y
    watch = Watch(budget)
    outputs, mask = net.outputs(net.W)
    residual, G = outputs - y, net.gram(mask)
    damping, growth, rejected = FIRST_DAMPING * G.trace() / len(y), 2.0, 0
    watch.see(np.mean(residual**2))
    while not watch.over(tolerance) and damping < LARGEST_DAMPING * G.trace() / len(y):
        g = cho_solve(cho_factor(G + damping * np.eye(len(y))), residual)
        W = net.W - net.step(mask, g)
        outputs, new_mask = net.outputs(W)
        predicted = residual @ residual - damping**2 * (g @ g)
        gain = (residual @ residual - (outputs - y) @ (outputs - y)) / predicted
        if gain > 0:
            net.W, mask, residual = W, new_mask, outputs - y
            G = net.gram(mask)
            shrink = max(1 / 3, 1 - (2 * gain - 1) ** 3)
            damping, growth = max(damping * shrink, SMALLEST_DAMPING * G.trace() / len(y)), 2.0
        else:
            damping, growth, rejected = damping * growth, 2 * growth, rejected + 1
        watch.see(np.mean(residual**2))
    note = f"{len(watch.trajectory) - 1} trials, {rejected} rejected"
    return Fit(watch.trajectory, lambda X: net.outputs(net.W, X)[0], note)
