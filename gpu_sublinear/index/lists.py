"""Operations on lists of points by neuron that every kind of index uses: pick, reorder, append, unite, restrict."""

from __future__ import annotations

import numpy as np

from ..devices import Array, Device, NeuronLists
from ..model.network import ShiftedReluNetwork


def without_empty(device: Device, lists: NeuronLists) -> NeuronLists:
    """Return the lists that are not empty."""
    listed = device.xp.flatnonzero(lists.indptr[1:] > lists.indptr[:-1])
    return lists if len(listed) == len(lists.neurons) else _compressed(lists, listed)


def picked(device: Device, lists: NeuronLists, places: Array) -> NeuronLists:
    """Return the lists at the ascending ``places`` alone."""
    xp = device.xp
    others = xp.ones(len(lists.neurons), bool)
    others[places] = False
    dropped = xp.flatnonzero(others)
    if not len(dropped):
        return lists
    emptied = device.splice(lists, dropped, xp.zeros(len(dropped) + 1, np.int64), lists.points[:0])
    return _compressed(emptied, places)


def _compressed(lists: NeuronLists, listed: Array) -> NeuronLists:
    """Return the lists at positions ``listed``; the others' lists are empty."""
    ends = lists.indptr[: len(listed) + 1].copy()  # starts with the 0 that every indptr has
    ends[1:] = lists.indptr[1:][listed]
    return NeuronLists(lists.neurons[listed], ends, lists.points)


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


def reordered(device: Device, lists: NeuronLists, order: Array) -> NeuronLists:
    """Return lists, none of them empty, in another order: ``lists.neurons[order]``."""
    xp = device.xp
    starts, lengths = lists.indptr[:-1][order], (lists.indptr[1:] - lists.indptr[:-1])[order]
    indptr = xp.zeros(len(order) + 1, np.int64)
    xp.cumsum(lengths, out=indptr[1:])
    jumps = xp.ones(lists.nnz, np.int64)  # from one source entry to the next
    if len(order):
        jumps[indptr[:-1]] = starts
        jumps[indptr[1:-1]] -= (starts + lengths)[:-1] - 1
    return NeuronLists(lists.neurons[order], indptr, lists.points[xp.cumsum(jumps)])


def slice_of(lists: NeuronLists, first: int, last: int) -> NeuronLists:
    """Return lists ``first`` .. ``last``; views where they can be."""
    low, high = int(lists.indptr[first]), int(lists.indptr[last])
    return NeuronLists(lists.neurons[first:last], lists.indptr[first : last + 1] - low, lists.points[low:high])


def restricted(lists: NeuronLists, points: np.ndarray, n: int, network: ShiftedReluNetwork) -> NeuronLists:
    """Return the lists with these points alone (ascending, of n), numbered from 0; lists may become empty."""
    device, xp = network.device, network.device.xp
    number = np.full(n, -1, np.int32)
    number[points] = np.arange(len(points), dtype=np.int32)
    renamed = device.asarray(number, np.int32)[lists.points]
    kept = renamed >= 0
    before = xp.zeros(len(kept) + 1, np.int64)
    xp.cumsum(kept, out=before[1:])
    return NeuronLists(lists.neurons, before[lists.indptr], renamed[kept])
