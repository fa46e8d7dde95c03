"""Training on data that arrive in pieces: one network, one index, points added to both.

A session owns the points seen so far, the index over them and the network.  :meth:`Session.extend` looks at the new
points alone, against all neurons that exist; nothing is found again about the earlier points, except for the rows that
join.  Training starts from the present weights and goes on all points seen.

What an extended session finds and does from then on is, byte for byte, what a new session over all points would that
begins at the same weights (without a ridge penalty, whose W_0 stays where this session began, without batches, whose
blocks depend on the order of arrival, and with packed masks up to the order of sums: where most neurons fire a new
session would hold the others, too).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.arrays import of_table
from ..devices import Array
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..options import Options
from ..step.history import TrainingResult
from ..step.run import Run
from . import support
from .checks import check_every_point_fires, check_training_data
from .loop import Callback, train
from .memory import plan_memory
from .prepare import prepare
from .validation import Validation


@dataclass
class Session:
    """A training that can be given more points; made by :meth:`GaussNewton.begin`.

    Attributes
    ----------
    trainer : Options
        The options; may be replaced between trainings by one with other stopping rules.
    run : Run
        Network, points and index.
    scan_seconds : float
        What the looks at new points took that no training has reported yet.
    """

    trainer: Options
    run: Run
    scan_seconds: float = 0.0

    @classmethod
    def begin(cls, trainer: Options, network: ShiftedReluNetwork, X: Any, y: Any) -> Session:
        """Look at all neurons once.

        Parameters
        ----------
        trainer : GaussNewton
            The options.
        network : ShiftedReluNetwork
            What is trained, in place.
        X, y : array
            As for :meth:`GaussNewton.fit`.

        Returns
        -------
        Session
            Ready to train.

        Raises
        ------
        OptionError
            If the trainer wants to hold points out, to train both layers or to follow flips, or the activation is
            neither relu nor max.
        """
        support.check(trainer, network, support.SESSION)
        start = time.perf_counter()
        run = prepare(trainer, network, Problem(*_checked(trainer, network, X, y)))
        network.device.synchronize()
        return cls(trainer, run, time.perf_counter() - start)

    @property
    def network(self) -> ShiftedReluNetwork:
        """The network."""
        return self.run.network

    @property
    def X(self) -> Array:
        """(n, d) all points seen, in the order of arrival."""
        return self.run.problem.X

    @property
    def y(self) -> Array:
        """(n,) their targets."""
        return self.run.problem.y

    def extend(self, X: Any, y: Any) -> None:
        """Add points without training; a failure leaves the session as it was.

        Parameters
        ----------
        X, y : array
            (k, d) unit rows and (k,) targets.

        Raises
        ------
        SilentPointsError
            If no neuron fires on some new point.
        """
        network = self.network
        X, y = _checked(self.trainer, network, X, y)
        start, n = time.perf_counter(), len(self.X)
        before, rows = replace(self.run), (network.rows, network.neurons, network.seen)
        try:
            self.run.extend(X, y, self._memory_left(n + len(X)))
            check_every_point_fires(self.run.look().active.counts[n:], X, network)
        except BaseException:  # Ctrl-C as well
            self.run = before
            network.rows, network.neurons, network.seen = rows
            raise
        network.device.synchronize()
        self.scan_seconds += time.perf_counter() - start

    def _memory_left(self, n: int) -> int | None:
        """Return the bytes that the limit leaves to lists over n points."""
        network = self.network
        size = (n, network.features, network.width, network.shift, network.dtype, network.outputs)
        return plan_memory(self.run.options, network.device, *size)

    def train(self, callbacks: Iterable[Callback] = (), validation: tuple[Any, Any] | None = None) -> TrainingResult:
        """Train from the present weights on all points seen.

        Parameters
        ----------
        callbacks : iterable of callable
            As for :meth:`GaussNewton.fit`.
        validation : tuple of arrays, optional
            X (k, d) and y (k,) for early stopping.

        Returns
        -------
        TrainingResult
            History of this training; ``build_seconds`` are those of the scans since the last one.
        """
        return self._train(callbacks, Validation.of(self.network, validation))

    def _train(self, callbacks: Iterable[Callback], watch: Validation) -> TrainingResult:
        support.check(self.trainer, self.network, support.SESSION)
        run = self.run
        watch.prepare()
        if watch.active:
            run.index.expect_any_row()  # going back to the best weights moves rows that fire no more
        seconds, self.scan_seconds = self.scan_seconds, 0.0
        chosen = self.trainer.alpha if self.trainer.alpha != "auto" else run.options.alpha  # at the first scan
        run.options = replace(self.trainer, alpha=chosen)
        result = train(run, callbacks, watch, seconds)
        if watch.returned is not None:
            run.went_back(*watch.returned)
        run.warm = True
        return result

    def partial_fit(
        self, X: Any, y: Any, callbacks: Iterable[Callback] = (), validation: tuple[Any, Any] | None = None
    ) -> TrainingResult:
        """Add points and train on all points seen: :meth:`extend`, then :meth:`train`.

        Parameters
        ----------
        X, y : array
            (k, d) unit rows and (k,) targets.
        callbacks, validation : optional
            As for :meth:`train`.

        Returns
        -------
        TrainingResult
            As of :meth:`train`.
        """
        watch = Validation.of(self.network, validation)  # refused before points are added
        self.extend(X, y)
        return self._train(callbacks, watch)


def _checked(trainer: Options, network: ShiftedReluNetwork, X: Any, y: Any) -> tuple[Array, Array]:
    """Return points (k, d) and targets (k,) or (k, c) on the network's device."""
    X, y = of_table(X), of_table(y)
    y = check_training_data(network.device, X, y, network.features, trainer.robust, network.outputs)
    return network.device.asarray(X, network.dtype), network.device.asarray(y, np.float64)
