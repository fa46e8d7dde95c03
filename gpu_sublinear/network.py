"""The network: f(x) = m^{-1/2} sum_r a_r relu(<w_r, x> - b), its initialisation and its output on new data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from .devices import Array, Device, get_device
from .errors import DataError, OptionError

PREDICT_POINTS, PREDICT_NEURONS = (
    2048,
    4096,
)  # predict's blocks: 8 M pre-activations at a time fit any machine
PAPER_FACTOR = 0.48


def paper_shift(width: int) -> float:
    """Return the paper's shift ``sqrt(0.48 ln m)``: with it at most O(m^0.76) neurons fire on a point."""
    return math.sqrt(PAPER_FACTOR * math.log(width))


def firing_probability(shift: float) -> float:
    """Return ``Q(b) = Pr[N(0, 1) > b]``, the chance that a fresh neuron fires on a unit point."""
    return float(ndtr(-shift))


def shift_for_fired(width: int, fired: float) -> float:
    """Return the shift at which ``fired`` of ``width`` fresh neurons are expected to fire on a point (>= 0)."""
    return max(0.0, float(-ndtri(min(1.0, fired / width))))


@dataclass
class ShiftedReluNetwork:
    """A two-layer network with fixed, balanced second layer and shifted ReLU.

    Attributes
    ----------
    W : Array
        (m, d) first-layer weights on ``device``.
    signs : Array
        (m,) second layer, +1 and -1 in turn, so that they sum to zero.
    shift : float
        b >= 0: neuron r fires on x when ``<w_r, x> > b``.
    seed : int
        Seed of the initial weights and, during training, of the sketches.
    paired : bool
        Whether neurons 2k and 2k + 1 began equal, which makes the initial output exactly zero.
    device : Device
        Owner of the arrays.
    """

    W: Array
    signs: Array
    shift: float
    seed: int
    paired: bool
    device: Device

    @classmethod
    def initialize(
        cls,
        width: int,
        features: int,
        *,
        shift: float | str = "paper",
        seed: int = 0,
        dtype: str = "float32",
        paired: bool = False,
        device: Device | None = None,
    ) -> ShiftedReluNetwork:
        """Draw a network at random: ``W_rj ~ N(0, 1)`` independent, keyed by (seed, r, j).

        Parameters
        ----------
        width : int
            m, even, 2 to 2^31 - 1.
        features : int
            d, at least 1.
        shift : float or "paper"
            b >= 0, or the paper's ``sqrt(0.48 ln m)``.
        seed : int
            0 <= seed < 2^64.
        dtype : {"float32", "float64"}
            Type of weights, data and products.
        paired : bool
            Give both neurons of each pair of opposite signs the same weights.
        device : Device, optional
            Default: ``get_device("auto")``.

        Returns
        -------
        ShiftedReluNetwork
            The network, on ``device``.

        Raises
        ------
        OptionError
            If an argument is outside the range above.
        """
        _check_shape(width, features)
        if dtype not in ("float32", "float64"):
            raise OptionError(f"dtype must be 'float32' or 'float64'; got {dtype!r}")
        if not 0 <= seed < 2**64:
            raise OptionError(f"seed must be an integer from 0 to 2^64 - 1; got {seed}")
        device = device or get_device()
        W = device.normal_rows(seed, 0, width, features, dtype, paired)  # (m, d)
        return cls(W, balanced_signs(width, dtype, device), resolve_shift(shift, width), seed, paired, device)

    @property
    def width(self) -> int:
        """Number of neurons, m."""
        return int(self.W.shape[0])

    @property
    def features(self) -> int:
        """Number of features, d."""
        return int(self.W.shape[1])

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float64"``."""
        return str(self.W.dtype)

    @property
    def scale(self) -> float:
        """The factor ``m^{-1/2}`` in front of the sum."""
        return 1.0 / math.sqrt(self.width)

    def move(self, neurons: Array, change: Array) -> None:
        """Subtract ``change`` (u, d) from the weights of ``neurons`` (u,) int32, in place."""
        self.device.update_rows(self.W, neurons, change.astype(self.W.dtype))

    def predict(self, X: Any) -> np.ndarray:
        """Return the output for new points, computed densely, in blocks that bound the memory.

        Parameters
        ----------
        X : array
            (n, d), prepared like the training data (unit rows).

        Returns
        -------
        ndarray
            (n,) float64 on the host.

        Raises
        ------
        DataError
            If X is not a finite (n, d) array.
        """
        X = self.device.asarray(checked_points(X, self.features), self.dtype)
        parts = [self._outputs(X[i : i + PREDICT_POINTS]) for i in range(0, len(X), PREDICT_POINTS)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _outputs(self, X: Array) -> np.ndarray:
        total = self.device.xp.zeros(len(X))  # (n,) float64
        for first in range(0, self.width, PREDICT_NEURONS):
            rows = slice(first, first + PREDICT_NEURONS)
            above = self.device.matmul(X, self.W[rows].T) - self.W.dtype.type(self.shift)  # (n, block)
            total += self.device.matmul(above.clip(0), self.signs[rows])
        return self.device.to_host(total * self.scale)


def balanced_signs(width: int, dtype: str, device: Device) -> Array:
    """Return +1, -1, +1, ... (m,): weights are exchangeable, so any balanced order is as random as another."""
    return device.asarray(np.where(np.arange(width) % 2 == 0, 1, -1), dtype)


def resolve_shift(shift: float | str, width: int) -> float:
    """Return the shift as a number.

    Parameters
    ----------
    shift : float or "paper"
        What the user asked for.
    width : int
        m, for the paper's rule.

    Returns
    -------
    float
        b >= 0.

    Raises
    ------
    OptionError
        If it is negative, not finite or an unknown word.
    """
    if shift == "paper":
        return paper_shift(width)
    try:
        value = float(shift)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise OptionError(f"shift must be a finite number >= 0 or 'paper'; got {shift!r}")
    return value


def checked_points(X: Any, features: int) -> Any:
    """Return X if it is a finite (n, ``features``) array.

    Parameters
    ----------
    X : array
        Points of any device.
    features : int
        Columns it must have.

    Returns
    -------
    array
        X itself.

    Raises
    ------
    DataError
        Otherwise, naming what was found.
    """
    if getattr(X, "ndim", 0) != 2 or X.shape[1] != features:
        raise DataError(f"X must have shape (n, {features}); got {getattr(X, 'shape', type(X).__name__)}")
    if not all_finite(X):
        raise DataError("X holds NaN or infinite values; remove or impute these rows first")
    return X


def all_finite(array: Any) -> bool:
    """Tell whether a NumPy or CuPy array holds neither NaN nor infinities."""
    return bool((abs(array) < np.inf).all())


def _check_shape(width: int, features: int) -> None:
    if not 2 <= width < 2**31:
        raise OptionError(f"width must be from 2 to 2^31 - 1; got {width}")
    if width % 2:
        raise OptionError(f"width must be even so that the signs balance; got {width}, use {width + 1}")
    if features < 1:
        raise OptionError(f"features must be at least 1; got {features}")
