"""Numba loops over packed masks: word w of point i holds whether neurons 64 w .. 64 w + 63 fire on i.

No branch depends on who fires.  Every sum has a fixed order (a fixed number of blocks of neurons for the outputs, tasks
that own rows for the counts), so any thread count gives equal bytes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .kernels import LANES, computed_numbers, parallel, serial
from .lists import BLOCKS
from .vectors import popcount

WORD = 64  # neurons
CHUNK = 8  # words counted in one pass over a row of counts
PARTS = 16  # of the words, with (n, d) sums of their own
MOVED = 1024  # neurons moved together: their sums fit a second-level cache
BYTE = 8  # points whose 256 possible sums are tabulated


@serial
def load_rows(W, signs, first, last, columns, sign, bound, limit):
    """Copy rows first .. last to lanes, feature by feature; lanes beyond never fire."""
    for k in range(LANES):
        inside = first + k < last
        bound[k] = limit if inside else np.inf
        sign[k] = signs[first + k] if inside else 0.0
        for j in range(len(columns)):
            columns[j, k] = W[first + k, j] if inside else 0.0


@serial
def pack(numbers, bound, start, powers):
    """Return the word of the comparisons of 64 lanes from ``start`` on."""
    word = np.uint64(0)
    for k in range(WORD):
        word |= powers[k] if numbers[start + k] > bound[start + k] else np.uint64(0)
    return word


@serial
def folded(parts):
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
def pack_mask(X, W, signs, limit, shift, bits, totals):
    """Write the mask, and the sums ``a_r (P - b)`` of every block of neurons to totals (BLOCKS, n)."""
    n, d = X.shape
    u, words = len(W), len(bits)
    groups = (u + LANES - 1) // LANES
    for block in prange(BLOCKS):
        columns, numbers, bound = np.empty((d, LANES), W.dtype), np.empty(LANES, W.dtype), np.empty(LANES, W.dtype)
        sign, parts = np.empty(LANES), np.empty(LANES)
        powers = np.uint64(1) << np.arange(WORD).astype(np.uint64)
        for group in range(block * groups // BLOCKS, (block + 1) * groups // BLOCKS):
            load_rows(W, signs, group * LANES, min((group + 1) * LANES, u), columns, sign, bound, limit)
            for i in range(n):
                computed_numbers(X[i], columns, numbers)
                bits[2 * group, i] = pack(numbers, bound, 0, powers)
                if 2 * group + 1 < words:
                    bits[2 * group + 1, i] = pack(numbers, bound, WORD, powers)
                for k in range(LANES):
                    above = sign[k] * (np.float64(numbers[k]) - shift)
                    parts[k] = above if numbers[k] > bound[k] else 0.0
                totals[block, i] += folded(parts)


@parallel
def mask_sizes(bits, counts, union):
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
def count_mask(bits, edges, out):
    """Count common neurons below the diagonal of out (n, n) uint64; task t owns rows edges[t] .. edges[t + 1]."""
    words = len(bits)
    whole = words // CHUNK * CHUNK
    for task in prange(len(edges) - 1):
        for w in range(0, whole, CHUNK):
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
def changed_words(before, after, counts):
    """Count the words that differ, counts (BLOCKS,)."""
    words, n = after.shape
    for block in prange(BLOCKS):
        total = 0
        for w in range(block * words // BLOCKS, (block + 1) * words // BLOCKS):
            for i in range(n):
                total += before[w, i] != after[w, i]
        counts[block] = total


@parallel
def change_mask(before, after, edges, out):
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
def tabulate(weighted, tables):
    """Write the sums of all subsets of eight rows of weighted (n, d) to tables (ceil(n / 8), 256, d)."""
    n, d = weighted.shape
    for group in prange(len(tables)):
        for subset in range(1, 256):
            top = 7
            while not subset >> top & 1:
                top -= 1
            i = group * BYTE + top
            for j in range(d):
                tables[group, subset, j] = tables[group, subset & ~(1 << top), j] + (weighted[i, j] if i < n else 0.0)


@serial
def transposed_bits(bits, w, first, last, lane):
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
def move_mask(W, tables, n, bits, weights, moved):
    """Subtract ``weights_r sum_i M_ri g_i x_i`` from every row, one table entry per eight points; measure the moves."""
    u, d = W.shape
    for block in prange((u + MOVED - 1) // MOVED):
        base = block * MOVED
        count = min(MOVED, u - base)
        total = np.zeros((MOVED, d))
        for group in range(len(tables)):
            table, first = tables[group], group * BYTE
            last = min(first + BYTE, n)
            for k in range(0, count, 8):
                subsets = transposed_bits(bits, (base + k) // WORD, first, last, (base + k) % WORD)
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
def mask_product(bits, weights, V, sums):
    """Write ``sum_r M_ri weights_r V_r`` of every part of the words to sums (PARTS, n, d), zeros on entry."""
    words, n = bits.shape
    u, d = V.shape
    for block in prange(PARTS):
        rows = np.empty((WORD, d))
        for w in range(block * words // PARTS, (block + 1) * words // PARTS):
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
