"""What a device must do with the sparse Jacobian where it is stored: fill J and J^T, multiply by a vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from ..formats import CSR, Array


class JacobianOps(ABC):
    """The sparse Jacobian, stored."""

    @abstractmethod
    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Return J, (n, u d): row i, column (k, j) is ``scale a_r x_ij`` where r = neurons[k] fires on i.

        The product is ``REAL(REAL(scale) a_r) x_ij``: rounded once, because a_r is +-1.
        """

    @abstractmethod
    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Return J^T as rows of its own, (u d, n), with the same values as :meth:`fill_jacobian`."""

    @abstractmethod
    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Return the function ``x -> matrix @ x`` (float64 in and out), with all set-up done once."""
