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
from typing import TYPE_CHECKING, Any

import numpy as np

from .bits import DENSE
from .both_layers import check_trainer
from .checkpoint import Checkpointing
from .checks import check_every_point_fires, check_training_data
from .damping import StepControl
from .errors import OptionError
from .history import StepRecord, TrainingResult
from .lazy import check_margin
from .network import ShiftedReluNetwork
from .resume import CheckpointKeeper, Keeper
from .run import Run
from .sketch import SketchOptions
from .solvers import CGOptions
from .state import Attempt, State
from .stops import Stops, check_batches, check_robust
from .tree import TreeOptions
from .validation import Validation
from .weights import SampleWeights

if TYPE_CHECKING:
    from .session import Session

SOLVERS = ("auto", "gram", "sketch-cg", "cg")
MASKS = ("auto", "lists", "bits", "flips")
JACOBIANS = ("factored", "csr")
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
    mask : {"auto", "lists", "bits", "flips"}
        How fired pairs are kept: listed, with candidates; or one bit for each pair, all looked at in every step
        (:mod:`gpu_sublinear.bits`), or one bit kept through the pairs that flip, with implicit weights
        (:mod:`gpu_sublinear.flips`).  The last two need the exact Gram matrix.  "auto" takes bits where pairs are
        many, or become so, and never flips.
    tolerance : float
        Stop when ``||f - y|| <= tolerance ||y||``.  With a penalty also when a full step promises less than this part
        of the penalised loss, or the last steps gained next to nothing: 0.025 % in one and 0.1 % in two to six, or
        2.5 and 10 times the tolerance, if that is less.
    max_steps : int
        Most steps taken; 4 to 12 are usual, because the network is piecewise linear.
    memory_limit : int or None
        Bytes that the run may hold; checked before anything is allocated.
    damping : {"auto", "none"} or float
        Levenberg-Marquardt damping in units of tr(G)/n: none until full steps fail, never, or from the first step on.
    watchdog : int
        Full steps in a row that may fail to beat the best objective before they are taken back (``"auto"``): at large
        shifts a first full step overshoots and the next ones recover.
    alpha : float or "auto"
        Ridge penalty ``alpha tr(G_0)/n / 2 ||W - W_0||^2``; W_0 are the weights at the start of this fit, of both
        layers if both are trained.  Above 0 every step is judged; of batches, epochs are watched as without it.
        "auto" chooses it by leave-one-out cross-validation of the linearised network (:mod:`gpu_sublinear.penalty`).
    time_budget : float or None
        Seconds, first scan included, after which no further step begins.
    validation_fraction : float
        Share of the points held out for early stopping.
    patience : int
        Steps without a better validation error before training stops.
    batch_size : int or None
        Most points in a step; None is all of them.  With batches a step of ``max_steps``, of the history and of all
        stopping rules is an epoch, one visit to each batch (:mod:`gpu_sublinear.batches`); matrices are B x B.
    both_layers : bool
        Train the second layer as well (:mod:`gpu_sublinear.both_layers`).
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
    damping: float | str = "auto"
    watchdog: int = 3
    alpha: float | str = 0.0
    time_budget: float | None = None
    validation_fraction: float = 0.0
    patience: int = 3
    batch_size: int | None = None
    both_layers: bool = False
    tree: TreeOptions = field(default_factory=TreeOptions)
    sketch: SketchOptions = field(default_factory=SketchOptions)
    cg: CGOptions = field(default_factory=CGOptions)

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise OptionError(f"solver must be one of {', '.join(SOLVERS)}; got {self.solver!r}")
        if self.jacobian not in JACOBIANS:
            raise OptionError(f"jacobian must be one of {', '.join(JACOBIANS)}; got {self.jacobian!r}")
        if self.sketch.kind == "rows" and self.jacobian != "csr" and self.solver == "sketch-cg":
            raise OptionError("a sketch of rows needs the entries of J; use jacobian='csr' or a sketch of neurons")
        if self.margin not in ("auto", 0):
            check_margin(self.margin)
        check_robust(self)
        check_trainer(self)
        if self.mask not in MASKS:
            raise OptionError(f"mask must be one of {', '.join(MASKS)}; got {self.mask!r}")
        if self.mask in ("bits", "flips") and not self._can_pack:
            raise OptionError(
                f"mask={self.mask!r} needs solver 'auto' or 'gram', margin 'auto' and jacobian 'factored'"
            )
        check_batches(self)
        if not 0 <= self.tolerance < 1:
            raise OptionError(f"tolerance must be from 0 to below 1; got {self.tolerance}")
        if self.max_steps < 0:
            raise OptionError(f"max_steps must be at least 0; got {self.max_steps}")

    @property
    def _can_pack(self) -> bool:
        factored = self.jacobian == "factored" and self.margin == "auto"
        return factored and self.solver in ("auto", "gram") and not self.both_layers

    @property
    def robust(self) -> bool:
        """Whether steps go to the least-squares solution, so that targets may contradict each other."""
        return self.damping != "none" or self.alpha != 0

    def packs(self, share: float, outputs: int = 1) -> bool:
        """Tell whether masks are packed when this share of the pairs fires; lists are kept for several outputs."""
        if outputs > 1:
            return False
        return self.mask in ("bits", "flips") or (self.mask == "auto" and self._can_pack and share >= DENSE)

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

    def fit(
        self,
        network: ShiftedReluNetwork,
        X: Any,
        y: Any,
        callbacks: Iterable[Callback] = (),
        validation: tuple[Any, Any] | None = None,
        sample_weight: Any = None,
        checkpoint: Checkpointing | None = None,
    ) -> TrainingResult:
        """Train ``network`` in place.

        Parameters
        ----------
        network : ShiftedReluNetwork
            What to train; its device does the work.
        X : array
            (n, d) rows of unit Euclidean norm.
        y : array
            (n,) targets of order 1; (n, c) for a network with c > 1 outputs.
        callbacks : iterable of callable
            Called as ``callback(record, network)`` after every step; a true return value stops the run.  Their
            time is not counted.
        validation : tuple of arrays, optional
            X (k, d) and y like the targets: training stops when their error no longer falls for ``patience`` steps.
        sample_weight : array, optional
            (n,) w_i >= 0: the loss is ``1/2 sum_i w_i (f_i - y_i)^2``.  A point of weight 0 is left out, and whole
            numbers count points as often; mean errors of the history are over ``sum_i w_i``.
        checkpoint : Checkpointing, optional
            Where to write checkpoints, and whether to go on from one: the weights then end with the same bytes as those
            of a run that was never interrupted.  ``network`` must be as it was when that run began.

        Returns
        -------
        TrainingResult
            History, and why training stopped.

        Raises
        ------
        DataError
            If X or y has a wrong shape, is not finite, has rows of another norm, or asks for two values at one point
            (the last only with ``damping="none"`` and ``alpha=0``: robust steps go to the least-squares solution).
        SilentPointsError
            If some point fires no neuron at the start.
        OptionError
            If the network or a checkpoint does not go with the options.
        CheckpointError
            If the file to resume from is damaged or belongs to another run.
        """
        device = network.device
        y = check_training_data(device, X, y, network.features, self.robust, network.outputs)
        X, y = device.asarray(X, network.dtype), device.asarray(y, np.float64)
        begin = time.perf_counter()
        weights = SampleWeights.of(device, sample_weight, len(X))
        X, y, weights = weights.without_zeros(X, y)
        watch = Validation.split(self, network, X, y) if validation is None else Validation.of(network, validation)
        X, y = watch.remaining(X, y)
        weights = weights.part(watch.kept)
        keeper = CheckpointKeeper(checkpoint, self, network, X, y, weights, watch) if checkpoint else Keeper()
        run = keeper.prepare(self, network, X, y, weights, watch)
        device.synchronize()
        return run.trainer.train(run, callbacks, watch, time.perf_counter() - begin, keeper)

    def begin(self, network: ShiftedReluNetwork, X: Any, y: Any) -> Session:
        """Look at all neurons once and return a session, to which points can be added later.

        Parameters
        ----------
        network : ShiftedReluNetwork
            What the session trains, in place.
        X, y : array
            As for :meth:`fit`.

        Returns
        -------
        Session
            Ready to train.
        """
        from .session import Session

        return Session.begin(self, network, X, y)

    def train(
        self,
        run: Run,
        callbacks: Iterable[Callback] = (),
        watch: Validation | None = None,
        build_seconds: float = 0.0,
        keeper: Keeper | None = None,
    ) -> TrainingResult:
        """Train from a run that is prepared; ``fit`` without the first scan.

        Parameters
        ----------
        run : Run
            Data, network and index.
        callbacks : iterable of callable
            As for ``fit``.
        watch : Validation, optional
            What decides on early stopping.
        build_seconds : float
            What the preparation took.
        keeper : Keeper, optional
            Writes checkpoints, and knows the steps that were taken before.

        Returns
        -------
        TrainingResult
            History, and why training stopped.
        """
        watch, keeper = watch or Validation(run.network), keeper or Keeper()
        callbacks = list(callbacks)
        control = run.control()
        keeper.restore_control(control)
        keeper.build_seconds += build_seconds
        stops = Stops(self, run.size, keeper.build_seconds, control)
        history = list(keeper.history)
        verdict = stops(history, False, watch, keeper.seconds) if history else (False, "")
        control.finished = bool(verdict[1])
        for record in self._steps(run, control, watch, len(history), keeper.best):
            history.append(record)
            if callbacks:
                run.materialise()
            stopped = any([callback(record, run.network) for callback in callbacks])
            verdict = verdict if verdict[1] else stops(history, stopped, watch, keeper.seconds)
            keeper.after(run, control, watch, history, bool(verdict[1]) or stops.will_end(len(history)))
            if verdict[1] and (stopped or not record.moved_neurons):
                break
            control.finished = bool(verdict[1])  # one more record, of the state that the last step led to
        best = watch.restore_best() if watch.active else control.restore_best(run, history)
        if not watch.active:
            history[-1] = run.written(history[-1])
        if best is not None:
            verdict = verdict[0], f"{verdict[1]}; the weights before step {best}, the best, were restored"
        seconds = keeper.build_seconds + keeper.seconds + sum(record.seconds for record in history)
        times = seconds, keeper.build_seconds
        alpha = float(self.alpha)  # a number since the run was prepared
        kept = keeper.seconds, keeper.resumed_seconds
        return TrainingResult(run.network, history, *verdict, *times, best, alpha, *kept)

    def _steps(
        self, run: Run, control: StepControl, watch: Validation, first: int = 0, best: State | None = None
    ) -> Iterator[StepRecord]:
        """Yield one record per step: query, forward, Jacobian, sketch, solve, update; rejected ones try again."""
        goal = self.tolerance * run.size
        state = run.look()
        if not run.warm:
            check_every_point_fires(state.active, run.X, run.network)
        control.start(state, best)
        for step in range(first, self.max_steps + 1):
            if watch.active:
                run.materialise()
            error, attempt, trial, rejected = watch.error(step), None, None, 0
            if step < self.max_steps and goal < state.norm < np.inf:
                while trial is None and not (control.stuck or control.finished):
                    source = control.source
                    if run.foresees and not control.always:
                        promise = control.expect(run.propose(source, control.damping, step))
                        if promise <= self.tolerance or control.settled(self.tolerance):
                            break  # at the minimum: the step is not worth taking
                    attempt = run.move(source, control.damping, step)
                    trial = run.look()
                    if not control.accepts(attempt, trial, step + 1):
                        rejected += 1
                        state.clock.absorb(trial.clock)
                        trial = None
                        run.restore(control.source)
            yield _record(step, state, attempt if trial else None, rejected, error, run)
            if trial is None:
                return
            state = trial


