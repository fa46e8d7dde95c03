"""What a device must do with packed masks: look at all pairs, count, move rows, multiply."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..formats import Array


class BitOps(ABC):
    """Masks of one bit for each pair."""

    @abstractmethod
    def pack_mask(self, X: Array, W: Array, signs: Array, shift: float) -> tuple[Array, Array]:
        """Look at all pairs; return who fires, one bit each, and the sums of the outputs.

        X (n, d), W (u, d), signs (u,) all REAL.

        Returns
        -------
        bits : Array
            (ceil(u / 64), n) uint64: bit k of bits[w, i] is ``P[i, 64 w + k] > REAL(shift)``; zeros beyond u.
        totals : Array
            (n,) float64: ``sum_{r in S_i} a_r (P_ir - b)``, summed in float64.
        """

    @abstractmethod
    def near_mask(self, X: Array, W: Array, signs: Array, shift: float, radius: float) -> tuple[Array, Array, Array]:
        """Return what :meth:`pack_mask` does, and as many bits that say which pairs are near.

        Near is a pair whose computed number is within REAL(radius) of REAL(shift), the difference rounded.
        """

    @abstractmethod
    def mask_by_rows(self, bits: Array, rows: int) -> Array:
        """Turn words of neurons (words, n) into words of points, (rows, ceil(n / 64)) uint64, zeros beyond n."""

    @abstractmethod
    def mask_sizes(self, bits: Array) -> tuple[Array, int]:
        """Return the number of bits set for each point, (n,) int64, and of neurons with a bit set for some point."""

    @abstractmethod
    def count_mask(self, bits: Array, before: Array | None = None, counts: Array | None = None) -> Array:
        """Return ``M^T M``, (n, n) float64 whole numbers: bits set for both of two points.

        A device may start from ``counts``, those of the mask ``before``, where few bits differ; both are left as they
        are.
        """

    @abstractmethod
    def move_mask(self, W: Array, X: Array, bits: Array, weights: Array, g: Array) -> Array:
        """Subtract ``J^T g`` from all rows in place and return how far each moved, (u,) float64.

        ``W[r] <- REAL(W[r] - weights_r sum_i M_ri g_i x_i)``, sums in float64, as in :meth:`move_rows`; W (u, d),
        weights (u,), g (n,) float64.
        """

    @abstractmethod
    def mask_product(self, X: Array, bits: Array, weights: Array, V: Array) -> Array:
        """Return ``J v``: ``sum_r M_ri weights_r <V_r, x_i>``, (n,) float64; weights (u,), V (u, d) float64."""
