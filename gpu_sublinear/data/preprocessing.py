"""From raw features to unit rows and from raw targets to standard ones; both belong to a trained model.

Statistics come from the training points alone and never change afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from ..errors import DataError, OptionError

Kind = Literal["standard", "smooth", "unit"]
OUTGROWN = 10.0  # spread of later points, in deviations of the first ones, beyond which these were not typical
DISTANCE = 2.0  # of the sphere of standardised points from the origin, in units of its radius sqrt(d), for "smooth"


def as_points(X: object, name: str = "X") -> np.ndarray:
    """Return ``X`` as a finite (n, d) float64 array.

    Parameters
    ----------
    X : array_like
        (n, d) real numbers, n >= 1 and d >= 1.
    name : str
        What the messages call it.

    Returns
    -------
    numpy.ndarray
        (n, d) float64, C-contiguous.

    Raises
    ------
    DataError
        If it is not two-dimensional, empty, not numeric, or holds NaN or infinity (the first place is named).
    """
    points = _as_float64(X, name)
    if points.ndim != 2:
        raise DataError(
            f"{name} must have two dimensions (points, features), but its shape is {points.shape}; "
            "reshape a single feature with .reshape(-1, 1) and a single point with .reshape(1, -1)"
        )
    if 0 in points.shape:
        raise DataError(f"{name} is empty: {points.shape[0]} points of {points.shape[1]} features; give some data")
    bad = np.argwhere(~np.isfinite(points))
    if len(bad):
        row, column = (int(k) for k in bad[0])
        raise DataError(
            f"{name} holds {points[row, column]} at row {row}, column {column} (counted from 0; "
            f"{len(bad)} such values in all); remove or fill in these values"
        )
    return points


def as_targets(y: object, points: int | None = None, name: str = "y", several: bool = False) -> np.ndarray:
    """Return ``y`` as a finite (n,) float64 array, or (n, c) where several targets are allowed.

    Parameters
    ----------
    y : array_like
        (n,) or (n, 1) real numbers; with ``several`` also (n, c).
    points : int, optional
        The number n that it must have.
    name : str
        What the messages call it.
    several : bool
        Whether there may be more than one target for each point.

    Returns
    -------
    numpy.ndarray
        (n,) or (n, c) float64; a single column becomes (n,).

    Raises
    ------
    DataError
        If it is not one-dimensional, has another length, is not numeric, or holds NaN or infinity.
    """
    targets = _as_float64(y, name)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1 and not (several and targets.ndim == 2 and targets.shape[1]):
        raise DataError(f"{name} must be one number per point, but its shape is {targets.shape}; give one column")
    if points is not None and len(targets) != points:
        raise DataError(f"{name} has {len(targets)} values for {points} points; give one value per point")
    finite = np.isfinite(targets)
    bad = np.flatnonzero(~finite.reshape(len(targets), targets[:1].size or 1).all(axis=1))
    if len(bad):
        first = targets[bad[0]][~finite[bad[0]]].ravel()[0]
        raise DataError(
            f"{name} holds {first} at row {bad[0]} (counted from 0; {len(bad)} such values in "
            "all); remove these points or fill in their targets"
        )
    return np.ascontiguousarray(targets)


def _as_float64(values: object, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf" and not (array.dtype.kind == "O" and array.size):
            raise TypeError(f"its type is {array.dtype}")
        return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold real numbers only, but {error}; encode other values as numbers") from error


@dataclass(frozen=True)
class Preprocessing:
    """How raw features become the unit rows that the network sees.

    ``standard`` subtracts the mean, divides by the standard deviation, appends a constant coordinate 1, and
    normalises each row.  ``smooth`` does the same with a constant coordinate of ``2 sqrt(d)``: standardised points
    have a length about sqrt(d), so most unit rows lie within 30 degrees of the last axis, almost as flat as the points
    were, and the network learns smoother functions.  That is better on noisy data and slower to interpolate.
    ``unit`` only normalises.  A feature that is constant in training becomes 0 everywhere.

    Attributes
    ----------
    kind : str
        ``"standard"``, ``"smooth"`` or ``"unit"``.
    mean : numpy.ndarray
        (d,) float64, means of the training features (zeros for ``unit``).
    scale : numpy.ndarray
        (d,) float64, standard deviations of the training features, 0 where constant (ones for ``unit``).  For
        ``smooth`` times ``2 sqrt(d)``, which puts the constant coordinate back to 1.
    """

    kind: Kind
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, X: object, kind: str = "standard", weights: np.ndarray | None = None) -> Preprocessing:
        """Take the statistics of the training points.

        Parameters
        ----------
        X : array_like
            (n, d) raw features.
        kind : str
            ``"standard"``, ``"smooth"`` or ``"unit"``.
        weights : numpy.ndarray, optional
            (n,) numbers above 0, how much each point counts.

        Returns
        -------
        Preprocessing
            The frozen transformation.

        Raises
        ------
        OptionError
            If there is no such kind.
        """
        if kind not in get_args(Kind):
            raise OptionError(f"preprocessing is 'standard', 'smooth' or 'unit', not {kind!r}")
        X = as_points(X)  # (n, d)
        d = X.shape[1]
        if kind == "unit":
            return cls("unit", np.zeros(d), np.ones(d))
        mean, scale = _mean_and_deviation(X, weights)
        if kind == "smooth":
            scale = scale * (DISTANCE * math.sqrt(d))
        return cls(cast(Kind, kind), mean, scale)

    @property
    def standardises(self) -> bool:
        """Whether features are standardised and get a constant coordinate."""
        return self.kind != "unit"

    @property
    def features(self) -> int:
        """Number of raw features."""
        return len(self.mean)

    @property
    def inputs(self) -> int:
        """Number of coordinates that the network sees."""
        return self.features + self.standardises

    def outgrown(self, X: object) -> np.ndarray:
        """Return the features that vary among these points as they did not where the statistics were taken.

        Parameters
        ----------
        X : array_like
            (n, features) raw features of later points.

        Returns
        -------
        numpy.ndarray
            Numbers of the columns whose root mean square distance from the mean is above ``OUTGROWN`` deviations: a
            constant feature that varies now, which stays 0 for the network, or one whose values now outweigh all else.
        """
        if not self.standardises:
            return np.zeros(0, np.int64)
        deviation = self.scale / (DISTANCE * math.sqrt(self.features) if self.kind == "smooth" else 1.0)
        distance = as_points(X) - self.mean  # (n, features)
        size = np.abs(distance).max(axis=0)
        spread = size * np.sqrt(((distance / np.where(size > 0, size, 1.0)) ** 2).mean(axis=0))
        return np.flatnonzero(spread > OUTGROWN * deviation)

    def transform(self, X: object) -> np.ndarray:
        """Return the rows that the network sees.

        Parameters
        ----------
        X : array_like
            (n, features) raw features.

        Returns
        -------
        numpy.ndarray
            (n, inputs) float64, rows of unit Euclidean norm.

        Raises
        ------
        DataError
            If ``X`` is not finite and numeric, has another number of features, or (``unit``) has a row of
            zeros.
        """
        X = as_points(X)  # (n, features)
        if X.shape[1] != self.features:
            raise DataError(
                f"X has {X.shape[1]} features, but the model was trained on {self.features}; "
                "give the same features in the same order"
            )
        if self.standardises:
            X = self._standardise(X)  # (n, inputs)
        return _unit_rows(X)

    def _standardise(self, X: np.ndarray) -> np.ndarray:
        constant = self.scale == 0
        with np.errstate(over="ignore", invalid="ignore"):
            Z = (X - self.mean) / np.where(constant, 1.0, self.scale)  # (n, features)
        Z[:, constant] = 0.0
        if not np.isfinite(Z).all():
            row, column = (int(k) for k in np.argwhere(~np.isfinite(Z))[0])
            raise DataError(
                f"X holds {X[row, column]} at row {row}, column {column} (counted from 0), which overflows "
                "when it is standardised; rescale this feature"
            )
        return np.hstack([Z, np.ones((len(Z), 1))])


def _mean_and_deviation(X: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (weighted) mean and standard deviation by column, without overflow; exactly 0 for a constant column."""
    size = np.abs(X).max(axis=0)  # (d,)
    size[size == 0] = 1.0
    mean = np.average(X / size, axis=0, weights=weights) * size
    deviation = X / size - mean / size  # (n, d)
    spread = np.abs(deviation).max(axis=0)
    spread[spread == 0] = 1.0
    scale = np.sqrt(np.average((deviation / spread) ** 2, axis=0, weights=weights)) * spread * size
    constant = X.max(axis=0) == X.min(axis=0)  # the mean of a constant may round, its extremes do not
    return np.where(constant, X[0], mean), np.where(constant, 0.0, scale)


