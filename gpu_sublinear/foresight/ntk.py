"""The kernel that a shifted-ReLU network of infinite width has, and ridge regression with it.

For unit points x and x' and w ~ N(0, I) the two pre-activations are standard normal with correlation
``rho = <x, x'>``, so the expected Gram matrix of the network's Jacobian is

    K(x, x') = <x, x'> Pr[u > b, v > b].

The joint tail has a form without cancellation.  Plackett's identity (*Biometrika* 41, 1954) integrated over the
correlation r from -1, where the tail is empty, with ``2 / (1 + r) = cosh(x)^2``, gives

    Pr[u > b, v > b] = 1/pi * integral from x_0 to infinity of exp(-b^2 cosh(x)^2 / 2) / cosh(x) dx,
    sinh(x_0) = ((1 - rho) / (1 + rho))^{1/2},

with a positive, analytic integrand: the relative error stays near rounding also where the tail is 1e-30.  (It is
``Q(b) - 2 T(b, sinh x_0)`` with Owen's T, without the difference; at rho = 1 it is Craig's formula for one normal.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..devices import get_device
from ..errors import DataError, OptionError
from ..linear.solvers import gram_cholesky
from ..model.network import NORM_TOLERANCE, all_finite

NODES = 64  # of Gauss-Legendre: relative error below 1e-12 for 0 <= b <= 8 (tests/foresight/test_ntk.py)
DROPPED = 45.0  # the integral ends where the integrand is below exp(-45) = 3e-20 of its largest value
ALMOST_ZERO = 1e-17  # a threshold that changes no double


def bivariate_tail(b: float, rho: Any) -> np.ndarray:
    """Return ``Pr[u > b, v > b]`` for standard normal u, v of correlation ``rho``.

    Parameters
    ----------
    b : float
        The threshold, at least 0.
    rho : array_like
        Correlations, any shape; values beyond -1 or 1 by rounding (up to 1e-3) count as -1 or 1.

    Returns
    -------
    ndarray
        float64, the shape of ``rho``; relative error about 1e-12.

    Raises
    ------
    OptionError
        If b is negative or not finite.
    DataError
        If a correlation is not a number from -1 to 1.

    Notes
    -----
    Gauss-Legendre on the integral of the module docstring, over the part where the integrand is not negligible.
    """
    if not 0 <= b < np.inf:
        raise OptionError(f"b must be a finite number >= 0; got {b}")
    rho = np.asarray(rho, np.float64)
    if not all_finite(rho) or (abs(rho) > 1 + NORM_TOLERANCE).any():
        raise DataError("rho must hold numbers from -1 to 1: are the rows of X of unit norm?")
    rho = np.clip(rho, -1.0, 1.0)
    if b < ALMOST_ZERO:
        return (np.pi - np.arccos(rho)) / (2 * np.pi)
    slope = np.sqrt((1 - rho) / np.maximum(1 + rho, 1e-300))  # sinh(x_0)
    first = np.arcsinh(slope)
    half = (np.arcsinh(np.hypot(slope, np.sqrt(2 * DROPPED) / b)) - first) / 2
    total = np.zeros_like(first)
    for node, weight in zip(*np.polynomial.legendre.leggauss(NODES), strict=True):
        cosh = np.cosh(first + (1 + node) * half)
        total += weight * np.exp(-((b * cosh) ** 2) / 2) / cosh
    return total * half / np.pi


def shifted_ntk(X: Any, Y: Any | None, b: float) -> np.ndarray:
    """Return the kernel of the infinitely wide network between two sets of points.

    Parameters
    ----------
    X : array_like
        (n, d) rows of unit norm.
    Y : array_like or None
        (k, d) rows of unit norm; None stands for X.
    b : float
        The shift, at least 0.

    Returns
    -------
    ndarray
        (n, k) float64, ``<x, y> Pr[u > b, v > b]``: the expectation of the Gram matrix ``J J^T`` at initialisation.

    Raises
    ------
    DataError
        If the points are no finite matrices of unit rows with equally many columns.
    """
    X = _unit_rows(X, "X")
    Y = X if Y is None else _unit_rows(Y, "Y")
    if X.shape[1] != Y.shape[1]:
        raise DataError(f"X has {X.shape[1]} columns and Y has {Y.shape[1]}; both must be points of one space")
    rho = X @ Y.T  # (n, k)
    return rho * bivariate_tail(b, rho)


@dataclass
class NtkRidge:
    """Kernel ridge regression with the shifted NTK, in closed form.

    Without ridge it is what training a network of infinite width, zero at the start, ends at.

    Attributes
    ----------
    shift : float
        b of the kernel, at least 0.
    alpha : float
        Ridge: ``(K + alpha I) c = y``; 0 interpolates.
    """

    shift: float
    alpha: float = 0.0

    def fit(self, X: Any, y: Any) -> NtkRidge:
        """Solve for the coefficients by Cholesky, or by least norm where the kernel matrix is singular.

        Parameters
        ----------
        X : array_like
            (n, d) rows of unit norm.
        y : array_like
            (n,) targets.

        Returns
        -------
        NtkRidge
            Itself.

        Raises
        ------
        DataError
            If X or y is not usable.
        OptionError
            If alpha is negative.
        """
        if not self.alpha >= 0:
            raise OptionError(f"alpha must be at least 0; got {self.alpha}")
        self.points = _unit_rows(X, "X")
        y = np.asarray(y, np.float64)
        if y.shape != (len(self.points),) or not all_finite(y):
            raise DataError(f"y must be ({len(self.points)},) finite numbers, one for each row of X")
        K = shifted_ntk(self.points, None, self.shift)  # (n, n)
        K[np.diag_indices(len(K))] += self.alpha
        self.coefficients = gram_cholesky(get_device("reference"), K, y).value  # (n,)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the values at new points.

        Parameters
        ----------
        X : array_like
            (k, d) rows of unit norm.

        Returns
        -------
        ndarray
            (k,) float64.
        """
        return shifted_ntk(X, self.points, self.shift) @ self.coefficients


def _unit_rows(points: Any, name: str) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not all_finite(points):
        raise DataError(f"{name} must be a finite (n, d) matrix; got shape {points.shape}")
    if (abs(np.linalg.norm(points, axis=1) - 1) > NORM_TOLERANCE).any():
        raise DataError(
            f"the rows of {name} must have unit norm (gpu_sublinear.data.preprocessing.Preprocessing does this)"
        )
    return points
