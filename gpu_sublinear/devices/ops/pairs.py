"""What a device must do with the fired pairs: sum outputs, turn lists over, count common neurons, sort by point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType

import numpy as np

from ..formats import Array, NeuronLists


class PairOps(ABC):
    """Fired pairs, by point and by neuron."""

    xp: ModuleType

    @abstractmethod
    def forward(self, indptr: Array, indices: Array, values: Array, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) float64, summed in float64; signs (m,) REAL."""

    @abstractmethod
    def transpose(self, indptr: Array, indices: Array, m: int) -> tuple[Array, Array, Array, Array]:
        """Turn lists of neurons per point into lists of points per neuron.

        Returns
        -------
        neurons : Array
            (u,) int32, ascending: the neurons that fire on some point.
        t_indptr : Array
            (u + 1,) int64.
        t_points : Array
            (nnz,) int32, ascending for each neuron.
        compact : Array
            (nnz,) int32: position in ``neurons`` of every entry of ``indices``.
        """

    @abstractmethod
    def count_pairs(self, indptr: Array, compact: Array, t_indptr: Array, t_points: Array) -> Array:
        """Return ``M^T M``, (n, n) float64: the number of neurons that fire on both of two points, exactly."""

    @abstractmethod
    def change_pairs(self, counts: Array, before: NeuronLists, after: NeuronLists, limit: int) -> bool:
        """Turn ``M^T M`` of ``before`` into that of ``after`` in place; counts (n, n) float64, whole numbers.

        Costs the lengths of both lists of a neuron for every pair of it that fires in one of the two and not in the
        other.  Where that sum exceeds ``limit`` nothing is changed.

        Returns
        -------
        bool
            Whether the counts were changed.
        """

    def by_point(self, points: Array, n: int) -> tuple[Array, Array]:
        """Return the order (f,) int64 that sorts points (f,) stably, and where each begins in it, (n + 1,) int64."""
        order = self.xp.argsort(points, kind="stable")
        starts = self.xp.searchsorted(points[order], self.xp.arange(n + 1, dtype=points.dtype))
        return order, starts.astype(np.int64)

    def run_starts(self, values: Array) -> Array:
        """Return the places at which runs of equal values (f,) start, int64; there is at least one value."""
        return self.xp.flatnonzero(self.xp.concatenate([self.xp.ones(1, bool), values[1:] != values[:-1]]))

    def sums_by_point(self, order: Array, ends: Array, terms: Array) -> Array:
        """Return the sums of terms (f,) float64 of each point, (n,), in the order of :meth:`by_point`."""
        return self.forward(ends, self.xp.zeros(len(order), np.int32), terms[order], self.xp.ones(1), 0.0)
