"""The ridge penalty by cross-validation: a path of penalties on every fold, all from one scan.

A fold trains on a part of the points, for one penalty after the other, each from the last solution, and is judged on
the rest.  The scan of all points has found who may fire on the rest, too: a second index, over these points alone,
follows the rows and sums their outputs from the pairs that fire; nobody looks at all neurons again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import to_host
from .checks import check_every_point_fires, check_training_data
from .devices import Array
from .errors import DataError, OptionError
from .flips import FlipIndex
from .lazy import LazyIndex
from .path import ScanIndex, SharedScan, ascending, check_alphas, warm_starts
from .run import Run
from .state import forward
from .sums import row_distances
from .tree import ThresholdTree

ALPHAS = np.logspace(3, -4, 15)  # to try where nobody says which; below, fits hardly change
PATIENCE = 3  # penalties in a row that gain nothing: neighbours differ less by chance than by what they are
GAIN = 0.01  # of the least mean error: less is far below its standard error, which folds leave at some hundredths


@dataclass(frozen=True)
class CrossValidation:
    """Errors of every penalty on points that training did not see.

    Attributes
    ----------
    alphas : ndarray
        (k,) penalties, decreasing.
    errors : ndarray
        (k, folds) mean squared errors on the points that a fold leaves out, weighted, the mean over several targets;
        NaN where the search ended before.
    sizes : ndarray
        (folds,) how many points those are, or the sum of their weights.
    steps : ndarray
        (k, folds) int64 Gauss-Newton steps taken.
    """

    alphas: np.ndarray
    errors: np.ndarray
    sizes: np.ndarray
    steps: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(k,) mean squared error of each penalty over all points that were left out; NaN where a fold is missing."""
        return self.errors @ (self.sizes / self.sizes.sum())

    @property
    def standard_error(self) -> np.ndarray:
        """(k,) standard error of ``mean``, from the differences between two folds or more."""
        return self.errors.std(axis=1, ddof=1) / np.sqrt(self.errors.shape[1])

    @property
    def complete(self) -> int:
        """How many penalties were tried on all folds; they are the first."""
        return int(np.isfinite(self.mean).sum())

    @property
    def best(self) -> int:
        """Place of the penalty of least mean error, the largest of equal ones, among those tried on all folds."""
        return int(np.nanargmin(self.mean))

    @property
    def alpha(self) -> float:
        """The penalty of least mean error."""
        return float(self.alphas[self.best])


class Unseen:
    """Outputs at points that a run does not train on, from an index of their own that follows the run's rows.

    Parameters
    ----------
    scan : SharedScan
        Of all points.
    run : Run
        A training from it, with a ridge penalty.
    points : ndarray
        (k,) numbers of the points.
    """

    def __init__(self, scan: SharedScan, run: Run, points: np.ndarray):
        self.run, self.points, self.rows = run, scan.network.device.asarray(points, np.int64), run.network.rows
        self.index: ScanIndex | None = None
        if not isinstance(run.index, FlipIndex):  # which follows all points anyway
            self.index = scan.index_of(run.network, points)
            if isinstance(self.index, LazyIndex):
                self.index.keep_empty = True

    def outputs(self) -> Array:
        """Return what the network says now, (k,) or (k, c) float64."""
        network, index = self.run.network, self.index
        if index is None:
            assert isinstance(self.run.index, FlipIndex)
            return self.run.index.totals[self.points] * network.scale
        if network.rows is not self.rows and isinstance(index, LazyIndex | ThresholdTree):
            moved = row_distances(network.rows, self.rows)
            neurons = network.device.xp.flatnonzero(moved).astype(np.int32)
            index.update_any(network.rows, neurons, moved[neurons])
        self.rows = network.rows
        return forward(network, index.query(network.shift))


