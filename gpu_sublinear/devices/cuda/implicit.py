"""Implicit rows and flips on the GPU.

Every search for flips chooses pairs, computes these exactly (kernels/look_pairs.cu) and keeps what is wrong or near.
The searches differ in what they choose.  They make rows for a chunk of neurons at a time, so that scratch memory stays
bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..formats import Array, Flips, ImplicitRows, NearPairs
from ..ops.implicit import ImplicitOps
from ..ops.pairs import PairOps
from ..sums import longest_point
from .checks import check_array
from .launcher import GROUP, WARP, GpuOps, Launcher, names_memory
from .lists import listed_bits

LOOK_BYTES = 1 << 28  # rows and pairs that are computed at a time, if all pairs are
ROUNDED_UP = 1 + 1e-6  # covers the rounding of a movement


@dataclass(frozen=True)
class Look:
    """Exact pre-activations of chosen pairs of some neurons.

    Attributes
    ----------
    neurons : Array
        (count,) int32, ascending.
    starts : Array
        (count + 1,) int64: neuron k owns entries starts[k] .. starts[k + 1] of the rest.
    points : Array
        (c,) int32, ascending for each neuron.
    products : Array
        (c,) float64.
    wrong : Array
        (c,) bool, whether the pair's bit says something else.
    """

    neurons: Array
    starts: Array
    points: Array
    products: Array
    wrong: Array


class CudaImplicitOps(GpuOps, PairOps, ImplicitOps):
    """Rows for a chunk of neurons at a time."""

    @names_memory
    def implicit_rows(self, implicit: ImplicitRows) -> Array:
        """Sum a chunk of rows at a time, round."""
        _check_implicit(implicit)
        out = self._gpu.empty("rows", implicit.W.shape, implicit.W.dtype)
        weighted = self._weighted(implicit, implicit.total)
        for part in _chunks(implicit):
            out[part] = self._rows(implicit, weighted, self._range(part))
        return out

    # ---- searches for flips -----------------------------------------------------------------------------

    @names_memory
    def near_flips(self, implicit: ImplicitRows, near: NearPairs, shift: float, reach: float) -> tuple[Flips, int]:
        """Count and list what is within reach; compute the rows that have such pairs."""
        _check_implicit(implicit)
        _check_near(near, implicit)
        u = len(implicit.W)
        limits = self.xp.full(u, float(reach))
        findings = _Findings(self._gpu, implicit, shift)
        weighted = self._weighted(implicit, implicit.total)
        for look in self._looks(implicit, weighted, near, self._range(slice(0, u)), limits, shift):
            findings.add(look)
        return findings.flips(), findings.looked

    @names_memory
    def first_flips(
        self, implicit: ImplicitRows, near: Array, shift: float, radius: float, known: float
    ) -> tuple[Flips, NearPairs, int]:
        """List the bits of the mask, all points of rows that moved far; the sums of the rows say how far."""
        _check_implicit(implicit)
        check_array("near", near, 2, "uint64", implicit.bits.shape)
        everything = self.xp.asarray(_all_points(len(implicit.X)))
        weighted, longest = self._weighted(implicit, implicit.total), longest_point(implicit.X.astype(np.float64))
        findings = _Findings(self._gpu, implicit, shift, radius)
        for part in _chunks(implicit):
            neurons = self._range(part)
            change = self._change(implicit, weighted, neurons)
            far = _norms(change) * longest * ROUNDED_UP + radius > known
            mask = self.xp.where(far[:, None], everything, near[part].view(np.int64))  # (count, words)
            starts, points = listed_bits(self._gpu, self.xp.ascontiguousarray(mask.T))
            rows = implicit.W[part] - change
            findings.add(self._look(implicit, rows, neurons, starts, points, shift))
        return findings.flips(), findings.near(), findings.looked

    @names_memory
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
        """Sum the movement of every row; compute what may have come near, all points of rows that moved far."""
        _check_implicit(implicit)
        _check_near(near, implicit)
        check_array("g", g, 1, "float64", (len(implicit.X),))
        check_array("logged", logged, 1, "float64", (len(implicit.before),) if len(logged) else None)
        moving = replace(implicit, coefficients=logged)
        steps, weighted = (self._weighted(implicit, each) for each in (g, implicit.total))
        longest, findings = longest_point(implicit.X.astype(np.float64)), _Findings(self._gpu, implicit, shift, radius)
        for part in _chunks(implicit):
            neurons = self._range(part)
            step = self._change(moving, steps, neurons, logged=len(logged) > 0)
            reach = _norms(step) * longest * ROUNDED_UP + slack
            limits = self.xp.where(reach + radius > known, -1.0, reach + radius + slack)
            for look in self._looks(implicit, weighted, near, neurons, limits, shift):
                findings.add(look)
        return findings.flips(), findings.near(), findings.looked

    def _looks(
        self, implicit: ImplicitRows, weighted: Array, near: NearPairs, neurons: Array, limits: Array, shift: float
    ) -> Iterator[Look]:
        """Compute the pairs of ``neurons`` whose value is within ``limits`` of the shift, all points where negative."""
        real, n = implicit.X.dtype.name, np.int32(len(implicit.X))
        ends, counts = (near.starts, near.stops), self._gpu.empty("pairs within reach", len(neurons), np.int32)
        search = near.values, neurons, limits, np.float64(shift), np.int64(len(neurons)), n
        self._gpu.run("near_pairs", "count_near", real, GROUP * len(neurons), (*ends, *search, counts))
        places = self.xp.flatnonzero(counts)
        for part in _chunks(implicit, len(places)):
            few, starts = neurons[places[part]], self._gpu.starts(counts[places[part]])
            points = self._gpu.empty("points within reach", int(starts[-1]), np.int32)
            listing = near.points, near.values, few, limits[places[part]], np.float64(shift), np.int64(len(few)), n
            self._gpu.run("near_pairs", "list_near", real, GROUP * len(few), (*ends, *listing, starts, points))
            yield self._look(implicit, self._rows(implicit, weighted, few), few, starts, points, shift)

    def _look(
        self, implicit: ImplicitRows, rows: Array, neurons: Array, starts: Array, points: Array, shift: float
    ) -> Look:
        """Multiply rows (count, d) float64 with the points chosen for them."""
        d, words, count = implicit.X.shape[1], implicit.bits.shape[1], len(neurons)
        products = self._gpu.empty("products of chosen pairs", len(points), np.float64)
        wrong = self._gpu.empty("wrong bits", len(points), bool)
        arguments = (
            rows, implicit.X, np.int32(d), implicit.bits.view(np.int64), np.int64(words), neurons, starts, points,
            np.float64(shift), np.int64(count), products, wrong,
        )  # fmt: skip
        self._gpu.run("look_pairs", "look_pairs", implicit.X.dtype.name, GROUP * count if len(points) else 0, arguments)
        return Look(neurons, starts, points, products, wrong)

    def _rows(self, implicit: ImplicitRows, weighted: Array, neurons: Array) -> Array:
        """Return rows of ``neurons``, (count, d) float64."""
        return implicit.W[neurons] - self._change(implicit, weighted, neurons)

    def _change(self, implicit: ImplicitRows, weighted: Array, neurons: Array, logged: bool = True) -> Array:
        """Return weights times sums of the points in ``weighted``, and of the log, (count, d) float64."""
        count, d, words = len(neurons), implicit.X.shape[1], implicit.bits.shape[1]
        sums = self._gpu.empty("sums of points", (count, d), np.float64)
        arguments = (
            implicit.bits.view(np.int64), np.int64(words), weighted, neurons, np.int64(count), implicit.X, np.int32(d),
            implicit.heads, implicit.before, implicit.points, implicit.coefficients, np.int32(logged), sums,
        )  # fmt: skip
        self._gpu.run("mask_sums", "mask_sums", implicit.X.dtype.name, count * WARP, arguments)
        sums *= implicit.weights[neurons][:, None]
        return sums

    def _weighted(self, implicit: ImplicitRows, coefficients: Array) -> Array:
        """Return coefficients times points, (n, d) float64."""
        return self.xp.ascontiguousarray(coefficients[:, None] * implicit.X.astype(np.float64))

    def _range(self, part: slice) -> Array:
        return self.xp.arange(part.start, part.stop, dtype=np.int32)

    # ---- flips ------------------------------------------------------------------------------------------

    @names_memory
    def flip_mask(
        self, bits: Array, counts: Array, heads: Array, flips: Flips, terms: Array, total: Array, size: int
    ) -> tuple[Array, int, Array, Array]:
        """Turn bits over neuron by neuron, sort the flips by point, count point by point; the host reads the union."""
        n, f, xp = len(counts), len(flips), self.xp
        check_array("counts", counts, 2, "float64", (n, n))
        check_array("bits", bits, 2, "uint64", (None, -(-n // 64)))
        check_array("heads", heads, 1, "int32", (len(bits),))
        check_array("neurons", flips.neurons, 1, "int32")
        check_array("points", flips.points, 1, "int32", (f,))
        check_array("terms", terms, 1, "float64", (f,))
        check_array("total", total, 1, "float64", (n,))
        before, coefficients = self._gpu.empty("log", f, np.int32), self._gpu.empty("coefficients", f, np.float64)
        if not f:
            return xp.zeros(n), 0, before, coefficients
        first, words = self.run_starts(flips.neurons), np.int64(bits.shape[1])
        runs, old = xp.concatenate([first, xp.full(1, f, first.dtype)]), bits[flips.neurons[first]].view(np.int64)
        change, mask = self._gpu.empty("changes of the union", len(first), np.int32), bits.view(np.int64)
        turning = (
            mask, words, runs, np.int64(len(first)), flips.neurons, flips.points, total, np.int32(size), heads, before,
            coefficients, change,
        )  # fmt: skip
        self._gpu.run("flip_bits", "flip_bits", "float32", len(first), turning)
        slots = xp.zeros(f, np.int32)
        slots[first] = 1
        slots = xp.cumsum(slots, dtype=np.int32) - np.int32(1)  # the run of each flip
        order, ends = self.by_point(flips.points, n)
        twice = self._gpu.empty("changes of the pair counts", (n, n), np.int32)
        counting = (mask, old, words, flips.neurons, slots, order, ends, np.int64(n), twice)
        self._gpu.run("count_flips", "count_flips", "float32", n, counting, rows=n)
        counts += (twice + twice.T) * 0.5
        sums = self.sums_by_point(order, ends, terms)
        return sums, int(change.sum(dtype=np.int64)), before, coefficients


class _Findings:
    """Flips and near pairs of one look after another."""

    def __init__(self, gpu: Launcher, implicit: ImplicitRows, shift: float, radius: float = -1.0) -> None:
        self.looked = 0
        self._gpu, self._xp, self._shift, self._radius, self._dtype = (
            gpu,
            gpu.toolkit.xp,
            shift,
            radius,
            implicit.W.dtype,
        )
        self._lengths = self._xp.zeros(len(implicit.W), np.int64)
        nothing = self._xp.zeros(0, np.int32)
        self._flips = [(nothing, nothing, self._xp.zeros(0))]
        self._near = [(nothing, self._xp.zeros(0, self._dtype))]

    def add(self, look: Look) -> None:
        """Keep pairs whose bit is wrong, and those within the radius."""
        xp, distance = self._xp, abs(look.products - self._shift)  # (c,)
        chosen = xp.flatnonzero(look.wrong)
        slots = xp.searchsorted(look.starts, chosen, side="right") - 1
        self.looked += len(look.points)
        self._flips.append((look.neurons[slots], look.points[chosen], distance[chosen]))
        near = distance <= self._radius
        ends = self._gpu.starts(near)[look.starts]  # (count + 1,)
        self._lengths[look.neurons] = ends[1:] - ends[:-1]
        self._near.append((look.points[near], look.products[near].astype(self._dtype)))

    def flips(self) -> Flips:
        """Return the flips of all looks."""
        return Flips(*(self._xp.concatenate(parts) for parts in zip(*self._flips, strict=True)))

    def near(self) -> NearPairs:
        """Return the near pairs of all looks."""
        starts = self._gpu.starts(self._lengths)
        points, values = (self._xp.concatenate(parts) for parts in zip(*self._near, strict=True))
        return NearPairs(starts[:-1], starts[1:], points, values)


def _chunks(implicit: ImplicitRows, count: int | None = None) -> Iterator[slice]:
    """Cut ``count`` neurons, or all, into as many as may be computed at a time."""
    n, d = implicit.X.shape
    size, count = max(1, LOOK_BYTES // (40 * (n + d))), len(implicit.W) if count is None else count
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def _norms(change: Array) -> Array:
    return (change * change).sum(axis=1) ** 0.5


def _all_points(n: int) -> np.ndarray:
    """Return the words of a neuron that fires on all points, (ceil(n / 64),) int64."""
    words = np.full(-(-n // 64), ~np.uint64(0))
    if n % 64:
        words[-1] >>= np.uint64(64 - n % 64)
    return words.view(np.int64)


def _check_implicit(implicit: ImplicitRows) -> None:
    check_array("X", implicit.X, 2, "REAL")
    (n, d), u, real = implicit.X.shape, len(implicit.W), implicit.X.dtype.name
    entries = len(implicit.before)
    check_array("W", implicit.W, 2, real, (u, d))
    check_array("bits", implicit.bits, 2, "uint64", (u, -(-n // 64)))
    check_array("weights", implicit.weights, 1, "float64", (u,))
    check_array("total", implicit.total, 1, "float64", (n,))
    check_array("heads", implicit.heads, 1, "int32", (u,))
    check_array("before", implicit.before, 1, "int32")
    check_array("log points", implicit.points, 1, "int32", (entries,))
    check_array("coefficients", implicit.coefficients, 1, "float64", (entries,))


def _check_near(near: NearPairs, implicit: ImplicitRows) -> None:
    u = len(implicit.W)
    check_array("starts", near.starts, 1, "int64", (u,))
    check_array("stops", near.stops, 1, "int64", (u,))
    check_array("near points", near.points, 1, "int32")
    check_array("near values", near.values, 1, implicit.X.dtype.name, (len(near.points),))
