"""PyTorch on the same network from the same weights: SGD with momentum, Adam, L-BFGS, each at its best rate.

The sweep gets a share of the budget for each rate and is not counted; the rate with the least error is run again from
the start.  Rates of SGD are multiples of 1 / lambda_max of the Gram matrix, where stability ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.baselines.common import DoesNotFitError, Fit, Watch, need
from bench.harness.problems import Problem

SGD_RATES = (0.3, 1.0, 2.0, 3.5)  # over lambda_max; momentum 0.9 is stable up to 3.8
ADAM_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
SWEEP_SHARE = 0.1  # of the budget, for each rate
BYTES = 4 << 30  # bound of the n x m pre-activations that autograd keeps


class Net:
    """Weights as a leaf tensor, and half the sum of squares as the loss."""

    def __init__(self, problem: Problem) -> None:
        need("torch")
        import torch

        if 12 * problem.n * problem.m > BYTES:
            raise DoesNotFitError(f"does not fit: {problem.n} x {problem.m} pre-activations")
        self.torch = torch
        W, signs = problem.weights()
        self.W = torch.tensor(W.copy(), requires_grad=True)  # (m, d)
        self.signs = torch.tensor(signs.copy()) * problem.m**-0.5  # (m,)
        self.X, self.b = torch.tensor(problem.X, dtype=torch.float32), problem.shift
        self.y = torch.tensor(problem.y, dtype=torch.float32)

    def outputs(self, X: Any) -> Any:
        return self.torch.relu(X @ self.W.T - self.b) @ self.signs

    def loss(self) -> Any:
        return 0.5 * ((self.outputs(self.X) - self.y) ** 2).sum()

    def predict(self, X: np.ndarray) -> np.ndarray:
        with self.torch.no_grad():
            return self.outputs(self.torch.tensor(X, dtype=self.torch.float32)).double().numpy()

    def largest_eigenvalue(self) -> float:
        """Return lambda_max of the Gram matrix."""
        with self.torch.no_grad():
            mask = (self.b < self.X @ self.W.T).float()
            G = (self.X @ self.X.T) * (mask @ mask.T) / len(self.W)
            return float(self.torch.linalg.eigvalsh(G)[-1])


Optimiser = Callable[[Net, float], Any]


def sgd(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Full-batch gradient descent with momentum 0.9."""
    top = Net(problem).largest_eigenvalue()
    rates = [rate / top for rate in SGD_RATES]
    return best(problem, tolerance, budget, lambda net, lr: net.torch.optim.SGD([net.W], lr, momentum=0.9), rates)


def adam(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Full-batch Adam."""
    return best(problem, tolerance, budget, lambda net, lr: net.torch.optim.Adam([net.W], lr), list(ADAM_RATES))


def lbfgs(problem: Problem, tolerance: float, budget: float) -> Fit:
    """L-BFGS with the strong Wolfe line search."""

    def optimiser(net: Net, rate: float) -> Any:
        options = {"history_size": 20, "max_iter": 10, "line_search_fn": "strong_wolfe", "tolerance_grad": 0.0}
        return net.torch.optim.LBFGS([net.W], rate, tolerance_change=0.0, **options)

    return run(Net(problem), optimiser, 1.0, tolerance, budget)


def best(problem: Problem, tolerance: float, budget: float, optimiser: Optimiser, rates: list[float]) -> Fit:
    """Try all rates briefly, then run the best one."""
    errors = [run(Net(problem), optimiser, rate, tolerance, SWEEP_SHARE * budget).best for rate in rates]
    return run(Net(problem), optimiser, rates[int(np.argmin(errors))], tolerance, budget)


def run(net: Net, optimiser: Optimiser, rate: float, tolerance: float, budget: float) -> Fit:
    """Run one optimiser with one rate; the error is the one that each step computes anyway."""
    steps, n = optimiser(net, rate), len(net.y)

    def closure() -> Any:
        steps.zero_grad()
        loss = net.loss()
        loss.backward()
        return loss

    closure()  # first call: threads and buffers
    watch = Watch(budget)
    while not watch.trajectory or not watch.over(tolerance):
        before = watch.seconds
        mse = 2 * float(steps.step(closure).detach()) / n  # of the weights before the step
        watch.trajectory.append((before, mse))
    note = f"rate {rate:.3g}, {len(watch.trajectory)} steps"
    return Fit(watch.trajectory, net.predict, note, weights=lambda: net.W.detach().numpy())
