"""The exact Gram matrix ``G = (X X^T) o (M^T M) / m``, kept from step to step through the pairs that flip."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..devices import Array, Device
from ..index.protocol import Mask, PairCounts
from ..model.network import ShiftedReluNetwork


@dataclass
class GramMatrix:
    """G of the last active set that was shown.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    X : Array
        (n, d) points.
    width : int
        m.
    """

    device: Device
    X: Array
    width: int
    _known: PairCounts | None = field(default=None, repr=False)

    @property
    def recounted(self) -> bool:
        """Whether the last call counted all pairs anew."""
        return self._known is not None and self._known.recounted

    @cached_property
    def K(self) -> Array:
        """(n, n) float64, ``X X^T``, computed when first asked for: conjugate gradients alone never do."""
        return self.device.gram(self.X.astype(np.float64))

    def __call__(self, active: Mask) -> Array:
        """Return G (n, n) float64 of the active set.

        ``M^T M`` of the neurons whose lists changed is updated flip by flip,
        ``M'^T M' - M^T M = delta M' + M^T delta`` with ``delta = M' - M`` (exact: whole numbers); all pairs are
        counted, ``sum_r |fire(r)|^2`` increments, where that is cheaper.

        Parameters
        ----------
        active : Mask
            The fired pairs now.

        Returns
        -------
        Array
            (n, n) float64.
        """
        self._known = active.pair_counts(self.device, self._known)
        return active.folded(self.K * self._known.counts / self.width, self.K, self.width)


def gram_of(network: ShiftedReluNetwork, X: Array) -> GramMatrix:
    """Return what computes G of the points X (n, d), weighted or not, for the network's activation."""
    return GramMatrix(network.device, network.activation.points(X, network.device.xp), network.width)
