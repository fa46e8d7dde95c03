"""Lists and weights when points arrive later: what the ``extend`` of every index is made of.

Points that arrive later bring neurons that fire on none of the earlier points.  Those are where the seed put them,
because they never moved (:mod:`gpu_sublinear.index.first_look`), so they can be drawn now as if all points had been there from
the start.  They take places among the rows held, in the order of their numbers; the rows held before keep their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..devices import Array, Device, NeuronLists
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


def appended(device: Device, lists: NeuronLists, indptr: Array, points: Array) -> NeuronLists:
    """Return every list of ``lists`` followed by the points of (indptr, points), lists of the same neurons."""
    xp = device.xp
    pool = xp.concatenate([lists.points, points])
    starts = xp.stack([lists.indptr[:-1], indptr[:-1] + lists.nnz], axis=1).ravel()  # (2u,)
    stops = xp.stack([lists.indptr[1:], indptr[1:] + lists.nnz], axis=1).ravel()
    ends, joined = _gathered(device, pool, starts, stops)
    return NeuronLists(lists.neurons, ends[::2].copy(), joined)


def united(device: Device, first: NeuronLists, second: NeuronLists) -> tuple[NeuronLists, Array]:
    """Return the lists of both, whose neurons differ, in ascending order; and that order of (first, second)."""
    xp = device.xp
    neurons = xp.concatenate([first.neurons, second.neurons])
    order = xp.argsort(neurons)  # (u,)
    starts = xp.concatenate([first.indptr[:-1], second.indptr[:-1] + first.nnz])[order]
    stops = xp.concatenate([first.indptr[1:], second.indptr[1:] + first.nnz])[order]
    ends, joined = _gathered(device, xp.concatenate([first.points, second.points]), starts, stops)
    return NeuronLists(neurons[order], ends, joined), order


def _gathered(device: Device, pool: Array, starts: Array, stops: Array) -> tuple[Array, Array]:
    """Return the ends (s + 1,) and the entries of segments ``starts .. stops`` (s,) of the pool, one after another."""
    xp = device.xp
    ends = xp.zeros(len(starts) + 1, np.int64)
    xp.cumsum(stops - starts, out=ends[1:])
    entries = xp.arange(int(ends[-1]), dtype=np.int64)
    owners = xp.searchsorted(ends[1:], entries, side="right")  # the segment of every entry
    return ends, pool[entries + (starts - ends[:-1])[owners]]
