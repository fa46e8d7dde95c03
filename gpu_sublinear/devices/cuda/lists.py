"""Lists of candidates on the GPU: compared into bits, computed anew, thinned out, spliced."""

from __future__ import annotations

import numpy as np

from ..formats import Array, NeuronLists
from ..ops.lists import ListOps
from .checks import check_array, check_lists, check_points_and_weights
from .launcher import BLOCK_THREADS, GROUP, NUMBERS_TILE, GpuOps, Launcher, names_memory

SCAN_BYTES = 1 << 26  # bits of a scan, for as many neurons at a time as fit


class CudaListOps(GpuOps, ListOps):
    """Count, scan, fill: the host reads how much each step found."""

    @names_memory
    def scan(self, X: Array, W: Array, neurons: Array, thresholds: Array) -> tuple[Array, Array]:
        """Compare into bits, a chunk of neurons at a time; the host reads how many pairs each chunk has."""
        real = check_points_and_weights(X, W)
        check_array("neurons", neurons, 1, "int32")
        u = len(neurons)
        check_array("thresholds", thresholds, 1, real, (u,))
        tiles = -(-len(X) // NUMBERS_TILE[0])
        chunk = max(1, SCAN_BYTES // (8 * max(1, tiles)) // NUMBERS_TILE[1]) * NUMBERS_TILE[1]
        indptr = self._gpu.zeros("offsets of the candidates", u + 1, np.int64)
        parts = [self._gpu.empty("candidates", 0, np.int32)]
        for first in range(0, u, chunk):
            rows = slice(first, min(first + chunk, u))
            starts, points = self._scan_chunk(X, W, neurons[rows], thresholds[rows], tiles)
            indptr[first + 1 : rows.stop + 1] = starts[1:] + indptr[first]
            parts.append(points)
        return indptr, parts[1] if len(parts) == 2 else self.xp.concatenate(parts)

    def _scan_chunk(self, X: Array, W: Array, neurons: Array, thresholds: Array, tiles: int) -> tuple[Array, Array]:
        """Return offsets (count + 1,) and points of some neurons."""
        (n, d), count, real = X.shape, len(neurons), X.dtype.name
        bits = self._gpu.empty("bits of the scan", (tiles, count), np.int64)
        arguments = (X, np.int64(n), W, neurons, thresholds, np.int64(count), np.int32(d), bits)
        self._gpu.run("scan_bits", "scan_bits", real, tiles * -(-count // NUMBERS_TILE[1]) * BLOCK_THREADS, arguments)
        return listed_bits(self._gpu, bits)

    @names_memory
    def evaluate(
        self, X: Array, W: Array, lists: NeuronLists, shift: float
    ) -> tuple[NeuronLists, Array, Array, Array, Array]:
        """Compute products and counts, keep what fires, sort it by point; the host reads how many pairs fire."""
        check_points_and_weights(X, W)
        check_lists("lists", lists)
        xp = self.xp
        thresholds = xp.full(len(lists.neurons), shift, X.dtype)  # (count,)
        products, counts = self._numbers(X, W, lists, thresholds)
        starts, places = self._gpu.starts(counts), xp.flatnonzero(counts)
        positions = xp.cumsum(counts > 0, dtype=np.int32) - np.int32(1)  # (count,)
        t_points, slots, values = self._keep_above(lists, products, thresholds, starts, positions)
        fired = NeuronLists(lists.neurons[places], xp.concatenate([starts[places], starts[-1:]]), t_points)
        if not fired.nnz:
            return fired, places, xp.zeros(len(X) + 1, np.int64), slots, values
        order = xp.argsort(t_points, kind="stable")  # (nnz,) int64
        ends = xp.arange(len(X) + 1, dtype=np.int32)
        indptr = xp.searchsorted(t_points[order], ends).astype(np.int64)
        return fired, places, indptr, slots[order], values[order]

    @names_memory
    def rescan(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> NeuronLists:
        """Compute products and counts, keep what is above; the host reads how many pairs are."""
        real = check_points_and_weights(X, W)
        check_lists("lists", lists)
        check_array("thresholds", thresholds, 1, real, (len(lists.neurons),))
        products, counts = self._numbers(X, W, lists, thresholds)
        starts = self._gpu.starts(counts)
        return NeuronLists(lists.neurons, starts, self._keep_above(lists, products, thresholds, starts)[0])

    def _numbers(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> tuple[Array, Array]:
        """Return the computed numbers of all pairs (c,) and how many of each neuron are above (count,) int32."""
        count = len(lists.neurons)
        products = self._gpu.empty("products of the candidates", lists.nnz, X.dtype)
        counts = self._gpu.empty("pairs above the threshold", count, np.int32)
        arguments = (
            X, W, lists.neurons, lists.indptr, lists.points, thresholds, np.int64(count), np.int32(X.shape[1]),
            products, counts,
        )  # fmt: skip
        self._gpu.run("evaluate_candidates", "evaluate_candidates", X.dtype.name, count * GROUP, arguments)
        return products, counts

    def _keep_above(
        self, lists: NeuronLists, products: Array, thresholds: Array, starts: Array, positions: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Return points above and, given positions of their neurons, these and the products; (nnz,) each, by neuron."""
        count, nnz, valued = len(lists.neurons), int(starts[-1]), positions is not None
        points = self._gpu.empty("points above the threshold", nnz, np.int32)
        slots = self._gpu.empty("neurons of the pairs", nnz if valued else 1, np.int32)
        values = self._gpu.empty("values of the pairs", nnz if valued else 1, products.dtype)
        arguments = (
            lists.indptr, lists.points, products, thresholds, starts, positions if valued else slots, np.int64(count),
            points, slots, values, np.int32(valued),
        )  # fmt: skip
        self._gpu.run("keep_above", "keep_above", products.dtype.name, count * GROUP if nnz else 0, arguments)
        return points, slots, values

    @names_memory
    def splice(self, lists: NeuronLists, places: Array, indptr: Array, points: Array) -> NeuronLists:
        """Copy list by list, from the old or from the new ones; the host reads how long they are together."""
        check_lists("lists", lists)
        check_array("places", places, 1, "int64")
        check_array("indptr", indptr, 1, "int64", (len(places) + 1,))
        check_array("points", points, 1, "int32")
        count = len(lists.neurons)
        lengths = lists.indptr[1:] - lists.indptr[:-1]  # (count,)
        lengths[places] = indptr[1:] - indptr[:-1]
        joined = self._gpu.starts(lengths)
        source = self.xp.full(count, -1, np.int64)
        source[places] = self.xp.arange(len(places), dtype=np.int64)
        out = self._gpu.empty("spliced candidates", int(joined[-1]), np.int32)
        arguments = (lists.indptr, lists.points, indptr, points, source, joined, np.int64(count), out)
        self._gpu.run("splice", "splice", "float32", count * GROUP if len(out) else 0, arguments)
        return NeuronLists(lists.neurons, joined, out)


def listed_bits(gpu: Launcher, bits: Array) -> tuple[Array, Array]:
    """Return offsets (count + 1,) and points of neurons, from words of points (words, count) int64."""
    words, count = bits.shape
    mask = bits, np.int64(words), np.int64(count)
    counts = gpu.empty("numbers of candidates", count, np.int32)
    gpu.run("list_bits", "count_bits", "float32", count, (*mask, counts))
    starts = gpu.starts(counts)
    points = gpu.empty("candidates", int(starts[-1]), np.int32)
    if len(points):
        gpu.run("list_bits", "list_bits", "float32", count, (*mask, starts, points))
    return starts, points
