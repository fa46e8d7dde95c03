"""Checks of a training problem before work begins: one clear sentence each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import Array, Device
from ..errors import DataError, SilentPointsError
from ..model.network import ShiftedReluNetwork, all_finite, checked_points, unit_points
from ..model.shifts import firing_probability, shift_for_fired

NEURONS = 4096  # neurons multiplied at a time in the search for a shift that works
WELL_FIRED = 32  # neurons per point below which a random Gram matrix of a few hundred points is often singular


def check_training_data(
    device: Device, X: Any, y: Any, features: int, contradictions: bool = False, outputs: int = 1
) -> Any:
    """Refuse data on which the method is not defined.

    Parameters
    ----------
    device : Device
        Where training will run; X and y are its arrays or the host's.
    X : array
        (n, ``features``) rows of unit norm.
    y : array
        (n,) targets; (n, ``outputs``) where that is above 1.  A single column is taken as (n,).
    features : int
        d of the network.
    contradictions : bool
        Whether equal rows may have different targets.
    outputs : int
        c of the network.

    Returns
    -------
    array
        y, without the second dimension if there is one output.

    Raises
    ------
    DataError
        For wrong shapes, values that are not finite, rows of another norm, and equal rows with different targets.
    """
    if getattr(X, "ndim", 0) == 2 and not len(X):
        raise DataError("X has no rows; give at least one point")
    checked_points(X, features)
    if outputs == 1 and getattr(y, "ndim", 0) == 2 and y.shape[1] == 1:
        y = y[:, 0]
    wanted = (len(X),) if outputs == 1 else (len(X), outputs)
    if getattr(y, "shape", None) != wanted:
        found, why = getattr(y, "shape", type(y).__name__), "like X" if outputs == 1 else f"for {outputs} outputs"
        raise DataError(f"y must have shape ({', '.join(map(str, wanted))}{',' * (outputs == 1)}) {why}; got {found}")
    if not all_finite(y):
        raise DataError("y holds NaN or infinite values; remove these rows first")
    unit_points(X, features)
    if not contradictions:
        _check_contradictions(device.to_host(X), device.to_host(y).reshape(len(X), -1))
    return y


def _check_contradictions(X: np.ndarray, y: np.ndarray) -> None:
    """Raise DataError if two equal rows have different targets: full steps towards both would never end."""
    order = np.lexsort((*y.T, *X.T))
    same = (X[order[1:]] == X[order[:-1]]).all(axis=1) & (y[order[1:]] != y[order[:-1]]).any(axis=1)
    if same.any():
        k = int(np.argmax(same))
        first, second = sorted((int(order[k]), int(order[k + 1])))
        raise DataError(
            f"{int(same.sum())} duplicated rows have different targets, the first being rows {first} and {second} "
            f"(targets {_words(y[first])} and {_words(y[second])}); no network fits both: average or drop them"
        )


def _words(target: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in target)


def check_every_point_fires(counts: Array, X: Array, network: ShiftedReluNetwork) -> None:
    """Refuse a shift so large that some point fires no neuron, and say which shift works.

    Parameters
    ----------
    counts : Array
        (n,) neurons fired on each point, of the first query.
    X : Array
        (n, d) points.
    network : ShiftedReluNetwork
        Its width and shift.

    Raises
    ------
    SilentPointsError
        Naming the points (up to ten) and a shift at which every point fires.
    """
    silent = np.flatnonzero(network.device.to_host(counts) == 0)
    if not len(silent):
        return
    works = shift_for_fired(network.width, WELL_FIRED)
    if network.sampling == "explicit":
        sides = network.activation.points(X[silent], network.device.xp)
        best = largest_preactivations(sides, network).reshape(-1, len(silent)).max(axis=0)
        works = min(works, float(best.min()) * 0.99)
    names = ", ".join(map(str, silent[:10])) + (", ..." if len(silent) > 10 else "")
    expected = network.width * firing_probability(network.shift)
    if works <= 0:
        advice = f"a larger width (about {expected:.2g} of {network.width} neurons are expected to fire on a point)"
    else:
        advice = f"a shift of {np.floor(works * 100) / 100:g} or less, or a larger width"
    raise SilentPointsError(
        f"shift {network.shift:g} is too large for width {network.width}: {len(silent)} of {len(X)} points fire "
        f"no neuron (points {names}); use {advice}"
    )


def largest_preactivations(X: Array, network: ShiftedReluNetwork) -> np.ndarray:
    """Return the largest ``<w_r, x_i>`` of every point, (n,); minus infinity where no neuron exists."""
    best = np.full(len(X), -np.inf)
    for _, W in network.blocks():
        for first in range(0, len(W), NEURONS):
            products = network.device.matmul(X, W[first : first + NEURONS].T)  # (n, block)
            best = np.maximum(best, network.device.to_host(products.max(axis=1)))
    return best
