"""Dense Gauss-Newton for a GPU: products with X in float32, the Gram matrix by one exact tensor-core product.

0 and 1 are exact in TF32 and the counts, summed in float32, stay below 2^24, so the TF32 product of the 0/1 mask is the
integer Gram matrix.  Neurons that never fired are dropped after the first step.  On the host it runs on BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.baselines.common import Fit, Watch
from bench.harness.problems import Problem
from gpu_sublinear.linear.solvers import gram_cholesky


@contextmanager
def tf32(xp: Any, on: bool = True) -> Iterator[None]:
    """Let float32 products of CuPy round their factors to TF32, or forbid it; nothing on the host."""
    if xp is np:
        yield
        return
    from cupy import _core
    from cupy._core import _routines_linalg as kinds

    before = _core.get_compute_type(np.float32)
    _core.set_compute_type(np.float32, kinds.COMPUTE_TYPE_TF32 if on else kinds.COMPUTE_TYPE_DEFAULT)
    try:
        yield
    finally:
        _core.set_compute_type(np.float32, before)


def fit(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Train until the mse is below ``tolerance`` or the budget is spent."""
    network = problem.network()
    device, xp = network.device, network.device.xp
    X, y = device.asarray(problem.X, network.dtype), device.asarray(problem.y, np.float64)
    device.synchronize()
    watch = Watch(budget)
    network.hold_all()
    W, signs, K = network.rows, network.signs, X.astype(np.float64) @ X.astype(np.float64).T
    kept = None
    while True:
        P = X @ W.T - W.dtype.type(network.shift)  # (n, m)
        mask = (P > 0).astype(np.float32)
        residual = ((P * mask) @ signs).astype(np.float64) * network.scale - y
        watch.see(float((residual**2).mean()))
        if watch.over(tolerance):
            break
        with tf32(xp):
            counts = mask @ mask.T  # (n, n), exact
        g = gram_cholesky(device, K * counts / problem.m, residual).value
        change = mask.T @ (g[:, None] * X).astype(np.float32)
        W -= (signs * np.float32(network.scale))[:, None] * change
        if kept is None:
            kept = xp.flatnonzero(mask.any(axis=0))
            W, signs = W[kept], signs[kept]
        device.synchronize()
    if kept is not None:
        network.rows[kept] = W
    return Fit(watch.trajectory, network.predict, f"{len(watch.trajectory) - 1} steps")
