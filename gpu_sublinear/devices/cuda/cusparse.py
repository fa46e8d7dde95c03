"""Sparse matrix times vector by cuSPARSE, set up once: descriptors, work space, and a deterministic algorithm.

CuPy's own ``cupyx.cusparse.spmv`` builds descriptors and work space at each call and takes cuSPARSE's default
algorithm, whose sums may change order between runs.  This wrapper keeps them, and takes ``CUSPARSE_SPMV_CSR_ALG2``,
which NVIDIA documents as bit-wise reproducible.  Signatures as in CuPy 13.3 to 14.2, which agree.

A float32 matrix is multiplied in float64 where cuSPARSE supports that mixture (A float32; x, y and sums float64),
else in float32 with two casts; :attr:`SparseProduct.precision` says which.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DeviceMemoryError
from ..formats import CSR, Array

ALG2 = 3  # CUSPARSE_SPMV_CSR_ALG2 of cusparse.h, CUSPARSE_CSRMV_ALG2 in CuPy
INDEX_LIMIT = 2**31 - 1
_CUDA_TYPES = {"float32": 0, "float64": 1}  # cudaDataType: CUDA_R_32F, CUDA_R_64F


def check_index_range(nnz: int, shape: tuple[int, int]) -> None:
    """Check that 32-bit indices can count a matrix.

    Parameters
    ----------
    nnz : int
        Stored entries.
    shape : tuple of int
        Rows and columns.

    Raises
    ------
    DeviceMemoryError
        If they cannot.
    """
    if max(nnz, *shape) > INDEX_LIMIT:
        raise DeviceMemoryError(
            f"a sparse matrix of shape {shape[0]:,} x {shape[1]:,} with {nnz:,} entries does not fit cuSPARSE's 32-bit "
            f"indices (at most {INDEX_LIMIT:,}); raise the shift or lower the width, or use the factored Jacobian"
        )


class SparseProduct:
    """The function ``x -> matrix @ x``, float64 in and out.

    Parameters
    ----------
    matrix : CSR
        On the current GPU; kept alive by this object.

    Attributes
    ----------
    precision : str
        Data type of products and sums.
    """

    def __init__(self, matrix: CSR):
        import cupy

        check_index_range(matrix.nnz, matrix.shape)
        self._xp = cupy
        self._matrix = matrix
        self._indptr = matrix.indptr.astype(np.int32)  # (rows + 1,)
        self._descriptor = 0
        self._plan: _Plan | None = None
        self.precision = "float64"
        if matrix.nnz:
            self._create()

    def __call__(self, x: Array) -> Array:
        """Return ``matrix @ x``, (rows,) float64, for x (columns,) float64."""
        if x.shape != (self._matrix.shape[1],):
            raise ValueError(f"x has shape {x.shape}, the matrix {self._matrix.shape}")
        if self._plan is None:
            return self._xp.zeros(self._matrix.shape[0])
        return self._plan.multiply(x)

    def __del__(self) -> None:
        """Give the descriptors back to cuSPARSE, unless the interpreter is going down."""
        if getattr(self, "_descriptor", 0) and not self._xp._util.is_shutting_down():
            self._plan = None
            self._library.destroySpMat(self._descriptor)
            self._descriptor = 0

    def _create(self) -> None:
        from cupy_backends.cuda.libs import cusparse

        self._library = cusparse
        matrix = self._matrix
        self._descriptor = cusparse.createCsr(
            *matrix.shape, matrix.nnz, self._indptr.data.ptr, matrix.indices.data.ptr, matrix.data.data.ptr,
            cusparse.CUSPARSE_INDEX_32I, cusparse.CUSPARSE_INDEX_32I, cusparse.CUSPARSE_INDEX_BASE_ZERO,
            _CUDA_TYPES[matrix.data.dtype.name],
        )  # fmt: skip
        self._plan = self._make_plan()

    def _make_plan(self) -> _Plan:
        real = self._matrix.data.dtype.name
        try:
            return _Plan(self._library, self._descriptor, self._matrix.shape, "float64")
        except RuntimeError:  # CuSparseError: this cuSPARSE does not multiply float32 by float64
            if real == "float64":
                raise
        self.precision = real
        return _Plan(self._library, self._descriptor, self._matrix.shape, real)


class _Plan:
    """Vectors and work space of one matrix for one data type of the vectors."""

    def __init__(self, library: Any, descriptor: int, shape: tuple[int, int], dtype: str):
        import cupy
        from cupy.cuda import device

        self._xp, self._library, self._descriptor = cupy, library, descriptor
        self._handle = device.get_cusparse_handle  # asked at each call: handles belong to host threads
        self._type = _CUDA_TYPES[dtype]
        self._x, self._y = cupy.zeros(shape[1], dtype), cupy.zeros(shape[0], dtype)
        self._one, self._zero = np.ones(1, dtype), np.zeros(1, dtype)
        self._vectors: list[int] = []
        self._vectors.append(library.createDnVec(shape[1], self._x.data.ptr, self._type))
        self._vectors.append(library.createDnVec(shape[0], self._y.data.ptr, self._type))
        size = library.spMV_bufferSize(*self._arguments(), self._type, ALG2)
        self._buffer = cupy.empty(max(size, 1), np.int8)
        self._run()  # a combination of types that is not supported shows here at the latest

    def multiply(self, x: Array) -> Array:
        """Return the product as a new float64 array."""
        self._x[...] = x  # casts to the plan's data type
        self._run()
        return self._y.astype(np.float64)  # always a copy

    def __del__(self) -> None:
        """Give the vectors' descriptors back to cuSPARSE."""
        if not self._xp._util.is_shutting_down():
            for vector in self._vectors:
                self._library.destroyDnVec(vector)

    def _run(self) -> None:
        self._library.spMV(*self._arguments(), self._type, ALG2, self._buffer.data.ptr)

    def _arguments(self) -> tuple[int, ...]:
        x, y = self._vectors
        plain = self._library.CUSPARSE_OPERATION_NON_TRANSPOSE
        return (
            self._handle(), plain, self._one.ctypes.data, self._descriptor, x, self._zero.ctypes.data, y,
        )  # fmt: skip
