"""What a device must do with dense matrices, float64, n x n: products, factors, eigenvalues."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..formats import Array


class AlgebraOps(ABC):
    """Dense linear algebra, float64, n x n."""

    @abstractmethod
    def matmul(self, A: Array, B: Array) -> Array:
        """Return ``A @ B`` with bytes that do not depend on the number of threads."""

    @abstractmethod
    def gram(self, A: Array) -> Array:
        """Return ``A A^T``, exactly symmetric, with bytes that do not depend on the number of threads."""

    @abstractmethod
    def cholesky(self, A: Array) -> Array | None:
        """Return the lower factor L of a symmetric positive definite A = L L^T, or None where A is not."""

    @abstractmethod
    def solve_triangular(self, L: Array, b: Array, transposed: bool = False) -> Array:
        """Return ``L^{-1} b``, or ``L^{-T} b``, for a lower triangular L."""

    @abstractmethod
    def eigh(self, A: Array) -> tuple[Array, Array]:
        """Return eigenvalues (ascending) and eigenvectors of a symmetric matrix."""
