"""The opponent: Gauss-Newton with the same mathematics and dense linear algebra, at its best honest setting.

Forward pass and mask by matrix products over all neurons, ``M^T M`` as a float32 product of the 0/1 mask (exact:
counts stay below 2^24 in each block), one n x n Cholesky; the factor d of the Jacobian is never materialised.  From
the same network it follows the same trajectory as :class:`gpu_sublinear.gauss_newton.GaussNewton` with an exact
solver.  On the host it uses all BLAS threads, on a GPU cuBLAS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import check_training_data
from .devices import Array
from .network import ShiftedReluNetwork
from .solvers import gram_cholesky

CACHE_BLOCK = 4096  # neurons: P and M of a few hundred points then stay in the second-level cache


@dataclass(frozen=True)
class DenseRecord:
    """One dense step: mse before it, and its wall-clock seconds (0 for the closing evaluation)."""

    step: int
    mse: float
    seconds: float


@dataclass(frozen=True)
class DenseGaussNewton:
    """Dense full Gauss-Newton steps.

    Attributes
    ----------
    block : int or None
        Neurons worked on at a time; None takes all at once, ``CACHE_BLOCK`` is the faster choice on CPUs.
    tolerance : float
        Stop when ``||f - y|| <= tolerance ||y||``.
    max_steps : int
        Most steps taken.
    """

    block: int | None = None
    tolerance: float = 1e-4
    max_steps: int = 20

    def fit(
        self,
        network: ShiftedReluNetwork,
        X: Any,
        y: Any,
        callback: Callable[[DenseRecord, ShiftedReluNetwork], Any] | None = None,
    ) -> list[DenseRecord]:
        """Train ``network`` in place.

        Parameters
        ----------
        network : ShiftedReluNetwork
            What to train, on its device.
        X : array
            (n, d) rows of unit norm.
        y : array
            (n,) targets.
        callback : callable, optional
            Called as ``callback(record, network)`` after every step, its time not counted.

        Returns
        -------
        list of DenseRecord
            One per step, and a last one for the final state.

        Raises
        ------
        DataError
            If X or y is not usable.
        """
        device = network.device
        check_training_data(X, y, network.features)
        X, y = device.asarray(X, network.dtype), device.asarray(y, np.float64)
        K = X.astype(np.float64) @ X.astype(np.float64).T  # (n, n)
        goal = self.tolerance * float(device.xp.linalg.norm(y))
        records: list[DenseRecord] = []
        for step in range(self.max_steps + 1):
            begin = time.perf_counter()
            outputs, counts, masks = self._forward(network, X)
            residual = outputs - y
            norm = float(device.xp.linalg.norm(residual))
            last = step == self.max_steps or not goal < norm < np.inf
            if not last:
                solution = gram_cholesky(device, K * counts / network.width, residual)
                self._update(network, X, masks, solution.value)
            device.synchronize()
            seconds = 0.0 if last else time.perf_counter() - begin
            records.append(DenseRecord(step, norm**2 / len(y), seconds))
            if callback is not None:
                callback(records[-1], network)
            if last:
                break
        return records

    def _slices(self, width: int) -> list[slice]:
        block = self.block or width
        return [slice(first, min(first + block, width)) for first in range(0, width, block)]

    def _forward(self, network: ShiftedReluNetwork, X: Array) -> tuple[Array, Array, list[Array]]:
        """Return outputs (n,) float64, counts M^T M (n, n) float64 and the mask of every block of neurons."""
        device, shift = network.device, network.W.dtype.type(network.shift)
        n = len(X)
        outputs, counts, masks = device.xp.zeros(n), device.xp.zeros((n, n)), []
        for rows in self._slices(network.width):
            P = network.W[rows] @ X.T  # (block, n)
            mask = shift < P
            outputs += network.signs[rows] @ ((P - shift) * mask)
            zero_one = mask.astype(np.float32)
            counts += zero_one.T @ zero_one
            masks.append(mask)
        return outputs * network.scale, counts, masks

    def _update(self, network: ShiftedReluNetwork, X: Array, masks: list[Array], g: Array) -> None:
        """Apply ``W <- W - J^T g`` block by block."""
        weighted = (g[:, None] * X).astype(network.dtype)  # (n, d)
        for rows, mask in zip(self._slices(network.width), masks, strict=True):
            change = mask.astype(network.dtype) @ weighted  # (block, d)
            network.W[rows] -= (network.signs[rows] * network.W.dtype.type(network.scale))[:, None] * change


def total_seconds(records: list[DenseRecord]) -> float:
    """Return the time of all steps."""
    return sum(record.seconds for record in records)
