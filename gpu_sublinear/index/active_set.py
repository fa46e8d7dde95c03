"""Which neuron fires on which point: the sparse pattern that everything else in a step follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..devices import Array, Device, NeuronLists
from .protocol import FiredPairs, Jacobian, PairCounts, PlainMask

FLIP_PENALTY = 8  # a flip's increments go to scattered rows on one thread, a recount's to one row in the cache on all


@dataclass(frozen=True)
class ActiveSet(PlainMask):
    """The fired pairs, by point and by neuron, with the pre-activations that decided them.

    Attributes
    ----------
    indptr : Array
        (n + 1,) int64: point i owns entries indptr[i] .. indptr[i + 1] of ``compact`` and ``values``.
    compact : Array
        (nnz,) int32: position in ``fired.neurons`` of the neurons ``S_i`` that fire on i, ascending.
    values : Array
        (nnz,) the computed numbers ``P_ir > b``.
    fired : NeuronLists
        The union U of all ``S_i``, and the points on which each of its neurons fires.
    visited : int
        Numbers compared with the threshold to find them: tree nodes, or candidate products.
    """

    indptr: Array
    compact: Array
    values: Array
    fired: NeuronLists
    visited: int

    @classmethod
    def of(cls, device: Device, found: tuple[Array, Array, Array, int], width: int) -> ActiveSet:
        """Complete what a tree query returned with the lists by neuron."""
        indptr, indices, values, visited = found
        neurons, t_indptr, t_points, compact = device.transpose(indptr, indices, width)
        return cls(indptr, compact, values, NeuronLists(neurons, t_indptr, t_points), visited)

    @property
    def lists(self) -> FiredPairs:
        """Itself."""
        return self

    @property
    def indices(self) -> Array:
        """(nnz,) int32: the neurons themselves."""
        return self.fired.neurons[self.compact]

    @property
    def nnz(self) -> int:
        """Number of fired pairs."""
        return self.fired.nnz

    @property
    def union(self) -> int:
        """Number of neurons that fire on at least one point."""
        return int(self.fired.neurons.shape[0])

    @property
    def neurons(self) -> Array:
        """(u,) int32: the rows that a step moves."""
        return self.fired.neurons

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) or (n, c) float64; signs (u,) or (u, c) of all rows held."""
        arrays, neurons = (self.indptr, self.compact, self.values), self.fired.neurons
        if signs.ndim == 1:
            return device.forward(*arrays, signs[neurons], shift)
        columns = [device.forward(*arrays, signs[:, k][neurons], shift) for k in range(signs.shape[1])]
        return device.xp.stack(columns, axis=1)

    @cached_property
    def pairs(self) -> float:
        """``sum_r |fire(r)|^2``: what counting all pairs of points by neurons costs."""
        lengths = (self.fired.indptr[1:] - self.fired.indptr[:-1]).astype(np.float64)
        return float((lengths * lengths).sum())

    @property
    def counts(self) -> Array:
        """(n,) number of neurons fired on each point, k_i."""
        return self.indptr[1:] - self.indptr[:-1]

    def pair_counts(self, device: Device, known: PairCounts | None) -> PairCounts:
        """Return ``M^T M``, flip by flip where that is cheaper: ``delta M' + M^T delta``, ``delta = M' - M``."""
        limit, fired = int(self.pairs) // FLIP_PENALTY, self.fired
        if known and known.lists is not None and device.change_pairs(known.counts, known.lists, fired, limit):
            return PairCounts(known.counts, fired, recounted=False)
        return PairCounts(device.count_pairs(self.indptr, self.compact, fired.indptr, fired.points), fired)

    def jacobian(self, system: Any) -> Jacobian:
        """Return J in the form that the options ask of lists."""
        return system.of_lists(self)

    def masked(self, device: Device, X: Array) -> ListedPoints:
        """Return the map of the mask on points X (n, d)."""
        return ListedPoints(device, X, self.fired)

    def fires(self, device: Device, rows: int) -> Array:
        """Return whether each of the rows held fires somewhere, (rows,) bool."""
        fires = device.xp.zeros(rows, bool)
        fires[self.fired.neurons] = True
        return fires


@dataclass(frozen=True)
class ListedPoints:
    """The map of listed pairs on points: see :class:`gpu_sublinear.index.protocol.MaskedPoints`.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    X : Array
        (n, d) points.
    fired : NeuronLists
        The pairs.
    """

    device: Device
    X: Array
    fired: NeuronLists

    @property
    def neurons(self) -> Array:
        """(u,) int32: those that fire."""
        return self.fired.neurons

    def gathered(self, g: Array) -> Array:
        """Return ``T_r = sum_i M_ri g_i x_i``, (u, d) float64."""
        return self.device.factored_transposed(self.X, self.fired, self._ones, g)

    def summed(self, V: Array) -> Array:
        """Return ``sum_r M_ri <V_r, x_i>``, (n,) float64."""
        return self.device.factored_product(self.X, self.fired, self._ones, V)

    def move(self, W: Array, weights: Array, g: Array) -> Array:
        """Apply ``w_r <- w_r - weights_r T_r`` in place; return how far each moved, (u,) float64."""
        return self.device.move_rows(W, self.X, self.fired, weights, g)

    @cached_property
    def _ones(self) -> Array:
        return self.device.xp.ones(len(self.fired.neurons))
