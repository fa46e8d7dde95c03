"""The exact Gram matrix ``G = (X X^T) o (M^T M) / m``, kept from step to step through the pairs that flip."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .active_set import ActiveSet
from .bits import BitMask
from .devices import Array, Device, NeuronLists
from .flip_mask import FlipMask

FLIP_PENALTY = 8  # a flip's increments go to scattered rows on one thread, a recount's to one row in the cache on all


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
    recounted : bool
        Whether the last call counted all pairs anew.
    """

    device: Device
    X: Array
    width: int
    recounted: bool = False
    _counts: Array = field(default=None, repr=False)
    _before: NeuronLists | None = field(default=None, repr=False)
    _bits: Array = field(default=None, repr=False)

    @cached_property
    def K(self) -> Array:
        """(n, n) float64, ``X X^T``, computed when first asked for: conjugate gradients alone never do."""
        return self.device.gram(self.X.astype(np.float64))

    def __call__(self, active: ActiveSet | BitMask | FlipMask) -> Array:
        """Return G (n, n) float64 of the active set.

        ``M^T M`` of the neurons whose lists changed is updated flip by flip,
        ``M'^T M' - M^T M = delta M' + M^T delta`` with ``delta = M' - M`` (exact: whole numbers); all pairs are
        counted, ``sum_r |fire(r)|^2`` increments, where that is cheaper.

        Parameters
        ----------
        active : ActiveSet, BitMask or FlipMask
            The fired pairs now.

        Returns
        -------
        Array
            (n, n) float64.
        """
        if isinstance(active, FlipMask):
            return self.K * active.pair_counts / self.width
        if isinstance(active, BitMask):
            return self._from_bits(active)
        limit = int(active.pairs) // FLIP_PENALTY
        self.recounted = self._before is None or not self.device.change_pairs(
            self._counts, self._before, active.fired, limit
        )
        if self.recounted:
            fired = active.fired
            self._counts = self.device.count_pairs(active.indptr, active.compact, fired.indptr, fired.points)
        self._before, self._bits = active.fired, None
        return self.K * self._counts / self.width

    def _from_bits(self, active: BitMask) -> Array:
        self.recounted = self._bits is None
        known = None if self.recounted else self._counts
        self._counts = self.device.count_mask(active.bits, self._bits, known)
        self._before, self._bits = None, active.bits
        return self.K * self._counts / self.width
