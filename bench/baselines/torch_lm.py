"""Levenberg-Marquardt in PyTorch the way a user writes it: per-sample gradients by ``torch.func``, J stored whole."""

from __future__ import annotations

from bench.baselines.common import DoesNotFitError, Fit, Watch
from bench.baselines.torch_methods import Net
from bench.harness.problems import Problem

BYTES = 3 << 30  # bound of J, (n, m d) float32
FIRST_DAMPING = 1e-3  # of the mean diagonal of J J^T


def fit(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Train until the mse is below ``tolerance`` or the budget is spent; damping times or over ten."""
    if 4 * problem.n * problem.m * problem.d > BYTES:
        raise DoesNotFitError(f"does not fit: J is {problem.n} x {problem.m * problem.d}")
    net = Net(problem)
    torch = net.torch

    def output(W, x):
        return torch.relu(x @ W.T - net.b) @ net.signs

    rows = torch.func.vmap(torch.func.grad(output), in_dims=(None, 0))
    W, damping, fresh = net.W.detach(), None, True
    watch = Watch(budget)
    residual = torch.func.vmap(output, in_dims=(None, 0))(W, net.X) - net.y
    watch.see(float((residual**2).mean()))
    while not watch.over(tolerance):
        if fresh:
            J = rows(W, net.X).reshape(problem.n, -1)  # (n, m d)
            G = (J @ J.T).double()
            damping = damping or FIRST_DAMPING * float(G.trace()) / problem.n
        factor = torch.linalg.cholesky(G + damping * torch.eye(problem.n, dtype=torch.float64))
        g = torch.cholesky_solve(residual.double()[:, None], factor)[:, 0]
        trial = W - (g.float() @ J).reshape(W.shape)
        new = torch.func.vmap(output, in_dims=(None, 0))(trial, net.X) - net.y
        fresh = bool((new**2).sum() < (residual**2).sum())
        damping = damping / 10 if fresh else damping * 10
        W, residual = (trial, new) if fresh else (W, residual)
        watch.see(float((residual**2).mean()))
    with torch.no_grad():
        net.W.copy_(W)
    return Fit(watch.trajectory, net.predict, f"{len(watch.trajectory) - 1} trials")
