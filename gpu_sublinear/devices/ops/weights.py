"""What a device must do with weights: draw them, keyed by seed and index, and change rows in place."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..formats import Array


class WeightOps(ABC):
    """Initial weights and their update."""

    @abstractmethod
    def normal_rows(self, seed: int, start: int, stop: int, d: int, dtype: str, paired: bool = False) -> Array:
        """Return rows ``start`` .. ``stop`` of the initial weights, (stop - start, d) of ``dtype``.

        Entry (r, j) is a standard normal that depends on (seed, r, j) alone: Philox4x32-10 with key = seed and
        counter = (r low, r high, j // 2, :data:`gpu_sublinear.devices.philox.WEIGHTS`), 52 bits, inverse normal
        distribution function.  ``paired`` uses r // 2 in place of r.
        """

    @abstractmethod
    def cap_rows(self, seed: int, directions: Array, tails: Array, owners: Array, places: Array, dtype: str) -> Array:
        """Return initial weights drawn from caps, (k, d) of ``dtype``: ``w = z + (t - <z, e_i>) e_i``, i = owners[r].

        z is standard normal in d dimensions and ``t = Q^{-1}(tails[i] u)``, u uniform in (0, 1), Q the upper tail of
        the standard normal.  Both depend on (seed, i, places[r]) alone: Philox4x32-10 with key = seed and counters
        (place, i, j // 2, CAPS) and (place, i, 0, CAP_DEPTHS).  All in float64, each operation rounded once, the inner
        product summed feature by feature; rounded to ``dtype`` in the end.  directions (n, d), tails (n,) in (0, 1/2]
        float64; owners (k,) int32, places (k,) int64 from 0 to 2^32 - 1.
        """

    @abstractmethod
    def update_rows(self, W: Array, neurons: Array, delta: Array) -> None:
        """Subtract in place: ``W[neurons] -= delta``; W (m, d), neurons (u,) int32 distinct, delta (u, d) REAL."""
