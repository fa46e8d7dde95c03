"""The factored Jacobian: sums over neuron lists of weighted points, and the steps that they give.

Parallel over blocks of neurons.  Where neurons add to the same point, every block has its own sums, which are added in
the order of the blocks.  Points, (n, padded) float64, have their features padded with zeros to a multiple of ``WIDE``;
``weighted`` are such points times g_i.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import prange

from ..formats import Array, NeuronLists
from ..ops.products import ProductOps
from .jit import BLOCKS, parallel, serial
from .vectors import WIDE, add, dot, padded

PULLED_ROWS = 32  # at a time: their change stays in the first-level cache


@serial
def _weighted_sum(weighted, points, start, stop, total):
    """Set ``total`` (padded,) to the sum of the rows of the listed points; weighted is flat."""
    width = len(total)
    total[:] = 0.0
    for q in range(start, stop):
        at = points[q] * width
        for j in range(0, width, WIDE):
            add(total, j, weighted, at + j)


@serial
def _spread(X, v, weight, points, start, stop, out):
    """Add ``weight <v, x_i>`` to the listed points; v (padded,), X flat."""
    width = len(v)
    for q in range(start, stop):
        at = points[q] * width
        product = dot(v, 0, X, at)
        for j in range(WIDE, width, WIDE):
            product += dot(v, j, X, at + j)
        out[points[q]] += weight * product


@parallel
def _factored_gram(X, weighted, indptr, points, out):
    """Add ``<x_i, sum_k weighted_k>`` over the neurons of each block; out (blocks, n)."""
    u = len(indptr) - 1
    blocks = len(out)
    flat_X, flat_weighted = X.ravel(), weighted.ravel()
    for block in prange(blocks):
        total = np.empty(X.shape[1])
        for k in range(block * u // blocks, (block + 1) * u // blocks):
            _weighted_sum(flat_weighted, points, indptr[k], indptr[k + 1], total)
            _spread(flat_X, total, 1.0, points, indptr[k], indptr[k + 1], out[block])


@parallel
def _factored_product(X, V, weights, indptr, points, out):
    """Add ``weights_r <V_r, x_i>`` over the neurons of each block; out (blocks, n)."""
    u = len(indptr) - 1
    blocks = len(out)
    flat = X.ravel()
    for block in prange(blocks):
        v = np.zeros(X.shape[1])
        for k in range(block * u // blocks, (block + 1) * u // blocks):
            row = V[k]
            for j in range(len(row)):
                v[j] = row[j]
            _spread(flat, v, weights[k], points, indptr[k], indptr[k + 1], out[block])


@parallel
def _factored_along(X, W, initial, weights, neurons, indptr, points, out):
    """Do the same with the rows ``W_r - initial_r`` of the neurons in place of V."""
    u = len(indptr) - 1
    blocks = len(out)
    flat = X.ravel()
    for block in prange(blocks):
        v = np.zeros(X.shape[1])
        for k in range(block * u // blocks, (block + 1) * u // blocks):
            row, home = W[neurons[k]], initial[neurons[k]]
            for j in range(len(row)):
                v[j] = np.float64(row[j]) - home[j]
            _spread(flat, v, weights[k], points, indptr[k], indptr[k + 1], out[block])


@parallel
def _square_distances(A, B, out):
    """Write ``||A - B||^2`` of each block of rows."""
    u, d = A.shape
    blocks = len(out)
    for block in prange(blocks):
        total = np.zeros(d)  # a sum for each column: independent lanes
        for r in range(block * u // blocks, (block + 1) * u // blocks):
            a, b = A[r], B[r]
            for j in range(d):
                change = np.float64(a[j]) - b[j]
                total[j] += change * change
        out[block] = total.sum()


@parallel
def _factored_transposed(weighted, weights, indptr, points, out):
    """Write ``weights_r sum_i weighted_i`` to row r of out (u, d)."""
    u, flat = len(indptr) - 1, weighted.ravel()
    for block in prange(BLOCKS):
        total = np.empty(weighted.shape[1])
        for k in range(block * u // BLOCKS, (block + 1) * u // BLOCKS):
            _weighted_sum(flat, points, indptr[k], indptr[k + 1], total)
            row, weight = out[k], weights[k]
            for j in range(len(row)):
                row[j] = weight * total[j]


@serial
def _norm(a):
    """Return the Euclidean norm of a (d,): four sums at a time."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    j = 0
    while j + 3 < len(a):
        s0 += a[j] * a[j]
        s1 += a[j + 1] * a[j + 1]
        s2 += a[j + 2] * a[j + 2]
        s3 += a[j + 3] * a[j + 3]
        j += 4
    while j < len(a):
        s0 += a[j] * a[j]
        j += 1
    return math.sqrt((s0 + s1) + (s2 + s3))


