"""Early stopping: the error on points that training does not see."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.arrays import of_table
from ..devices import Array
from ..devices.sums import row_distances
from ..errors import DataError, OptionError
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..options import Options
from ..step.stepper import Stepper
from .checks import check_training_data

VALIDATION_ROWS = 4096  # rows of weights multiplied at a time


class Validation:
    """Keeps the best weights by the error on validation points; does nothing without points.

    Rows that training does not hold never move, so what they contribute is computed once, from all neurons; each step
    costs the rows held alone.

    Parameters
    ----------
    network : ShiftedReluNetwork
        What is trained.
    X, y : array, optional
        (k, d) and (k,) or (k, c) validation points.
    """

    def __init__(self, network: ShiftedReluNetwork, X: Any = None, y: Any = None):
        self.network, self.device = network, network.device
        self.active = X is not None
        self.X: Array = self.device.asarray(X, network.dtype) if self.active else None
        self.y: Array = self.device.asarray(y, np.float64) if self.active else None
        self.kept: Array = None  # numbers of the points left to training
        self.rest: Array = 0.0
        self.returned: tuple[Array, Array] | None = None  # rows that went back to the best weights, and how far
        self.best, self.best_step, self.best_rows, self.waited, self.last = np.inf, 0, None, 0, 0
        self.best_second: Array = None

    @classmethod
    def of(cls, network: ShiftedReluNetwork, validation: Any = None) -> Validation:
        """Take what the user gave, None or a pair (X, y), or raise OptionError or DataError."""
        if validation is None:
            return cls(network)
        try:
            X, y = map(of_table, validation)
        except (TypeError, ValueError) as error:
            raise OptionError("validation must be a pair (X, y), points and targets to judge training by") from error
        try:
            y = check_training_data(network.device, X, y, network.features, True, network.outputs)
        except DataError as error:
            raise DataError(f"validation: {error}") from error
        return cls(network, X, y)

    @classmethod
    def split(cls, options: Options, network: ShiftedReluNetwork, problem: Problem) -> Validation:
        """Hold out a fraction of the points, drawn from the network's seed; OptionError if it is none or all."""
        if not options.validation_fraction:
            return cls(network)
        n, count = len(problem), round(options.validation_fraction * len(problem))
        if not 0 < count < n:
            raise OptionError(
                f"validation_fraction={options.validation_fraction} keeps {count} of {n} points for early stopping and "
                f"leaves {n - count} to train on; take one between {1 / n:.2g} and {1 - 1 / n:.2g}"
            )
        order = np.random.default_rng(network.seed).permutation(n)
        held = network.device.asarray(np.sort(order[:count]))
        watch = cls(network, problem.X[held], problem.y[held])
        watch.kept = network.device.asarray(np.sort(order[count:]))
        return watch

    def look(self, run: Stepper, step: int) -> float | None:
        """Return the error before a step of a run, None without points; its rows are written first."""
        if not self.active:
            return None
        run.materialise()
        return self.error(step)

    def prepare(self) -> None:
        """Compute, once, what the rows that are not held contribute."""
        if self.active:
            self.rest = self.device.asarray(self.network.predict(self.X), np.float64) - self._held()

    def error(self, step: int) -> float | None:
        """Return the mean squared error now, and remember the weights if it is the best so far."""
        if not self.active:
            return None
        error = float(((self.rest + self._held() - self.y) ** 2).mean())
        self.last = step
        self.waited += 1
        if error < self.best:
            self.best, self.best_step, self.waited, self.best_rows = error, step, 0, self.network.rows.copy()
            self.best_second = self.network.second  # replaced by steps, never changed
        return error

    def restore_best(self) -> int | None:
        """Put the best weights back; return their step, None where they are the last."""
        if self.best_rows is None or not (self.network.rows != self.best_rows).any():
            return None
        moved = row_distances(self.network.rows, self.best_rows)  # (u,)
        neurons = self.device.xp.flatnonzero(moved).astype(np.int32)
        self.returned = neurons, moved[neurons]
        self.network.rows = self.best_rows  # not in place: with a ridge penalty W_0 may be the same array
        self.network.second = self.best_second
        return self.best_step

    def _held(self) -> Array:
        """Return the output of the rows held, (k,) or (k, c) float64."""
        network, signs = self.network, self.network.signs
        total = self.device.xp.zeros((len(self.X), *signs.shape[1:]))
        for first in range(0, len(network.rows), VALIDATION_ROWS):
            W = network.rows[first : first + VALIDATION_ROWS]
            total += self.device.matmul(network.hidden(self.X, W), signs[first : first + VALIDATION_ROWS])
        return total * network.scale
