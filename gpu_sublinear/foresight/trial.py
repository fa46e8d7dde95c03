"""A network drawn and looked at once, without a step: who fires, how the Gram matrix is conditioned, what it costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from ..devices import Array, Device
from ..index.lazy import LazyIndex
from ..linear.gram import GramMatrix
from ..model.network import ShiftedReluNetwork
from ..training.gauss_newton import GaussNewton
from ..training.memory import plan, plan_memory

WORK = 1e11  # products n m d of a scan: some ten seconds on two cores
MEMORY_SHARE = 0.5  # of the device, that a trial may plan to hold
LARGEST_SPECTRUM = 4096  # points whose n x n eigenvalues are computed: about ten seconds
Result = TypeVar("Result")


@dataclass(frozen=True)
class Trial:
    """What one look at a random network showed; exact for this network.

    Attributes
    ----------
    width : int
        m of the network that was drawn.
    counts : ndarray
        (n,) neurons that fire on each point.
    union : int
        Neurons that fire on some point.
    pairs : float
        ``sum_r |fire(r)|^2``.
    candidates : int
        Pairs in the lists of the lazy index.
    eigenvalues : ndarray or None
        (n,) of the exact Gram matrix, ascending; None beyond ``LARGEST_SPECTRUM`` points.
    seconds : dict
        Measured: ``draw``, ``scan``, ``query``, ``gram`` and ``solve`` (a Cholesky factorisation).
    """

    width: int
    counts: np.ndarray
    union: int
    pairs: float
    candidates: int
    eigenvalues: np.ndarray | None
    seconds: dict[str, float]


def fits(
    trainer: GaussNewton, device: Device, n: int, d: int, m: int, shift: float, dtype: str, outputs: int = 1
) -> bool:
    """Tell whether the plan of a run stays below its memory limit, or below ``MEMORY_SHARE`` of the device."""
    most = trainer.memory_limit or MEMORY_SHARE * device.total_bytes()
    return sum(plan(trainer, device, n, d, m, shift, dtype, outputs).values()) <= most


def affordable_width(
    trainer: GaussNewton, device: Device, n: int, d: int, width: int, shift: float, dtype: str, outputs: int = 1
) -> int:
    """Return ``width``, or the largest power of two below it that a trial can draw within time and memory.

    Parameters
    ----------
    trainer : GaussNewton
        Its memory limit, if any, holds for the trial as well.
    device : Device
        Where the trial runs.
    n, d, width : int
        Points, features, neurons.
    shift : float
        b.
    dtype : {"float32", "float64"}
        Type of the weights.
    outputs : int
        c.

    Returns
    -------
    int
        At least 2.

    Raises
    ------
    DeviceMemoryError
        If not even two neurons fit into the memory limit.
    """

    def affordable(m: int) -> bool:
        return n * m * d <= WORK and fits(trainer, device, n, d, m, shift, dtype, outputs)

    if affordable(width):
        return width
    if not affordable(2):  # not for the width's sake: say what a run would hold, as training would
        plan_memory(trainer, device, n, d, 2, shift, dtype, outputs)
    return max((2**k for k in range(1, 31) if 2**k < width and affordable(2**k)), default=2)


def run_trial(device: Device, X: Array, width: int, shift: float, seed: int, dtype: str) -> Trial:
    """Draw a network of ``width`` neurons, scan it once, and measure.

    Parameters
    ----------
    device : Device
        Owner of X.
    X : Array
        (n, d) points of ``dtype``.
    width : int
        m.
    shift : float
        b.
    seed : int
        Of the weights.
    dtype : {"float32", "float64"}
        Type of weights and products.

    Returns
    -------
    Trial
        What was seen.
    """
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Result]) -> Result:
        begin = time.perf_counter()
        result = work()
        device.synchronize()
        seconds[name] = min(time.perf_counter() - begin, seconds.get(name, math.inf))
        return result

    network = timed(
        "draw",
        lambda: ShiftedReluNetwork.initialize(width, X.shape[1], shift=shift, seed=seed, dtype=dtype, device=device),
    )
    index = timed("scan", lambda: LazyIndex.build(device, X, network))
    for _ in range(2):  # the first call also pays for fresh memory, which later steps do not
        active = timed("query", lambda: index.query(network.shift))
    eigenvalues = None
    if len(X) <= LARGEST_SPECTRUM:
        for _ in range(2):
            gram = GramMatrix(device, X, width)
            _ = gram.K  # the kernel of the points is no part of a step
            G = timed("gram", partial(gram, active))
        timed("solve", lambda: device.cholesky(G))
        eigenvalues = device.to_host(device.eigh(G)[0])
    counts = device.to_host(active.counts)
    return Trial(width, counts, active.union, active.pairs, index.candidates.nnz, eigenvalues, seconds)
