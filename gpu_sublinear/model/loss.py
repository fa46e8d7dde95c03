"""Sample weights: how much each point counts in the loss ``1/2 sum_i w_i (f_i - y_i)^2``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..devices import Array, Device
from ..errors import DataError


@dataclass(frozen=True)
class SampleWeights:
    """The weights of the points of a run; all 1 where there are none.

    Attributes
    ----------
    roots : Array or None
        (n,) float64, ``sqrt(w_i)``.
    """

    roots: Array = None

    @classmethod
    def of(cls, device: Device, weights: Any, n: int) -> SampleWeights:
        """Check what the user gave.

        Parameters
        ----------
        device : Device
            Where the run is.
        weights : array_like or None
            (n,) numbers >= 0.
        n : int
            Points.

        Returns
        -------
        SampleWeights
            On the device.

        Raises
        ------
        DataError
            If there are not n finite numbers >= 0, at least one of them above.
        """
        if weights is None:
            return cls()
        w = np.asarray(device.to_host(weights) if isinstance(weights, device.xp.ndarray) else weights, np.float64)
        if w.shape != (n,):
            raise DataError(f"sample_weight must have shape ({n},), one number for each row of X; got {w.shape}")
        if not np.isfinite(w).all() or (w < 0).any():
            raise DataError("sample_weight must hold finite numbers >= 0; replace the others")
        if not w.any():
            raise DataError("all sample weights are 0, so there is nothing to train on; give some points a weight")
        return cls(device.asarray(np.sqrt(w)))

    def without_zeros(self, *arrays: Array) -> tuple[Any, ...]:
        """Return the arrays (n, ...) and the weights without the points of weight 0."""
        if self.roots is None or bool((self.roots > 0).all()):
            return *arrays, self
        kept = self.roots > 0
        return *(array[kept] for array in arrays), SampleWeights(self.roots[kept])

    def part(self, points: Array) -> SampleWeights:
        """Return the weights of some points, by number (k,); all of them for None."""
        return self if self.roots is None or points is None else SampleWeights(self.roots[points])

    def scaled(self, array: Array) -> Array:
        """Return ``sqrt(w_i)`` times row i of an array (n, ...), of its own type."""
        if self.roots is None:
            return array
        roots = self.roots.astype(array.dtype)
        return array * roots.reshape(-1, *(1,) * (array.ndim - 1))

    def total(self, n: int) -> float:
        """``sum_i w_i``: of n points without weights n."""
        return float(n) if self.roots is None else float((self.roots**2).sum())
