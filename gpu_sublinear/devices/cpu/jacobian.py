"""The sparse Jacobian: filled by rows, multiplied row by row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import prange

from ..formats import CSR, Array
from ..ops.jacobian import JacobianOps
from .jit import parallel


@parallel
def _fill_jacobian(indptr, compact, neurons, signs, X, scale, data, columns):
    """Write d entries for every fired pair."""
    n, d = X.shape
    for i in prange(n):
        for p in range(indptr[i], indptr[i + 1]):
            weight = scale * signs[neurons[compact[p]]]
            for j in range(d):
                data[p * d + j] = weight * X[i, j]
                columns[p * d + j] = compact[p] * d + j


@parallel
def _fill_jacobian_t(t_indptr, t_points, neurons, signs, X, scale, data, columns, indptr):
    """Write the d rows of every neuron: entry q of row j is the neuron's q-th point."""
    d = X.shape[1]
    for k in prange(len(neurons)):
        start, count = t_indptr[k], t_indptr[k + 1] - t_indptr[k]
        weight = scale * signs[neurons[k]]
        for j in range(d):
            base = start * d + j * count
            indptr[k * d + j + 1] = base + count
            for q in range(count):
                i = t_points[start + q]
                data[base + q] = weight * X[i, j]
                columns[base + q] = i


@parallel
def _spmv(data, indices, indptr, x, out):
    """Rows times a vector, float64 sums in four lanes so that additions overlap."""
    for i in prange(len(out)):
        start, stop = indptr[i], indptr[i + 1]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        p = start
        while p + 3 < stop:
            s0 += data[p] * x[indices[p]]
            s1 += data[p + 1] * x[indices[p + 1]]
            s2 += data[p + 2] * x[indices[p + 2]]
            s3 += data[p + 3] * x[indices[p + 3]]
            p += 4
        while p < stop:
            s0 += data[p] * x[indices[p]]
            p += 1
        out[i] = (s0 + s1) + (s2 + s3)


class CpuJacobianOps(JacobianOps):
    """Loops over points, neurons and rows."""

    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Fill J by rows of points."""
        n, d = X.shape
        data, columns = np.empty(len(compact) * d, X.dtype), np.empty(len(compact) * d, np.int32)
        _fill_jacobian(indptr, compact, neurons, signs, X, X.dtype.type(scale), data, columns)
        return CSR(data, columns, indptr * d, (n, len(neurons) * d))

    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Fill J^T by rows of weights."""
        n, d = X.shape
        data, columns = np.empty(len(t_points) * d, X.dtype), np.empty(len(t_points) * d, np.int32)
        indptr = np.zeros(len(neurons) * d + 1, np.int64)
        scale = X.dtype.type(scale)
        _fill_jacobian_t(t_indptr, t_points, neurons, signs, X, scale, data, columns, indptr)
        return CSR(data, columns, indptr, (len(neurons) * d, n))

    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Multiply rows in parallel, sums in float64."""

        def product(x: Array) -> Array:
            out = np.empty(matrix.shape[0])
            _spmv(matrix.data, matrix.indices, matrix.indptr, x, out)
            return out

        return product
