"""Implicit rows and flips: makes tables and room, and runs the loops of :mod:`.implicit_loops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..formats import Array, Flips, ImplicitRows, NearPairs
from ..host import sums_before
from ..ops.implicit import ImplicitOps
from ..sums import longest_point
from . import implicit_loops
from .jit import BLOCKS
from .vectors import TABLE, WIDE, padded

loops: Any = implicit_loops  # mypy does not know what numba makes of a function with many parameters
SHARE = 0.5  # of the pairs in a unit of distance, and a quarter: the density of N(0, 1) is at most 0.4
SPARE_RADIUS = 0.01  # added to a radius whose pairs room is made for
SPARE_ENTRIES = 1024  # of every block


class CpuImplicitOps(ImplicitOps):
    """Loops over blocks of neurons, each with room of its own for what it finds."""

    def implicit_rows(self, implicit: ImplicitRows) -> Array:
        """Look up sums of sixteen subsets."""
        out = np.empty_like(implicit.W)
        loops.implicit_rows(*_wide(implicit), out)
        return out

    def near_flips(self, implicit: ImplicitRows, near: NearPairs, shift: float, reach: float) -> tuple[Flips, int]:
        """Visit the lists; compute the rows that have a pair within reach."""
        edges = _edges(near)
        counts, looked = np.zeros(BLOCKS, np.int64), np.zeros(BLOCKS, np.int64)
        flips = _room_for_flips(edges[-1])
        lists = near.starts, near.stops, near.points, near.values
        loops.near_flips(*_wide(implicit), *lists, float(shift), float(reach), edges, counts, looked, *flips)
        return _packed(flips, edges, counts), int(looked.sum())

    def first_flips(
        self, implicit: ImplicitRows, near: Array, shift: float, radius: float, known: float
    ) -> tuple[Flips, NearPairs, int]:
        """Visit all rows: exact sums."""
        W, X, bits, weights, tables = _wide(implicit)[:5]
        arguments = (W, X, bits, weights, tables, near, float(shift), float(radius), float(known), longest_point(X))
        n, u = len(X), len(W)
        blocks = np.arange(BLOCKS + 1)
        room = blocks * u // BLOCKS * n * min(1.0, SHARE * 2 * (radius + SPARE_RADIUS))
        edges = room.astype(np.int64) + SPARE_ENTRIES * blocks
        return _retried(loops.first_flips, arguments, edges, implicit)

    def all_flips(
        self,
        implicit: ImplicitRows,
        near: NearPairs,
        shift: float,
        radius: float,
        known: float,
        g: Array,
        logged: Array,
        slack: float,
        afresh: bool = False,
    ) -> tuple[Flips, NearPairs, int]:
        """Visit all rows: sums in REAL, exact ones where a bit may be wrong, or for all pairs that may be near."""
        wide, dtype = _wide(implicit), implicit.W.dtype
        X = wide[1]
        tables = _tables(X, g, implicit.bits.shape[1], dtype)
        arguments = (
            *wide, near.starts, near.stops, near.points, near.values, float(shift), float(radius), float(known),
            float(slack), bool(afresh), tables, X.astype(dtype, copy=False), logged, longest_point(X),
        )  # fmt: skip
        return _retried(loops.all_flips, arguments, _edges(near), implicit)

    def flip_mask(
        self, bits: Array, counts: Array, heads: Array, flips: Flips, terms: Array, total: Array, size: int
    ) -> tuple[Array, int, Array, Array]:
        """Turn bits over, sort the flips by point, count with the words of their neurons."""
        n, f = len(counts), len(flips)
        sums, union = np.zeros(n), np.zeros(BLOCKS, np.int64)
        before, coefficients = np.empty(f, np.int32), np.empty(f)
        if f:
            marks = np.linspace(0, f, BLOCKS + 1).astype(np.int64)
            edges = np.append(np.searchsorted(flips.neurons, flips.neurons[marks[:-1]]), f)
            log = total, size, heads, before, coefficients
            loops.flip_bits(bits, edges, flips.neurons, flips.points, *log, union)
            indptr, order, twice = np.zeros(n + 2, np.int64), np.empty(f, np.int64), np.zeros((n, n), np.int32)
            loops.sort_by_point(flips.points, indptr, order)
            loops.count_flips(bits, flips.neurons, flips.points, terms, indptr, order, twice, sums)
            loops.add_halves(counts, twice)
        return sums, int(union.sum()), before, coefficients


def _retried(
    kernel: Callable[..., None], arguments: tuple[Any, ...], edges: Array, implicit: ImplicitRows
) -> tuple[Flips, NearPairs, int]:
    """Run a search for flips; again with more room where a block's entries did not fit."""
    counts, looked, needed = (np.zeros(BLOCKS, np.int64) for _ in range(3))
    starts, stops = (np.empty(len(implicit.W), np.int64) for _ in range(2))
    while True:
        flips = _room_for_flips(edges[-1])
        points, values = np.empty(edges[-1], np.int32), np.empty(edges[-1], implicit.W.dtype)
        kernel(*arguments, edges, counts, looked, *flips, needed, starts, stops, points, values)
        if (needed <= np.diff(edges)).all():
            return _packed(flips, edges, counts), NearPairs(starts, stops, points, values), int(looked.sum())
        edges = sums_before(needed)


def _tables(X: Array, coefficients: Array, words: int, dtype: np.dtype) -> Array:
    """Return the sums of subsets of coefficient times point, (parts, words, TABLE); X (n, padded) float64."""
    n, width = X.shape
    weighted = np.zeros((64 * words, width))
    np.multiply(coefficients[:, None], X, out=weighted[:n])
    tables = np.empty((width // WIDE, words, TABLE), dtype)
    loops.tabulate(weighted, tables)
    return tables


def _wide(implicit: ImplicitRows) -> tuple[Array, ...]:
    """Return the rows as the loops take them: points in float64 with features padded to a multiple of WIDE, tables."""
    X = padded(implicit.X)
    tables = _tables(X, implicit.total, implicit.bits.shape[1], np.dtype(np.float64))
    log = implicit.heads, implicit.before, implicit.points, implicit.coefficients
    return implicit.W, X, implicit.bits, implicit.weights, tables, *log


def _edges(near: NearPairs) -> Array:
    """Return where each block of neurons may write as many entries as it has near pairs, (BLOCKS + 1,)."""
    lengths = sums_before(near.stops - near.starts)
    u = len(near.starts)
    return lengths[np.arange(BLOCKS + 1) * u // BLOCKS] + SPARE_ENTRIES * np.arange(BLOCKS + 1)


def _room_for_flips(entries: int) -> tuple[Array, Array, Array]:
    """Return neurons, points and distances; pages that no flip reaches are never touched."""
    return np.empty(entries, np.int32), np.empty(entries, np.int32), np.empty(entries)


def _packed(flips: tuple[Array, Array, Array], edges: Array, counts: Array) -> Flips:
    """Join the flips of all blocks."""
    parts = [slice(start, start + count) for start, count in zip(edges, counts, strict=False)]
    return Flips(*(np.concatenate([array[part] for part in parts]) for array in flips))
