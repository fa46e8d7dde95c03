"""Numba loops of the cpu device: parallel over rows that nobody else writes, so any thread count gives equal bytes.

No fast-math anywhere: LLVM then neither reorders sums nor fuses multiply and add, which the computed number
(:mod:`gpu_sublinear.devices.base`) relies on.  Inner loops run over neurons, where the lanes are independent.
"""

from __future__ import annotations

import math
import os

import numpy as np

# Threads that wait must sleep: spinning ones keep the others from the cores that they wait for.  On two cores shared
# with one other busy process, solver iterations took 32 ms instead of 1 (read when Numba starts its threads).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from numba import njit, prange

from .. import philox
from .vectors import popcount

LANES = 128  # neurons worked on together: their sums and weights stay in the first-level cache

_M0, _M1 = np.uint64(philox.MULTIPLIER_0), np.uint64(philox.MULTIPLIER_1)
_W0, _W1 = np.uint64(philox.WEYL_0), np.uint64(philox.WEYL_1)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = philox.ROUNDS
_SKETCH = philox.SKETCH
_CAPS, _CAP_DEPTHS = np.uint64(philox.CAPS), np.uint64(philox.CAP_DEPTHS)
_CENTRAL_A, _CENTRAL_B = philox.CENTRAL_A, philox.CENTRAL_B
_MIDDLE_C, _MIDDLE_D = philox.MIDDLE_C, philox.MIDDLE_D
_TAIL_E, _TAIL_F = philox.TAIL_E, philox.TAIL_F
_LOG_SERIES, _LN2, _SQRT_HALF = philox.LOG_SERIES, philox.LN2, philox.SQRT_HALF

parallel = njit(parallel=True, cache=True, nogil=True)
serial = njit(cache=True, nogil=True)


# ---- random numbers: philox.py, scalar by scalar ---------------------------------------------------------


@serial
def philox4x32(c0, c1, c2, c3, seed):
    """Philox4x32-10; all words and the key as uint64."""
    k0, k1 = seed & _MASK, seed >> _32
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@serial
def horner(coefficients, x):
    """Polynomial, constant term first in the tuple."""
    value = coefficients[len(coefficients) - 1]
    for k in range(len(coefficients) - 2, -1, -1):
        value = value * x + coefficients[k]
    return value


@serial
def log(x):
    """Natural logarithm by the operations of philox.log."""
    mantissa, exponent = math.frexp(x)
    k = float(exponent)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        k -= 1.0
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = z * horner(_LOG_SERIES, z)
    half = 0.5 * f * f
    return k * _LN2 + (f - (half - s * (half + series)))


@serial
def uniform(high, low):
    """Double in (0, 1) from two words."""
    bits = ((high >> np.uint64(6)) << np.uint64(26)) | (low >> np.uint64(6))
    return (float(bits) + 0.5) * 2.0**-52


@serial
def normal_quantile(u):
    """Inverse normal distribution function."""
    q = u - 0.5
    if abs(q) <= 0.425:
        near = 0.180625 - q * q
        return q * horner(_CENTRAL_A, near) / horner(_CENTRAL_B, near)
    r = math.sqrt(-log(min(u, 1.0 - u)))
    if r <= 5.0:
        value = horner(_MIDDLE_C, r - 1.6) / horner(_MIDDLE_D, r - 1.6)
    else:
        value = horner(_TAIL_E, r - 5.0) / horner(_TAIL_F, r - 5.0)
    return -value if q < 0.0 else value


