"""Gauss-Newton training whose step follows the fired pairs, not the width.

Follows Deng, Hu, Song, Weinstein, Zhuo, "Training Overparametrized Neural Networks in Sublinear Time"
(arXiv 2208.04508); the sketched preconditioner follows Brand, Peng, Song, Weinstein (arXiv 2006.11648).  The papers'
pseudo-code was reconstructed, so this is no line-by-line copy.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.arrays import of_table
from ..errors import OptionError
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..options import Options, SketchOptions
from ..step.history import TrainingResult
from ..step.stepper import Stepper
from . import support
from .checkpoints.file import Checkpointing
from .checkpoints.keeper import CheckpointKeeper, Keeper
from .checks import check_training_data
from .loop import Callback, train
from .prepare import masks
from .session import Session
from .validation import Validation


@dataclass(frozen=True)
class GaussNewton(Options):
    """The trainer: full Gauss-Newton steps until the training error is small.

    The defaults are the fast engine; :meth:`faithful` gives the published method.  Both follow the same trajectory.

    Attributes
    ----------
    solver : {"auto", "gram", "sketch-cg", "cg"}
        How ``G g = f - y`` is solved: Cholesky of the exact Gram matrix, conjugate gradients with the sketched
        preconditioner or without one, or the cheapest by :mod:`gpu_sublinear.linear.solver_costs`.
    margin : "auto" or float
        Of the certified lazy index; 0 keeps all pre-activations in threshold trees instead.
    jacobian : {"factored", "csr"}
        Multiply from the lists of fired pairs, or write the entries of J and J^T.
    mask : {"auto", "lists", "bits", "flips"}
        How fired pairs are kept: listed, with candidates; or one bit for each pair, all looked at in every step
        (:mod:`gpu_sublinear.index.bits`), or one bit kept through the pairs that flip, with implicit weights
        (:mod:`gpu_sublinear.index.flips.index`).  The last two need the exact Gram matrix.  "auto" takes bits where
        pairs are many, or become so, and never flips.
    tolerance : float
        Stop when ``||f - y|| <= tolerance ||y||``.  With a penalty also when a full step promises less than this part
        of the penalised loss, or the last steps gained next to nothing: 0.025 % in one and 0.1 % in two to six, or
        2.5 and 10 times the tolerance, if that is less.
    max_steps : int
        Most steps taken; 4 to 12 are usual, because the network is piecewise linear.
    memory_limit : int, str or None
        Bytes that the run may hold, as a number or as ``"1GB"`` or ``"8GiB"``; checked before anything is allocated.
    damping : {"auto", "none"} or float
        Levenberg-Marquardt damping in units of tr(G)/n: none until full steps fail, never, or from the first step on.
    watchdog : int
        Full steps in a row that may fail to beat the best objective before they are taken back (``"auto"``): at large
        shifts a first full step overshoots and the next ones recover.
    alpha : float or "auto"
        Ridge penalty ``alpha tr(G_0)/n / 2 ||W - W_0||^2``; W_0 are the weights at the start of this fit, of both
        layers if both are trained.  Above 0 every step is judged; of batches, epochs are watched as without it.
        "auto" chooses it by leave-one-out cross-validation of the linearised network
        (:mod:`gpu_sublinear.training.penalty`).
    time_budget : float or None
        Seconds, first scan included, after which no further step begins.
    validation_fraction : float
        Share of the points held out for early stopping.
    patience : int
        Steps without a better validation error before training stops.
    batch_size : int or None
        Most points in a step; None is all of them.  With batches a step of ``max_steps``, of the history and of all
        stopping rules is an epoch, one visit to each batch (:mod:`gpu_sublinear.step.epochs`); matrices are B x B.
    both_layers : bool
        Train the second layer as well (:mod:`gpu_sublinear.linear.both_layers`).
    tree : TreeOptions
        Threshold tree (margin 0).
    sketch : SketchOptions
        Preconditioner of ``sketch-cg``.
    cg : CGOptions
        Stopping of the two CG solvers.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask not in masks():
            raise OptionError(f"mask must be one of {', '.join(masks())}; got {self.mask!r}")
        support.check(self)

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
        device, X, y = network.device, of_table(X), of_table(y)
        y = check_training_data(device, X, y, network.features, self.robust, network.outputs)
        X, y = device.asarray(X, network.dtype), device.asarray(y, np.float64)
        begin = time.perf_counter()
        problem = Problem(X, y, SampleWeights.of(device, sample_weight, len(X))).without_zeros()
        given = validation is not None
        watch = Validation.of(network, validation) if given else Validation.split(self, network, problem)
        problem = problem.part(watch.kept)
        keeper = CheckpointKeeper(checkpoint, self, network, problem, watch) if checkpoint else Keeper()
        run = keeper.prepare(self, network, problem, watch)
        device.synchronize()
        return train(run, callbacks, watch, time.perf_counter() - begin, keeper)

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
        return Session.begin(self, network, X, y)

    def train(self, run: Stepper, callbacks: Iterable[Callback] = ()) -> TrainingResult:
        """Train from a run that is prepared, by these options; ``fit`` without the first look.

        Parameters
        ----------
        run : Stepper
            Of a :class:`gpu_sublinear.SharedScan`, for instance.
        callbacks : iterable of callable
            As for :meth:`fit`.

        Returns
        -------
        TrainingResult
            History, and why training stopped.
        """
        run.options = self
        return train(run, callbacks)
