"""Dense algebra on the GPU: cuBLAS and cuSOLVER."""

from __future__ import annotations

from ..formats import Array
from ..ops.algebra import AlgebraOps
from .launcher import GpuOps, names_memory


class CudaAlgebraOps(GpuOps, AlgebraOps):
    """Products of the toolkit's arrays, factors of its libraries."""

    @names_memory
    def matmul(self, A: Array, B: Array) -> Array:
        """Multiply by cuBLAS: one stream and one work space, so repeated calls give the same bytes."""
        return self.xp.matmul(A, B)

    @names_memory
    def gram(self, A: Array) -> Array:
        """Multiply by cuBLAS, keep the lower triangle and mirror it."""
        lower = self.xp.tril(self.xp.matmul(A, A.T))
        return lower + self.xp.tril(lower, -1).T

    @names_memory
    def cholesky(self, A: Array) -> Array | None:
        """Factor by cuSOLVER; waits for the GPU to learn whether it succeeded."""
        return self.toolkit.cholesky(A)

    @names_memory
    def solve_triangular(self, L: Array, b: Array, transposed: bool = False) -> Array:
        """Solve by cuBLAS."""
        return self.toolkit.solve_triangular(L, b, transposed)

    @names_memory
    def eigh(self, A: Array) -> tuple[Array, Array]:
        """Return eigenvalues and eigenvectors by cuSOLVER."""
        values, vectors = self.xp.linalg.eigh(A)
        return values, vectors