@parallel
def normal_rows(seed, start, paired, out):
    """Fill out (rows, d) with the initial weights of neurons start, start + 1, ..."""
    rows, d = out.shape
    for k in prange(rows):
        r = np.uint64(start + k)
        if paired:
            r = r >> np.uint64(1)
        for pair in range((d + 1) // 2):
            w0, w1, w2, w3 = philox4x32(r & _MASK, r >> _32, np.uint64(pair), np.uint64(0), seed)
            out[k, 2 * pair] = normal_quantile(uniform(w0, w1))
            if 2 * pair + 1 < d:
                out[k, 2 * pair + 1] = normal_quantile(uniform(w2, w3))


@parallel
def cap_rows(seed, directions, tails, owners, places, out):
    """Fill out (rows, d) with initial weights conditioned on the caps of their owners."""
    rows, d = out.shape
    for k in prange(rows):
        owner, place, e = np.uint64(owners[k]), np.uint64(places[k]), directions[owners[k]]
        z = np.empty(d + 1)
        for pair in range((d + 1) // 2):
            w0, w1, w2, w3 = philox4x32(place, owner, np.uint64(pair), _CAPS, seed)
            z[2 * pair] = normal_quantile(uniform(w0, w1))
            z[2 * pair + 1] = normal_quantile(uniform(w2, w3))
        along = z[0] * e[0]
        for j in range(1, d):
            along += z[j] * e[j]
        w0, w1, w2, w3 = philox4x32(place, owner, np.uint64(0), _CAP_DEPTHS, seed)
        rest = -normal_quantile(tails[owners[k]] * uniform(w0, w1)) - along
        for j in range(d):
            out[k, j] = z[j] + rest * e[j]


# ---- threshold trees ------------------------------------------------------------------------------------


@serial
def gather_rows(W, neurons, first, last, columns):
    """Write the weights of some neurons to ``columns`` (d, LANES), feature by feature."""
    for k in range(first, last):
        for j in range(len(columns)):
            columns[j, k - first] = W[neurons[k], j]


@serial
def computed_numbers(x, columns, total):
    """Set total (LANES,) to the computed numbers of one point; four features per pass: same order, fewer stores."""
    d = len(x)
    for k in range(LANES):
        total[k] = x[0] * columns[0, k]
    j = 1
    while j + 3 < d:
        x0, x1, x2, x3 = x[j], x[j + 1], x[j + 2], x[j + 3]
        for k in range(LANES):
            total[k] = (
                ((total[k] + x0 * columns[j, k]) + x1 * columns[j + 1, k]) + x2 * columns[j + 2, k]
            ) + x3 * columns[j + 3, k]
        j += 4
    while j < d:
        for k in range(LANES):
            total[k] = total[k] + x[j] * columns[j, k]
        j += 1


@parallel
def fill_leaves(nodes, X, W, neurons):
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
def reduce_level(nodes, below, size, here, arity, parents):
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
def query_batch(nodes, offsets, sizes, arity, bound, first, found, counts, visited):
    """Find the leaves above the bound for points first, first + 1, ...: one row of ``found`` (batch, m) each."""
    for k in prange(min(len(found), len(nodes) - first)):
        i = first + k
        back = np.empty(sizes[0] // arity + arity + 1, np.int32)
        front = np.empty(sizes[0] // arity + arity + 1, np.int32)
        counts[i], visited[i] = _query_point(nodes[i], offsets, sizes, arity, bound, front, back, found[k])


@parallel
def copy_batch(nodes, first, found, starts, indices, values):
    """Move a batch of lists end to end, with the leaf values."""
    for k in prange(len(starts) - 1):
        for p in range(starts[k], starts[k + 1]):
            r = found[k, p - starts[k]]
            indices[p] = r
            values[p] = nodes[first + k, r]


# ---- active set -----------------------------------------------------------------------------------------


@parallel
def forward(indptr, indices, values, signs, shift, out):
    """Sum a_r (P_ir - b) per point in float64, in the order of the neurons."""
    for i in prange(len(out)):
        total = 0.0
        for p in range(indptr[i], indptr[i + 1]):
            total += np.float64(signs[indices[p]]) * (np.float64(values[p]) - shift)
        out[i] = total


@serial
def transpose(indptr, indices, slots, t_indptr, t_points, compact):
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
def count_pairs(t_indptr, t_points, edges, out):
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
def count_bits(bits):
    """Return the (n, n) float64 numbers of common set bits of the rows of bits (n, words) uint64."""
    n, words = bits.shape
    out = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = np.uint64(0)
            for w in range(words):
                total += popcount(bits[i, w] & bits[j, w])
            out[i, j] = total
            out[j, i] = total
    return out


# ---- sparse Jacobian ------------------------------------------------------------------------------------


@parallel
def fill_jacobian(indptr, compact, neurons, signs, X, scale, data, columns):
    """Write d entries for every fired pair."""
    n, d = X.shape
    for i in prange(n):
        for p in range(indptr[i], indptr[i + 1]):
            weight = scale * signs[neurons[compact[p]]]
            for j in range(d):
                data[p * d + j] = weight * X[i, j]
                columns[p * d + j] = compact[p] * d + j


@parallel
def fill_jacobian_t(t_indptr, t_points, neurons, signs, X, scale, data, columns, indptr):
    """Write the d rows of every neuron: entry q of row j is the neuron's q-th point."""
    d = X.shape[1]
    for k in prange(len(neurons)):
        start, count = t_indptr[k], t_indptr[k + 1] - t_indptr[k]
        weight = scale * signs[neurons[k]]
        for j in range(d):
            base = start * d + j * count
            indptr[k * d + j + 1] = base + count
            for q in range(count):
                i = t_points[start + q]
                data[base + q] = weight * X[i, j]
                columns[base + q] = i


@parallel
def spmv(data, indices, indptr, x, out):
    """Rows times a vector, float64 sums in four lanes so that additions overlap."""
    for i in prange(len(out)):
        start, stop = indptr[i], indptr[i + 1]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        p = start
        while p + 3 < stop:
            s0 += data[p] * x[indices[p]]
            s1 += data[p + 1] * x[indices[p + 1]]
            s2 += data[p + 2] * x[indices[p + 2]]
            s3 += data[p + 3] * x[indices[p + 3]]
            p += 4
        while p < stop:
            s0 += data[p] * x[indices[p]]
            p += 1
        out[i] = (s0 + s1) + (s2 + s3)


@parallel
def sketch_rows(data, indices, indptr, nonzeros, seed, draw, out):
    """Add every entry of row i to its buckets of out[i]; the hash of four neighbouring columns is one Philox call."""
    rows = np.uint64(out.shape[1])
    scale = 1.0 / math.sqrt(nonzeros)
    for i in prange(len(indptr) - 1):
        for nonzero in range(nonzeros):
            purpose = np.uint64(_SKETCH + nonzero)
            group = np.uint64(1) << np.uint64(62)  # no column has it
            w0, w1, w2, w3 = group, group, group, group
            for p in range(indptr[i], indptr[i + 1]):
                column = np.uint64(indices[p])
                if column >> np.uint64(2) != group:
                    group = column >> np.uint64(2)
                    w0, w1, w2, w3 = philox4x32(group & _MASK, group >> _32, draw, purpose, seed)
                lane = column & np.uint64(3)
                word = w0 if lane == 0 else w1 if lane == 1 else w2 if lane == 2 else w3
                bucket = (word >> np.uint64(1)) * rows >> np.uint64(31)
                out[i, bucket] += scale * (1.0 - 2.0 * float(word & np.uint64(1))) * data[p]


@parallel
def update_rows(W, neurons, delta):
    """Subtract delta from the rows of W that moved."""
    for k in prange(len(neurons)):
        for j in range(W.shape[1]):
            W[neurons[k], j] -= delta[k, j]
