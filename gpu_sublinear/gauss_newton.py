"""Gauss-Newton training whose step follows the fired pairs, not the width.

Follows Deng, Hu, Song, Weinstein, Zhuo, "Training Overparametrized Neural Networks in Sublinear Time"
(arXiv 2208.04508); the sketched preconditioner follows Brand, Peng, Song, Weinstein (arXiv 2006.11648).  The papers'
pseudo-code was reconstructed, so this is no line-by-line copy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .active_set import ActiveSet
from .checks import check_every_point_fires, check_training_data
from .devices import Array, Device
from .errors import OptionError
from .history import PhaseClock, StepRecord, TrainingResult
from .jacobian import SparseJacobian
from .network import ShiftedReluNetwork
from .sketch import SketchOptions, sketched_preconditioner
from .solvers import CGOptions, Solution, conjugate_gradient, gram_cholesky, sketched_cg
from .tree import ThresholdTree, TreeOptions

SOLVERS = ("sketch-cg", "cg", "gram")
Callback = Callable[[StepRecord, ShiftedReluNetwork], Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GaussNewton:
    """The trainer: full Gauss-Newton steps until the training error is small.

    Attributes
    ----------
    solver : {"sketch-cg", "cg", "gram"}
        How ``G g = f - y`` is solved: conjugate gradients with the sketched preconditioner, without one, or
        Cholesky of the exact Gram matrix.
    tolerance : float
        Stop when ``||f - y|| <= tolerance ||y||``.
    max_steps : int
        Most steps taken; 4 to 12 are usual, because the network is piecewise linear.
    tree : TreeOptions
        Threshold tree.
    sketch : SketchOptions
        Preconditioner of ``sketch-cg``.
    cg : CGOptions
        Stopping of the two CG solvers.
    """

    solver: str = "sketch-cg"
    tolerance: float = 1e-4
    max_steps: int = 20
    tree: TreeOptions = field(default_factory=TreeOptions)
    sketch: SketchOptions = field(default_factory=SketchOptions)
    cg: CGOptions = field(default_factory=CGOptions)

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise OptionError(f"solver must be one of {', '.join(SOLVERS)}; got {self.solver!r}")
        if not 0 <= self.tolerance < 1:
            raise OptionError(f"tolerance must be from 0 to below 1; got {self.tolerance}")
        if self.max_steps < 0:
            raise OptionError(f"max_steps must be at least 0; got {self.max_steps}")

    def fit(self, network: ShiftedReluNetwork, X: Any, y: Any, callbacks: Iterable[Callback] = ()) -> TrainingResult:
        """Train ``network`` in place.

        Parameters
        ----------
        network : ShiftedReluNetwork
            What to train; its device does the work.
        X : array
            (n, d) rows of unit Euclidean norm.
        y : array
            (n,) targets of order 1.
        callbacks : iterable of callable
            Called as ``callback(record, network)`` after every step; a true return value stops the run.  Their
            time is not counted.

        Returns
        -------
        TrainingResult
            History, and why training stopped.

        Raises
        ------
        DataError
            If X or y has a wrong shape, is not finite, has rows of another norm, or asks for two values at one point.
        SilentPointsError
            If some point fires no neuron at the start.
        """
        device = network.device
        check_training_data(X, y, network.features)
        X, y = device.asarray(X, network.dtype), device.asarray(y, np.float64)
        begin = time.perf_counter()
        tree = ThresholdTree.build(device, X, network.W, self.tree)
        device.synchronize()
        build_seconds = time.perf_counter() - begin
        check_every_point_fires(tree, network)

        history: list[StepRecord] = []
        verdict = (False, "")
        for record in self._steps(network, tree, X, y):
            history.append(record)
            verdict = self._verdict(history, float(device.xp.linalg.norm(y)), callbacks, network)
            if verdict[1]:
                break
        seconds = build_seconds + sum(record.seconds for record in history)
        return TrainingResult(network, history, *verdict, seconds, build_seconds)

    def _steps(self, network: ShiftedReluNetwork, tree: ThresholdTree, X: Array, y: Array) -> Iterator[StepRecord]:
        """Yield one record per step: query, forward, Jacobian, sketch, solve, update."""
        device = network.device
        goal = self.tolerance * float(device.xp.linalg.norm(y))
        for step in range(self.max_steps + 1):
            clock = PhaseClock(device)
            with clock("query"):
                active = tree.query(network.shift)
            with clock("forward"):
                outputs = forward(network, active)
                residual = outputs - y  # (n,)
                norm = float(device.xp.linalg.norm(residual))
            solution = None
            if step < self.max_steps and goal < norm < np.inf:
                with clock("jacobian"):
                    jacobian = SparseJacobian.build(device, active, X, network.signs)
                reachable = residual * (active.counts > 0)  # a silent point's row of G is zero: least norm is 0
                solution = self._solve(network, active, jacobian, X, reachable, step, clock)
                with clock("update"):
                    network.move(active.neurons, jacobian.weight_change(solution.value))
                    tree.update(network.W, active.neurons)
                del jacobian
            yield _record(step, norm, active, solution, clock, device)

    def _solve(
        self,
        network: ShiftedReluNetwork,
        active: ActiveSet,
        jacobian: SparseJacobian,
        X: Array,
        residual: Array,
        step: int,
        clock: PhaseClock,
    ) -> Solution:
        device = network.device
        if self.solver == "gram":
            with clock("solve"):
                return gram_cholesky(device, gram_matrix(device, active, X, network.width), residual)
        if self.solver == "cg":
            with clock("solve"):
                return conjugate_gradient(device, jacobian.gram, residual, self.cg)
        with clock("sketch"):
            precondition = sketched_preconditioner(device, jacobian, self.sketch, network.seed, step)
        with clock("solve"):
            return sketched_cg(device, jacobian.gram, residual, self.cg, precondition)

    def _verdict(
        self,
        history: list[StepRecord],
        size: float,
        callbacks: Iterable[Callback],
        network: ShiftedReluNetwork,
    ) -> tuple[bool, str]:
        """Return (converged, why to stop); an empty reason goes on."""
        record = history[-1]
        stopped = any([callback(record, network) for callback in callbacks])
        if not np.isfinite(record.residual_norm):
            return (
                False,
                f"the loss is not finite at step {record.step}; try a smaller shift or a larger width",
            )
        if record.residual_norm <= self.tolerance * size:
            return True, f"||f - y|| fell below {self.tolerance:g} ||y|| after {_steps_taken(record.step)}"
        if stopped:
            return False, f"a callback stopped the run after {_steps_taken(record.step + 1)}"
        if record.step == self.max_steps:
            return False, f"max_steps ended the run after {_steps_taken(record.step)}"
        return False, ""


def forward(network: ShiftedReluNetwork, active: ActiveSet) -> Array:
    """Return the outputs on the training points from the active set alone, (n,) float64."""
    total = network.device.forward(active.indptr, active.indices, active.values, network.signs, network.shift)
    return total * network.scale


def gram_matrix(device: Device, active: ActiveSet, X: Array, width: int) -> Array:
    """Return ``G = (X X^T) o (M^T M) / m``, (n, n) float64, from the active set."""
    counts = device.count_pairs(active.indptr, active.compact, active.t_indptr, active.t_points)
    return device.gram(X.astype(np.float64)) * counts / width


def _record(
    step: int, norm: float, active: ActiveSet, solution: Solution | None, clock: PhaseClock, device: Device
) -> StepRecord:
    n = int(active.indptr.shape[0]) - 1
    silent = int((active.counts == 0).sum())
    if silent:
        _log.warning("step %d: %d of %d points fire no neuron; their error cannot shrink", step, silent, n)
    return StepRecord(
        step=step,
        loss=0.5 * norm**2,
        mse=norm**2 / n,
        residual_norm=norm,
        fired=active.nnz / n,
        union=active.union,
        solver_iterations=solution.iterations if solution else 0,
        solver_residual=solution.residual if solution else 0.0,
        solver_reason=solution.reason if solution else "no step was taken",
        moved_neurons=active.union if solution else 0,
        tree_nodes_visited=active.visited,
        seconds=sum(clock.seconds.values()),
        phases=clock.seconds,
        peak_bytes=device.peak_bytes(),
    )


def _steps_taken(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
