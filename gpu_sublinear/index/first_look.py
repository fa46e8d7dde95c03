"""The first look: which neurons take part in training at all.

A neuron that fires on no training point has gradient zero, so it does not move, so it never fires.  Training therefore
involves only ``U_0``, the neurons that fire on some point at the start, and is exactly the same with the others left
out.  The survey draws or takes all neurons that exist, block by block, keeps those of U_0 in the network and forgets
the others; no array of the size of the width is made.
"""

from __future__ import annotations

import numpy as np

from ..devices import Array, Device, NeuronLists
from ..model.caps import draw_caps, settle_sampling
from ..model.network import ShiftedReluNetwork
from .lists import picked, without_empty

SAMPLED_ROWS = 1024  # rows looked at to learn whether lists would grow too long, or how many fire at all
MOST_FIRING = 0.7  # share of rows that fire somewhere from which holding the others too costs less than finding them


def survey(network: ShiftedReluNetwork, X: Array, margin: float) -> NeuronLists:
    """Make the network hold the neurons that fire on some point; list the pairs near or above the threshold.

    Rows that the network held before stay held, also where they fire on none of these points.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Changed in place: which rows it holds.
    X : Array
        (n, d) points.
    margin : float
        Pairs above ``b - margin`` are listed.

    Returns
    -------
    NeuronLists
        For each place among ``network.rows`` whose neuron fires somewhere: its points above ``b - margin``.
    """
    if network.activation.slope:
        return everyone(network, X, margin)
    settle_sampling(network, len(X))
    if network.sampling == "virtual":
        draw_caps(network, X)
    device, xp = network.device, network.device.xp
    limit = lower_limit(network, xp.full(1, margin))[0] if margin > 0 else network.rows.dtype.type(network.shift)
    parts = _Parts(device, network)
    for first, W in network.blocks():
        neurons = xp.arange(len(W), dtype=np.int32)
        indptr, points = device.scan(X, W, neurons, xp.full(len(W), limit, dtype=network.dtype))
        lists = without_empty(device, NeuronLists(neurons, indptr, points))
        if margin > 0:  # those that fire, among those that nearly do
            lists = picked(device, lists, device.evaluate(X, W, lists, network.shift)[1])
        parts.add(first, W, lists)
    return parts.join()


def everyone(network: ShiftedReluNetwork, X: Array, margin: float) -> NeuronLists:
    """Make the network hold all rows; list the points above ``b - margin`` of each, also where there are none."""
    network.hold_all()
    xp = network.device.xp
    neurons = xp.arange(network.width, dtype=np.int32)
    limits = lower_limit(network, xp.full(len(neurons), margin))
    return NeuronLists(neurons, *network.device.scan(X, network.rows, neurons, limits))


def lower_limit(network: ShiftedReluNetwork, margin: Array) -> Array:
    """Return ``b - margin`` (u,), rounded down to REAL, so that rounding cannot open a gap."""
    real = network.rows.dtype.type
    exact = float(real(network.shift)) - margin  # (u,) float64
    return network.device.xp.nextafter(exact.astype(network.dtype), real(-np.inf))


class _Parts:
    """What is kept of each block, joined in the end."""

    def __init__(self, device: Device, network: ShiftedReluNetwork):
        self.xp, self.network = device.xp, network
        self.held = network.neurons
        self.rows: list[Array] = [network.rows[:0]]
        self.neurons: list[Array] = [self.held[:0]]
        self.places: list[Array] = [device.xp.zeros(0, np.int32)]
        self.lengths: list[Array] = [device.xp.zeros(0, np.int64)]
        self.points: list[Array] = [device.xp.zeros(0, np.int32)]
        self.count = 0

    def add(self, first: int, W: Array, lists: NeuronLists) -> None:
        """Keep the listed neurons of a block, and those that were held before."""
        low, high = (int(place) for place in self.xp.searchsorted(self.held, self.network.span(first, first + len(W))))
        kept = lists.neurons
        if high > low:
            kept = self.xp.union1d(kept, (self.held[low:high] - first).astype(np.int32))
        self.rows.append(W[kept])
        self.neurons.append(kept.astype(np.int64) + first)
        self.places.append((self.xp.searchsorted(kept, lists.neurons) + self.count).astype(np.int32))
        self.lengths.append(lists.indptr[1:] - lists.indptr[:-1])
        self.points.append(lists.points)
        self.count += len(kept)

    def join(self) -> NeuronLists:
        """Hand the rows to the network; return the lists."""
        join = self.xp.concatenate
        if self.count > len(self.held):
            self.network.hold(join(self.neurons), join(self.rows))
        lengths = join(self.lengths)
        indptr = self.xp.zeros(len(lengths) + 1, np.int64)
        self.xp.cumsum(lengths, out=indptr[1:])
        return NeuronLists(join(self.places), indptr, join(self.points))


def sampled_share(network: ShiftedReluNetwork, X: Array) -> float:
    """Return the share of the pairs that fire, from about 1024 of the rows held, evenly spaced."""
    u = len(network.rows)
    counts = _points_fired(network, X, network.rows[:: max(1, u // SAMPLED_ROWS)])
    return int(counts.sum()) / max(1, len(counts) * len(X))


def most_fire(network: ShiftedReluNetwork, X: Array) -> bool:
    """Tell whether most rows of a fresh network fire on some point (n, d), from the first 1024."""
    counts = _points_fired(network, X, network.block(0, min(SAMPLED_ROWS, network.width)))
    return int((counts > 0).sum()) >= MOST_FIRING * len(counts)


def _points_fired(network: ShiftedReluNetwork, X: Array, rows: Array) -> Array:
    """Return on how many points (n, d) each of these rows (k, d) fires, (k,) int64."""
    xp = network.device.xp
    neurons, limits = xp.arange(len(rows), dtype=np.int32), xp.full(len(rows), network.shift, dtype=network.dtype)
    indptr, _ = network.device.scan(X, xp.ascontiguousarray(rows), neurons, limits)
    return indptr[1:] - indptr[:-1]


def hold_firing(network: ShiftedReluNetwork, X: Array) -> None:
    """Make the network hold its rows: all of them where most fire on some point (n, d), else those that do."""
    settle_sampling(network, len(X))
    if network.sampling == "virtual" or not most_fire(network, X):
        survey(network, X, 0)
    else:
        network.sampling = "explicit"
        network.hold_all()
