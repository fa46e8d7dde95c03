"""Threshold trees: leaves by groups of neurons, levels and queries tree by tree."""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from ..formats import Array, TreeLayout
from ..host import sums_before
from ..ops.trees import TreeOps
from .jit import parallel, serial
from .numbers import LANES, computed_numbers, gather_rows

QUERY_BYTES = 1 << 26  # scratch memory of a query, for as many points at a time as fit


@parallel
def _fill_leaves(nodes, X, W, neurons):
    """Write the computed numbers of the given neurons, LANES neurons at a time for all points."""
    n, d = X.shape
    count = len(neurons)
    for block in prange((count + LANES - 1) // LANES):
        first = block * LANES
        last = min(first + LANES, count)
        columns, total = np.zeros((d, LANES), W.dtype), np.empty(LANES, W.dtype)
        gather_rows(W, neurons, first, last, columns)
        for i in range(n):
            computed_numbers(X[i], columns, total)
            for k in range(first, last):
                nodes[i, neurons[k]] = total[k - first]


@parallel
def _reduce_level(nodes, below, size, here, arity, parents):
    """Write the maxima of the children of the given parents in all trees; level below has ``size`` nodes."""
    for i in prange(len(nodes)):
        for parent in parents:
            first = parent * arity
            last = min(first + arity, size)
            top = nodes[i, below + first]
            for child in range(first + 1, last):
                value = nodes[i, below + child]
                if value > top:
                    top = value
            nodes[i, here + parent] = top


@serial
def _query_point(row, offsets, sizes, arity, bound, front, back, found):
    """Write the leaves above the bound to ``found``; return their number and the number of nodes looked at."""
    top = len(sizes) - 1
    visited = sizes[top]
    target = front if top else found
    count = 0
    for node in range(sizes[top]):
        target[count] = node  # written always, kept only if above: no branch to mispredict
        count += row[offsets[top] + node] > bound
    for level in range(top - 1, -1, -1):
        target = back if level else found
        kept = 0
        for k in range(count):
            first = front[k] * arity
            last = min(first + arity, sizes[level])
            visited += last - first
            for child in range(first, last):
                target[kept] = child
                kept += row[offsets[level] + child] > bound
        front, back = back, front
        count = kept
    return count, visited


@parallel
def _query_batch(nodes, offsets, sizes, arity, bound, first, found, counts, visited):
    """Find the leaves above the bound for points first, first + 1, ...: one row of ``found`` (batch, m) each."""
    for k in prange(min(len(found), len(nodes) - first)):
        i = first + k
        back = np.empty(sizes[0] // arity + arity + 1, np.int32)
        front = np.empty(sizes[0] // arity + arity + 1, np.int32)
        counts[i], visited[i] = _query_point(nodes[i], offsets, sizes, arity, bound, front, back, found[k])


@parallel
def _copy_batch(nodes, first, found, starts, indices, values):
    """Move a batch of lists end to end, with the leaf values."""
    for k in prange(len(starts) - 1):
        for p in range(starts[k], starts[k + 1]):
            r = found[k, p - starts[k]]
            indices[p] = r
            values[p] = nodes[first + k, r]


class CpuTreeOps(TreeOps):
    """All trees on all threads."""

    def fill_leaves(self, nodes: Array, X: Array, W: Array, neurons: Array | None = None) -> None:
        """Write the computed numbers to the leaves."""
        if neurons is None:
            neurons = np.arange(len(W), dtype=np.int32)
        _fill_leaves(nodes, X, W, neurons)

    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write maxima of children."""
        if parents is None:
            parents = np.arange(layout.sizes[level], dtype=np.int32)
        below, size, here = layout.offsets[level - 1], layout.sizes[level - 1], layout.offsets[level]
        _reduce_level(nodes, below, size, here, layout.arity, parents)

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
            _query_batch(nodes, *tree, bound, first, found, counts, visited)
            parts.append(_packed(nodes, first, found, counts[first : first + batch]))
        indices, values = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        return sums_before(counts), indices, values, int(visited.sum())


def _packed(nodes: Array, first: int, found: Array, counts: Array) -> tuple[Array, Array]:
    """Return the answers of one batch end to end: indices and leaf values."""
    starts = sums_before(counts)
    indices, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], nodes.dtype)
    _copy_batch(nodes, first, found, starts, indices, values)
    return indices, values
