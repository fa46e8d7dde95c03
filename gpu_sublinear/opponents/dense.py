"""The opponent: Gauss-Newton with the same mathematics and dense linear algebra, at its best honest settings.

Forward pass and mask by matrix products over all neurons, ``M^T M`` as a product of the 0/1 mask (float32 products are
exact: counts stay below 2^24) or from its packed bits, one n x n Cholesky; the factor d of the Jacobian is never
materialised.  From the same network it follows the same trajectory as :class:`gpu_sublinear.GaussNewton` with an exact
solver.  On the host it uses all cores: BLAS threads for all neurons at once, one block per core in blocks.  On a GPU
(all neurons at once) it is cuBLAS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..devices import Array
from ..devices.host import one_blas_thread
from ..errors import OptionError
from ..linear.solvers import gram_cholesky
from ..model.network import ShiftedReluNetwork
from ..training.checks import check_training_data

CACHE_BLOCK = 4096  # neurons: P and M of a few hundred points then stay in the last-level cache


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
        Neurons worked on at a time by each core; None takes all at once.
    drop_silent : bool
        Leave neurons that fire on no point out of all steps after the first: exact, because they never move.
    bits : bool
        Count pairs by AND and population count of the packed mask instead of a float32 product (host only).
    tolerance : float
        Stop when ``||f - y|| <= tolerance ||y||``.
    max_steps : int
        Most steps taken.
    """

    block: int | None = None
    drop_silent: bool = False
    bits: bool = False
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
        OptionError
            If blocks or bits are asked for on a GPU, or the network has several outputs or another activation.
        """
        device = network.device
        if network.second is not None:
            raise OptionError("dense steps hold the second layer at +1 and -1, and both_layers=True trained this one")
        if not network.activation.plain:
            raise OptionError(
                f"dense steps are for the activations relu and max; got activation={network.activation.name!r}; "
                "use GaussNewton"
            )
        if network.outputs > 1:
            raise OptionError(f"dense steps train one output, and the network has {network.outputs}; use GaussNewton")
        if device.xp is not np and (self.block or self.bits):
            raise OptionError("blocks and bits are for the host; on a GPU use DenseGaussNewton() as it is")
        y = check_training_data(device, X, y, network.features)
        X, y = device.asarray(X, network.dtype), device.asarray(y, np.float64)
        K = X.astype(np.float64) @ X.astype(np.float64).T  # (n, n)
        goal = self.tolerance * float(device.xp.linalg.norm(y))
        records: list[DenseRecord] = []
        neurons = _Neurons(network, self.block)
        for step in range(self.max_steps + 1):
            begin = time.perf_counter()
            outputs, counts = neurons.forward(X, self.bits)
            residual = outputs * network.scale - y
            norm = float(device.xp.linalg.norm(residual))
            last = step == self.max_steps or not goal < norm < np.inf
            if not last:
                solution = gram_cholesky(device, K * counts / network.width, residual)
                neurons.update(X, solution.value)
                if self.drop_silent and step == 0:
                    neurons.drop_silent()
            device.synchronize()
            seconds = 0.0 if last else time.perf_counter() - begin
            records.append(DenseRecord(step, norm**2 / len(y), seconds))
            if callback is not None or last:
                neurons.write_back()
            if callback is not None:
                callback(records[-1], network)
            if last:
                break
        return records


class _Neurons:
    """The rows that dense steps work on, block by block, with the masks of the last forward pass."""

    def __init__(self, network: ShiftedReluNetwork, block: int | None):
        self.network, self.block = network, block
        self.xp = network.device.xp
        self.rows: Array = slice(None)  # of the network that W holds
        network.hold_all()
        self.W, self.signs = network.rows, network.signs
        self.masks: list[Array] = []

    def _slices(self) -> list[slice]:
        block = self.block or max(1, len(self.W))
        return [slice(first, min(first + block, len(self.W))) for first in range(0, len(self.W), block)]

    def forward(self, X: Array, bits: bool) -> tuple[Array, Array]:
        """Return ``sum_r a_r relu(P - b)`` (n,) and ``M^T M`` (n, n), float64."""
        slices = self._slices()
        self.masks = [None] * len(slices)
        shift = self.W.dtype.type(self.network.shift)

        def work(chosen: range) -> tuple[Array, Array]:
            outputs, counts = self.xp.zeros(len(X)), self.xp.zeros((len(X), len(X)))
            for k in chosen:
                P = X @ self.W[slices[k]].T  # (n, block)
                self.masks[k] = mask = shift < P
                outputs += ((P - shift) * mask) @ self.signs[slices[k]]
                counts += _count_bits(mask) if bits else _count_floats(mask)
            return outputs, counts

        parts = list(self._each(work, len(slices)))
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def update(self, X: Array, g: Array) -> None:
        """Apply ``W <- W - J^T g``."""
        slices = self._slices()
        weighted = (g[:, None] * X).astype(X.dtype)  # (n, d)
        scale = self.W.dtype.type(self.network.scale)

        def work(chosen: range) -> None:
            for k in chosen:
                change = self.masks[k].T.astype(X.dtype) @ weighted  # (block, d)
                self.W[slices[k]] -= (self.signs[slices[k]] * scale)[:, None] * change

        list(self._each(work, len(slices)))

    def drop_silent(self) -> None:
        """Go on with the neurons that fired in the last forward pass."""
        fired = self.xp.concatenate([mask.any(axis=0) for mask in self.masks])
        self.rows = self.xp.flatnonzero(fired)
        self.W, self.signs = self.W[self.rows], self.signs[self.rows]

    def write_back(self) -> None:
        """Copy the rows to the network."""
        if self.W is not self.network.rows:
            self.network.rows[self.rows] = self.W

    def _each(self, work: Callable[[range], Any], count: int) -> Iterator[Any]:
        """Run ``work`` over all blocks: one run of blocks per core, or all at once with BLAS threads."""
        if self.block is None:
            yield work(range(count))
            return
        import numba

        tasks = min(count, numba.get_num_threads())
        with one_blas_thread(), ThreadPoolExecutor(tasks) as pool:
            edges = np.linspace(0, count, tasks + 1).astype(int)
            yield from pool.map(lambda t: work(range(edges[t], edges[t + 1])), range(tasks))


def _count_floats(mask: Array) -> Array:
    zero_one = mask.astype(np.float32)
    return zero_one @ zero_one.T


def _count_bits(mask: np.ndarray) -> np.ndarray:
    from ..devices.cpu.bits import count_bits

    n, block = mask.shape
    padded = np.zeros((n, -(-block // 64) * 64), bool)
    padded[:, :block] = mask
    return count_bits(np.packbits(padded, axis=1).view(np.uint64))
