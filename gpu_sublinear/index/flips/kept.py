"""The index of ``mask="flips"`` in a checkpoint: what does not follow from the rows alone, and how it is brought back.

The rows in the file are those that the run began with; a first look at them gives the mask and the near pairs of the
start again.  The log of all flips leads from there to any later place, pair by pair: mask, pair counts (whole numbers)
and the numbers of fired neurons are then what they were.  Sums in floating point depend on the way, so they are in the
file for each place that the run may step from, the present one and the best: Gamma, the outputs, the coefficients of
the log, the near pairs with their values, the two numbers of the certificate, and what a ridge penalty needs.

A checkpoint holds the log, ``flip_neurons``, ``flip_points`` (L,) int32, ``flip_above`` (L,) float64 and
``flip_lengths`` (S,) int64, the flips of each query that found some; of the present place ``flips_total``,
``flips_totals`` (n,), ``flips_coefficients`` (L,), ``flips_home`` (n,), or (0,) without a penalty, float64,
``flips_near`` (u,) int64, ``flips_near_points`` (k,) int32, ``flips_near_values`` (k,) REAL and ``flips_numbers`` (3,)
float64, the error, what is known, and ``||W - W_0||^2``; where the best place is another one ``best_flips_lengths``
(T,) int64, the first T of ``flip_lengths``, and unless that is the start the same names after ``best_``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...devices import Device, Flips, NearPairs
from .index import FlipIndex, Mark

LOG = {"flip_neurons": np.int32, "flip_points": np.int32, "flip_above": np.float64}
PLACE = ("total", "totals", "coefficients", "home", "near", "near_points", "near_values", "numbers")
HERE, BEST = "flips_", "best_flips_"


def kept(index: FlipIndex, best: Mark | None) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint.

    Parameters
    ----------
    index : FlipIndex
        After a query that followed a step.
    best : Mark or None
        The best place, where that is another one.

    Returns
    -------
    dict of ndarray
        As the module docstring has them.
    """
    host, segments = index.device.to_host, index.log.segments
    parts = [(host(flips.neurons), host(flips.points), host(flips.above)) for flips in segments]
    columns = zip(LOG, zip(*parts, strict=True), strict=False) if parts else ()
    arrays = {name: np.zeros(0, dtype) for name, dtype in LOG.items()}
    arrays |= {name: np.concatenate(column) for name, column in columns}
    arrays["flip_lengths"] = np.array([len(flips) for flips in segments], np.int64)
    arrays |= _place(index.device, index.mark(), HERE)
    if best is not None:
        arrays[BEST + "lengths"] = arrays["flip_lengths"][: best.segments]
        if isinstance(best.near, NearPairs):
            arrays |= _place(index.device, best, BEST)
    return arrays


def _place(device: Device, mark: Mark, before: str) -> dict[str, np.ndarray]:
    """Return the arrays of a place; near pairs without the room between them."""
    near, host = mark.near, device.to_host
    assert isinstance(near, NearPairs)  # a mask only until the first step
    starts, points, values = np.asarray(host(near.starts)), host(near.points), host(near.values)
    lengths = np.asarray(host(near.stops)) - starts  # (u,)
    ends = np.cumsum(lengths)
    entries = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)  # (k,)
    sums = (host(part) for part in (mark.total, mark.totals, mark.coefficients, mark.home))
    numbers = np.array([mark.error, mark.known, mark.square])  # (3,)
    parts = (*sums, lengths, points[entries], values[entries], numbers)
    return {before + name: np.asarray(part) for name, part in zip(PLACE, parts, strict=True)}


