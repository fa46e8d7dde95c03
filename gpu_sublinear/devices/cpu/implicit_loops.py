"""The loops of :mod:`.implicit`: blocks of neurons, each with its own part of every output.

``bits[r]`` are the words of neuron r: bit i % 64 of word i // 64 says whether it fires on point i.  Sums over the
points of a neuron are looked up, for every four points among sixteen subsets; these tables stay in the first-level
cache while a tile of neurons is worked on.  Every sum has a fixed order, so any thread count gives equal bytes.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .jit import BLOCKS, parallel, serial
from .vectors import TABLE, WIDE, add_bits, add_subsets, dot, popcount

TILE_NEURONS = 128  # neurons whose sums are made together
ONE = np.uint64(1)


# ---- rows -----------------------------------------------------------------------------------------------


@parallel
def tabulate(weighted, tables):
    """Write the sums of all subsets of four rows of weighted (64 words, parts 16) to tables (parts, words, TABLE)."""
    parts, words = tables.shape[:2]
    for part in prange(parts * words):
        p, q = part // words, part % words
        table = tables[p, q]
        for group in range(16):
            base = group * 16 * WIDE
            table[base : base + WIDE] = 0
            for subset in range(1, 16):
                top = 3
                while not subset >> top & 1:
                    top -= 1
                rest, x = base + (subset & ~(1 << top)) * WIDE, weighted[64 * q + 4 * group + top]
                for j in range(WIDE):
                    table[base + subset * WIDE + j] = table[rest + j] + x[WIDE * p + j]


@serial
def add_logged(row, r, d, X, heads, before, log_points, coefficients):
    """Add the sum of the log entries of neuron r to the first d numbers of row (padded,)."""
    entry = heads[r]
    while entry >= 0:
        for j in range(d):
            row[j] += coefficients[entry] * X[log_points[entry], j]
        entry = before[entry]


@serial
def wide_row(r, W, X, bits, weights, tables, heads, before, log_points, coefficients, row):
    """Write an implicit row in float64 to row (padded,)."""
    parts, words = tables.shape[:2]
    for j in range(len(row)):
        row[j] = 0.0
    for p in range(parts):
        for q in range(words):
            add_subsets(row, p * WIDE, tables, (p * words + q) * TABLE, bits[r, q])
    add_logged(row, r, W.shape[1], X, heads, before, log_points, coefficients)
    for j in range(W.shape[1]):
        row[j] = W[r, j] - weights[r] * row[j]


@serial
def product(row, X, i):
    """Return the inner product of a padded row and point i."""
    width = len(row)
    total = dot(row, 0, X, i * width)
    for j in range(WIDE, width, WIDE):
        total += dot(row, j, X, i * width + j)
    return total


@serial
def tile_sums(sums, base, count, tables, bits):
    """Write the sums of all points that neurons base .. base + count fire on to sums (TILE_NEURONS, padded)."""
    parts, words = tables.shape[:2]
    width = sums.shape[1]
    for k in range(count):
        for j in range(width):
            sums[k, j] = 0
    for p in range(parts):
        for q in range(words):
            for k in range(count):
                add_subsets(sums, k * width + p * WIDE, tables, (p * words + q) * TABLE, bits[base + k, q])


@serial
def finish_row(r, k, sums, W, X, weights, heads, before, log_points, coefficients, row):
    """Write an implicit row in float64 to row (padded,), from the sums of its tile and the log."""
    for j in range(len(row)):
        row[j] = sums[k, j]
    add_logged(row, r, W.shape[1], X, heads, before, log_points, coefficients)
    for j in range(len(row)):
        row[j] *= -weights[r]
    for j in range(W.shape[1]):
        row[j] += W[r, j]


@parallel
def implicit_rows(W, X, bits, weights, tables, heads, before, log_points, coefficients, out):
    """Write all rows, rounded once."""
    u, d = out.shape
    for block in prange(BLOCKS):
        row, sums = np.empty(X.shape[1]), np.empty((TILE_NEURONS, X.shape[1]))
        first, last = block * u // BLOCKS, (block + 1) * u // BLOCKS
        for base in range(first, last, TILE_NEURONS):
            count = min(TILE_NEURONS, last - base)
            tile_sums(sums, base, count, tables, bits)
            for k in range(count):
                finish_row(base + k, k, sums, W, X, weights, heads, before, log_points, coefficients, row)
                for j in range(d):
                    out[base + k, j] = row[j]


# ---- flips ----------------------------------------------------------------------------------------------


@serial
def fires(bits, r, i):
    """Tell whether the bit of a pair is set."""
    return bits[r, i // 64] >> np.uint64(i % 64) & ONE != 0


@parallel
def near_flips(
    W, X, bits, weights, tables, heads, before, log_points, coefficients, starts, stops, points, values,
    shift, reach, edges, counts, looked, neurons, out_points, out_above,
):  # fmt: skip
    """Look at the near pairs within reach; write flips of block b from entry edges[b] on."""
    u = len(W)
    for block in prange(BLOCKS):
        row = np.empty(X.shape[1])
        place, seen = edges[block], 0
        for r in range(block * u // BLOCKS, (block + 1) * u // BLOCKS):
            known = False
            for e in range(starts[r], stops[r]):
                if abs(np.float64(values[e]) - shift) <= reach:
                    if not known:
                        wide_row(r, W, X, bits, weights, tables, heads, before, log_points, coefficients, row)
                        known = True
                    i, seen = points[e], seen + 1
                    P = product(row, X, i)
                    if (shift < P) != fires(bits, r, i):
                        neurons[place], out_points[place], out_above[place] = r, i, abs(P - shift)
                        place += 1
        counts[block], looked[block] = place - edges[block], seen


@parallel
def first_flips(
    W, X, bits, weights, tables, near, shift, radius, known, point_max,
    edges, counts, looked, neurons, out_points, out_above,
    needed, new_starts, new_stops, new_points, new_values,
):  # fmt: skip
    """Look at all pairs of a mask, near (u, words); rows have moved once, so that one sum is the whole movement.

    Block b writes flips and near pairs from entry edges[b] on, as long as they fit.
    """
    u, n, width = len(W), len(X), X.shape[1]
    for block in prange(BLOCKS):
        row, sums = np.empty(width), np.empty((TILE_NEURONS, width))
        place, more, room, seen = edges[block], edges[block], edges[block + 1], 0
        first, last = block * u // BLOCKS, (block + 1) * u // BLOCKS
        for base in range(first, last, TILE_NEURONS):
            count = min(TILE_NEURONS, last - base)
            tile_sums(sums, base, count, tables, bits)
            for k in range(count):
                r = base + k
                square = 0.0
                for j in range(width):
                    square += sums[k, j] * sums[k, j]
                    row[j] = -weights[r] * sums[k, j]
                for j in range(W.shape[1]):
                    row[j] += W[r, j]
                far = abs(weights[r]) * np.sqrt(square) * point_max * (1 + 1e-6) + radius > known
                new_starts[r] = more
                for q in range(near.shape[1]):
                    left, fired = near[r, q], bits[r, q]
                    if far:
                        left = ~np.uint64(0) >> np.uint64(64 - min(64, n - 64 * q))
                    while left:
                        low = left & (~left + ONE)
                        left ^= low
                        i = 64 * q + np.int64(popcount(low - ONE))
                        seen += 1
                        P = product(row, X, i)
                        distance = abs(P - shift)
                        if (shift < P) != (fired & low != 0):
                            if place < room:
                                neurons[place], out_points[place], out_above[place] = r, i, distance
                            place += 1
                        if distance <= radius:
                            if more < room:
                                new_points[more], new_values[more] = i, P
                            more += 1
                new_stops[r] = more
        counts[block], looked[block] = place - edges[block], seen
        needed[block] = max(place, more) - edges[block]


@parallel
def all_flips(
    W, X, bits, weights, tables, heads, before, log_points, coefficients, starts, stops, points, values,
    shift, radius, known, slack, afresh, step_tables, step_X, logged, point_max,
    edges, counts, looked, neurons, out_points, out_above,
    needed, new_starts, new_stops, new_points, new_values,
):  # fmt: skip
    """Move the values of the near pairs along with the rows; look exactly where a bit may be wrong, or at all afresh.

    Block b writes flips and near pairs from entry edges[b] on, as long as they fit.
    """
    u, n, width = len(W), len(X), X.shape[1]
    for block in prange(BLOCKS):
        row, sums = np.empty(width), np.empty((TILE_NEURONS, width), step_X.dtype)
        place, more, room, seen = edges[block], edges[block], edges[block + 1], 0
        first, last = block * u // BLOCKS, (block + 1) * u // BLOCKS
        for base in range(first, last, TILE_NEURONS):
            count = min(TILE_NEURONS, last - base)
            tile_sums(sums, base, count, step_tables, bits)
            for k in range(count):
                r = base + k
                if len(logged):
                    add_logged(sums[k], r, W.shape[1], X, heads, before, log_points, logged)
                square = dot(sums, k * width, sums, k * width)
                for j in range(WIDE, width, WIDE):
                    square += dot(sums, k * width + j, sums, k * width + j)
                reach = abs(weights[r]) * np.sqrt(np.float64(square)) * point_max * (1 + 1e-4) + slack
                new_starts[r] = more
                far, exact = reach + radius > known, False
                within = radius if far or afresh else radius + slack  # computed values have no error that counts
                start, stop = (0, n) if far else (starts[r], stops[r])
                for e in range(start, stop):
                    value = 0.0 if far else np.float64(values[e])
                    if not far and abs(value - shift) > reach + radius + slack:
                        continue
                    i, seen = e if far else np.int64(points[e]), seen + 1
                    fired = fires(bits, r, i)
                    if not (far or afresh):
                        moved = dot(sums, k * width, step_X, i * width)
                        for j in range(WIDE, width, WIDE):
                            moved += dot(sums, k * width + j, step_X, i * width + j)
                        value -= weights[r] * np.float64(moved)
                    if far or afresh or abs(value - shift) <= slack or (value > shift) != fired:
                        if not exact:
                            wide_row(r, W, X, bits, weights, tables, heads, before, log_points, coefficients, row)
                            exact = True
                        value = product(row, X, i)
                        if (value > shift) != fired:
                            if place < room:
                                neurons[place], out_points[place], out_above[place] = r, i, abs(value - shift)
                            place += 1
                    if abs(value - shift) <= within:
                        if more < room:
                            new_points[more], new_values[more] = i, value
                        more += 1
                new_stops[r] = more
        counts[block], looked[block] = place - edges[block], seen
        needed[block] = max(place, more) - edges[block]


@serial
def some(words):
    """Return 1 if any bit is set, else 0."""
    every = np.uint64(0)
    for word in words:
        every |= word
    return np.int64(every != 0)


@parallel
def flip_bits(bits, edges, neurons, points, total, size, heads, before, coefficients, union):
    """Turn bits over and log it; block b owns flips edges[b] .. edges[b + 1], whole neurons.

    Counts neurons that begin or cease to fire, union (blocks,).
    """
    for block in prange(len(edges) - 1):
        e, change = edges[block], 0
        while e < edges[block + 1]:
            r = neurons[e]
            change -= some(bits[r])
            head = heads[r]
            while e < edges[block + 1] and neurons[e] == r:
                i = points[e]
                bits[r, i // 64] ^= ONE << np.uint64(i % 64)
                before[e], head = head, size + e
                coefficients[e] = -total[i] if fires(bits, r, i) else total[i]
                e += 1
            heads[r] = head
            change += some(bits[r])
        union[block] = change


@serial
def sort_by_point(points, indptr, order):
    """Write positions of the pairs, by point, ascending for each; indptr (n + 2,) zeros on entry, offsets on exit."""
    for e in range(len(points)):
        indptr[points[e] + 2] += 1
    for i in range(2, len(indptr)):
        indptr[i] += indptr[i - 1]
    for e in range(len(points)):
        order[indptr[points[e] + 1]] = e
        indptr[points[e] + 1] += 1


@parallel
def count_flips(bits, neurons, points, terms, indptr, order, twice, sums):
    """Write ``2 delta^T M' - delta^T delta`` to twice (n, n) int32, zeros on entry, and the sums of terms by point."""
    n, words = len(twice), bits.shape[1]
    for i in prange(n):
        most = np.zeros(64 * words, np.int8)
        since = 0
        for t in range(indptr[i], indptr[i + 1]):
            e = order[t]
            r = neurons[e]
            sums[i] += terms[e]
            sign = 1 if fires(bits, r, i) else -1
            for q in range(words):
                add_bits(most, 64 * q, bits[r, q], sign)
            f = e
            while f > 0 and neurons[f - 1] == r:
                f -= 1
            while f < len(neurons) and neurons[f] == r:
                twice[i, points[f]] -= sign if fires(bits, r, points[f]) else -sign
                f += 1
            since += 1
            if since == 127 or t == indptr[i + 1] - 1:  # as much as a byte holds
                for j in range(n):
                    twice[i, j] += 2 * most[j]
                most[:] = 0
                since = 0


@parallel
def add_halves(counts, twice):
    """Add half of ``twice`` and of its transpose to the counts (n, n)."""
    n = len(counts)
    for i in prange(n):
        for j in range(n):
            counts[i, j] += (twice[i, j] + twice[j, i]) // 2
