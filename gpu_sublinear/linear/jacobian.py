"""The sparse Jacobian of the n outputs with respect to the weights: factored, or as CSR.

Row i, block r of J is ``m^{-1/2} a_r x_i^T`` where neuron r fires on point i, and zero elsewhere.  Only the blocks
of the u neurons that fire somewhere are columns here (block k belongs to neuron ``neurons[k]``); the others are
zero columns.  :class:`FactoredJacobian` multiplies from the lists and X; :class:`SparseJacobian` stores the nnz d
entries, as the paper has it and as other libraries want them.  Both have the same products and take the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..devices import CSR, Array, Device
from ..errors import DeviceMemoryError
from ..index.protocol import FiredPairs


class ListedProducts:
    """The answers of a Jacobian that multiplies from lists, of one output."""

    gram_is_whole = True  # the Gram matrix of the mask is G, and no block of it
    entries: SparseJacobian | None = None  # J with its entries written

    @property
    def products(self) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True)
class FactoredJacobian(ListedProducts):
    """J as the product of its mask, signs and points: no copy of X for every fired pair.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    X : Array
        (n, d) points.
    active : FiredPairs
        The mask.
    weights : Array
        (u,) float64, ``m^{-1/2} a_r`` of the fired neurons.
    """

    device: Device
    X: Array
    active: FiredPairs
    weights: Array

    @classmethod
    def build(cls, device: Device, active: FiredPairs, X: Array, signs: Array, width: int) -> FactoredJacobian:
        """Gather the signs (u,) of the fired neurons; ``width`` is m, nominal."""
        return cls(device, X, active, signs[active.fired.neurons].astype(np.float64) * width**-0.5)

    @property
    def points(self) -> int:
        """Number of rows, n."""
        return int(self.X.shape[0])

    def matvec(self, v: Array) -> Array:
        """Return ``J v``, (n,) float64, for v (u d,)."""
        V = v.reshape(-1, self.X.shape[1])
        return self.device.factored_product(self.X, self.active.fired, self.weights, V)

    def rmatvec(self, g: Array) -> Array:
        """Return ``J^T g``, (u d,) float64, for g (n,)."""
        return self.device.factored_transposed(self.X, self.active.fired, self.weights, g).ravel()

    def gram(self, g: Array) -> Array:
        """Return ``G g = J (J^T g)``, (n,), in one pass over the lists."""
        width = float(self.weights[0]) ** -2 if len(self.weights) else 1.0
        return self.device.factored_gram(self.X, self.active.fired, g) / width

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Apply ``W <- W - J^T g`` in place; return the fired rows (u,) and how far each moved, (u,) float64."""
        fired = self.active.fired
        return fired.neurons, self.device.move_rows(W, self.X, fired, self.weights, g)

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) float64, for the movement D of the rows from ``initial`` (u, d) to W."""
        return self.device.factored_along(self.X, self.active.fired, self.weights, W, initial)

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances, see :meth:`Device.pull_rows`."""
        return self.device.pull_lists(W, initial, self.X, self.active.fired, self.weights, g, theta)


@dataclass(frozen=True)
class SparseJacobian(ListedProducts):
    """J and J^T, each as CSR: a transposed product with one of them would scatter, slowly and in no fixed order.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    csr, csr_t : CSR
        J (n, u d) and J^T (u d, n).
    matvec, rmatvec : callable
        ``v (u d,) -> J v (n,)`` and ``g (n,) -> J^T g (u d,)``, float64.
    neurons : Array
        (u,) int32: the neurons whose weights are columns.
    rows, features : int
        Number of rows of weights, held by the network, and d.
    """

    device: Device
    csr: CSR
    csr_t: CSR
    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]
    neurons: Array
    rows: int
    features: int

    @classmethod
    def build(cls, device: Device, active: FiredPairs, X: Array, signs: Array, width: int) -> SparseJacobian:
        """Write both matrices from the active set: 2 nnz d entries.

        Parameters
        ----------
        device : Device
            Owner of the arrays.
        active : FiredPairs
            The fired pairs.
        X : Array
            (n, d) points.
        signs : Array
            (u,) second layer of the rows that the active set speaks of.
        width : int
            m, nominal: entries have the factor ``m^{-1/2}``.

        Returns
        -------
        SparseJacobian
            J and J^T.

        Raises
        ------
        DeviceMemoryError
            If a column number would not fit 32 bits, or both matrices exceed the device's memory.
        """
        d, scale = int(X.shape[1]), width**-0.5
        _check_size(device, active, d, X.dtype.itemsize)
        fired = active.fired
        csr = device.fill_jacobian(active.indptr, active.compact, fired.neurons, signs, X, scale)
        csr_t = device.fill_jacobian_t(fired.indptr, fired.points, fired.neurons, signs, X, scale)
        return cls(device, csr, csr_t, device.spmv(csr), device.spmv(csr_t), fired.neurons, len(signs), d)

    @property
    def entries(self) -> SparseJacobian:  # type: ignore[override]
        """Itself."""
        return self

    @property
    def points(self) -> int:
        """Number of rows, n."""
        return self.csr.shape[0]

    def gram(self, g: Array) -> Array:
        """Return ``G g = J (J^T g)``, (n,)."""
        return self.matvec(self.rmatvec(g))

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Apply ``W <- W - J^T g`` in place; return the fired rows (u,) and how far each moved, (u,) float64."""
        before = W[self.neurons].astype(np.float64)  # (u, d)
        change = self.rmatvec(g).reshape(-1, self.features)
        self.device.update_rows(W, self.neurons, change.astype(W.dtype))
        return self.neurons, ((W[self.neurons] - before) ** 2).sum(axis=1) ** 0.5

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) float64, for the movement D of the rows from ``initial`` (u, d) to W."""
        return self.matvec(self.device.movement(W, initial, self.neurons).ravel())

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances, see :meth:`Device.pull_rows`."""
        return self.device.pull_rows(W, initial, self.neurons, self.rmatvec(g).reshape(-1, self.features), theta)

    def to_scipy(self) -> Any:
        """Return J as a ``scipy.sparse.csr_array`` (n, u d) on the host, column r d + j for ``network.rows[r, j]``."""
        import scipy.sparse

        return scipy.sparse.csr_array(
            tuple(self.device.to_host(part) for part in self._wide()),
            shape=(self.csr.shape[0], self.rows * self.features),
        )

    def to_cupyx(self) -> Any:
        """Return J as a ``cupyx.scipy.sparse.csr_matrix`` (n, u d) on the current GPU."""
        import cupyx.scipy.sparse

        return cupyx.scipy.sparse.csr_matrix(self._wide(), shape=(self.csr.shape[0], self.rows * self.features))

    def _wide(self) -> tuple[Array, Array, Array]:
        block, feature = self.csr.indices // self.features, self.csr.indices % self.features
        columns = self.neurons[block].astype(np.int64) * self.features + feature
        return self.csr.data, columns, self.csr.indptr


def _check_size(device: Device, active: FiredPairs, d: int, itemsize: int) -> None:
    if active.union * d >= 2**31:
        raise DeviceMemoryError(
            f"the Jacobian has {active.union * d:,} columns, more than 32-bit indices count; "
            "raise the shift or lower the width"
        )
    nbytes = 2 * active.nnz * d * (itemsize + 4)
    if nbytes > device.total_bytes():
        raise DeviceMemoryError(
            f"the Jacobian and its transpose take {nbytes:,} bytes ({active.nnz:,} fired pairs x {d} features), "
            f"the device has {device.total_bytes():,}; raise the shift or lower the width"
        )
