"""Many trainings from one look at the neurons: regularisation paths, several targets, folds.

The first scan of all neurons is the larger part of one training.  Which neurons fire at the start, and on which points,
depends on the weights and the points alone, not on targets or penalty, and for a part of the points it is the same
answer restricted to them.  :class:`SharedScan` keeps it; every training begins from a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.arrays import of_table
from ..devices import Array, Device
from ..errors import OptionError
from ..index.protocol import Index
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..options import MOST_SCALE
from ..step.history import TrainingResult
from ..step.run import Run
from ..training import support
from ..training.checks import check_training_data
from ..training.gauss_newton import GaussNewton
from ..training.loop import train
from ..training.prepare import begin, build_index


@dataclass(frozen=True)
class SharedScan:
    """The network restricted to the neurons that take part, and where they fire at the start.

    Attributes
    ----------
    trainer : GaussNewton
        Options of all trainings; a time budget is that of each.
    network : ShiftedReluNetwork
        As it was given, holding the rows that take part; never changed by the trainings.
    X : Array
        (n, d) points.
    index : Index
        As the scan left it.
    """

    trainer: GaussNewton
    network: ShiftedReluNetwork
    X: Array
    index: Index

    @classmethod
    def build(
        cls, trainer: GaussNewton, network: ShiftedReluNetwork, X: Any, y: Any = None, trainings: int = 1
    ) -> SharedScan:
        """Look at all neurons once.

        Parameters
        ----------
        trainer : GaussNewton
            Options.
        network : ShiftedReluNetwork
            Will hold the rows that take part.
        X : array
            (n, d) unit rows: all points that any training uses.
        y : array, optional
            (n,) targets like those to come: ``mask="flips"`` foresees from them how far the first steps go, which only
            its speed depends on.  Noise takes their place by default, which lists more pairs than smooth targets need.
        trainings : int
            How many there will be at a time, for ``memory_limit``.

        Returns
        -------
        SharedScan
            From which trainings begin.

        Raises
        ------
        OptionError
            If the trainer works on batches or both layers or keeps points for early stopping, or the activation is not
            relu or max.
        """
        support.check(trainer, network, support.SHARED_SCAN)
        X, y = of_table(X), of_table(y)
        if y is None:
            y = np.random.default_rng(network.seed).standard_normal((len(X), network.outputs))
            y = y if network.outputs > 1 else y[:, 0]
        y = check_training_data(network.device, X, y, network.features, True, network.outputs)  # fit looks closer
        X = network.device.asarray(X, network.dtype)
        index = build_index(trainer, network, Problem(X, network.device.asarray(y)), trainings)
        return cls(trainer, network, X, index)

    def run(self, y: Any, points: Any = None, alpha: float | None = None, sample_weight: Any = None) -> Run:
        """Return a training that is ready to start, with a network of its own.

        Parameters
        ----------
        y : array
            (n,) or (n, c) targets, or those of the ``points``.
        points : array of int, optional
            Numbers of the points to train on, ascending; all by default.
        alpha : float, optional
            Ridge penalty in place of the trainer's.
        sample_weight : array, optional
            (n,) w_i > 0, or those of the ``points``, as for :meth:`GaussNewton.fit`.

        Returns
        -------
        Run
            For :meth:`GaussNewton.train`.

        Raises
        ------
        OptionError
            If a point has weight 0, or ``points`` are no numbers of points, ascending.
        """
        device = self.network.device
        trainer = self.trainer if alpha is None else replace(self.trainer, alpha=alpha)
        network = replace(self.network, rows=self.network.rows.copy())
        chosen = None if points is None else ascending(points, len(self.X))
        X = self.X if chosen is None else self.X[device.asarray(chosen, np.int64)]
        y = check_training_data(device, X, y, network.features, trainer.robust, network.outputs)
        weights = positive_weights(device, sample_weight, len(X))
        problem = Problem(X, device.asarray(y, np.float64), weights)
        return begin(trainer, network, problem, self.index_of(network, chosen))

    def index_of(self, network: ShiftedReluNetwork, chosen: np.ndarray | None = None) -> Index:
        """Return an index of its own, where the scan left this one, for a network with the same rows.

        Parameters
        ----------
        network : ShiftedReluNetwork
            Whose rows queries will read.
        chosen : ndarray, optional
            (k,) points that the index is for, ascending; all by default.

        Returns
        -------
        Index
            Ready for queries.
        """
        points = None if chosen is None else self.network.device.asarray(chosen, np.int64)
        return self.index.again(network, self.X if points is None else self.X[points], chosen)

    def fit(self, y: Any, points: Any = None, alpha: float | None = None, sample_weight: Any = None) -> TrainingResult:
        """Train one network from the scan.

        Parameters
        ----------
        y : array
            (n,) targets, or those of the ``points``.
        points : array of int, optional
            A fold: the points to train on, ascending.
        alpha, sample_weight : optional
            As for :meth:`run`.

        Returns
        -------
        TrainingResult
            With a network of its own.
        """
        run = self.run(y, points, alpha, sample_weight)
        return train(run)

    def path(
        self, y: Any, alphas: Sequence[float], points: Any = None, sample_weight: Any = None
    ) -> Iterator[TrainingResult]:
        """Train for each penalty in turn, from the last solution.

        Parameters
        ----------
        y : array
            (n,) or (n, c) targets, or those of the ``points``.
        alphas : sequence of float
            Penalties above 0, in units of tr(G_0)/n, best from the largest on.
        points, sample_weight : optional
            As for :meth:`run`.

        Yields
        ------
        TrainingResult
            One for each penalty, with a network of its own.
        """
        run = self.run(y, points, 1.0, sample_weight)
        for before, result in warm_starts(run, check_alphas(alphas)):
            rows = run.network.rows  # steps with a penalty make new ones
            yield replace(result, network=replace(run.network, rows=rows.copy() if rows is before else rows))


def warm_starts(run: Run, alphas: Sequence[float]) -> Iterator[tuple[Array, TrainingResult]]:
    """Train for each penalty from the last solution.

    Parameters
    ----------
    run : Run
        Inputs with alpha = 1, so that its ridge is tr(G_0)/n.
    alphas : sequence of float
        Penalties.

    Yields
    ------
    before : Array
        (u, d) the rows that training began with.
    result : TrainingResult
        All results share the network of the run.
    """
    unit, options = run.ridge, run.options
    for alpha in alphas:
        run.options, run.ridge, before = replace(options, alpha=alpha), alpha * unit, run.network.rows
        result = train(run)
        run.warm = True  # from now on a point may fall silent
        yield before, result


def ascending(points: Any, n: int) -> np.ndarray:
    """Return the points (k,) of a fold, of n, or raise OptionError unless they are such and ascend."""
    points = whole_numbers(points)
    if (np.diff(points) <= 0).any():
        raise OptionError("points of a fold must be ascending and without repetition")
    if len(points) and not 0 <= points[0] <= points[-1] < n:
        raise OptionError(f"points of a fold must be numbers from 0 to {n - 1}; got {points[0]} to {points[-1]}")
    return points


def whole_numbers(points: Any) -> np.ndarray:
    """Return the points (k,) of a fold as int64, or raise OptionError unless they are a list of whole numbers."""
    points = np.asarray(points)
    if points.ndim != 1 or (points.size and points.dtype.kind not in "iu"):
        raise OptionError(
            f"points of a fold must be a list of whole numbers; got shape {points.shape} of {points.dtype} "
            "(numpy.flatnonzero makes them of a mask)"
        )
    return points.astype(np.int64)  # an empty list is one of float64


def positive_weights(device: Device, sample_weight: Any, n: int) -> SampleWeights:
    """Return the weights (n,), or raise OptionError where one is 0: scan and folds number the points as given."""
    weights = SampleWeights.of(device, sample_weight, n)
    if weights.roots is not None and not bool((weights.roots > 0).all()):
        raise OptionError("trainings from a shared scan take weights above 0; leave the points of weight 0 out")
    return weights


def ridge_path(
    network: ShiftedReluNetwork, X: Any, y: Any, alphas: Sequence[float], trainer: GaussNewton | None = None
) -> list[TrainingResult]:
    """Train for every penalty of a decreasing sequence, each from the last solution.

    One scan, one index, one W_0; ``alpha`` is in units of tr(G_0)/n of the initial network throughout.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Initial weights W_0; it keeps them.
    X, y : array
        (n, d) unit rows and (n,) targets.
    alphas : sequence of float
        Penalties above 0, in any order; trained from the largest on.
    trainer : GaussNewton, optional
        Options; its alpha is not used.

    Returns
    -------
    list of TrainingResult
        In the order of ``alphas``, each with a network of its own.

    Raises
    ------
    OptionError
        If there is no penalty, or one is not above 0.
    """
    alphas = check_alphas(alphas)
    scan = SharedScan.build(replace(trainer or GaussNewton(), alpha=min(alphas)), network, X, y)
    order = sorted(range(len(alphas)), key=lambda k: -alphas[k])
    found = dict(zip(order, scan.path(y, [alphas[k] for k in order]), strict=True))
    return [found[k] for k in range(len(alphas))]


def check_alphas(alphas: Any) -> list[float]:
    """Return the penalties of a path as numbers, or raise OptionError if there is none or one is not above 0."""
    try:
        found = [float(alpha) for alpha in alphas]
    except (TypeError, ValueError) as error:
        raise OptionError(f"the alphas of a path must be a sequence of numbers above 0; got {alphas!r}") from error
    if not found:
        raise OptionError("a path needs at least one alpha; got none")
    if not all(0 < alpha <= MOST_SCALE for alpha in found):
        bad = next(alpha for alpha in found if not 0 < alpha <= MOST_SCALE)
        raise OptionError(f"every alpha of a path must be above 0 and at most {MOST_SCALE:g}; got {bad}")
    return found
