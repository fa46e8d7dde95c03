"""Numba loops over neuron lists: scanning for candidates, exact products, and the factored Jacobian.

Parallel over blocks of neurons.  Where neurons add to the same point, every block has its own sums, which are added
in the order of the blocks; the number of blocks is fixed, so any thread count gives equal bytes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from . import philox
from .cpu_kernels import LANES, computed_numbers, gather_rows, parallel, philox4x32, serial

DENSE = 8  # hits among LANES from which writing all of them beats finding them
BLOCKS = 64  # blocks of neurons with sums of their own: enough to balance tens of threads, n x 64 doubles of memory

_NEURONS = np.uint64(philox.NEURONS)
_32, _MASK = np.uint64(32), np.uint64(0xFFFFFFFF)


@serial
def listed_numbers(X, w, points, start, stop, values):
    """Write the computed numbers of one neuron and its listed points: four sums at a time, each in its one order."""
    d = len(w)
    q = start
    while q + 3 < stop:
        x0, x1, x2, x3 = X[points[q]], X[points[q + 1]], X[points[q + 2]], X[points[q + 3]]
        s0, s1, s2, s3 = x0[0] * w[0], x1[0] * w[0], x2[0] * w[0], x3[0] * w[0]
        for j in range(1, d):
            s0 = s0 + x0[j] * w[j]
            s1 = s1 + x1[j] * w[j]
            s2 = s2 + x2[j] * w[j]
            s3 = s3 + x3[j] * w[j]
        values[q], values[q + 1], values[q + 2], values[q + 3] = s0, s1, s2, s3
        q += 4
    while q < stop:
        x0 = X[points[q]]
        s0 = x0[0] * w[0]
        for j in range(1, d):
            s0 = s0 + x0[j] * w[j]
        values[q] = s0
        q += 1


@parallel
def scan(X, W, neurons, thresholds, found, counts):
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
            if above > DENSE:
                for k in range(lanes):  # written always, kept where above: no branch to mispredict
                    found[first + k, counts[first + k]] = i
                    counts[first + k] += total[k] > bound[k]
            elif above:
                for k in range(lanes):
                    if total[k] > bound[k]:
                        found[first + k, counts[first + k]] = i
                        counts[first + k] += 1


@parallel
def pack(found, starts, points):
    """Move the rows of ``found`` end to end."""
    for k in prange(len(starts) - 1):
        for q in range(starts[k], starts[k + 1]):
            points[q] = found[k, q - starts[k]]


@parallel
def evaluate(X, W, neurons, indptr, points, bound, values, fired, histogram):
    """Compute all candidate products; count those above the bound by neuron and by (block, point)."""
    c = len(neurons)
    blocks = len(histogram)
    for block in prange(blocks):
        for k in range(block * c // blocks, (block + 1) * c // blocks):
            listed_numbers(X, W[neurons[k]], points, indptr[k], indptr[k + 1], values)
            count = np.int64(0)
            for q in range(indptr[k], indptr[k + 1]):
                fires = np.int64(values[q] > bound)  # added always: no branch to mispredict
                count += fires
                histogram[block, points[q]] += fires
            fired[k] = count


@parallel
def count_above(X, W, neurons, indptr, points, limits, values, counts):
    """Compute all candidate products; count those above their neuron's limit."""
    for k in prange(len(neurons)):
        listed_numbers(X, W[neurons[k]], points, indptr[k], indptr[k + 1], values)
        count = 0
        for q in range(indptr[k], indptr[k + 1]):
            count += values[q] > limits[k]
        counts[k] = count


@parallel
def keep_above(indptr, points, limits, values, starts, out):
    """Move the points whose product is above the limit to their new places."""
    for k in prange(len(limits)):
        at = starts[k]
        for q in range(indptr[k], indptr[k + 1]):
            if values[q] > limits[k]:
                out[at] = points[q]
                at += 1


