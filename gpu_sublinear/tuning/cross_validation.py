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

from ..data.arrays import to_host
from ..errors import DataError, OptionError
from ..training.checks import check_every_point_fires, check_training_data
from .shared_scan import SharedScan, ascending, check_alphas, positive_weights, warm_starts, whole_numbers

ALPHAS = np.logspace(3, -4, 15)  # to try where nobody says which; below, fits hardly change
PATIENCE = 3  # penalties with higher errors, at least: neighbours differ less by chance than by what they are
SPAN = 10.0  # from the penalty before them to the last of them, at least: a grid may be fine
CLEAR = 0.01  # of an error: less is far below its standard error, which folds leave at some hundredths
NO_NUMBERS = "every penalty led some fold to errors that are no numbers; give larger alphas, or scale y"


@dataclass
class Rise:
    """Tells where, from large penalties to small ones, errors have risen for long.

    Penalties so large that weights hardly move leave the error of the network as it was drawn, and the next smaller
    ones may raise it before it falls (where folds differ in their means, or many features say the same): there is no
    end before an error was lower by ``CLEAR``.  Nor is one where errors stand still, for they may fall again (where a
    target has coarse and fine parts).  The search ends after ``patience`` penalties in a row, and a factor of ``SPAN``
    between them, whose errors are above the least by ``CLEAR`` of it.

    Attributes
    ----------
    untrained : float
        Mean error of the network before training.
    patience : int or None
        Penalties whose errors may be higher; None never ends.
    least : float
        Error so far.
    since : float
        The last penalty whose error was not clearly above the least.
    waited : int
        Penalties after it.
    fallen : bool
        Whether an error was clearly lower than ``untrained``.
    """

    untrained: float
    patience: int | None = PATIENCE
    least: float = np.inf
    since: float = np.inf
    waited: int = 0
    fallen: bool = False

    def ends(self, alpha: float, error: float) -> bool:
        """Take the mean error of the next smaller penalty; return whether the search ends there."""
        self.fallen = self.fallen or error < (1 - CLEAR) * self.untrained
        self.least = min(self.least, error)
        if not self.fallen or error < (1 + CLEAR) * self.least:
            self.since, self.waited = alpha, 0
            return False
        self.waited += 1
        far = self.since >= SPAN * alpha * (1 - 1e-9)  # grids of equal ratios meet it up to rounding
        return far and self.patience is not None and self.waited >= self.patience


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

    def checked(self) -> CrossValidation:
        """Return this, or raise DataError if no penalty gave numbers on all folds."""
        if not np.isfinite(self.mean).any():
            raise DataError(NO_NUMBERS)
        return self

    @property
    def complete(self) -> int:
        """How many penalties have errors that are numbers on all folds."""
        return int(np.isfinite(self.mean).sum())

    @property
    def best(self) -> int:
        """Place of the penalty of least mean error, the largest of equal ones, among those tried on all folds."""
        return int(np.nanargmin(self.mean))

    @property
    def alpha(self) -> float:
        """The penalty of least mean error."""
        return float(self.alphas[self.best])


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
        The search ends when so many penalties in a row, a factor of 10 or more between them, had mean errors 1 % and
        more above the least, once that has fallen 1 % below the error of the untrained network: the smaller a penalty,
        the longer its trainings.  None tries all.

    Returns
    -------
    CrossValidation
        Penalties decreasing.

    Raises
    ------
    OptionError
        If a penalty or weight is not above 0, there are no two folds, or the two parts of one are empty or overlap.
    SilentPointsError
        If some point fires no neuron.
    DataError
        If weights or targets are not n finite numbers, or no penalty gives errors that are numbers.
    """
    *_, (_, _, found) = trainings(scan, y, alphas, folds, sample_weight, patience)
    return found.checked()


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
    DataError
        If weights or targets are not n finite numbers.
    """
    order, n, device = np.sort(check_alphas(alphas))[::-1], len(scan.X), scan.network.device
    parts = [checked_fold(fold, n) for fold in folds]
    if len(parts) < 2:
        raise OptionError(f"cross-validation needs at least two folds; got {len(parts)}")
    y = check_training_data(device, scan.X, y, scan.network.features, True, scan.network.outputs)
    check_every_point_fires(
        scan.index.query(scan.network.shift).counts, scan.X, scan.network
    )  # folds number their own points
    y, w = device.to_host(y), np.ones(n) if sample_weight is None else np.asarray(to_host(sample_weight), np.float64)
    positive_weights(device, w, n)
    errors = np.full((len(order), len(parts)), np.nan)
    sizes = np.array([w[test].sum() for _, test in parts])
    found = CrossValidation(order, errors, sizes, np.zeros(errors.shape, np.int64))

    def error(fold: int) -> float:
        """Return the mean squared error of a fold's network on the points that it leaves out."""
        test = parts[fold][1]
        wrong = (device.to_host(unseen[fold].outputs()) - y[test]) ** 2
        return float(np.average(wrong.reshape(len(test), -1).mean(axis=1), weights=w[test]))

    runs = [scan.run(y[train], train, 1.0, None if sample_weight is None else w[train]) for train, _ in parts]
    paths = [warm_starts(run, order.tolist()) for run in runs]
    unseen = [
        run.index.beside(run.network, scan.index, scan.X[device.asarray(test, np.int64)], test)
        for run, (_, test) in zip(runs, parts, strict=True)
    ]
    rise = Rise(float(np.average([error(fold) for fold in range(len(parts))], weights=sizes)), patience)
    for k, alpha in enumerate(order):
        for fold in range(len(parts)):
            _, result = next(paths[fold])
            errors[k, fold] = error(fold)
            found.steps[k, fold] = len(result.history) - 1
            yield k, fold, found
        if rise.ends(alpha, found.mean[k]):
            return


def checked_fold(fold: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two parts of a fold of n points, each ascending, or raise OptionError."""
    try:
        train, test = fold
    except (TypeError, ValueError) as error:
        raise OptionError("a fold is a pair: numbers of the points to train on, and of those to judge by") from error
    train, test = (ascending(np.sort(whole_numbers(part)), n) for part in (train, test))
    if not (len(train) and len(test)):
        raise OptionError("a fold needs points to train on and points to judge by; one of its parts is empty")
    both = np.intersect1d(train, test)
    if len(both):
        raise OptionError(f"point {both[0]} of a fold is in both of its parts; judge it by points that it leaves out")
    return train, test
