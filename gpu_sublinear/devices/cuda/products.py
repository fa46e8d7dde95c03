"""The factored Jacobian on the GPU: neuron by neuron, a warp each, into sums of their part."""

from __future__ import annotations

import numpy as np

from ..formats import Array, NeuronLists
from ..ops.products import ProductOps
from .checks import check_array, check_lists, check_points_and_weights
from .launcher import WARP, GpuOps, list_arguments, names_memory

PART_BYTES = 1 << 26  # sums of their own for as many parts of the neurons as fit, ...
FEWEST_PARTS, MOST_PARTS = 512, 8192  # ... within these: few leave the GPU idle, many cost more than they save


class CudaProductOps(GpuOps, ProductOps):
    """Sums by kernels/list_products.cu and kernels/move_rows.cu."""

    @names_memory
    def factored_gram(self, X: Array, fired: NeuronLists, g: Array) -> Array:
        """Sum and spread, neuron by neuron, into the sums of its part; then add the parts."""
        n, d = _check_factors(X, fired, {"g": (g, (len(X),))})
        u, partial = len(fired.neurons), self._partial_sums(n, len(fired.neurons))
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
        partial = self._partial_sums(n, u)
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
        u, real = len(fired.neurons), check_points_and_weights(X, W)
        _, d = _check_factors(X, fired, {"weights": (weights, (u,)), "g": (g, (len(X),))})
        moved = self._gpu.empty("movements", u, np.float64)
        arguments = (W, X, g, weights, *list_arguments(fired), np.int32(d), moved)
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

    def _partial_sums(self, n: int, u: int) -> Array:
        """Return zeros (parts, n) float64; how many depends on the problem alone, so no GPU sums in another order."""
        fitting = PART_BYTES // (8 * max(1, n))
        return self._gpu.zeros("partial sums", (min(u, max(FEWEST_PARTS, min(MOST_PARTS, fitting))), n), np.float64)


def _check_factors(X: Array, fired: NeuronLists, factors: dict[str, tuple[Array, tuple[int, ...]]]) -> tuple[int, int]:
    """Check X, the lists and float64 arrays of these shapes; return (n, d)."""
    check_array("X", X, 2, "REAL")
    check_lists("fired", fired)
    for name, (factor, shape) in factors.items():
        check_array(name, factor, len(shape), "float64", shape)
    return X.shape