@parallel
def keep(neurons, indptr, points, bound, values, starts, slots, places, t_points, compact, kept):
    """Write the pairs above the bound in both orders; ``places[block, i]`` is where the block goes on for point i."""
    c = len(neurons)
    blocks = len(places)
    for block in prange(blocks):
        for k in range(block * c // blocks, (block + 1) * c // blocks):
            at = starts[k]
            for q in range(indptr[k], indptr[k + 1]):
                if values[q] > bound:
                    i = points[q]
                    t_points[at] = i
                    at += 1
                    place = places[block, i]
                    places[block, i] = place + 1
                    compact[place] = slots[k]
                    kept[place] = values[q]


@parallel
def splice(indptr, points, new_indptr, new_points, source, joined, out):
    """Copy list k from the new lists where ``source[k]`` >= 0, else from the old ones."""
    for k in prange(len(source)):
        from_new = source[k] >= 0
        start = new_indptr[source[k]] if from_new else indptr[k]
        for q in range(joined[k + 1] - joined[k]):
            out[joined[k] + q] = new_points[start + q] if from_new else points[start + q]


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
def compare(old_neurons, old_indptr, old_points, new_neurons, new_indptr, new_points, edges, starts, match, lone, cost):
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
def change_pairs(counts, old_indptr, old_points, new_indptr, new_points, match, changed, gone):
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


@serial
def _weighted_sum(rows, points, start, stop, total):
    """Set ``total`` to the sum of the rows of the listed points, two rows per pass over it."""
    for j in range(len(total)):
        total[j] = 0.0
    q = start
    while q + 1 < stop:
        first, second = points[q], points[q + 1]
        for j in range(len(total)):
            total[j] += rows[first, j] + rows[second, j]
        q += 2
    if q < stop:
        for j in range(len(total)):
            total[j] += rows[points[q], j]


@serial
def _dot(a, x):
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    j = 0
    while j + 3 < len(a):
        s0 += a[j] * x[j]
        s1 += a[j + 1] * x[j + 1]
        s2 += a[j + 2] * x[j + 2]
        s3 += a[j + 3] * x[j + 3]
        j += 4
    while j < len(a):
        s0 += a[j] * x[j]
        j += 1
    return (s0 + s1) + (s2 + s3)


@parallel
def factored_gram(X, weighted, indptr, points, out):
    """Add ``<x_i, sum_k weighted_k>`` over the neurons of each block; out (blocks, n), weighted = g_i x_i (n, d)."""
    u = len(indptr) - 1
    blocks = len(out)
    for block in prange(blocks):
        total = np.empty(X.shape[1])
        for k in range(block * u // blocks, (block + 1) * u // blocks):
            _weighted_sum(weighted, points, indptr[k], indptr[k + 1], total)
            for q in range(indptr[k], indptr[k + 1]):
                out[block, points[q]] += _dot(total, X[points[q]])


@serial
def _spread(X, v, weight, points, start, stop, out):
    """Add ``weight <v, x_i>`` to the listed points: four sums at a time."""
    q = start
    while q + 3 < stop:
        x0, x1, x2, x3 = X[points[q]], X[points[q + 1]], X[points[q + 2]], X[points[q + 3]]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for j in range(len(v)):
            s0 += x0[j] * v[j]
            s1 += x1[j] * v[j]
            s2 += x2[j] * v[j]
            s3 += x3[j] * v[j]
        out[points[q]] += weight * s0
        out[points[q + 1]] += weight * s1
        out[points[q + 2]] += weight * s2
        out[points[q + 3]] += weight * s3
        q += 4
    while q < stop:
        out[points[q]] += weight * _dot(v, X[points[q]])
        q += 1


@parallel
def factored_product(X, V, weights, indptr, points, out):
    """Add ``weights_r <V_r, x_i>`` over the neurons of each block; out (blocks, n)."""
    u = len(indptr) - 1
    blocks = len(out)
    for block in prange(blocks):
        for k in range(block * u // blocks, (block + 1) * u // blocks):
            _spread(X, V[k], weights[k], points, indptr[k], indptr[k + 1], out[block])


@parallel
def factored_along(X, W, initial, weights, neurons, indptr, points, out):
    """Do the same with the rows ``W_r - initial_r`` of the neurons in place of V."""
    u = len(indptr) - 1
    blocks = len(out)
    for block in prange(blocks):
        v = np.empty(X.shape[1])
        for k in range(block * u // blocks, (block + 1) * u // blocks):
            row, home = W[neurons[k]], initial[neurons[k]]
            for j in range(len(v)):
                v[j] = np.float64(row[j]) - home[j]
            _spread(X, v, weights[k], points, indptr[k], indptr[k + 1], out[block])


@parallel
def square_distances(A, B, out):
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
def factored_transposed(weighted, weights, indptr, points, out):
    """Write ``weights_r sum_i weighted_i`` to row r of out (u, d)."""
    for k in prange(len(indptr) - 1):
        _weighted_sum(weighted, points, indptr[k], indptr[k + 1], out[k])
        for j in range(out.shape[1]):
            out[k, j] *= weights[k]


@parallel
def move_rows(W, weighted, weights, neurons, indptr, points, moved):
    """Subtract ``weights_r sum_i weighted_i`` from row r of W and write the norm of what the stored row moved."""
    d = W.shape[1]
    u = len(neurons)
    for block in prange(BLOCKS):
        total = np.empty(d)
        for k in range(block * u // BLOCKS, (block + 1) * u // BLOCKS):
            _weighted_sum(weighted, points, indptr[k], indptr[k + 1], total)
            row, weight = W[neurons[k]], weights[k]
            for j in range(d):
                before = np.float64(row[j])
                row[j] = before - weight * total[j]
                total[j] = np.float64(row[j]) - before
            square = 0.0
            for j in range(d):  # a loop of its own: the one above stays free of a serial sum
                square += total[j] * total[j]
            moved[k] = math.sqrt(square)


@serial
def _pull_row(W, initial, r, kept, change, after):
    """Write row r of ``W0 + kept (W - W0) - change``; put what it moved in place of change (d,), return its norm."""
    for j in range(len(change)):
        before, home = np.float64(W[r, j]), np.float64(initial[r, j])
        after[r, j] = home + kept * (before - home) - change[j]
        change[j] = np.float64(after[r, j]) - before
    return math.sqrt(_dot(change, change))


@parallel
def pull_rows(W, initial, neurons, change, kept, edges, starts, after, moved):
    """Write all rows; block b owns rows from edges[b] and neurons from starts[b]."""
    for block in prange(len(edges) - 1):
        k, own = starts[block], np.empty(W.shape[1])
        for r in range(edges[block], edges[block + 1]):
            changes = k < starts[block + 1] and neurons[k] == r
            for j in range(len(own)):
                own[j] = change[k, j] if changes else 0.0
            k += changes
            moved[r] = _pull_row(W, initial, r, kept, own, after)


@parallel
def pull_lists(W, initial, weighted, weights, neurons, indptr, points, kept, edges, starts, after, moved):
    """Do the same with the changes ``weights_k sum_i weighted_i``, without an array of them."""
    for block in prange(len(edges) - 1):
        k, own = starts[block], np.empty(W.shape[1])
        for r in range(edges[block], edges[block + 1]):
            own[:] = 0.0
            if k < starts[block + 1] and neurons[k] == r:
                _weighted_sum(weighted, points, indptr[k], indptr[k + 1], own)
                for j in range(len(own)):
                    own[j] *= weights[k]
                k += 1
            moved[r] = _pull_row(W, initial, r, kept, own, after)


@parallel
def hash_neurons(neurons, buckets, seed, draw, bucket, sign):
    """Place every neuron in a bucket, with a sign."""
    for k in prange(len(neurons)):
        r = np.uint64(neurons[k])
        group, lane = r >> np.uint64(2), r & np.uint64(3)
        w0, w1, w2, w3 = philox4x32(group & _MASK, group >> _32, draw, _NEURONS, seed)
        word = w0 if lane == 0 else w1 if lane == 1 else w2 if lane == 2 else w3
        bucket[k] = (word >> np.uint64(1)) * np.uint64(buckets) >> np.uint64(31)
        sign[k] = 1.0 - 2.0 * float(word & np.uint64(1))


@parallel
def sketch_neurons(indptr, compact, bucket, sign, out):
    """Add the signs of the neurons that fire on each point in their buckets."""
    for i in prange(len(out)):
        for p in range(indptr[i], indptr[i + 1]):
            out[i, bucket[compact[p]]] += sign[compact[p]]