def go_on(index: FlipIndex, arrays: Mapping[str, np.ndarray], place: str) -> None:
    """Lead an index from where it stands, the start or the best place, on to a place of the file.

    Parameters
    ----------
    index : FlipIndex
        Made by a look at the rows of the file, or led on from there.
    arrays : mapping of ndarray
        What :func:`kept` returned.
    place : str
        ``HERE`` or ``BEST``.
    """
    if place + "total" not in arrays:
        return  # the start itself
    device, dtype = index.device, index.network.dtype
    lengths, done = arrays["flip_lengths"], len(index.log.segments)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    until = len(arrays[BEST + "lengths"]) if place == BEST else len(lengths)
    for first, stop in zip(ends[done:until], ends[done + 1 : until + 1], strict=True):
        parts = (device.asarray(arrays[name][first:stop], np.dtype(kind).name) for name, kind in LOG.items())
        index.replay(Flips(*parts))
    *sums, near, points, values, numbers = (arrays[place + name] for name in PLACE)
    stops = np.cumsum(near)
    lists = NearPairs(
        device.asarray(stops - near, "int64"),
        device.asarray(stops, "int64"),
        device.asarray(points, "int32"),
        device.asarray(values, dtype),
    )
    total, totals, coefficients, home = (device.asarray(part, "float64") for part in sums)
    error, known, square = map(float, numbers)
    index.stand_at(Mark(total, totals, coefficients, home, square, lists, error, known, index.union, until))


def check_flips(arrays: Mapping[str, np.ndarray], penalised: bool) -> None:
    """Raise ValueError or KeyError unless :func:`kept` could have written these arrays beside ``rows`` (u, d)."""
    u, n = len(arrays["rows"]), arrays["flips_total"].size
    lengths = arrays["flip_lengths"]
    log = {name: arrays[name] for name in LOG}
    L = len(log["flip_neurons"])
    if any(array.shape != (L,) or array.dtype != LOG[name] for name, array in log.items()):
        raise ValueError("the parts of the log of flips do not fit together")
    if lengths.ndim != 1 or lengths.dtype != np.int64 or not _adds_up(lengths, L, least=1):
        raise ValueError("the flips of the steps are not those of the log")
    _check_pairs(log["flip_neurons"], log["flip_points"], lengths, u, n, "flips")
    best = arrays.get(BEST + "lengths", lengths)
    if best.dtype != np.int64 or not np.array_equal(best, lengths[: len(best)]):
        raise ValueError("the flips up to the best weights are not those of the log")
    for place, flips in ((HERE, L), (BEST, int(best.sum()))):
        if place == HERE or place + "total" in arrays:
            parts = {name: arrays[place + name] for name in PLACE}
            _check_place(parts, arrays["rows"], n, flips, home=n if penalised else 0)
    if len(best) and BEST + "lengths" in arrays and BEST + "total" not in arrays:
        raise ValueError("the sums at the best weights are missing")


def _check_place(parts: Mapping[str, np.ndarray], rows: np.ndarray, n: int, flips: int, home: int) -> None:
    near, points = parts["near"], parts["near_points"]
    shapes = {
        "total": ((n,), np.float64),
        "totals": ((n,), np.float64),
        "coefficients": ((flips,), np.float64),
        "home": ((home,), np.float64),
        "near": (rows.shape[:1], np.int64),
        "near_points": ((points.size,), np.int32),
        "near_values": ((points.size,), rows.dtype),
        "numbers": ((3,), np.float64),
    }
    for name, (shape, dtype) in shapes.items():
        if parts[name].shape != shape or parts[name].dtype != dtype:
            raise ValueError(f"the array '{name}' of the flips has shape {parts[name].shape}")
    if not _adds_up(near, len(points), least=0):
        raise ValueError("the near pairs of the neurons are not those listed")
    _check_pairs(np.zeros(len(points), np.int32), points, near, 1, n, "near pairs")


def _adds_up(lengths: np.ndarray, total: int, least: int) -> bool:
    """Tell whether these are lengths of at least ``least`` that add up; no sum of theirs can overflow."""
    return bool(((lengths >= least) & (lengths <= total)).all()) and sum(lengths.tolist()) == total


def _check_pairs(neurons: np.ndarray, points: np.ndarray, lengths: np.ndarray, u: int, n: int, name: str) -> None:
    """Raise ValueError unless the pairs exist, and those of each length ascend by neuron and point."""
    if not (((neurons >= 0) & (neurons < u)).all() and ((points >= 0) & (points < n)).all()):
        raise ValueError(f"the {name} speak of neurons or points that are not there")
    keys = neurons.astype(np.int64) * n + points
    inside = np.ones(len(keys), bool)
    inside[(np.cumsum(lengths) - lengths)[lengths > 0]] = False  # where a run begins
    if (inside[1:] & (np.diff(keys) <= 0)).any():
        raise ValueError(f"the {name} are not in order")
