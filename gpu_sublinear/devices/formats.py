"""What operations take and return besides arrays: trees, sparse matrices, lists, near pairs, implicit rows, flips.

Letters as in :mod:`gpu_sublinear.devices.base`; ``REAL`` is the data type of the run, float32 or float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray: the device says which


@dataclass(frozen=True)
class TreeLayout:
    """Where the nodes of one max-tree over m leaves lie in a row of memory.

    Level 0 holds the leaves (neuron r at column r), level l + 1 the maxima of groups of ``arity`` nodes of level
    l; the top level has at most ``arity`` nodes.  All n trees are rows of one array ``nodes`` (n, ``total``).
    Offsets are multiples of 16 elements, so that the children of a node share a memory sector when ``arity`` is a
    power of two up to 16.

    Parameters
    ----------
    m : int
        Number of leaves (neurons), at least 1.
    arity : int
        Children per node, at least 2.
    """

    m: int
    arity: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of nodes of each level, leaves first."""
        sizes = [self.m]
        while sizes[-1] > self.arity:
            sizes.append(-(-sizes[-1] // self.arity))
        return tuple(sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Column at which each level starts, leaves first."""
        return tuple(int(offset) for offset in np.cumsum([0, *self._padded[:-1]]))

    @property
    def total(self) -> int:
        """Columns of ``nodes``: all levels with their padding."""
        return sum(self._padded)

    @property
    def _padded(self) -> list[int]:
        return [-(-size // 16) * 16 for size in self.sizes]


@dataclass(frozen=True)
class CSR:
    """A sparse matrix in compressed rows on some device.

    Attributes
    ----------
    data : Array
        (nnz,) REAL.
    indices : Array
        (nnz,) int32, ascending within each row.
    indptr : Array
        (rows + 1,) int64.
    shape : tuple of int
        (rows, columns).
    """

    data: Array
    indices: Array
    indptr: Array
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return int(self.data.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return int(self.data.nbytes + self.indices.nbytes + self.indptr.nbytes)


@dataclass(frozen=True)
class NeuronLists:
    """Lists of points, one for each of some neurons.

    Attributes
    ----------
    neurons : Array
        (u,) int32, ascending.
    indptr : Array
        (u + 1,) int64: neuron k of the list owns entries indptr[k] .. indptr[k + 1].
    points : Array
        (nnz,) int32, ascending for each neuron.
    """

    neurons: Array
    indptr: Array
    points: Array

    @property
    def nnz(self) -> int:
        """Number of pairs."""
        return int(self.points.shape[0])


@dataclass(frozen=True)
class NearPairs:
    """Pairs near the threshold, by neuron: neuron r owns entries starts[r] .. stops[r] of ``points`` and ``values``.

    Attributes
    ----------
    starts, stops : Array
        (u,) int64; entries that nobody owns may lie between.
    points : Array
        (capacity,) int32, ascending for each neuron.
    values : Array
        (capacity,) REAL, their pre-activations when last looked at.
    """

    starts: Array
    stops: Array
    points: Array
    values: Array

    @property
    def nnz(self) -> int:
        """Number of pairs."""
        return int((self.stops - self.starts).sum())


@dataclass(frozen=True)
class ImplicitRows:
    """Rows that are known, not stored.

    ``w_r = W_r - weights_r (sum_i M_ri total_i x_i + sum_e coefficients_e x_{points_e})``, and e runs over the log
    entries of neuron r: ``heads[r]``, ``before[heads[r]]``, ... until -1.

    Attributes
    ----------
    W : Array
        (u, d) REAL, the rows where they were last stored.
    X : Array
        (n, d) REAL points.
    bits : Array
        (u, ceil(n / 64)) uint64: bit i % 64 of bits[r, i // 64] is M_ri, zeros beyond n.
    weights : Array
        (u,) float64, ``a_r m^{-1/2}``.
    total : Array
        (n,) float64, the sum of all steps g.
    heads : Array
        (u,) int32, the latest log entry of each neuron, -1 for none.
    before : Array
        (L,) int32, the entry before.
    points : Array
        (L,) int32.
    coefficients : Array
        (L,) float64.
    """

    W: Array
    X: Array
    bits: Array
    weights: Array
    total: Array
    heads: Array
    before: Array
    points: Array
    coefficients: Array


@dataclass(frozen=True)
class Flips:
    """Pairs whose bit is wrong, ascending by neuron, then by point.

    Attributes
    ----------
    neurons, points : Array
        (f,) int32.
    above : Array
        (f,) float64, ``|<w_r, x_i> - b|`` at the implicit rows.
    """

    neurons: Array
    points: Array
    above: Array

    def __len__(self) -> int:
        return int(self.neurons.shape[0])
