"""Which neuron fires on which point: the sparse pattern that everything else in a step follows."""

from __future__ import annotations

from dataclasses import dataclass

from .devices import Array, Device


@dataclass(frozen=True)
class ActiveSet:
    """The fired pairs, by point and by neuron, with the pre-activations that decided them.

    Attributes
    ----------
    indptr, indices : Array
        (n + 1,) int64 and (nnz,) int32: the neurons ``S_i`` that fire on point i, ascending.
    values : Array
        (nnz,) pre-activations ``P_ir > b``, as read from the leaves.
    neurons : Array
        (u,) int32, ascending: the union U of all ``S_i``.
    t_indptr, t_points : Array
        (u + 1,) int64 and (nnz,) int32: the points on which each neuron of U fires.
    compact : Array
        (nnz,) int32: the position in ``neurons`` of every entry of ``indices``.
    visited : int
        Tree nodes compared with the threshold to find them.
    """

    indptr: Array
    indices: Array
    values: Array
    neurons: Array
    t_indptr: Array
    t_points: Array
    compact: Array
    visited: int

    @classmethod
    def of(cls, device: Device, found: tuple[Array, Array, Array, int], width: int) -> ActiveSet:
        """Complete what a tree query returned with the lists by neuron."""
        indptr, indices, values, visited = found
        return cls(indptr, indices, values, *device.transpose(indptr, indices, width), visited)

    @property
    def nnz(self) -> int:
        """Number of fired pairs."""
        return int(self.indices.shape[0])

    @property
    def union(self) -> int:
        """Number of neurons that fire on at least one point."""
        return int(self.neurons.shape[0])

    @property
    def counts(self) -> Array:
        """(n,) number of neurons fired on each point, k_i."""
        return self.indptr[1:] - self.indptr[:-1]
