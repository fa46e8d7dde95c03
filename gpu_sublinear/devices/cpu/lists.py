"""Numba loops over neuron lists: scanning for candidates, exact products, what changed since the last query.

Parallel over blocks of neurons.  Where neurons add to the same point, every block has its own sums, which are added
in the order of the blocks; the number of blocks is fixed, so any thread count gives equal bytes.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .. import philox
from .kernels import LANES, computed_numbers, gather_rows, parallel, philox4x32, serial
from .vectors import WIDE, sixteen_numbers

DENSE = 8  # hits among LANES from which writing all of them beats finding them
BLOCKS = 64  # blocks of neurons with sums of their own: enough to balance tens of threads, n x 64 doubles of memory

_NEURONS = np.uint64(philox.NEURONS)
_32, _MASK = np.uint64(32), np.uint64(0xFFFFFFFF)


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
def listed_numbers(X, W, neurons, indptr, points, first, last, values):
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
def evaluate(X, W, neurons, indptr, points, bound, values, fired, histogram, unions):
    """Compute all candidate products; count those above the bound by list and by (block, point), and lists by block."""
    c = len(neurons)
    blocks = len(histogram)
    for block in prange(blocks):
        first, last = block * c // blocks, (block + 1) * c // blocks
        listed_numbers(X, W, neurons, indptr, points, first, last, values)
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
def count_above(X, W, neurons, indptr, points, limits, values, counts):
    """Compute all candidate products; count those above their neuron's limit."""
    c = len(neurons)
    for block in prange(BLOCKS):
        first, last = block * c // BLOCKS, (block + 1) * c // BLOCKS
        listed_numbers(X, W, neurons, indptr, points, first, last, values)
        for k in range(first, last):
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
def keep(indptr, points, bound, values, fired, starts, slots, ahead, places, t_indptr, t_points, compact, kept):
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
def splice(indptr, points, places, new_indptr, new_points, joined, out):
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
