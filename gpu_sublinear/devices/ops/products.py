"""What a device must do with the factored Jacobian: multiply and take steps without storing J."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ..formats import Array, NeuronLists

WIDENED_ROWS = 1 << 14  # rows widened at a time: their float64 copy stays in the cache


class ProductOps(ABC):
    """The factored Jacobian: products from the lists of fired pairs."""

    @abstractmethod
    def factored_gram(self, X: Array, fired: NeuronLists, g: Array) -> Array:
        """Return ``sum_r M_ri <x_i, sum_k M_rk g_k x_k>``, (n,) float64: ``m G g`` without storing J."""

    @abstractmethod
    def factored_product(self, X: Array, fired: NeuronLists, weights: Array, V: Array) -> Array:
        """Return ``J v``: ``sum_r M_ri weights_r <V_r, x_i>``, (n,) float64; weights (u,), V (u, d) float64."""

    @abstractmethod
    def factored_transposed(self, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Return ``J^T g`` by rows: ``weights_r sum_i M_ri g_i x_i``, (u, d) float64."""

    @abstractmethod
    def move_rows(self, W: Array, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Subtract ``J^T g`` from the rows of the fired neurons in place and return how far each moved.

        ``W[r] <- REAL(W[r] - weights_r sum_i M_ri g_i x_i)``, sums in float64.

        Returns
        -------
        Array
            (u,) float64: Euclidean norm of the difference of the stored rows, rounding included.
        """

    @abstractmethod
    def pull_rows(self, W: Array, initial: Array, neurons: Array, change: Array, theta: float) -> tuple[Array, Array]:
        """Return the rows after a step that pulls them towards their initial values; W stays as it is.

        ``W'[r] = REAL(W0[r] + (1 - theta) (W[r] - W0[r]) - change_r)``, in float64, rounded once; the last term for
        ``neurons`` (u,) int32 ascending alone.  W and W0 = ``initial`` (rows, d) REAL, change (u, d) float64.  For
        theta = 1 a row without change gets its initial value, bit for bit.

        Returns
        -------
        rows : Array
            (rows, d) REAL, a new array.
        moved : Array
            (rows,) float64: ``||W'[r] - W[r]||`` of the stored rows.
        """

    def pull_lists(
        self, W: Array, initial: Array, X: Array, fired: NeuronLists, weights: Array, g: Array, theta: float
    ) -> tuple[Array, Array]:
        """Return what :meth:`pull_rows` does, for the change that :meth:`factored_transposed` gives."""
        return self.pull_rows(W, initial, fired.neurons, self.factored_transposed(X, fired, weights, g), theta)

    def movement(self, W: Array, initial: Array, neurons: Array) -> Array:
        """Return how these rows (k,) of W (u, d) differ from those of ``initial`` (u, d), (k, d) float64."""
        D = W.take(neurons, axis=0).astype(np.float64)
        D -= initial.take(neurons, axis=0)
        return D

    def factored_along(self, X: Array, fired: NeuronLists, weights: Array, W: Array, initial: Array) -> Array:
        """Return :meth:`factored_product` with the :meth:`movement` of the fired rows from ``initial`` to W as V."""
        return self.factored_product(X, fired, weights, self.movement(W, initial, fired.neurons))

    def square_distance(self, A: Array, B: Array) -> float:
        """Return ``||A - B||^2`` (Frobenius) of two arrays, (u, d) or (u,), summed in float64; waits for the device."""
        total = 0.0
        for first in range(0, len(A), WIDENED_ROWS):
            block = A[first : first + WIDENED_ROWS].astype(np.float64)
            block -= B[first : first + WIDENED_ROWS]
            block *= block
            total += float(block.sum())
        return total
