"""The sparse Jacobian of the n outputs with respect to the weights, as CSR, and its transpose as its own CSR.

Row i, block r of J is ``m^{-1/2} a_r x_i^T`` where neuron r fires on point i, and zero elsewhere.  Only the blocks
of the u neurons that fire somewhere are columns here (block k belongs to neuron ``neurons[k]``); the others are
zero columns.  ``J^T`` is stored too because a transposed product with J scatters, slowly and in no fixed order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .active_set import ActiveSet
from .devices import CSR, Array, Device
from .errors import DeviceMemoryError


@dataclass(frozen=True)
class SparseJacobian:
    """J and J^T with their products.

    Attributes
    ----------
    csr, csr_t : CSR
        J (n, u d) and J^T (u d, n).
    matvec, rmatvec : callable
        ``v (u d,) -> J v (n,)`` and ``g (n,) -> J^T g (u d,)``, float64.
    neurons : Array
        (u,) int32: the neurons whose weights are columns.
    width, features : int
        m and d.
    """

    csr: CSR
    csr_t: CSR
    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]
    neurons: Array
    width: int
    features: int

    @classmethod
    def build(cls, device: Device, active: ActiveSet, X: Array, signs: Array) -> SparseJacobian:
        """Write both matrices from the active set: 2 nnz d entries.

        Parameters
        ----------
        device : Device
            Owner of the arrays.
        active : ActiveSet
            The fired pairs.
        X : Array
            (n, d) points.
        signs : Array
            (m,) second layer.

        Returns
        -------
        SparseJacobian
            J and J^T.

        Raises
        ------
        DeviceMemoryError
            If a column number would not fit 32 bits, or both matrices exceed the device's memory.
        """
        d, m = int(X.shape[1]), int(signs.shape[0])
        _check_size(device, active, d, X.dtype.itemsize)
        scale = m**-0.5
        csr = device.fill_jacobian(active.indptr, active.compact, active.neurons, signs, X, scale)
        csr_t = device.fill_jacobian_t(active.t_indptr, active.t_points, active.neurons, signs, X, scale)
        return cls(csr, csr_t, device.spmv(csr), device.spmv(csr_t), active.neurons, m, d)

    def gram(self, g: Array) -> Array:
        """Return ``G g = J (J^T g)``, (n,)."""
        return self.matvec(self.rmatvec(g))

    def weight_change(self, g: Array) -> Array:
        """Return ``J^T g`` as rows of weights, (u, d) float64, one for each of ``neurons``."""
        return self.rmatvec(g).reshape(-1, self.features)

    def to_scipy(self) -> Any:
        """Return J as a ``scipy.sparse.csr_array`` (n, m d) on the host, column r d + j for weight (r, j)."""
        import scipy.sparse

        return scipy.sparse.csr_array(
            tuple(_host(part) for part in self._wide()), shape=(self.csr.shape[0], self.width * self.features)
        )

    def to_cupyx(self) -> Any:
        """Return J as a ``cupyx.scipy.sparse.csr_matrix`` (n, m d) on the current GPU."""
        import cupyx.scipy.sparse

        return cupyx.scipy.sparse.csr_matrix(self._wide(), shape=(self.csr.shape[0], self.width * self.features))

    def _wide(self) -> tuple[Array, Array, Array]:
        block, feature = self.csr.indices // self.features, self.csr.indices % self.features
        columns = self.neurons[block].astype(np.int64) * self.features + feature
        return self.csr.data, columns, self.csr.indptr


def _host(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else array


def _check_size(device: Device, active: ActiveSet, d: int, itemsize: int) -> None:
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