def _record(
    step: int, state: State, attempt: Attempt | None, rejected: int, validation_mse: float | None, run: Run
) -> StepRecord:
    active, seconds = state.active, state.clock.seconds
    solution = attempt.solution if attempt else None
    n = len(active.counts)  # points; the mean error is over the sum of their weights
    silent = int((active.counts == 0).sum())
    if silent:
        _log.warning("step %d: %d of %d points fire no neuron; their error cannot shrink", step, silent, n)
    return StepRecord(
        step=step,
        loss=0.5 * state.norm**2,
        mse=state.norm**2 / (run.weights.total(n) * (state.residual.size / n)),
        residual_norm=state.norm,
        fired=active.nnz / n,
        union=active.union,
        solver_iterations=solution.iterations if solution else 0,
        solver_residual=solution.residual if solution else 0.0,
        solver_reason=solution.reason if solution else "no step was taken",
        moved_neurons=attempt.moved if attempt else 0,
        tree_nodes_visited=active.visited,
        seconds=sum(seconds.values()),
        phases=seconds,
        refreshed=run.index.refreshed if solution else 0,
        peak_bytes=run.network.device.peak_bytes(),
        damping=attempt.damping if attempt else 0.0,
        rejected=rejected,
        penalty=state.penalty,
        validation_mse=validation_mse,
    )
