"""Packed masks on the GPU: votes of warps, counts, moves, a transposition of bits."""

from __future__ import annotations

import numpy as np

from ..formats import Array
from ..ops.bits import BitOps
from .checks import check_array
from .launcher import BLOCK_THREADS, NUMBERS_TILE, WARP, GpuOps, names_memory

PAIRS_TILE = 32  # points on a side of a block's tile of kernels/count_mask.cu
MASK_PARTS = 512  # of the neurons, or of their words, with sums of their own
UNPACKED_BITS = 1 << 25  # that become float64 numbers at a time


class CudaBitOps(GpuOps, BitOps):
    """Votes of warps, counts of bits."""

    @names_memory
    def pack_mask(self, X: Array, W: Array, signs: Array, shift: float) -> tuple[Array, Array]:
        """Vote warp by warp; sum by parts of the neurons, then add the parts."""
        return self._packed("pack_mask", X, W, signs, shift, ())

    @names_memory
    def near_mask(self, X: Array, W: Array, signs: Array, shift: float, radius: float) -> tuple[Array, Array, Array]:
        """Vote twice."""
        check_array("X", X, 2, "REAL")
        near = self._gpu.empty("mask of the near pairs", (-(-len(W) // 64), len(X)), np.int64)
        bits, totals = self._packed("near_mask", X, W, signs, shift, (X.dtype.type(radius), near))
        return bits, totals, near.view(np.uint64)

    def _packed(self, kernel: str, X: Array, W: Array, signs: Array, shift: float, more: tuple) -> tuple[Array, Array]:
        """Run a kernel of pack_mask.cu, with more arguments; return bits and totals."""
        check_array("X", X, 2, "REAL")
        real, (n, d), u = X.dtype.name, X.shape, len(W)
        check_array("W", W, 2, real, (None, d))
        check_array("signs", signs, 1, real, (u,))
        words, tiles = -(-u // 64), -(-u // NUMBERS_TILE[1])
        parts = min(MASK_PARTS, tiles)
        bits = self._gpu.empty("packed mask", (words, n), np.int64)
        totals = self._gpu.zeros("partial outputs", (parts, n), np.float64)
        arguments = (
            X, np.int64(n), W, signs, X.dtype.type(shift), np.float64(shift), np.int64(u), np.int32(d),
            np.int64(parts), np.int64(words), bits, totals, *more,
        )  # fmt: skip
        self._gpu.run("pack_mask", kernel, real, -(-n // NUMBERS_TILE[0]) * parts * BLOCK_THREADS, arguments)
        return bits.view(np.uint64), totals.sum(axis=0)

    @names_memory
    def mask_by_rows(self, bits: Array, rows: int) -> Array:
        """Vote bit by bit."""
        check_array("bits", bits, 2, "uint64", (-(-rows // 64), None))
        words, n = bits.shape
        columns = -(-n // 64)
        out = self._gpu.empty("packed mask by rows", (rows, columns), np.int64)
        arguments = (bits.view(np.int64), np.int64(words), np.int64(n), np.int64(rows), np.int64(columns), out)
        self._gpu.run("transpose_mask", "transpose_mask", "float32", words * columns * WARP, arguments)
        return out.view(np.uint64)

    @names_memory
    def mask_sizes(self, bits: Array) -> tuple[Array, int]:
        """Count by parts of the words; the host reads the size of the union."""
        check_array("bits", bits, 2, "uint64")
        words, n = bits.shape
        parts = min(MASK_PARTS, words)
        counts = self._gpu.zeros("partial counts", (parts, n), np.int64)
        fired = self._gpu.zeros("neurons that fire", words, np.int32)
        mask = (bits.view(np.int64), np.int64(words), np.int64(n))
        self._gpu.run("mask_counts", "mask_counts", "float32", parts * n, (*mask, np.int64(parts), counts))
        self._gpu.run("mask_union", "mask_union", "float32", words if n else 0, (*mask, fired))
        return counts.sum(axis=0), int(fired.sum(dtype=np.int64))

    @names_memory
    def count_mask(self, bits: Array, before: Array | None = None, counts: Array | None = None) -> Array:
        """Count all bits, always anew."""
        check_array("bits", bits, 2, "uint64")
        words, n = bits.shape
        out = self._gpu.zeros("pair counts", (n, n), np.float64)
        side = -(-n // PAIRS_TILE)
        arguments = (bits.view(np.int64), np.int64(words), np.int64(n), out)
        self._gpu.run("count_mask", "count_mask", "float32", side * side * BLOCK_THREADS, arguments)
        return out

    @names_memory
    def move_mask(self, W: Array, X: Array, bits: Array, weights: Array, g: Array) -> Array:
        """Sum, subtract and measure, a thread for each row."""
        check_array("X", X, 2, "REAL")
        real, (n, d), u = X.dtype.name, X.shape, len(W)
        check_array("W", W, 2, real, (None, d))
        check_array("bits", bits, 2, "uint64", (-(-u // 64), n))
        check_array("weights", weights, 1, "float64", (u,))
        check_array("g", g, 1, "float64", (n,))
        moved = self._gpu.empty("movements", u, np.float64)
        weighted = self.xp.ascontiguousarray(g[:, None] * X.astype(np.float64))  # (n, d)
        arguments = (W, weighted, bits.view(np.int64), weights, np.int64(n), np.int64(u), np.int32(d), moved)
        self._gpu.run("move_mask", "move_mask", real, u, arguments)
        return moved

    @names_memory
    def mask_product(self, X: Array, bits: Array, weights: Array, V: Array) -> Array:
        """Unpack some words at a time and multiply them by cuBLAS."""
        check_array("X", X, 2, "REAL")
        (n, d), u, xp = X.shape, len(V), self.xp
        check_array("bits", bits, 2, "uint64", (-(-u // 64), n))
        check_array("weights", weights, 1, "float64", (u,))
        check_array("V", V, 2, "float64", (u, d))
        places, sums = xp.arange(64, dtype=np.uint64)[:, None], xp.zeros((n, d))
        count = max(1, UNPACKED_BITS // (64 * max(1, n))) * 64  # neurons
        for first in range(0, u, count):
            rows = slice(first, min(first + count, u))
            words = bits[first // 64 : -(-rows.stop // 64), None, :]
            mask = (words >> places & np.uint64(1)).astype(np.float64)  # (words, 64, n)
            mask = mask.reshape(-1, n)[: rows.stop - first]
            sums += xp.matmul(mask.T, weights[rows, None] * V[rows])
        return (sums * X).sum(axis=1)