@parallel
def _move_rows(W, weighted, weights, neurons, indptr, points, moved):
    """Subtract ``weights_r sum_i weighted_i`` from row r of W and write the norm of what the stored row moved."""
    u, flat = len(neurons), weighted.ravel()
    for block in prange(BLOCKS):
        total = np.empty(weighted.shape[1])
        for k in range(block * u // BLOCKS, (block + 1) * u // BLOCKS):
            _weighted_sum(flat, points, indptr[k], indptr[k + 1], total)
            row, weight = W[neurons[k]], weights[k]
            for j in range(len(row)):
                before = np.float64(row[j])
                row[j] = before - weight * total[j]
                total[j] = np.float64(row[j]) - before
            moved[k] = _norm(total[: len(row)])


@serial
def _pull(W, initial, kept, change, after):
    """Write ``W0 + kept (W - W0) - change`` to ``after``, and what that moved to ``change``; all flat."""
    for j in range(len(W)):
        before, home = np.float64(W[j]), np.float64(initial[j])
        new = W.dtype.type(home + kept * (before - home) - change[j])
        after[j] = new
        change[j] = np.float64(new) - before


@serial
def _pull_chunk(W, initial, first, last, kept, change, after, moved):
    """Pull the rows first .. last by their change (rows, d), which is lost."""
    d, count = W.shape[1], last - first
    whole = slice(first * d, last * d)
    flat = change.ravel()
    _pull(W.ravel()[whole], initial.ravel()[whole], kept, flat[: count * d], after.ravel()[whole])
    for r in range(count):
        moved[first + r] = _norm(flat[r * d : r * d + d])


@parallel
def _pull_rows(W, initial, neurons, change, kept, edges, starts, after, moved):
    """Write all rows; block b owns rows from edges[b] and neurons from starts[b]."""
    for block in prange(len(edges) - 1):
        k, own = starts[block], np.empty((PULLED_ROWS, W.shape[1]))
        for first in range(edges[block], edges[block + 1], PULLED_ROWS):
            last = min(first + PULLED_ROWS, edges[block + 1])
            own[:] = 0.0
            while k < starts[block + 1] and neurons[k] < last:
                own[neurons[k] - first] = change[k]
                k += 1
            _pull_chunk(W, initial, first, last, kept, own, after, moved)


@parallel
def _pull_lists(W, initial, weighted, weights, neurons, indptr, points, kept, edges, starts, after, moved):
    """Do the same with the changes ``weights_k sum_i weighted_i``, without an array of them."""
    flat = weighted.ravel()
    for block in prange(len(edges) - 1):
        k, own, total = starts[block], np.empty((PULLED_ROWS, W.shape[1])), np.empty(weighted.shape[1])
        for first in range(edges[block], edges[block + 1], PULLED_ROWS):
            last = min(first + PULLED_ROWS, edges[block + 1])
            own[:] = 0.0
            while k < starts[block + 1] and neurons[k] < last:
                _weighted_sum(flat, points, indptr[k], indptr[k + 1], total)
                row, weight = own[neurons[k] - first], weights[k]
                for j in range(len(row)):
                    row[j] = weight * total[j]
                k += 1
            _pull_chunk(W, initial, first, last, kept, own, after, moved)


class CpuProductOps(ProductOps):
    """Loops over blocks of neurons."""

    def factored_gram(self, X: Array, fired: NeuronLists, g: Array) -> Array:
        """Sum and spread, neuron by neuron."""
        out = np.zeros((BLOCKS, len(X)))
        wide = padded(X)
        _factored_gram(wide, g[:, None] * wide, fired.indptr, fired.points, out)
        return out.sum(axis=0)

    def factored_product(self, X: Array, fired: NeuronLists, weights: Array, V: Array) -> Array:
        """Spread, neuron by neuron."""
        out = np.zeros((BLOCKS, len(X)))
        _factored_product(padded(X), V, weights, fired.indptr, fired.points, out)
        return out.sum(axis=0)

    def factored_transposed(self, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Sum, neuron by neuron."""
        out = np.empty((len(fired.neurons), X.shape[1]))
        _factored_transposed(g[:, None] * padded(X), weights, fired.indptr, fired.points, out)
        return out

    def move_rows(self, W: Array, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Sum, subtract and measure in one pass over the moved rows."""
        moved = np.empty(len(fired.neurons))
        _move_rows(W, g[:, None] * padded(X), weights, fired.neurons, fired.indptr, fired.points, moved)
        return moved

    def pull_rows(self, W: Array, initial: Array, neurons: Array, change: Array, theta: float) -> tuple[Array, Array]:
        """Do all in one pass over the rows."""
        return self._pulled(_pull_rows, W, initial, neurons, theta, neurons, change)

    def pull_lists(
        self, W: Array, initial: Array, X: Array, fired: NeuronLists, weights: Array, g: Array, theta: float
    ) -> tuple[Array, Array]:
        """Do all in one pass over the rows, without an array of the changes."""
        given = g[:, None] * padded(X), weights, fired.neurons, fired.indptr, fired.points
        return self._pulled(_pull_lists, W, initial, fired.neurons, theta, *given)

    def _pulled(
        self, kernel: Callable[..., None], W: Array, initial: Array, neurons: Array, theta: float, *given: Array
    ) -> tuple[Array, Array]:
        after, moved = np.empty(W.shape, W.dtype), np.empty(len(W))
        edges = np.arange(BLOCKS + 1) * len(W) // BLOCKS  # rows of each block
        kernel(W, initial, *given, 1.0 - theta, edges, np.searchsorted(neurons, edges), after, moved)
        return after, moved

    def factored_along(self, X: Array, fired: NeuronLists, weights: Array, W: Array, initial: Array) -> Array:
        """Subtract row by row, without an array of the movement."""
        out = np.zeros((BLOCKS, len(X)))
        _factored_along(padded(X), W, initial, weights, fired.neurons, fired.indptr, fired.points, out)
        return out.sum(axis=0)

    def square_distance(self, A: Array, B: Array) -> float:
        """Sum block by block on all threads."""
        out = np.zeros(BLOCKS)
        A, B = (array[:, None] if array.ndim == 1 else array for array in (A, B))
        _square_distances(A, B, out)
        return float(out.sum())
