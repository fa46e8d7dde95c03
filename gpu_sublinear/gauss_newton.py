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
from .bits import DENSE, BitIndex, BitJacobian, BitMask, sampled_share
from .checks import check_every_point_fires, check_training_data
from .costs import cheapest_solver
from .devices import Array
from .errors import OptionError
from .gram import GramMatrix
from .history import PhaseClock, StepRecord, TrainingResult
from .jacobian import FactoredJacobian, SparseJacobian
from .lazy import LazyIndex, check_margin
from .memory import plan_memory
from .network import ShiftedReluNetwork, firing_probability
from .sketch import Preconditioner, SketchOptions, preconditioner_of_neurons, preconditioner_of_rows
from .solvers import CGOptions, Solution, conjugate_gradient, gram_cholesky, sketched_cg
from .survey import survey
from .tree import ThresholdTree, TreeOptions

SOLVERS = ("auto", "gram", "sketch-cg", "cg")
JACOBIANS = ("factored", "csr")
MASKS = ("auto", "lists", "bits")
Jacobian = FactoredJacobian | SparseJacobian | BitJacobian
Callback = Callable[[StepRecord, ShiftedReluNetwork], Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GaussNewton:
    """The trainer: full Gauss-Newton steps until the training error is small.

    The defaults are the fast engine; :meth:`faithful` gives the published method.  Both follow the same trajectory.

    Attributes
    ----------
    solver : {"auto", "gram", "sketch-cg", "cg"}
        How ``G g = f - y`` is solved: Cholesky of the exact Gram matrix, conjugate gradients with the sketched
        preconditioner or without one, or the cheapest by :mod:`gpu_sublinear.costs`.
    margin : "auto" or float
        Of the certified lazy index; 0 keeps all pre-activations in threshold trees instead.
    jacobian : {"factored", "csr"}
        Multiply from the lists of fired pairs, or write the entries of J and J^T.
    mask : {"auto", "lists", "bits"}
        How fired pairs are kept: listed, with candidates; or one bit for each pair, all looked at in every step
        (:mod:`gpu_sublinear.bits`; needs the exact Gram matrix); "auto" takes bits where pairs are many, or become so.
    tolerance : float
        Stop when ``||f - y|| <= tolerance ||y||``.
    max_steps : int
        Most steps taken; 4 to 12 are usual, because the network is piecewise linear.
    memory_limit : int or None
        Bytes that the run may hold; checked before anything is allocated.
    tree : TreeOptions
        Threshold tree (margin 0).
    sketch : SketchOptions
        Preconditioner of ``sketch-cg``.
    cg : CGOptions
        Stopping of the two CG solvers.
    """

    solver: str = "auto"
    margin: float | str = "auto"
    jacobian: str = "factored"
    mask: str = "auto"
    tolerance: float = 1e-4
    max_steps: int = 20
    memory_limit: int | None = None
    tree: TreeOptions = field(default_factory=TreeOptions)
    sketch: SketchOptions = field(default_factory=SketchOptions)
    cg: CGOptions = field(default_factory=CGOptions)

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise OptionError(f"solver must be one of {', '.join(SOLVERS)}; got {self.solver!r}")
        if self.jacobian not in JACOBIANS:
            raise OptionError(f"jacobian must be one of {', '.join(JACOBIANS)}; got {self.jacobian!r}")
        if self.mask not in MASKS:
            raise OptionError(f"mask must be one of {', '.join(MASKS)}; got {self.mask!r}")
        if self.mask == "bits" and not self._can_pack:
            raise OptionError("mask='bits' needs solver 'auto' or 'gram', margin 'auto' and jacobian 'factored'")
        if self.sketch.kind == "rows" and self.jacobian != "csr" and self.solver == "sketch-cg":
            raise OptionError("a sketch of rows needs the entries of J; use jacobian='csr' or a sketch of neurons")
        if self.margin not in ("auto", 0):
            check_margin(self.margin)
        if not 0 <= self.tolerance < 1:
            raise OptionError(f"tolerance must be from 0 to below 1; got {self.tolerance}")
        if self.max_steps < 0:
            raise OptionError(f"max_steps must be at least 0; got {self.max_steps}")

    @property
    def _can_pack(self) -> bool:
        return self.solver in ("auto", "gram") and self.jacobian == "factored" and self.margin == "auto"

    def packs(self, share: float) -> bool:
        """Tell whether masks are packed when this share of the pairs fires."""
        return self.mask == "bits" or (self.mask == "auto" and self._can_pack and share >= DENSE)

    @classmethod
    def faithful(cls, **options: Any) -> GaussNewton:
        """Return a trainer that follows the paper: trees, explicit sparse Jacobian, sketch of its rows, PCG.

        Parameters
        ----------
        **options
            Other fields, or replacements.

        Returns
        -------
        GaussNewton
            The trainer.
        """
        paper: dict[str, Any] = {"solver": "sketch-cg", "margin": 0, "jacobian": "csr", "sketch": SketchOptions("rows")}
        return cls(**(paper | options))

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
        check_training_data(device, X, y, network.features)
        X, y = device.asarray(X, network.dtype), device.asarray(y, np.float64)
        begin = time.perf_counter()
        run = Run.prepare(self, network, X, y)
        device.synchronize()
        build_seconds = time.perf_counter() - begin

        history: list[StepRecord] = []
        verdict = (False, "")
        for record in self._steps(run):
            history.append(record)
            verdict = self._verdict(history, float(device.xp.linalg.norm(y)), callbacks, network)
            if verdict[1]:
                break
        seconds = build_seconds + sum(record.seconds for record in history)
        return TrainingResult(network, history, *verdict, seconds, build_seconds)

    def _steps(self, run: Run) -> Iterator[StepRecord]:
        """Yield one record per step: query, forward, Jacobian, sketch, solve, update."""
        network, device, y = run.network, run.network.device, run.y
        goal = self.tolerance * float(device.xp.linalg.norm(y))
        for step in range(self.max_steps + 1):
            clock = PhaseClock(device)
            with clock("query"):
                active = run.index.query(network.shift)
            if step == 0:
                check_every_point_fires(active, run.X, network)
            with clock("forward"):
                residual = forward(network, active) - y  # (n,)
                norm = float(device.xp.linalg.norm(residual))
            solution = None
            if step < self.max_steps and goal < norm < np.inf:
                with clock("jacobian"):
                    jacobian = run.jacobian(active)
                solution = run.solve(active, jacobian, residual, step, clock)
                with clock("update"):
                    moved = jacobian.step(network.rows, solution.value)
                    run.moved(active, moved)
                del jacobian
            yield _record(step, norm, active, solution, clock, run)

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


@dataclass
class Run:
    """What one call of ``fit`` keeps between its steps.

    Attributes
    ----------
    trainer : GaussNewton
        The options.
    network : ShiftedReluNetwork
        What is trained.
    X, y : Array
        (n, d) and (n,) float64 on the device.
    signs : Array
        (u,) second layer of the rows that the network holds.
    index : ThresholdTree, LazyIndex or BitIndex
        Finds the fired pairs.
    gram : GramMatrix
        Exact Gram matrix, kept through flips.
    """

    trainer: GaussNewton
    network: ShiftedReluNetwork
    X: Array
    y: Array
    signs: Array
    index: ThresholdTree | LazyIndex | BitIndex
    gram: GramMatrix

    @classmethod
    def prepare(cls, trainer: GaussNewton, network: ShiftedReluNetwork, X: Array, y: Array) -> Run:
        """Plan the memory and look at all neurons once."""
        device = network.device
        size = (*X.shape, network.width, network.shift, network.dtype)  # n, d, m, b, type
        left = plan_memory(trainer, device, *size)
        index: ThresholdTree | LazyIndex | BitIndex
        if trainer.margin == 0:
            survey(network, X, 0)
            index = ThresholdTree.build(device, X, network.rows, trainer.tree)
        elif trainer.packs(firing_probability(network.shift)):
            index = BitIndex.build(device, X, network)
        else:
            index = LazyIndex.build(device, X, network, trainer.margin, left)
        return cls(trainer, network, X, y, network.signs, index, GramMatrix(device, X, network.width))

    def moved(self, active: ActiveSet | BitMask, moved: Array) -> None:
        """Tell the index how far the rows moved; where lists would grow too long, pack masks from now on."""
        network, trainer = self.network, self.trainer
        if (
            isinstance(self.index, LazyIndex)
            and trainer.mask == "auto"
            and trainer.packs(sampled_share(network, self.X))
        ):
            _log.info("masks are packed from now on: too many pairs fire for lists")
            self.index = BitIndex(network.device, self.X, network, len(network.rows))
        else:
            self.index.update(network.rows, active.neurons, moved)

    def jacobian(self, active: ActiveSet | BitMask) -> Jacobian:
        """Return the Jacobian of the step in the form that the trainer asks for."""
        if isinstance(active, BitMask):
            return BitJacobian.build(active, self.X, self.signs, self.network.width)
        kind = FactoredJacobian if self.trainer.jacobian == "factored" else SparseJacobian
        return kind.build(self.network.device, active, self.X, self.signs, self.network.width)

    def solve(
        self,
        active: ActiveSet | BitMask,
        jacobian: Jacobian,
        residual: Array,
        step: int,
        clock: PhaseClock,
    ) -> Solution:
        """Solve ``G g = residual`` on the points that some neuron sees.

        Parameters
        ----------
        active : ActiveSet or BitMask
            The fired pairs.
        jacobian : FactoredJacobian, SparseJacobian or BitJacobian
            J.
        residual : Array
            (n,) float64, f - y.
        step : int
            Number of the step, for the draw of the sketch.
        clock : PhaseClock
            Gets the seconds of the phases ``sketch`` and ``solve``.

        Returns
        -------
        Solution
            g, with g_i = 0 at points on which no neuron fires.
        """
        device, trainer = self.network.device, self.trainer
        residual = residual * (active.counts > 0)  # a silent point's row of G is zero: least norm is 0
        if isinstance(active, BitMask) or isinstance(jacobian, BitJacobian) or self._solver(active) == "gram":
            with clock("jacobian"):
                G = self.gram(active)
            with clock("solve"):
                return gram_cholesky(device, G, residual)
        if self._solver(active) == "cg":
            with clock("solve"):
                return conjugate_gradient(device, jacobian.gram, residual, trainer.cg)
        with clock("sketch"):
            precondition = self._precondition(active, jacobian, step)
        with clock("solve"):
            return sketched_cg(device, jacobian.gram, residual, trainer.cg, precondition)

    def _solver(self, active: ActiveSet) -> str:
        trainer = self.trainer
        return trainer.solver if trainer.solver != "auto" else cheapest_solver(active, self.X, trainer.sketch)

    def _precondition(
        self, active: ActiveSet, jacobian: FactoredJacobian | SparseJacobian, step: int
    ) -> Preconditioner | None:
        network, options = self.network, self.trainer.sketch
        if options.kind == "rows" and isinstance(jacobian, SparseJacobian):
            return preconditioner_of_rows(network.device, jacobian, options, network.seed, step)
        arguments = (network.device, active, self.signs, network.width, self.gram.K, options, network.seed, step)
        return preconditioner_of_neurons(*arguments)


def forward(network: ShiftedReluNetwork, active: ActiveSet | BitMask) -> Array:
    """Return the outputs on the training points from the active set alone, (n,) float64."""
    return active.forward(network.device, network.signs, network.shift) * network.scale


def _record(
    step: int, norm: float, active: ActiveSet | BitMask, solution: Solution | None, clock: PhaseClock, run: Run
) -> StepRecord:
    n = len(active.counts)
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
        refreshed=run.index.refreshed if solution else 0,
        peak_bytes=run.network.device.peak_bytes(),
    )


def _steps_taken(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
