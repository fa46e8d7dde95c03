"""Lists and weights when points arrive later: what the ``extend`` of every index is made of.

Points that arrive later bring neurons that fire on none of the earlier points.  Those are where the seed put them,
because they never moved (:mod:`gpu_sublinear.index.first_look`), so they can be drawn now as if all points had been
there from the start.  They take places among the rows held, in the order of their numbers; the rows held before keep
their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..devices import Array, Device
from ..model.network import ShiftedReluNetwork
from .first_look import survey


@dataclass(frozen=True)
class Newcomers:
    """What a look at new points changed in the network.

    Attributes
    ----------
    places : Array
        (u,) int32: where the rows held before are now.
    firing : Array
        (f,) int32, ascending: the rows that fire on some new point, held before or not.
    rows : int
        Rows held now.
    """

    places: Array
    firing: Array
    rows: int

    @classmethod
    def welcome(cls, network: ShiftedReluNetwork, X: Array) -> Newcomers:
        """Scan the new points X (k, d) against all neurons that exist: O(k m d); hold those that fire."""
        before = network.neurons
        lists = survey(network, X, 0)
        places = network.device.xp.searchsorted(network.neurons, before).astype(np.int32)
        return cls(places, lists.neurons, len(network.rows))

    def joined(self, device: Device) -> Array:
        """Return the rows that were not held before, ascending (j,) int32."""
        others = device.xp.ones(self.rows, bool)
        others[self.places] = False
        return device.xp.flatnonzero(others).astype(np.int32)

    def without(self, device: Device, listed: Array) -> Array:
        """Return the firing rows that are not among those ``listed``, ascending."""
        known = device.xp.zeros(self.rows, bool)
        known[listed] = True
        return self.firing[~known[self.firing]]
