"""Fired pairs: outputs, transposed lists, common neurons, and how these change with the lists."""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from ..formats import Array, NeuronLists
from ..ops.pairs import PairOps
from .jit import BLOCKS, parallel, serial

COUNT_BYTES = 1 << 19  # of the pair counts that one task works on: half a second-level cache


@parallel
def _forward(indptr, indices, values, signs, shift, out):
    """Sum a_r (P_ir - b) per point in float64, in the order of the neurons."""
    for i in prange(len(out)):
        total = 0.0
        for p in range(indptr[i], indptr[i + 1]):
            total += np.float64(signs[indices[p]]) * (np.float64(values[p]) - shift)
        out[i] = total


@serial
def _transpose(indptr, indices, slots, t_indptr, t_points, compact):
    """Sort the pairs by neuron, by counting.

    On entry ``slots[r]`` is the position of neuron r among those that fire; ``t_indptr`` holds the ends shifted by
    one place, so that it doubles as the writing position and is right when the pass ends.
    """
    for i in range(len(indptr) - 1):
        for p in range(indptr[i], indptr[i + 1]):
            k = slots[indices[p]]
            compact[p] = k
            t_points[t_indptr[k + 1]] = i
            t_indptr[k + 1] += 1


@parallel
def _count_pairs(t_indptr, t_points, edges, out):
    """Count common neurons below the diagonal; task t owns rows edges[t] .. edges[t + 1], which fit a cache.

    Every task reads all lists, in order; their points ascend, so that a task's part of a list is a run.
    """
    for task in prange(len(edges) - 1):
        low, high = edges[task], edges[task + 1]
        for k in range(len(t_indptr) - 1):
            start, stop = t_indptr[k], t_indptr[k + 1]
            p = start
            while p < stop and t_points[p] < low:
                p += 1
            while p < stop and t_points[p] < high:
                for q in range(start, p + 1):
                    out[t_points[p], t_points[q]] += 1
                p += 1


@serial
def _flips(old, p, p_end, new, q, q_end):
    """Count the points that are in one of two ascending lists and not in the other."""
    flips = 0
    while p < p_end and q < q_end:
        if old[p] == new[q]:
            p += 1
            q += 1
        elif old[p] < new[q]:
            p += 1
            flips += 1
        else:
            q += 1
            flips += 1
    return flips + (p_end - p) + (q_end - q)


@parallel
def _compare(
    old_neurons, old_indptr, old_points, new_neurons, new_indptr, new_points, edges, starts, match, lone, cost
):
    """Find the lists that differ, block by block of new neurons.

    ``match[k]`` becomes the old list of new neuron k if they differ (-1 for none) and stays -2 if they are equal;
    ``lone[o]`` marks old neurons without a new list; ``cost`` adds up the increments that the change will take.
    """
    for block in prange(len(cost)):
        o = starts[block]
        for k in range(edges[block], edges[block + 1]):
            while o < starts[block + 1] and old_neurons[o] < new_neurons[k]:
                lone[o] = True
                cost[block] += (old_indptr[o + 1] - old_indptr[o]) ** 2
                o += 1
            length = new_indptr[k + 1] - new_indptr[k]
            if o < starts[block + 1] and old_neurons[o] == new_neurons[k]:
                flips = _flips(
                    old_points, old_indptr[o], old_indptr[o + 1], new_points, new_indptr[k], new_indptr[k + 1]
                )
                if flips:
                    match[k] = o
                    cost[block] += flips * (length + old_indptr[o + 1] - old_indptr[o])
                o += 1
            else:
                match[k] = -1
                cost[block] += length * length
        while o < starts[block + 1]:
            lone[o] = True
            cost[block] += (old_indptr[o + 1] - old_indptr[o]) ** 2
            o += 1


@serial
def _add_outer(counts, points, start, stop, sign):
    for p in range(start, stop):
        for q in range(start, stop):
            counts[points[p], points[q]] += sign


@serial
def _change_pairs(counts, old_indptr, old_points, new_indptr, new_points, match, changed, gone):
    """Add ``delta 1_new^T + 1_old delta^T`` for every neuron whose list changed, with delta = 1_new - 1_old."""
    for o in gone:
        _add_outer(counts, old_points, old_indptr[o], old_indptr[o + 1], -1.0)
    for k in changed:
        q_start, q_end = new_indptr[k], new_indptr[k + 1]
        if match[k] < 0:
            _add_outer(counts, new_points, q_start, q_end, 1.0)
            continue
        p_start, p_end = old_indptr[match[k]], old_indptr[match[k] + 1]
        p, q = p_start, q_start
        while p < p_end or q < q_end:
            if p < p_end and q < q_end and old_points[p] == new_points[q]:
                p += 1
                q += 1
                continue
            leaves = q == q_end or (p < p_end and old_points[p] < new_points[q])
            i = old_points[p] if leaves else new_points[q]
            sign = -1.0 if leaves else 1.0
            for r in range(q_start, q_end):
                counts[i, new_points[r]] += sign
            for r in range(p_start, p_end):
                counts[old_points[r], i] += sign
            if leaves:
                p += 1
            else:
                q += 1


class CpuPairOps(PairOps):
    """Loops over points, and over blocks of neurons."""

    def forward(self, indptr: Array, indices: Array, values: Array, signs: Array, shift: float) -> Array:
        """Sum over the fired neurons of each point."""
        out = np.empty(len(indptr) - 1)
        _forward(indptr, indices, values, signs, float(shift), out)
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
        _transpose(indptr, indices, slots, t_indptr, t_points, compact)
        return neurons, t_indptr, t_points, compact

    def count_pairs(self, indptr: Array, compact: Array, t_indptr: Array, t_points: Array) -> Array:
        """Count the common neurons of all pairs of points, list by list."""
        n = len(indptr) - 1
        tasks = max(numba.get_num_threads(), -(-2 * n * n // COUNT_BYTES))
        edges = np.round(n * np.sqrt(np.linspace(0, 1, tasks + 1))).astype(np.int64)  # equal areas of the triangle
        lower = np.zeros((n, n), np.int32)
        _count_pairs(t_indptr, t_points, edges, lower)
        counts = lower.astype(np.float64)
        counts += np.tril(lower, -1).T  # in place: the sum of the two would take either's memory order
        return counts

    def change_pairs(self, counts: Array, before: NeuronLists, after: NeuronLists, limit: int) -> bool:
        """Find the lists that differ on all threads; work on those alone."""
        u, v = len(after.neurons), len(before.neurons)
        edges = np.linspace(0, u, BLOCKS + 1).astype(np.int64)
        starts = np.searchsorted(before.neurons, after.neurons[edges[:-1]] if u else edges[:-1])
        starts = np.append(starts, v) if u else np.zeros(len(edges), np.int64)
        starts[0] = 0
        match, lone, cost = np.full(u, -2, np.int64), np.zeros(v, bool), np.zeros(BLOCKS, np.int64)
        old, new = (before.neurons, before.indptr, before.points), (after.neurons, after.indptr, after.points)
        _compare(*old, *new, edges, starts, match, lone, cost)
        if not u:
            lone[:], cost[0] = True, (np.diff(before.indptr) ** 2).sum()
        if cost.sum() > limit:
            return False
        changed, gone = np.flatnonzero(match > -2), np.flatnonzero(lone)
        _change_pairs(counts, before.indptr, before.points, after.indptr, after.points, match, changed, gone)
        return True
