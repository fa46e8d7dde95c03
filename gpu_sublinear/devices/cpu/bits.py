"""Packed masks: word w of point i holds whether neurons 64 w .. 64 w + 63 fire on i.

No branch depends on who fires.  Every sum has a fixed order (a fixed number of blocks of neurons for the outputs, tasks
that own rows for the counts), so any thread count gives equal bytes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from ..formats import Array
from ..ops.bits import BitOps
from .jit import BLOCKS, parallel, serial
from .numbers import LANES, computed_numbers
from .vectors import popcount

WORD = 64  # neurons
COUNTED_WORDS = 8  # in one pass over a row of counts
CHANGED_COST = 8  # words of a recount that take as long as one that changed
PRODUCT_PARTS = 16  # of the words, with (n, d) sums of their own
MOVED_NEURONS = 1024  # moved together: their sums fit a second-level cache
TABLE_POINTS = 8  # points whose 256 possible sums are tabulated


@serial
def _load_rows(W, signs, first, last, columns, sign, bound, limit):
    """Copy rows first .. last to lanes, feature by feature; lanes beyond never fire."""
    for k in range(LANES):
        inside = first + k < last
        bound[k] = limit if inside else np.inf
        sign[k] = signs[first + k] if inside else 0.0
        for j in range(len(columns)):
            columns[j, k] = W[first + k, j] if inside else 0.0


@serial
def _pack(numbers, bound, start, powers):
    """Return the word of the comparisons of 64 lanes from ``start`` on."""
    word = np.uint64(0)
    for k in range(WORD):
        word |= powers[k] if numbers[start + k] > bound[start + k] else np.uint64(0)
    return word


@serial
def _folded(parts):
    """Return the sum of LANES numbers, halves added to halves (destroys them)."""
    for k in range(64):
        parts[k] += parts[k + 64]
    for k in range(32):
        parts[k] += parts[k + 32]
    for k in range(16):
        parts[k] += parts[k + 16]
    for k in range(8):
        parts[k] += parts[k + 8]
    total = 0.0
    for k in range(8):
        total += parts[k]
    return total


@parallel
def _pack_mask(X, W, signs, limit, shift, bits, totals):
    """Write the mask, and the sums ``a_r (P - b)`` of every block of neurons to totals (BLOCKS, n)."""
    n, d = X.shape
    u, words = len(W), len(bits)
    groups = (u + LANES - 1) // LANES
    for block in prange(BLOCKS):
        columns, numbers, bound = np.empty((d, LANES), W.dtype), np.empty(LANES, W.dtype), np.empty(LANES, W.dtype)
        sign, parts = np.empty(LANES), np.empty(LANES)
        powers = np.uint64(1) << np.arange(WORD).astype(np.uint64)
        for group in range(block * groups // BLOCKS, (block + 1) * groups // BLOCKS):
            _load_rows(W, signs, group * LANES, min((group + 1) * LANES, u), columns, sign, bound, limit)
            for i in range(n):
                computed_numbers(X[i], columns, numbers)
                bits[2 * group, i] = _pack(numbers, bound, 0, powers)
                if 2 * group + 1 < words:
                    bits[2 * group + 1, i] = _pack(numbers, bound, WORD, powers)
                for k in range(LANES):
                    above = sign[k] * (np.float64(numbers[k]) - shift)
                    parts[k] = above if numbers[k] > bound[k] else 0.0
                totals[block, i] += _folded(parts)


@parallel
def _near_mask(X, W, signs, limit, shift, beyond, bits, totals, near):
    """Write what pack_mask does, and one bit for each pair less than ``beyond`` from the limit, near (words, n)."""
    n, d = X.shape
    u, words = len(W), len(bits)
    groups = (u + LANES - 1) // LANES
    for block in prange(BLOCKS):
        columns, numbers, bound = np.empty((d, LANES), W.dtype), np.empty(LANES, W.dtype), np.empty(LANES, W.dtype)
        sign, parts, distance = np.empty(LANES), np.empty(LANES), np.empty(LANES, W.dtype)
        most = np.empty(LANES, W.dtype)
        powers = np.uint64(1) << np.arange(WORD).astype(np.uint64)
        for group in range(block * groups // BLOCKS, (block + 1) * groups // BLOCKS):
            first, last = group * LANES, min((group + 1) * LANES, u)
            _load_rows(W, signs, first, last, columns, sign, bound, limit)
            for k in range(LANES):
                most[k] = beyond if first + k < last else -1
            for i in range(n):
                computed_numbers(X[i], columns, numbers)
                for k in range(LANES):
                    above = sign[k] * (np.float64(numbers[k]) - shift)
                    parts[k] = above if numbers[k] > bound[k] else 0.0
                    distance[k] = abs(numbers[k] - limit)
                totals[block, i] += _folded(parts)
                bits[2 * group, i] = _pack(numbers, bound, 0, powers)
                near[2 * group, i] = _pack(most, distance, 0, powers)
                if 2 * group + 1 < words:
                    bits[2 * group + 1, i] = _pack(numbers, bound, WORD, powers)
                    near[2 * group + 1, i] = _pack(most, distance, WORD, powers)


@serial
def _transpose_word(a):
    """Transpose 64 words of 64 bits in place (Warren, Hacker's Delight, section 7-3)."""
    width, mask = 32, np.uint64(0x00000000FFFFFFFF)
    while width:
        shift = np.uint64(width)
        for base in range(0, 64, 2 * width):
            for k in range(base, base + width):
                t = ((a[k] >> shift) ^ a[k + width]) & mask
                a[k + width] ^= t
                a[k] ^= t << shift
        width //= 2
        mask ^= mask << np.uint64(width)


@parallel
def _mask_by_rows(bits, out):
    """Turn words of neurons, bits (words, n), into words of points, out (u, ceil(n / 64))."""
    words, n = bits.shape
    u = len(out)
    for w in prange(words):
        a = np.empty(64, np.uint64)
        for q in range(out.shape[1]):
            for k in range(64):
                i = 64 * q + k
                a[k] = bits[w, i] if i < n else np.uint64(0)
            _transpose_word(a)
            for k in range(min(64, u - 64 * w)):
                out[64 * w + k, q] = a[k]


@parallel
def _mask_sizes(bits, counts, union):
    """Add up who fires on each point by blocks of words, counts (BLOCKS, n), and who fires at all, union (BLOCKS,)."""
    words, n = bits.shape
    for block in prange(BLOCKS):
        for w in range(block * words // BLOCKS, (block + 1) * words // BLOCKS):
            some = np.uint64(0)
            for i in range(n):
                counts[block, i] += popcount(bits[w, i])
                some |= bits[w, i]
            union[block] += popcount(some)


@parallel
def _count_mask(bits, edges, out):
    """Count common neurons below the diagonal of out (n, n) uint64; task t owns rows edges[t] .. edges[t + 1]."""
    words = len(bits)
    whole = words // COUNTED_WORDS * COUNTED_WORDS
    for task in prange(len(edges) - 1):
        for w in range(0, whole, COUNTED_WORDS):
            b0, b1, b2, b3 = bits[w], bits[w + 1], bits[w + 2], bits[w + 3]
            b4, b5, b6, b7 = bits[w + 4], bits[w + 5], bits[w + 6], bits[w + 7]
            for i in range(edges[task], edges[task + 1]):
                x0, x1, x2, x3, x4, x5, x6, x7 = b0[i], b1[i], b2[i], b3[i], b4[i], b5[i], b6[i], b7[i]
                row = out[i]
                for j in range(i + 1):
                    low = (popcount(x0 & b0[j]) + popcount(x1 & b1[j])) + (popcount(x2 & b2[j]) + popcount(x3 & b3[j]))
                    high = (popcount(x4 & b4[j]) + popcount(x5 & b5[j])) + (popcount(x6 & b6[j]) + popcount(x7 & b7[j]))
                    row[j] += low + high
        for w in range(whole, words):
            for i in range(edges[task], edges[task + 1]):
                for j in range(i + 1):
                    out[i, j] += popcount(bits[w, i] & bits[w, j])


@parallel
def _changed_words(before, after, counts):
    """Count the words that differ, counts (BLOCKS,)."""
    words, n = after.shape
    for block in prange(BLOCKS):
        total = 0
        for w in range(block * words // BLOCKS, (block + 1) * words // BLOCKS):
            for i in range(n):
                total += before[w, i] != after[w, i]
        counts[block] = total


@parallel
def _change_mask(before, after, edges, out):
    """Add ``sum_r (M'_ri - M_ri) (M'_rj + M_rj)`` to out (n, n) uint64, modulo 2^64."""
    words, n = after.shape
    for task in prange(len(edges) - 1):
        for w in range(words):
            old, new = before[w], after[w]
            for i in range(edges[task], edges[task + 1]):
                flips = old[i] ^ new[i]
                if flips:
                    gained, lost = flips & new[i], flips & old[i]
                    row = out[i]
                    for j in range(n):
                        row[j] += (popcount(gained & new[j]) + popcount(gained & old[j])) - (
                            popcount(lost & new[j]) + popcount(lost & old[j])
                        )


@parallel
def _tabulate(weighted, tables):
    """Write the sums of all subsets of eight rows of weighted (n, d) to tables (ceil(n / 8), 256, d)."""
    n, d = weighted.shape
    for group in prange(len(tables)):
        for subset in range(1, 256):
            top = 7
            while not subset >> top & 1:
                top -= 1
            i = group * TABLE_POINTS + top
            for j in range(d):
                tables[group, subset, j] = tables[group, subset & ~(1 << top), j] + (weighted[i, j] if i < n else 0.0)


@serial
def _transposed_bits(bits, w, first, last, lane):
    """Return byte t = the bits of points first .. last (at most 8) for neuron 64 w + lane + t, t = 0 .. 7."""
    x = np.uint64(0)
    for i in range(first, last):
        x |= (bits[w, i] >> np.uint64(lane) & np.uint64(0xFF)) << np.uint64(8 * (i - first))
    t = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
    x = x ^ t ^ (t << np.uint64(7))
    t = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
    x = x ^ t ^ (t << np.uint64(14))
    t = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
    return x ^ t ^ (t << np.uint64(28))


@parallel
def _move_mask(W, tables, n, bits, weights, moved):
    """Subtract ``weights_r sum_i M_ri g_i x_i`` from every row, one table entry per eight points; measure the moves."""
    u, d = W.shape
    for block in prange((u + MOVED_NEURONS - 1) // MOVED_NEURONS):
        base = block * MOVED_NEURONS
        count = min(MOVED_NEURONS, u - base)
        total = np.zeros((MOVED_NEURONS, d))
        for group in range(len(tables)):
            table, first = tables[group], group * TABLE_POINTS
            last = min(first + TABLE_POINTS, n)
            for k in range(0, count, 8):
                subsets = _transposed_bits(bits, (base + k) // WORD, first, last, (base + k) % WORD)
                for t in range(8):
                    subset = subsets >> np.uint64(8 * t) & np.uint64(0xFF)
                    for j in range(d):
                        total[k + t, j] += table[subset, j]
        for k in range(count):
            square = 0.0
            for j in range(d):
                before = np.float64(W[base + k, j])
                W[base + k, j] = before - weights[base + k] * total[k, j]
                distance = np.float64(W[base + k, j]) - before
                square += distance * distance
            moved[base + k] = math.sqrt(square)


@parallel
def _mask_product(bits, weights, V, sums):
    """Write ``sum_r M_ri weights_r V_r`` of every part of the words to sums (PRODUCT_PARTS, n, d), zeros on entry."""
    words, n = bits.shape
    u, d = V.shape
    for block in prange(PRODUCT_PARTS):
        rows = np.empty((WORD, d))
        for w in range(block * words // PRODUCT_PARTS, (block + 1) * words // PRODUCT_PARTS):
            for k in range(min(WORD, u - w * WORD)):
                for j in range(d):
                    rows[k, j] = weights[w * WORD + k] * V[w * WORD + k, j]
            for i in range(n):
                left, out = bits[w, i], sums[block, i]
                while left:
                    low = left & (~left + np.uint64(1))
                    left ^= low
                    row = rows[popcount(low - np.uint64(1))]
                    for j in range(d):
                        out[j] += row[j]


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


class CpuBitOps(BitOps):
    """Loops over words."""

    def pack_mask(self, X: Array, W: Array, signs: Array, shift: float) -> tuple[Array, Array]:
        """Compare and sum as the numbers are computed; none is kept."""
        bits = np.empty((-(-len(W) // WORD), len(X)), np.uint64)
        totals = np.zeros((BLOCKS, len(X)))
        _pack_mask(X, W, signs, X.dtype.type(shift), float(shift), bits, totals)
        return bits, totals.sum(axis=0)

    def near_mask(self, X: Array, W: Array, signs: Array, shift: float, radius: float) -> tuple[Array, Array, Array]:
        """Compare twice and sum as the numbers are computed; none is kept."""
        (n, _), u = X.shape, len(W)
        limit, beyond = X.dtype.type(shift), np.nextafter(X.dtype.type(radius), X.dtype.type(np.inf))
        bits, near = (np.empty((-(-u // 64), n), np.uint64) for _ in range(2))
        totals = np.zeros((BLOCKS, n))
        _near_mask(X, W, signs, limit, float(shift), beyond, bits, totals, near)
        return bits, totals.sum(axis=0), near

    def mask_by_rows(self, bits: Array, rows: int) -> Array:
        """Transpose 64 x 64 bits at a time."""
        out = np.empty((rows, -(-bits.shape[1] // 64)), np.uint64)
        _mask_by_rows(bits, out)
        return out

    def mask_sizes(self, bits: Array) -> tuple[Array, int]:
        """Count by blocks of words."""
        counts = np.zeros((BLOCKS, bits.shape[1]), np.uint64)
        union = np.zeros(BLOCKS, np.uint64)
        _mask_sizes(bits, counts, union)
        return counts.sum(axis=0).astype(np.int64), int(union.sum())

    def count_mask(self, bits: Array, before: Array | None = None, counts: Array | None = None) -> Array:
        """Count all bits, or with ``delta = M' - M`` add half of ``delta^T (M' + M)`` and of its transpose."""
        words, n = bits.shape
        out, changed = np.zeros((n, n), np.uint64), np.zeros(BLOCKS, np.int64)
        if before is not None and counts is not None:
            _changed_words(before, bits, changed)
            if changed.sum() * CHANGED_COST <= words * n:
                edges = np.linspace(0, n, BLOCKS + 1).astype(np.int64)
                _change_mask(before, bits, edges, out)
                change = out.view(np.int64).astype(np.float64)
                return counts + (change + change.T) / 2
        edges = np.round(n * np.sqrt(np.linspace(0, 1, BLOCKS + 1))).astype(np.int64)
        _count_mask(bits, edges, out)
        lower = out.astype(np.float64)
        return lower + np.tril(lower, -1).T

    def move_mask(self, W: Array, X: Array, bits: Array, weights: Array, g: Array) -> Array:
        """Tabulate the sums of all subsets of eight points, then look up n / 8 of them for each row."""
        n, d = X.shape
        tables = np.zeros((-(-n // TABLE_POINTS), 256, d))
        _tabulate(g[:, None] * X, tables)
        moved = np.empty(len(W))
        _move_mask(W, tables, n, bits, weights, moved)
        return moved

    def mask_product(self, X: Array, bits: Array, weights: Array, V: Array) -> Array:
        """Add up rows by points in blocks of words, then multiply with the points."""
        sums = np.zeros((PRODUCT_PARTS, *X.shape))
        _mask_product(bits, weights, V, sums)
        return (sums.sum(axis=0) * X).sum(axis=1)