def cross_validate(
    scan: SharedScan,
    y: Any,
    alphas: Sequence[float],
    folds: Iterable[tuple[Any, Any]],
    sample_weight: Any = None,
    patience: int | None = PATIENCE,
) -> CrossValidation:
    """Train every fold for every penalty, and judge it on the points that the fold leaves out.

    Parameters
    ----------
    scan : SharedScan
        Of all points, for as many trainings at a time as there are folds; built with the least of the penalties.
    y : array
        (n,) or (n, c) targets.
    alphas : sequence of float
        Penalties above 0, in units of tr(G_0)/n of a fold, in any order.
    folds : iterable of (ndarray, ndarray)
        Numbers of the points to train on and of those to judge by, as splitters of scikit-learn give them; two or more.
    sample_weight : array, optional
        (n,) w_i > 0, of training and errors.
    patience : int or None
        The search ends when so many penalties in a row did not lower the least mean error by 1 %: the smaller a
        penalty, the longer its trainings.  None tries all.

    Returns
    -------
    CrossValidation
        Penalties decreasing.

    Raises
    ------
    OptionError
        If a penalty is not above 0, there are no two folds, or the two parts of one are empty or overlap.
    SilentPointsError
        If some point fires no neuron.
    DataError
        If no penalty gives errors that are numbers.
    """
    *_, (_, _, found) = trainings(scan, y, alphas, folds, sample_weight, patience)
    if not found.complete:
        raise DataError("every penalty led some fold to errors that are no numbers; give larger alphas, or scale y")
    return found


def trainings(
    scan: SharedScan,
    y: Any,
    alphas: Sequence[float],
    folds: Iterable[tuple[Any, Any]],
    sample_weight: Any = None,
    patience: int | None = PATIENCE,
) -> Iterator[tuple[int, int, CrossValidation]]:
    """Do what :func:`cross_validate` does, and tell after each training.

    All folds go from penalty to penalty together, so that the search can end where it is of no use to go on.

    Parameters
    ----------
    scan, y, alphas, folds, sample_weight, patience
        As for :func:`cross_validate`.

    Yields
    ------
    k : int
        Number of the penalty of this training.
    fold : int
        Its fold.
    found : CrossValidation
        What is known by now: the same object each time.

    Raises
    ------
    OptionError
        As :func:`cross_validate` does.
    SilentPointsError
        If some point fires no neuron.
    """
    order, n, device = np.sort(check_alphas(alphas))[::-1], len(scan.X), scan.network.device
    parts = [checked_fold(*fold, n) for fold in folds]
    if len(parts) < 2:
        raise OptionError(f"cross-validation needs at least two folds; got {len(parts)}")
    y = check_training_data(device, scan.X, y, scan.network.features, True, scan.network.outputs)
    check_every_point_fires(scan.index.query(scan.network.shift), scan.X, scan.network)  # folds number their own points
    y, w = device.to_host(y), np.ones(n) if sample_weight is None else np.asarray(to_host(sample_weight), np.float64)
    errors = np.full((len(order), len(parts)), np.nan)
    sizes = np.array([w[test].sum() for _, test in parts])
    found = CrossValidation(order, errors, sizes, np.zeros(errors.shape, np.int64))
    runs = [scan.run(y[train], train, 1.0, None if sample_weight is None else w[train]) for train, _ in parts]
    paths = [warm_starts(run, order.tolist()) for run in runs]
    unseen = [Unseen(scan, run, test) for run, (_, test) in zip(runs, parts, strict=True)]
    least, waited = np.inf, 0
    for k in range(len(order)):
        for fold, (_, test) in enumerate(parts):
            _, result = next(paths[fold])
            wrong = (device.to_host(unseen[fold].outputs()) - y[test]) ** 2
            errors[k, fold] = np.average(wrong.reshape(len(test), -1).mean(axis=1), weights=w[test])
            found.steps[k, fold] = len(result.history) - 1
            yield k, fold, found
        waited = 0 if found.mean[k] < (1 - GAIN) * least else waited + 1
        least = min(least, found.mean[k])
        if waited == patience:
            return


def checked_fold(train: Any, test: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two parts of a fold of n points, each ascending, or raise OptionError."""
    train, test = (ascending(np.sort(np.asarray(part)), n) for part in (train, test))
    if not (len(train) and len(test)):
        raise OptionError("a fold needs points to train on and points to judge by; one of its parts is empty")
    both = np.intersect1d(train, test)
    if len(both):
        raise OptionError(f"point {both[0]} of a fold is in both of its parts; judge it by points that it leaves out")
    return train, test
