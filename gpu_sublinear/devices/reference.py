"""The specification: every operation in the shortest NumPy that is obviously right.

Speed is no aim here; memory neither.  The other devices are tested against this file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse

from . import philox
from .base import CSR, Array, TreeLayout
from .host import HostDevice, one_blas_thread


class ReferenceDevice(HostDevice):
    """NumPy, one thread, nothing clever."""

    name = "reference"

    def normal_rows(self, seed: int, start: int, stop: int, d: int, dtype: str, paired: bool = False) -> Array:
        """Return counter-based standard normals."""
        return philox.normal_rows(seed, start, stop, d, paired).astype(dtype)

    def update_rows(self, W: Array, neurons: Array, delta: Array) -> None:
        """Subtract ``delta`` from the rows ``neurons``."""
        W[neurons] -= delta

    def fill_leaves(self, nodes: Array, X: Array, W: Array, neurons: Array | None = None) -> None:
        """Write the computed numbers: one rounded product and one rounded sum per feature, in order."""
        columns = np.arange(len(W)) if neurons is None else neurons
        rows = W[columns]  # (u, d)
        total = X[:, :1] * rows[None, :, 0]  # (n, u)
        for j in range(1, X.shape[1]):
            total = total + X[:, j, None] * rows[None, :, j]
        nodes[:, columns] = total

    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write the maximum of each parent's children."""
        below, here = layout.offsets[level - 1], layout.offsets[level]
        chosen = range(layout.sizes[level]) if parents is None else parents
        for parent in chosen:
            first = int(parent) * layout.arity
            last = min(first + layout.arity, layout.sizes[level - 1])
            nodes[:, here + parent] = nodes[:, below + first : below + last].max(axis=1)

    def query_tree(self, nodes: Array, layout: TreeLayout, threshold: float) -> tuple[Array, Array, Array, int]:
        """Walk the levels from the top; the children of a maximum above the threshold are looked at next."""
        bound = nodes.dtype.type(threshold)
        candidates = np.ones((len(nodes), layout.sizes[-1]), bool)
        visited = 0
        for level in reversed(range(len(layout.sizes))):
            offset, size = layout.offsets[level], layout.sizes[level]
            visited += int(candidates.sum())
            above = candidates & (nodes[:, offset : offset + size] > bound)
            if level:
                candidates = np.repeat(above, layout.arity, axis=1)[:, : layout.sizes[level - 1]]
        points, neurons = np.nonzero(above)
        indptr = np.concatenate([[0], np.cumsum(above.sum(axis=1))]).astype(np.int64)
        return indptr, neurons.astype(np.int32), nodes[points, neurons], visited

    def forward(self, indptr: Array, indices: Array, values: Array, signs: Array, shift: float) -> Array:
        """Sum ``a_r (P_ir - b)`` over the fired neurons of each point."""
        terms = signs[indices].astype(np.float64) * (values.astype(np.float64) - shift)
        return np.array([terms[start:stop].sum() for start, stop in zip(indptr, indptr[1:], strict=False)])

    def transpose(self, indptr: Array, indices: Array, m: int) -> tuple[Array, Array, Array, Array]:
        """Sort the (neuron, point) pairs by neuron."""
        points = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        order = np.argsort(indices, kind="stable")
        neurons, compact, counts = np.unique(indices, return_inverse=True, return_counts=True)
        t_indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return neurons.astype(np.int32), t_indptr, points[order].astype(np.int32), compact.astype(np.int32)

    def count_pairs(self, indptr: Array, compact: Array, t_indptr: Array, t_points: Array) -> Array:
        """Multiply the mask with its transpose."""
        shape = (len(indptr) - 1, len(t_indptr) - 1)
        mask = scipy.sparse.csr_array((np.ones(len(compact)), compact, indptr), shape=shape)
        return (mask @ mask.T).toarray()

    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Write one block of d entries for every fired pair, point by point."""
        d = X.shape[1]
        points = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        weights = X.dtype.type(scale) * signs[neurons[compact]]  # (nnz,)
        data = (weights[:, None] * X[points]).reshape(-1)
        columns = (compact[:, None] * d + np.arange(d, dtype=np.int32)).reshape(-1)
        return CSR(data, columns.astype(np.int32), indptr * d, (len(indptr) - 1, len(neurons) * d))

    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Transpose, neuron by neuron: d rows that share their points."""
        n, d = X.shape
        weights = X.dtype.type(scale) * signs[neurons]  # (u,)
        data, columns, lengths = [np.empty(0, X.dtype)], [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for weight, start, stop in zip(weights, t_indptr, t_indptr[1:], strict=False):
            points = t_points[start:stop]
            data.append((weight * X[points]).T.reshape(-1))
            columns.append(np.tile(points, d))
            lengths.append(np.full(d, stop - start))
        indptr = np.cumsum(np.concatenate(lengths))
        return CSR(np.concatenate(data), np.concatenate(columns), indptr, (len(neurons) * d, n))

    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Multiply with SciPy in float64."""
        product = scipy.sparse.csr_array(
            (matrix.data.astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        return lambda x: product @ x

    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Build S entry by entry and multiply."""
        columns = matrix.shape[1]
        sketch = scipy.sparse.csr_array((columns, rows))
        for nonzero in range(nonzeros):
            bucket, sign = philox.sketch_entries(columns, rows, nonzero, seed, draw)
            entries = (sign / np.sqrt(nonzeros), (np.arange(columns), bucket))
            sketch = sketch + scipy.sparse.csr_array(entries, shape=(columns, rows))
        wide = scipy.sparse.csr_array(
            (matrix.data.astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        return (wide @ sketch).toarray()

    def matmul(self, A: Array, B: Array) -> Array:
        """Multiply on one BLAS thread."""
        with one_blas_thread():
            return A @ B

    def gram(self, A: Array) -> Array:
        """Multiply and copy the lower triangle to the upper."""
        lower = np.tril(self.matmul(A, A.T))
        return lower + np.tril(lower, -1).T