def _unit_rows(X: np.ndarray) -> np.ndarray:
    size = np.abs(X).max(axis=1, keepdims=True)  # (n, 1); dividing first keeps squares in range
    zero = np.flatnonzero(size == 0)
    if len(zero):
        raise DataError(
            f"row {zero[0]} of X (counted from 0) is all zeros and cannot be scaled to unit length "
            f"({len(zero)} such rows in all); remove these rows or use the 'standard' preprocessing"
        )
    X = X / size
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@dataclass(frozen=True)
class TargetScaling:
    """The line between targets in their own units and the standard ones of training.

    Attributes
    ----------
    mean : float or numpy.ndarray
        Mean of the training targets; (c,) for several targets.
    std : float or numpy.ndarray
        Standard deviation of the training targets, positive; (c,) for several targets.
    """

    mean: float | np.ndarray
    std: float | np.ndarray

    @classmethod
    def fit(cls, y: object) -> TargetScaling:
        """Take the statistics of the training targets.

        Parameters
        ----------
        y : array_like
            (n,) or (n, c) targets, n >= 2, no column with all equal.

        Returns
        -------
        TargetScaling
            The frozen scaling.

        Raises
        ------
        DataError
            If there are fewer than two targets or all are equal.
        """
        y = as_targets(y, several=True)
        if len(y) < 2:
            raise DataError(f"training needs at least 2 points, but there is {len(y)}; give more data")
        mean, std = _mean_and_deviation(y.reshape(len(y), -1))
        if not std.all():
            k = int(np.argmin(std))
            which = "the target is" if y.ndim == 1 else f"target {k} (counted from 0) is"
            raise DataError(
                f"{which} constant: all {len(y)} training values are {y.reshape(len(y), -1)[0, k]:g}, so there is "
                "nothing to learn; choose another target column"
            )
        return cls(float(mean[0]), float(std[0])) if y.ndim == 1 else cls(mean, std)

    @classmethod
    def forgiving(cls, y: np.ndarray, weights: np.ndarray | None = None, together: bool = False) -> TargetScaling:
        """Take the statistics of targets that may be constant; those keep their scale.

        Parameters
        ----------
        y : numpy.ndarray
            (n,) or (n, c) finite targets.
        weights : numpy.ndarray, optional
            (n,) numbers above 0.
        together : bool
            Whether columns share one deviation, the root of their mean variance.

        Returns
        -------
        TargetScaling
            The frozen scaling.
        """
        mean, std = _mean_and_deviation(y.reshape(len(y), -1), weights)
        if together:
            std = np.full_like(std, np.sqrt((std**2).mean()))
        std = np.where(std > 0, std, 1.0)
        return cls(float(mean[0]), float(std[0])) if y.ndim == 1 else cls(mean, std)

    def transform(self, y: object) -> np.ndarray:
        """Return ``(y - mean) / std``, (n,) or (n, c) float64."""
        return (as_targets(y, several=np.ndim(self.mean) > 0) - self.mean) / self.std

    def inverse(self, y: np.ndarray) -> np.ndarray:
        """Return ``y std + mean``, (n,) or (n, c) float64: targets in their own units."""
        return y * self.std + self.mean
