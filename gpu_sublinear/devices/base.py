"""The op list: what a device must be able to do, in one place, with its meaning.

Everything above this layer speaks of networks, trees and Jacobians; everything below it of loops, blocks and
streams.  :class:`Device` states the operations once: names, arguments, shapes, dtypes and formulas.
``reference`` (NumPy) is the specification, ``cpu`` (Numba) and ``cuda`` (CuPy and raw kernels) are fast, and
one set of tests runs on all of them.

Letters, as in the papers: n points, d features, m neurons, i a point, r a neuron, j a feature, b the shift.
``REAL`` below is the data type of the run, float32 or float64.

**The computed number.**  Whether a neuron fires is decided by one floating-point number, the pre-activation
``P[i, r]``.  Every device computes it in the same order, ``((x_0 w_0 + x_1 w_1) + x_2 w_2) + ...``, each product
and each sum rounded to ``REAL`` (no fused multiply-add), so that equal weights give equal bits, and equal
firing decisions, on every device and in every evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

BLOCK = 1 << 14  # rows widened at a time: their float64 copy stays in the cache
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


class Device(ABC):
    """One machine that can run the method; see the module docstring for the conventions.

    Attributes
    ----------
    name : str
        ``"reference"``, ``"cpu"`` or ``"cuda"``.
    xp : module
        NumPy or CuPy: the owner of this device's arrays.
    check_every : int
        Solver iterations between two looks at the residual from the host (1 where a look is free).
    sort_bytes : int
        Bytes per fired pair that :meth:`evaluate` holds for a moment besides its results.
    """

    name: str
    xp: ModuleType
    check_every: int = 1
    sort_bytes: int = 0

    # ---- the machine ------------------------------------------------------------------------------------

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return the name, model and library versions of this device, for reports."""

    @abstractmethod
    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """Return ``array`` as a C-contiguous array of this device, copied only where needed."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """Return ``array`` as a NumPy array."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    @abstractmethod
    def peak_bytes(self) -> int:
        """Return the largest memory held so far: device memory for a GPU, resident memory of the process else."""

    @abstractmethod
    def total_bytes(self) -> int:
        """Return the memory of the device: what no array may exceed."""

    # ---- weights ----------------------------------------------------------------------------------------

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

    # ---- threshold trees --------------------------------------------------------------------------------

    @abstractmethod
    def fill_leaves(self, nodes: Array, X: Array, W: Array, neurons: Array | None = None) -> None:
        """Write the computed number ``<x_i, w_r>`` to ``nodes[i, r]`` for all i and the r in ``neurons`` (or all).

        nodes (n, total), X (n, d), W (m, d), all REAL; neurons (u,) int32 distinct.
        """

    @abstractmethod
    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write the maxima of their children to the nodes of ``level`` >= 1, in all n trees.

        ``parents`` (p,) int32 restricts the work to these nodes of the level.
        """

    @abstractmethod
    def query_tree(self, nodes: Array, layout: TreeLayout, threshold: float) -> tuple[Array, Array, Array, int]:
        """Return the leaves above ``threshold`` of every tree, found from the top, pruning maxima <= threshold.

        The comparison is strict and made in REAL: ``P[i, r] > REAL(threshold)``.

        Returns
        -------
        indptr : Array
            (n + 1,) int64: point i owns entries indptr[i] .. indptr[i + 1].
        indices : Array
            (nnz,) int32 neurons, ascending for each point.
        values : Array
            (nnz,) REAL, the leaf values read.
        visited : int
            Number of node values compared with the threshold, over all trees.
        """

    # ---- active set -------------------------------------------------------------------------------------

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

    # ---- candidate lists (certified lazy index) -----------------------------------------------------------

    @abstractmethod
    def scan(self, X: Array, W: Array, neurons: Array, thresholds: Array) -> tuple[Array, Array]:
        """Return the pairs whose computed number exceeds their neuron's threshold; no number is kept.

        X (n, d) and W (m, d) REAL, neurons (u,) int32 distinct, thresholds (u,) REAL.

        Returns
        -------
        indptr : Array
            (u + 1,) int64.
        points : Array
            (nnz,) int32, ascending for each neuron.
        """

    @abstractmethod
    def evaluate(
        self, X: Array, W: Array, lists: NeuronLists, shift: float
    ) -> tuple[NeuronLists, Array, Array, Array, Array]:
        """Compute the candidate pairs anew and keep those that fire, ``P[i, r] > REAL(shift)``, in both orders.

        Returns
        -------
        fired : NeuronLists
            The neurons that fire on some point, with their points.
        places : Array
            (u,) int64: position in ``lists.neurons`` of each neuron of ``fired``.
        indptr : Array
            (n + 1,) int64: the same pairs by point.
        compact : Array
            (nnz,) int32: position in ``fired.neurons``, ascending for each point.
        values : Array
            (nnz,) REAL computed numbers, in the order of ``compact``.
        """

    @abstractmethod
    def rescan(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> NeuronLists:
        """Return ``lists`` without the pairs whose computed number is not above the threshold of their neuron.

        thresholds (u,) REAL, one for each of ``lists.neurons``; minus infinity keeps a list as it is.
        """

    @abstractmethod
    def splice(self, lists: NeuronLists, places: Array, indptr: Array, points: Array) -> NeuronLists:
        """Return ``lists`` with those at the ascending positions ``places`` (p,) int64 replaced by (indptr, points)."""

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

    # ---- packed masks -------------------------------------------------------------------------------------

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

    # ---- factored Jacobian ---------------------------------------------------------------------------------

    @abstractmethod
    def factored_gram(self, X: Array, fired: NeuronLists, g: Array) -> Array:
        """Return ``sum_r M_ri <x_i, sum_k M_rk g_k x_k>``, (n,) float64: ``m G g`` without storing J."""

    @abstractmethod
    def factored_product(self, X: Array, fired: NeuronLists, weights: Array, V: Array) -> Array:
        """Return ``J v``: ``sum_r M_ri weights_r <V_r, x_i>``, (n,) float64; weights (u,), V (u, d) float64."""

    @abstractmethod
    def factored_transposed(self, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Return ``J^T g`` by rows: ``weights_r sum_i M_ri g_i x_i``, (u, d) float64."""

    @abstractmethod
    def move_rows(self, W: Array, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Subtract ``J^T g`` from the rows of the fired neurons in place and return how far each moved.

        ``W[r] <- REAL(W[r] - weights_r sum_i M_ri g_i x_i)``, sums in float64.

        Returns
        -------
        Array
            (u,) float64: Euclidean norm of the difference of the stored rows, rounding included.
        """

    @abstractmethod
    def pull_rows(self, W: Array, initial: Array, neurons: Array, change: Array, theta: float) -> tuple[Array, Array]:
        """Return the rows after a step that pulls them towards their initial values; W stays as it is.

        ``W'[r] = REAL(W0[r] + (1 - theta) (W[r] - W0[r]) - change_r)``, in float64, rounded once; the last term for
        ``neurons`` (u,) int32 ascending alone.  W and W0 = ``initial`` (rows, d) REAL, change (u, d) float64.  For
        theta = 1 a row without change gets its initial value, bit for bit.

        Returns
        -------
        rows : Array
            (rows, d) REAL, a new array.
        moved : Array
            (rows,) float64: ``||W'[r] - W[r]||`` of the stored rows.
        """

    def pull_lists(
        self, W: Array, initial: Array, X: Array, fired: NeuronLists, weights: Array, g: Array, theta: float
    ) -> tuple[Array, Array]:
        """Return what :meth:`pull_rows` does, for the change that :meth:`factored_transposed` gives."""
        return self.pull_rows(W, initial, fired.neurons, self.factored_transposed(X, fired, weights, g), theta)

    # ---- movements from earlier rows ------------------------------------------------------------------------

    def movement(self, W: Array, initial: Array, neurons: Array) -> Array:
        """Return how these rows (k,) of W (u, d) differ from those of ``initial`` (u, d), (k, d) float64."""
        D = W.take(neurons, axis=0).astype(np.float64)
        D -= initial.take(neurons, axis=0)
        return D

    def factored_along(self, X: Array, fired: NeuronLists, weights: Array, W: Array, initial: Array) -> Array:
        """Return :meth:`factored_product` with the :meth:`movement` of the fired rows from ``initial`` to W as V."""
        return self.factored_product(X, fired, weights, self.movement(W, initial, fired.neurons))

    def square_distance(self, A: Array, B: Array) -> float:
        """Return ``||A - B||^2`` (Frobenius) of two arrays, (u, d) or (u,), summed in float64; waits for the device."""
        total = 0.0
        for first in range(0, len(A), BLOCK):
            block = A[first : first + BLOCK].astype(np.float64)
            block -= B[first : first + BLOCK]
            block *= block
            total += float(block.sum())
        return total

    @abstractmethod
    def sketch_neurons(
        self, indptr: Array, compact: Array, neurons: Array, signs: Array, buckets: int, seed: int, draw: int
    ) -> Array:
        """Return ``(S A)^T`` times ``sqrt(m)``, (n, buckets) float64, whole numbers, with A = M o a.

        Column r of the CountSketch S has one entry, placed by a word of Philox4x32-10 with key = seed and counter =
        (r // 4, 0, draw, NEURONS), word r % 4: bucket ``(word >> 1) buckets >> 31``, sign by the lowest bit.
        """

    # ---- sparse Jacobian --------------------------------------------------------------------------------

    @abstractmethod
    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Return J, (n, u d): row i, column (k, j) is ``scale a_r x_ij`` where r = neurons[k] fires on i.

        The product is ``REAL(REAL(scale) a_r) x_ij``: rounded once, because a_r is +-1.
        """

    @abstractmethod
    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Return J^T as rows of its own, (u d, n), with the same values as :meth:`fill_jacobian`."""

    @abstractmethod
    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Return the function ``x -> matrix @ x`` (float64 in and out), with all set-up done once."""

    @abstractmethod
    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Return ``matrix S^T``, (matrix rows, ``rows``) float64, with S a sparse-sign matrix.

        Column c of S (rows, columns of ``matrix``) has ``nonzeros`` entries +-nonzeros^{-1/2}.  Entry t is placed
        by one word of Philox4x32-10 with key = seed and counter = (c // 4 low, high, draw, SKETCH + t), word c % 4: row
        ``(word >> 1) rows >> 31``, sign by the lowest bit.  Two entries that meet in one row add up.
        """

    # ---- dense algebra (float64, n x n) -----------------------------------------------------------------

    @abstractmethod
    def matmul(self, A: Array, B: Array) -> Array:
        """Return ``A @ B`` with bytes that do not depend on the number of threads."""

    @abstractmethod
    def gram(self, A: Array) -> Array:
        """Return ``A A^T``, exactly symmetric, with bytes that do not depend on the number of threads."""

    @abstractmethod
    def cholesky(self, A: Array) -> Array | None:
        """Return the lower factor L of a symmetric positive definite A = L L^T, or None where A is not."""

    @abstractmethod
    def solve_triangular(self, L: Array, b: Array, transposed: bool = False) -> Array:
        """Return ``L^{-1} b``, or ``L^{-T} b``, for a lower triangular L."""

    @abstractmethod
    def eigh(self, A: Array) -> tuple[Array, Array]:
        """Return eigenvalues (ascending) and eigenvectors of a symmetric matrix."""
