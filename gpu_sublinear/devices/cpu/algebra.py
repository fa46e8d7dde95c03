"""Dense products by BLAS, tile by tile on all threads; factors and eigenvalues are those of every host device."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from ..formats import Array
from ..host import one_blas_thread
from ..ops.algebra import AlgebraOps

TILE_ROWS = 128  # rows of a product per thread: fixed, so that bytes do not depend on the number of threads


class CpuAlgebraOps(AlgebraOps):
    """Products whose tiles run on one BLAS thread each."""

    def matmul(self, A: Array, B: Array) -> Array:
        """Multiply tiles of rows in a pool of threads, each tile on one BLAS thread."""
        out = np.empty((len(A), *B.shape[1:]), np.result_type(A, B))
        self._each_tile(len(A), lambda first, last: np.matmul(A[first:last], B, out=out[first:last]))
        return out

    def gram(self, A: Array) -> Array:
        """Multiply tiles below the diagonal, then mirror them."""
        n = len(A)
        out = np.empty((n, n), A.dtype)

        def tile(first: int, last: int) -> None:
            np.matmul(A[first:last], A[:last].T, out=out[first:last, :last])

        self._each_tile(n, tile)
        lower = np.tril(out)
        return lower + np.tril(out, -1).T

    @staticmethod
    def _each_tile(rows: int, tile: Callable[[int, int], object]) -> None:
        starts = range(0, rows, TILE_ROWS)
        with one_blas_thread(), ThreadPoolExecutor(numba.get_num_threads()) as pool:
            list(pool.map(lambda first: tile(first, min(first + TILE_ROWS, rows)), reversed(starts)))
