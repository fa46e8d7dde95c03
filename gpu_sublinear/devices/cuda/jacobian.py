"""The sparse Jacobian on the GPU: filled by kernels, multiplied by cuSPARSE."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..formats import CSR, Array
from ..ops.jacobian import JacobianOps
from .checks import check_array, check_offsets
from .cusparse import check_index_range
from .launcher import WARP, GpuOps, names_memory


class CudaJacobianOps(GpuOps, JacobianOps):
    """J and J^T, each by rows of its own."""

    @names_memory
    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Fill J by rows of points."""
        check_offsets("indptr", indptr, "compact", compact)
        data, columns = self._jacobian_arrays(compact, neurons, signs, X, "J")
        n, d = X.shape
        arguments = (
            indptr, compact, neurons, signs, X, X.dtype.type(scale), np.int64(n), np.int32(d), data, columns,
        )  # fmt: skip
        if data.size:
            work = -(-data.size // n)
            self._gpu.run("fill_jacobian", "fill_jacobian", X.dtype.name, work, arguments, rows=n)
        return CSR(data, columns, indptr * d, (n, len(neurons) * d))

    @names_memory
    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Fill J^T by rows of weights."""
        check_offsets("t_indptr", t_indptr, "t_points", t_points)
        data, columns = self._jacobian_arrays(t_points, neurons, signs, X, "J^T")
        n, d = X.shape
        u = len(neurons)
        indptr = self._gpu.zeros("row offsets of J^T", u * d + 1, np.int64)
        arguments = (
            t_indptr, t_points, neurons, signs, X, X.dtype.type(scale), np.int64(u), np.int32(d),
            data, columns, indptr[1:],
        )  # fmt: skip
        self._gpu.run("fill_jacobian", "fill_jacobian_t", X.dtype.name, u * WARP, arguments)
        return CSR(data, columns, indptr, (u * d, n))

    def _jacobian_arrays(self, pairs: Array, neurons: Array, signs: Array, X: Array, name: str) -> tuple[Array, Array]:
        """Check what both fills take, and allocate data and columns, (nnz d,) each."""
        check_array("X", X, 2, "REAL")
        check_array("signs", signs, 1, X.dtype.name)
        check_array("neurons", neurons, 1, "int32")
        size = len(pairs) * X.shape[1]
        check_index_range(size, (len(X), len(neurons) * X.shape[1]))
        data = self._gpu.empty(f"values of {name}", size, X.dtype)
        return data, self._gpu.empty(f"columns of {name}", size, np.int32)

    @names_memory
    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Set up cuSPARSE's deterministic algorithm."""
        check_array("data", matrix.data, 1, "REAL")
        check_offsets("indptr", matrix.indptr, "indices", matrix.indices)
        check_index_range(matrix.nnz, matrix.shape)
        return self.toolkit.spmv(matrix)
