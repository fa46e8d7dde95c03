"""The device of a machine without a GPU: Numba loops on all cores, BLAS for dense products."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from ..base import CSR, Array, NeuronLists, TreeLayout
from ..host import HostDevice, one_blas_thread, sums_before
from . import bits as bit_kernels
from . import kernels as kernels
from . import lists as list_kernels
from . import products as factored
from .implicit import ImplicitOperations
from .vectors import padded

CHANGED_COST = 8  # words of a recount that take as long as one that changed
QUERY_BYTES = 1 << 26  # scratch memory of a query, for as many points at a time as fit
COUNT_BYTES = 1 << 19  # of the pair counts that one task works on: half a second-level cache
TILE = 128  # rows of a product per thread: fixed, so that bytes do not depend on the number of threads


class CpuDevice(ImplicitOperations, HostDevice):
    """Numba, parallel, deterministic for any number of threads."""

    name = "cpu"

    def describe(self) -> dict[str, str]:
        """Return what HostDevice says, and Numba's version and threads."""
        return super().describe() | {"numba": numba.__version__, "threads": str(numba.get_num_threads())}

    def normal_rows(self, seed: int, start: int, stop: int, d: int, dtype: str, paired: bool = False) -> Array:
        """Return counter-based standard normals."""
        out = np.empty((stop - start, d), dtype)
        kernels.normal_rows(np.uint64(seed), start, paired, out)
        return out

    def cap_rows(self, seed: int, directions: Array, tails: Array, owners: Array, places: Array, dtype: str) -> Array:
        """Return counter-based normals conditioned on a cap."""
        out = np.empty((len(owners), directions.shape[1]), dtype)
        kernels.cap_rows(np.uint64(seed), directions, tails, owners, places, out)
        return out

    def update_rows(self, W: Array, neurons: Array, delta: Array) -> None:
        """Subtract ``delta`` from the rows ``neurons``."""
        kernels.update_rows(W, neurons, delta)

    def fill_leaves(self, nodes: Array, X: Array, W: Array, neurons: Array | None = None) -> None:
        """Write the computed numbers to the leaves."""
        if neurons is None:
            neurons = np.arange(len(W), dtype=np.int32)
        kernels.fill_leaves(nodes, X, W, neurons)

    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write maxima of children."""
        if parents is None:
            parents = np.arange(layout.sizes[level], dtype=np.int32)
        below, size, here = layout.offsets[level - 1], layout.sizes[level - 1], layout.offsets[level]
        kernels.reduce_level(nodes, below, size, here, layout.arity, parents)

    def query_tree(self, nodes: Array, layout: TreeLayout, threshold: float) -> tuple[Array, Array, Array, int]:
        """Traverse each tree once, a batch of points at a time, into rows long enough for any answer."""
        n, m = len(nodes), layout.m
        tree = np.array(layout.offsets), np.array(layout.sizes), layout.arity
        bound = nodes.dtype.type(threshold)
        batch = min(n, max(QUERY_BYTES // (4 * m), numba.get_num_threads()))
        found = np.empty((batch, m + 1), np.int32)  # pages that no answer reaches are never touched
        counts, visited = np.zeros(n, np.int64), np.zeros(n, np.int64)
        parts = [(np.empty(0, np.int32), np.empty(0, nodes.dtype))]
        for first in range(0, n, max(1, batch)):
            kernels.query_batch(nodes, *tree, bound, first, found, counts, visited)
            parts.append(_packed(nodes, first, found, counts[first : first + batch]))
        indices, values = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        return sums_before(counts), indices, values, int(visited.sum())

    def forward(self, indptr: Array, indices: Array, values: Array, signs: Array, shift: float) -> Array:
        """Sum over the fired neurons of each point."""
        out = np.empty(len(indptr) - 1)
        kernels.forward(indptr, indices, values, signs, float(shift), out)
        return out

    def transpose(self, indptr: Array, indices: Array, m: int) -> tuple[Array, Array, Array, Array]:
        """Sort the pairs by neuron: histogram, scan, one pass."""
        counts = np.bincount(indices, minlength=m)  # (m,)
        neurons = np.flatnonzero(counts).astype(np.int32)
        slots = np.zeros(m, np.int32)
        slots[neurons] = np.arange(len(neurons))
        t_indptr = np.zeros(len(neurons) + 1, np.int64)
        np.cumsum(counts[neurons][:-1], out=t_indptr[2:])
        t_points, compact = np.empty(len(indices), np.int32), np.empty(len(indices), np.int32)
        kernels.transpose(indptr, indices, slots, t_indptr, t_points, compact)
        return neurons, t_indptr, t_points, compact

    def count_pairs(self, indptr: Array, compact: Array, t_indptr: Array, t_points: Array) -> Array:
        """Count the common neurons of all pairs of points, list by list."""
        n = len(indptr) - 1
        tasks = max(numba.get_num_threads(), -(-2 * n * n // COUNT_BYTES))
        edges = np.round(n * np.sqrt(np.linspace(0, 1, tasks + 1))).astype(np.int64)  # equal areas of the triangle
        lower = np.zeros((n, n), np.int32)
        kernels.count_pairs(t_indptr, t_points, edges, lower)
        counts = lower.astype(np.float64)
        counts += np.tril(lower, -1).T  # in place: the sum of the two would take either's memory order
        return counts

    def scan(self, X: Array, W: Array, neurons: Array, thresholds: Array) -> tuple[Array, Array]:
        """Scan a chunk of neurons at a time into rows long enough for any answer, then pack them."""
        u, n = len(neurons), len(X)
        chunk = min(u, max(QUERY_BYTES // (4 * n), kernels.LANES * numba.get_num_threads()))
        found = np.empty((chunk, n), np.int32)  # pages that no answer reaches are never touched
        counts = np.zeros(u, np.int64)
        parts = [np.empty(0, np.int32)]
        for first in range(0, u, max(1, chunk)):
            rows = slice(first, min(first + chunk, u))
            list_kernels.scan(X, W, neurons[rows], thresholds[rows], found, counts[rows])
            starts = sums_before(counts[rows])
            parts.append(np.empty(starts[-1], np.int32))
            list_kernels.pack(found, starts, parts[-1])
        return sums_before(counts), np.concatenate(parts)

    def evaluate(
        self, X: Array, W: Array, lists: NeuronLists, shift: float
    ) -> tuple[NeuronLists, Array, Array, Array, Array]:
        """Two passes over the candidates: products and counts, then both orders of those that fire."""
        neurons, c_indptr, points = lists.neurons, lists.indptr, lists.points
        bound, blocks = X.dtype.type(shift), list_kernels.BLOCKS
        products, counts = np.empty(lists.nnz, X.dtype), np.empty(len(neurons), np.int32)
        histogram, unions = np.zeros((blocks, len(X)), np.int64), np.empty(blocks, np.int64)
        wide = padded(X, X.dtype)
        list_kernels.evaluate(wide, W, neurons, c_indptr, points, bound, products, counts, histogram, unions)
        starts, slots = sums_before(histogram.sum(axis=1)), sums_before(unions)
        indptr = sums_before(histogram.sum(axis=0))
        ahead = indptr[:-1] + np.cumsum(histogram, axis=0) - histogram  # (blocks, n)
        nnz, union = starts[-1], slots[-1]
        places, t_indptr = np.empty(union, np.int64), np.full(union + 1, nnz)
        t_points, compact, values = np.empty(nnz, np.int32), np.empty(nnz, np.int32), np.empty(nnz, X.dtype)
        found = places, t_indptr, t_points, compact, values
        list_kernels.keep(c_indptr, points, bound, products, counts, starts, slots, ahead, *found)
        return NeuronLists(neurons[places], t_indptr, t_points), places, indptr, compact, values

    def rescan(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> NeuronLists:
        """Compute the products of the lists and keep those above."""
        values, counts = np.empty(lists.nnz, X.dtype), np.zeros(len(lists.neurons), np.int64)
        arrays = lists.indptr, lists.points, thresholds, values
        list_kernels.count_above(padded(X, X.dtype), W, lists.neurons, *arrays, counts)
        starts = sums_before(counts)
        out = np.empty(starts[-1], np.int32)
        list_kernels.keep_above(*arrays, starts, out)
        return NeuronLists(lists.neurons, starts, out)

    def splice(self, lists: NeuronLists, places: Array, indptr: Array, points: Array) -> NeuronLists:
        """Copy the runs between the replaced lists."""
        gone = int((lists.indptr[places + 1] - lists.indptr[places]).sum())
        joined, out = np.empty_like(lists.indptr), np.empty(lists.nnz - gone + len(points), np.int32)
        list_kernels.splice(lists.indptr, lists.points, places, indptr, points, joined, out)
        return NeuronLists(lists.neurons, joined, out)

    def change_pairs(self, counts: Array, before: NeuronLists, after: NeuronLists, limit: int) -> bool:
        """Find the lists that differ on all threads; work on those alone."""
        u, v = len(after.neurons), len(before.neurons)
        edges = np.linspace(0, u, list_kernels.BLOCKS + 1).astype(np.int64)
        starts = np.searchsorted(before.neurons, after.neurons[edges[:-1]] if u else edges[:-1])
        starts = np.append(starts, v) if u else np.zeros(len(edges), np.int64)
        starts[0] = 0
        match, lone, cost = np.full(u, -2, np.int64), np.zeros(v, bool), np.zeros(list_kernels.BLOCKS, np.int64)
        old, new = (before.neurons, before.indptr, before.points), (after.neurons, after.indptr, after.points)
        list_kernels.compare(*old, *new, edges, starts, match, lone, cost)
        if not u:
            lone[:], cost[0] = True, (np.diff(before.indptr) ** 2).sum()
        if cost.sum() > limit:
            return False
        changed, gone = np.flatnonzero(match > -2), np.flatnonzero(lone)
        list_kernels.change_pairs(
            counts, before.indptr, before.points, after.indptr, after.points, match, changed, gone
        )
        return True

    def pack_mask(self, X: Array, W: Array, signs: Array, shift: float) -> tuple[Array, Array]:
        """Compare and sum as the numbers are computed; none is kept."""
        bits = np.empty((-(-len(W) // bit_kernels.WORD), len(X)), np.uint64)
        totals = np.zeros((list_kernels.BLOCKS, len(X)))
        bit_kernels.pack_mask(X, W, signs, X.dtype.type(shift), float(shift), bits, totals)
        return bits, totals.sum(axis=0)

    def mask_sizes(self, bits: Array) -> tuple[Array, int]:
        """Count by blocks of words."""
        counts = np.zeros((list_kernels.BLOCKS, bits.shape[1]), np.uint64)
        union = np.zeros(list_kernels.BLOCKS, np.uint64)
        bit_kernels.mask_sizes(bits, counts, union)
        return counts.sum(axis=0).astype(np.int64), int(union.sum())

    def count_mask(self, bits: Array, before: Array | None = None, counts: Array | None = None) -> Array:
        """Count all bits, or with ``delta = M' - M`` add half of ``delta^T (M' + M)`` and of its transpose."""
        words, n = bits.shape
        out, changed = np.zeros((n, n), np.uint64), np.zeros(list_kernels.BLOCKS, np.int64)
        if before is not None and counts is not None:
            bit_kernels.changed_words(before, bits, changed)
            if changed.sum() * CHANGED_COST <= words * n:
                edges = np.linspace(0, n, list_kernels.BLOCKS + 1).astype(np.int64)
                bit_kernels.change_mask(before, bits, edges, out)
                change = out.view(np.int64).astype(np.float64)
                return counts + (change + change.T) / 2
        edges = np.round(n * np.sqrt(np.linspace(0, 1, list_kernels.BLOCKS + 1))).astype(np.int64)
        bit_kernels.count_mask(bits, edges, out)
        lower = out.astype(np.float64)
        return lower + np.tril(lower, -1).T

    def move_mask(self, W: Array, X: Array, bits: Array, weights: Array, g: Array) -> Array:
        """Tabulate the sums of all subsets of eight points, then look up n / 8 of them for each row."""
        n, d = X.shape
        tables = np.zeros((-(-n // bit_kernels.BYTE), 256, d))
        bit_kernels.tabulate(g[:, None] * X, tables)
        moved = np.empty(len(W))
        bit_kernels.move_mask(W, tables, n, bits, weights, moved)
        return moved

    def mask_product(self, X: Array, bits: Array, weights: Array, V: Array) -> Array:
        """Add up rows by points in blocks of words, then multiply with the points."""
        sums = np.zeros((bit_kernels.PARTS, *X.shape))
        bit_kernels.mask_product(bits, weights, V, sums)
        return (sums.sum(axis=0) * X).sum(axis=1)

    def factored_gram(self, X: Array, fired: NeuronLists, g: Array) -> Array:
        """Sum and spread, neuron by neuron."""
        out = np.zeros((list_kernels.BLOCKS, len(X)))
        wide = padded(X)
        factored.factored_gram(wide, g[:, None] * wide, fired.indptr, fired.points, out)
        return out.sum(axis=0)

    def factored_product(self, X: Array, fired: NeuronLists, weights: Array, V: Array) -> Array:
        """Spread, neuron by neuron."""
        out = np.zeros((list_kernels.BLOCKS, len(X)))
        factored.factored_product(padded(X), V, weights, fired.indptr, fired.points, out)
        return out.sum(axis=0)

    def factored_transposed(self, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Sum, neuron by neuron."""
        out = np.empty((len(fired.neurons), X.shape[1]))
        factored.factored_transposed(g[:, None] * padded(X), weights, fired.indptr, fired.points, out)
        return out

    def move_rows(self, W: Array, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Sum, subtract and measure in one pass over the moved rows."""
        moved = np.empty(len(fired.neurons))
        factored.move_rows(W, g[:, None] * padded(X), weights, fired.neurons, fired.indptr, fired.points, moved)
        return moved

    def pull_rows(self, W: Array, initial: Array, neurons: Array, change: Array, theta: float) -> tuple[Array, Array]:
        """Do all in one pass over the rows."""
        return self._pulled(factored.pull_rows, W, initial, neurons, theta, neurons, change)

    def pull_lists(
        self, W: Array, initial: Array, X: Array, fired: NeuronLists, weights: Array, g: Array, theta: float
    ) -> tuple[Array, Array]:
        """Do all in one pass over the rows, without an array of the changes."""
        given = g[:, None] * padded(X), weights, fired.neurons, fired.indptr, fired.points
        return self._pulled(factored.pull_lists, W, initial, fired.neurons, theta, *given)

    def _pulled(
        self, kernel: Callable[..., None], W: Array, initial: Array, neurons: Array, theta: float, *given: Array
    ) -> tuple[Array, Array]:
        after, moved = np.empty(W.shape, W.dtype), np.empty(len(W))
        edges = np.arange(list_kernels.BLOCKS + 1) * len(W) // list_kernels.BLOCKS  # rows of each block
        kernel(W, initial, *given, 1.0 - theta, edges, np.searchsorted(neurons, edges), after, moved)
        return after, moved

    def factored_along(self, X: Array, fired: NeuronLists, weights: Array, W: Array, initial: Array) -> Array:
        """Subtract row by row, without an array of the movement."""
        out = np.zeros((list_kernels.BLOCKS, len(X)))
        factored.factored_along(padded(X), W, initial, weights, fired.neurons, fired.indptr, fired.points, out)
        return out.sum(axis=0)

    def square_distance(self, A: Array, B: Array) -> float:
        """Sum block by block on all threads."""
        out = np.zeros(list_kernels.BLOCKS)
        A, B = (array[:, None] if array.ndim == 1 else array for array in (A, B))
        factored.square_distances(A, B, out)
        return float(out.sum())

    def sketch_neurons(
        self, indptr: Array, compact: Array, neurons: Array, signs: Array, buckets: int, seed: int, draw: int
    ) -> Array:
        """Hash every neuron once, then add up by points."""
        bucket, sign = np.empty(len(neurons), np.int64), np.empty(len(neurons))
        list_kernels.hash_neurons(neurons, buckets, np.uint64(seed), np.uint64(draw), bucket, sign)
        out = np.zeros((len(indptr) - 1, buckets))
        list_kernels.sketch_neurons(indptr, compact, bucket, sign * signs[neurons], out)
        return out

    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Fill J by rows of points."""
        n, d = X.shape
        data, columns = np.empty(len(compact) * d, X.dtype), np.empty(len(compact) * d, np.int32)
        kernels.fill_jacobian(indptr, compact, neurons, signs, X, X.dtype.type(scale), data, columns)
        return CSR(data, columns, indptr * d, (n, len(neurons) * d))

    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Fill J^T by rows of weights."""
        n, d = X.shape
        data, columns = np.empty(len(t_points) * d, X.dtype), np.empty(len(t_points) * d, np.int32)
        indptr = np.zeros(len(neurons) * d + 1, np.int64)
        scale = X.dtype.type(scale)
        kernels.fill_jacobian_t(t_indptr, t_points, neurons, signs, X, scale, data, columns, indptr)
        return CSR(data, columns, indptr, (len(neurons) * d, n))

    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Multiply rows in parallel, sums in float64."""

        def product(x: Array) -> Array:
            out = np.empty(matrix.shape[0])
            kernels.spmv(matrix.data, matrix.indices, matrix.indptr, x, out)
            return out

        return product

    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Hash the columns on the fly."""
        out = np.zeros((matrix.shape[0], rows))
        kernels.sketch_rows(matrix.data, matrix.indices, matrix.indptr, nonzeros, np.uint64(seed), np.uint64(draw), out)
        return out

    def matmul(self, A: Array, B: Array) -> Array:
        """Multiply tiles of rows in a pool of threads, each tile on one BLAS thread."""
        out = np.empty((len(A), *B.shape[1:]), np.result_type(A, B))
        self._each_tile(len(A), lambda first, last: np.matmul(A[first:last], B, out=out[first:last]))
        return out

    def gram(self, A: Array) -> Array:
        """Multiply tiles below the diagonal, then mirror them."""
        n = len(A)
        out = np.empty((n, n), A.dtype)

        def tile(first: int, last: int) -> None:
            np.matmul(A[first:last], A[:last].T, out=out[first:last, :last])

        self._each_tile(n, tile)
        lower = np.tril(out)
        return lower + np.tril(out, -1).T

    @staticmethod
    def _each_tile(rows: int, tile: Callable[[int, int], object]) -> None:
        starts = range(0, rows, TILE)
        with one_blas_thread(), ThreadPoolExecutor(numba.get_num_threads()) as pool:
            list(pool.map(lambda first: tile(first, min(first + TILE, rows)), reversed(starts)))


def _packed(nodes: Array, first: int, found: Array, counts: Array) -> tuple[Array, Array]:
    """Return the answers of one batch end to end: indices and leaf values."""
    starts = sums_before(counts)
    indices, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], nodes.dtype)
    kernels.copy_batch(nodes, first, found, starts, indices, values)
    return indices, values
