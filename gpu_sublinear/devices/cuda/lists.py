"""The part of the cuda device that works on lists of points per neuron: candidates, flips, the factored Jacobian."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ..base import Array, NeuronLists
from .checks import check_array
from .launcher import BLOCK, Launcher, names_memory
from .toolkit import Toolkit

WARP = 32
GROUP = 8  # lanes that share a list in evaluate_candidates.cu, keep_above.cu, splice.cu and change_pairs.cu
SCAN_TILE = (64, 128)  # points x neurons of a block of kernels/scan_bits.cu
SCAN_BYTES = 1 << 26  # bits of a scan, for as many neurons at a time as fit
PART_BYTES = 1 << 26  # sums of their own for as many parts of the neurons as fit, ...
PARTS = (512, 8192)  # ... within these: few leave the GPU idle, many cost more to add than they save
SKETCHED_BUCKETS = 8192  # of sketch_neurons at a time: 32 KiB of shared memory


class ListOperations:
    """Operations on :class:`NeuronLists` for :class:`CudaDevice`, which owns what is named here."""

    xp: ModuleType
    toolkit: Toolkit
    _gpu: Launcher

    # ---- candidate lists --------------------------------------------------------------------------------

    @names_memory
    def scan(self, X: Array, W: Array, neurons: Array, thresholds: Array) -> tuple[Array, Array]:
        """Compare into bits, a chunk of neurons at a time; the host reads how many pairs each chunk has."""
        real = _check_points_and_weights(X, W)
        check_array("neurons", neurons, 1, "int32")
        u = len(neurons)
        check_array("thresholds", thresholds, 1, real, (u,))
        tiles = -(-len(X) // SCAN_TILE[0])
        chunk = max(1, SCAN_BYTES // (8 * max(1, tiles)) // SCAN_TILE[1]) * SCAN_TILE[1]
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
        self._gpu.run("scan_bits", "scan_bits", real, tiles * -(-count // SCAN_TILE[1]) * BLOCK, arguments)
        return self._listed_bits(bits, real)

    def _listed_bits(self, bits: Array, real: str) -> tuple[Array, Array]:
        """Return offsets (count + 1,) and points of neurons, from words of points (words, count) int64."""
        words, count = bits.shape
        mask = bits, np.int64(words), np.int64(count)
        counts = self._gpu.empty("numbers of candidates", count, np.int32)
        self._gpu.run("list_bits", "count_bits", real, count, (*mask, counts))
        starts = self._starts(counts)
        points = self._gpu.empty("candidates", int(starts[-1]), np.int32)
        if len(points):
            self._gpu.run("list_bits", "list_bits", real, count, (*mask, starts, points))
        return starts, points

    @names_memory
    def evaluate(
        self, X: Array, W: Array, lists: NeuronLists, shift: float
    ) -> tuple[NeuronLists, Array, Array, Array, Array]:
        """Compute products and counts, keep what fires, sort it by point; the host reads how many pairs fire."""
        _check_points_and_weights(X, W)
        _check_lists("lists", lists)
        xp = self.xp
        thresholds = xp.full(len(lists.neurons), shift, X.dtype)  # (count,)
        products, counts = self._products(X, W, lists, thresholds)
        starts, places = self._starts(counts), xp.flatnonzero(counts)
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
        real = _check_points_and_weights(X, W)
        _check_lists("lists", lists)
        check_array("thresholds", thresholds, 1, real, (len(lists.neurons),))
        products, counts = self._products(X, W, lists, thresholds)
        starts = self._starts(counts)
        return NeuronLists(lists.neurons, starts, self._keep_above(lists, products, thresholds, starts)[0])

    def _products(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> tuple[Array, Array]:
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
        _check_lists("lists", lists)
        check_array("places", places, 1, "int64")
        check_array("indptr", indptr, 1, "int64", (len(places) + 1,))
        check_array("points", points, 1, "int32")
        count = len(lists.neurons)
        lengths = lists.indptr[1:] - lists.indptr[:-1]  # (count,)
        lengths[places] = indptr[1:] - indptr[:-1]
        joined = self._starts(lengths)
        source = self.xp.full(count, -1, np.int64)
        source[places] = self.xp.arange(len(places), dtype=np.int64)
        out = self._gpu.empty("spliced candidates", int(joined[-1]), np.int32)
        arguments = (lists.indptr, lists.points, indptr, points, source, joined, np.int64(count), out)
        self._gpu.run("splice", "splice", "float32", count * GROUP if len(out) else 0, arguments)
        return NeuronLists(lists.neurons, joined, out)

    @names_memory
    def change_pairs(self, counts: Array, before: NeuronLists, after: NeuronLists, limit: int) -> bool:
        """Find each neuron's cost, which the host adds up, then count the changes in 32-bit integers."""
        _check_lists("before", before)
        _check_lists("after", after)
        check_array("counts", counts, 2, "float64")
        n, items = len(counts), len(before.neurons) + len(after.neurons)
        check_array("counts", counts, 2, "float64", (n, n))
        costs = self._gpu.empty("costs of the flips", items, np.int64)
        lists = (*_arguments(before), *_arguments(after))
        self._gpu.run("change_pairs", "flip_costs", "float32", items * GROUP, (*lists, costs))
        if int(costs.sum()) > limit:
            return False
        changed = self.xp.flatnonzero(costs)  # (c,) int64
        if len(changed):
            change = self._gpu.zeros("changes of the pair counts", (n, n), np.int32)
            arguments = (*lists, changed, np.int64(len(changed)), np.int64(n), change)
            self._gpu.run("change_pairs", "change_counts", "float32", len(changed) * WARP, arguments)
            counts += change
        return True

    # ---- factored Jacobian ------------------------------------------------------------------------------

    @names_memory
    def factored_gram(self, X: Array, fired: NeuronLists, g: Array) -> Array:
        """Sum and spread, neuron by neuron, into the sums of its part; then add the parts."""
        n, d = _check_factors(X, fired, {"g": (g, (len(X),))})
        u, partial = len(fired.neurons), self._parts(n, len(fired.neurons))
        arguments = (
            X, g, fired.indptr, fired.points, np.int64(u), np.int64(n), np.int32(d), np.int64(len(partial)), partial,
        )  # fmt: skip
        self._gpu.run("list_products", "factored_gram", X.dtype.name, len(partial) * WARP, arguments)
        return partial.sum(axis=0)

    @names_memory
    def factored_product(self, X: Array, fired: NeuronLists, weights: Array, V: Array) -> Array:
        """Spread, neuron by neuron, into the sums of its part; then add the parts."""
        u = len(fired.neurons)
        n, d = _check_factors(X, fired, {"weights": (weights, (u,)), "V": (V, (u, X.shape[1]))})
        partial = self._parts(n, u)
        arguments = (
            X, V, weights, fired.indptr, fired.points, np.int64(u), np.int64(n), np.int32(d),
            np.int64(len(partial)), partial,
        )  # fmt: skip
        self._gpu.run("list_products", "factored_product", X.dtype.name, len(partial) * WARP, arguments)
        return partial.sum(axis=0)

    @names_memory
    def factored_transposed(self, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Sum, neuron by neuron."""
        u = len(fired.neurons)
        _, d = _check_factors(X, fired, {"weights": (weights, (u,)), "g": (g, (len(X),))})
        out = self._gpu.empty("J^T g", (u, d), np.float64)
        arguments = (X, g, weights, fired.indptr, fired.points, np.int64(u), np.int32(d), out)
        self._gpu.run("list_products", "factored_transposed", X.dtype.name, u * WARP, arguments)
        return out

    @names_memory
    def move_rows(self, W: Array, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Sum, subtract and measure in one pass over the moved rows."""
        u, real = len(fired.neurons), _check_points_and_weights(X, W)
        _, d = _check_factors(X, fired, {"weights": (weights, (u,)), "g": (g, (len(X),))})
        moved = self._gpu.empty("movements", u, np.float64)
        arguments = (W, X, g, weights, *_arguments(fired), np.int32(d), moved)
        self._gpu.run("move_rows", "move_rows", real, u * WARP, arguments)
        return moved

    @names_memory
    def pull_rows(self, W: Array, initial: Array, neurons: Array, change: Array, theta: float) -> tuple[Array, Array]:
        """Compute the movements, round, and measure, with CuPy's own operations: each row is read and written."""
        check_array("W", W, 2, "REAL")
        check_array("initial", initial, 2, W.dtype.name, W.shape)
        check_array("neurons", neurons, 1, "int32")
        check_array("change", change, 2, "float64", (len(neurons), W.shape[1]))
        home = initial.astype(np.float64)  # (rows, d)
        movement = (W - home) * (1 - theta)
        movement[neurons] -= change
        after = (home + movement).astype(W.dtype)
        return after, ((after.astype(np.float64) - W) ** 2).sum(axis=1) ** 0.5

    @names_memory
    def sketch_neurons(
        self, indptr: Array, compact: Array, neurons: Array, signs: Array, buckets: int, seed: int, draw: int
    ) -> Array:
        """Hash every neuron once, then add up by points in shared memory."""
        check_array("indptr", indptr, 1, "int64")
        check_array("compact", compact, 1, "int32")
        check_array("neurons", neurons, 1, "int32")
        check_array("signs", signs, 1, "REAL")
        n, u, real = len(indptr) - 1, len(neurons), signs.dtype.name
        hashed = self._gpu.empty("buckets of the neurons", u, np.int32)
        key, word = np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint32(draw & 0xFFFFFFFF)
        hashing = (neurons, signs, np.int64(u), np.int32(buckets), key, word, hashed)
        self._gpu.run("sketch_neurons", "hash_neurons", real, u, hashing)
        out = self._gpu.empty("sketch of the neurons", (n, buckets), np.float64)
        width = min(buckets, SKETCHED_BUCKETS)
        if out.size:
            shape = {"rows": n, "layers": -(-buckets // width), "shared_mem": 4 * width}
            arguments = (indptr, compact, hashed, np.int64(n), np.int32(buckets), np.int32(width), out)
            self._gpu.run("sketch_neurons", "sketch_points", real, BLOCK, arguments, **shape)
        return out

    # ---- shared -----------------------------------------------------------------------------------------

    def _starts(self, counts: Array) -> Array:
        """Return where each of the lists of these lengths starts, and the end of all, (count + 1,) int64."""
        starts = self._gpu.zeros("offsets of the lists", len(counts) + 1, np.int64)
        starts[1:] = self.xp.cumsum(counts, dtype=np.int64)
        return starts

    def _parts(self, n: int, u: int) -> Array:
        """Return zeros (parts, n) float64; how many depends on the problem alone, so no GPU sums in another order."""
        fitting = PART_BYTES // (8 * max(1, n))
        return self._gpu.zeros("partial sums", (min(u, max(PARTS[0], min(PARTS[1], fitting))), n), np.float64)


def _arguments(lists: NeuronLists) -> tuple[Array, Array, Array, np.int64]:
    return lists.neurons, lists.indptr, lists.points, np.int64(len(lists.neurons))


def _check_lists(name: str, lists: NeuronLists) -> None:
    check_array(f"{name}.neurons", lists.neurons, 1, "int32")
    check_array(f"{name}.indptr", lists.indptr, 1, "int64", (len(lists.neurons) + 1,))
    check_array(f"{name}.points", lists.points, 1, "int32")


def _check_points_and_weights(X: Array, W: Array) -> str:
    """Check X (n, d) and W (m, d) and return their data type."""
    check_array("X", X, 2, "REAL")
    check_array("W", W, 2, X.dtype.name, (None, X.shape[1]))
    return X.dtype.name


def _check_factors(X: Array, fired: NeuronLists, factors: dict[str, tuple[Array, tuple[int, ...]]]) -> tuple[int, int]:
    """Check X, the lists and float64 arrays of these shapes; return (n, d)."""
    check_array("X", X, 2, "REAL")
    _check_lists("fired", fired)
    for name, (factor, shape) in factors.items():
        check_array(name, factor, len(shape), "float64", shape)
    return X.shape
