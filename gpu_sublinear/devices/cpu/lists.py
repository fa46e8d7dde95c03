"""Lists of candidates: scanning for them, exact products, those above a threshold.

Parallel over blocks of neurons.  Where neurons add to the same point, every block has its own numbers, which are added
in the order of the blocks.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from ..formats import Array, NeuronLists
from ..host import sums_before
from ..ops.lists import ListOps
from .jit import BLOCKS, parallel, serial
from .numbers import LANES, computed_numbers, gather_rows
from .vectors import WIDE, padded, sixteen_numbers

MANY_HITS = 8  # among LANES, from which writing all of them beats finding them
SCAN_BYTES = 1 << 26  # scratch memory of a scan, for as many neurons at a time as fit


@serial
def _owners(indptr, first, last):
    """Return the number of the list of every pair of the lists first .. last: no branch to mispredict."""
    base, size = indptr[first], indptr[last] - indptr[first]
    owners = np.zeros(size + 1, np.int32)  # one more, where empty lists at the end are counted
    for k in range(first, last):
        owners[indptr[k] - base] += 1
    k = first - 1
    for q in range(size):
        k += owners[q]
        owners[q] = k
    return owners


@serial
def _listed_numbers(X, W, neurons, indptr, points, first, last, values):
    """Write the computed numbers of the lists first .. last, each sum in its one order; X has features padded."""
    d, width, start, stop = W.shape[1], X.shape[1], indptr[first], indptr[last]
    owners, rows, flat_X, flat_W = _owners(indptr, first, last), np.empty(WIDE, np.int64), X.ravel(), W.ravel()
    q = start
    while q < stop:
        count = min(WIDE, stop - q)
        for p in range(count):
            rows[p] = neurons[owners[q - start + p]]
        if count == WIDE and rows[WIDE - 1] * d + width <= len(flat_W):  # ascending: no row is read beyond the end
            for j in range(0, d, WIDE):
                sixteen_numbers(values, q, flat_X, points, flat_W, rows, d, j)
        else:
            for p in range(count):
                x, w = X[points[q + p]], W[rows[p]]
                total = x[0] * w[0]
                for j in range(1, d):
                    total = total + x[j] * w[j]
                values[q + p] = total
        q += count


@parallel
def _scan(X, W, neurons, thresholds, found, counts):
    """Write the points whose computed number exceeds the neuron's threshold to its row of ``found`` (u, n)."""
    n, d = X.shape
    u = len(neurons)
    for block in prange((u + LANES - 1) // LANES):
        first = block * LANES
        lanes = min(LANES, u - first)
        columns, total = np.zeros((d, LANES), W.dtype), np.empty(LANES, W.dtype)
        gather_rows(W, neurons, first, first + lanes, columns)
        bound = np.full(LANES, np.inf, W.dtype)
        bound[:lanes] = thresholds[first : first + lanes]
        for i in range(n):
            computed_numbers(X[i], columns, total)
            above = 0
            for k in range(LANES):
                above += total[k] > bound[k]
            if above > MANY_HITS:
                for k in range(lanes):  # written always, kept where above: no branch to mispredict
                    found[first + k, counts[first + k]] = i
                    counts[first + k] += total[k] > bound[k]
            elif above:
                for k in range(lanes):
                    if total[k] > bound[k]:
                        found[first + k, counts[first + k]] = i
                        counts[first + k] += 1


@parallel
def _pack(found, starts, points):
    """Move the rows of ``found`` end to end."""
    for k in prange(len(starts) - 1):
        for q in range(starts[k], starts[k + 1]):
            points[q] = found[k, q - starts[k]]


@parallel
def _evaluate(X, W, neurons, indptr, points, bound, values, fired, histogram, unions):
    """Compute all candidate products; count those above the bound by list and by (block, point), and lists by block."""
    c = len(neurons)
    blocks = len(histogram)
    for block in prange(blocks):
        first, last = block * c // blocks, (block + 1) * c // blocks
        _listed_numbers(X, W, neurons, indptr, points, first, last, values)
        union = np.int64(0)
        for k in range(first, last):
            count = np.int64(0)
            for q in range(indptr[k], indptr[k + 1]):
                fires = np.int64(values[q] > bound)  # added always: no branch to mispredict
                count += fires
                histogram[block, points[q]] += fires
            fired[k] = count
            union += np.int64(count > 0)
        unions[block] = union


@parallel
def _count_above(X, W, neurons, indptr, points, limits, values, counts):
    """Compute all candidate products; count those above their neuron's limit."""
    c = len(neurons)
    for block in prange(BLOCKS):
        first, last = block * c // BLOCKS, (block + 1) * c // BLOCKS
        _listed_numbers(X, W, neurons, indptr, points, first, last, values)
        for k in range(first, last):
            count = 0
            for q in range(indptr[k], indptr[k + 1]):
                count += values[q] > limits[k]
            counts[k] = count


@parallel
def _keep_above(indptr, points, limits, values, starts, out):
    """Move the points whose product is above the limit to their new places."""
    for k in prange(len(limits)):
        at = starts[k]
        for q in range(indptr[k], indptr[k + 1]):
            if values[q] > limits[k]:
                out[at] = points[q]
                at += 1


@parallel
def _keep(indptr, points, bound, values, fired, starts, slots, ahead, places, t_indptr, t_points, compact, kept):
    """Write the pairs above the bound in both orders.

    A block goes on from ``starts`` in the order of neurons, from ``slots`` among the lists that have such pairs, and
    from ``ahead[block, i]`` in the order of points.
    """
    c = len(indptr) - 1
    blocks = len(ahead)
    for block in prange(blocks):
        at, slot = starts[block], slots[block]
        for k in range(block * c // blocks, (block + 1) * c // blocks):
            if not fired[k]:
                continue
            places[slot], t_indptr[slot] = k, at
            for q in range(indptr[k], indptr[k + 1]):
                if values[q] > bound:
                    i = points[q]
                    t_points[at] = i
                    at += 1
                    place = ahead[block, i]
                    ahead[block, i] = place + 1
                    compact[place], kept[place] = slot, values[q]
            slot += 1


@serial
def _splice(indptr, points, places, new_indptr, new_points, joined, out):
    """Copy the lists, those at ``places``, ascending, from the new ones: runs between them as they are."""
    k, at = 0, 0
    for new in range(len(places) + 1):
        last = places[new] if new < len(places) else len(indptr) - 1
        ahead = at - indptr[k]
        for j in range(k, last + 1):
            joined[j] = indptr[j] + ahead
        for q in range(indptr[k], indptr[last]):
            out[q + ahead] = points[q]
        at = indptr[last] + ahead
        if new < len(places):
            for q in range(new_indptr[new], new_indptr[new + 1]):
                out[at] = new_points[q]
                at += 1
        k = last + 1


class CpuListOps(ListOps):
    """Loops over blocks of neurons."""

    def scan(self, X: Array, W: Array, neurons: Array, thresholds: Array) -> tuple[Array, Array]:
        """Scan a chunk of neurons at a time into rows long enough for any answer, then pack them."""
        u, n = len(neurons), len(X)
        chunk = min(u, max(SCAN_BYTES // (4 * n), LANES * numba.get_num_threads()))
        found = np.empty((chunk, n), np.int32)  # pages that no answer reaches are never touched
        counts = np.zeros(u, np.int64)
        parts = [np.empty(0, np.int32)]
        for first in range(0, u, max(1, chunk)):
            rows = slice(first, min(first + chunk, u))
            _scan(X, W, neurons[rows], thresholds[rows], found, counts[rows])
            starts = sums_before(counts[rows])
            parts.append(np.empty(starts[-1], np.int32))
            _pack(found, starts, parts[-1])
        return sums_before(counts), np.concatenate(parts)

    def evaluate(
        self, X: Array, W: Array, lists: NeuronLists, shift: float
    ) -> tuple[NeuronLists, Array, Array, Array, Array]:
        """Two passes over the candidates: products and counts, then both orders of those that fire."""
        neurons, c_indptr, points = lists.neurons, lists.indptr, lists.points
        bound, blocks = X.dtype.type(shift), BLOCKS
        products, counts = np.empty(lists.nnz, X.dtype), np.empty(len(neurons), np.int32)
        histogram, unions = np.zeros((blocks, len(X)), np.int64), np.empty(blocks, np.int64)
        wide = padded(X, X.dtype)
        _evaluate(wide, W, neurons, c_indptr, points, bound, products, counts, histogram, unions)
        starts, slots = sums_before(histogram.sum(axis=1)), sums_before(unions)
        indptr = sums_before(histogram.sum(axis=0))
        ahead = indptr[:-1] + np.cumsum(histogram, axis=0) - histogram  # (blocks, n)
        nnz, union = starts[-1], slots[-1]
        places, t_indptr = np.empty(union, np.int64), np.full(union + 1, nnz)
        t_points, compact, values = np.empty(nnz, np.int32), np.empty(nnz, np.int32), np.empty(nnz, X.dtype)
        found = places, t_indptr, t_points, compact, values
        _keep(c_indptr, points, bound, products, counts, starts, slots, ahead, *found)
        return NeuronLists(neurons[places], t_indptr, t_points), places, indptr, compact, values

    def rescan(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> NeuronLists:
        """Compute the products of the lists and keep those above."""
        values, counts = np.empty(lists.nnz, X.dtype), np.zeros(len(lists.neurons), np.int64)
        arrays = lists.indptr, lists.points, thresholds, values
        _count_above(padded(X, X.dtype), W, lists.neurons, *arrays, counts)
        starts = sums_before(counts)
        out = np.empty(starts[-1], np.int32)
        _keep_above(*arrays, starts, out)
        return NeuronLists(lists.neurons, starts, out)

    def splice(self, lists: NeuronLists, places: Array, indptr: Array, points: Array) -> NeuronLists:
        """Copy the runs between the replaced lists."""
        gone = int((lists.indptr[places + 1] - lists.indptr[places]).sum())
        joined, out = np.empty_like(lists.indptr), np.empty(lists.nnz - gone + len(points), np.int32)
        _splice(lists.indptr, lists.points, places, indptr, points, joined, out)
        return NeuronLists(lists.neurons, joined, out)
