"""The Gram matrix of both layers beyond its products: its trace, which is the unit of penalties, and all of it.

Of several outputs it is that of one, with the mean of a_rl^2 over the outputs: penalties are shared by them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from ..devices import Array
from ..index.protocol import Mask
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork
from .layers import columns_of

DENSE_ROWS = 1 << 12  # rows whose pre-activations are made at a time


def mean_squares(network: ShiftedReluNetwork, active: Mask, X: Array) -> tuple[Array, Array]:
    """Return ``sum_r a_r^2 h_ri^2`` and ``sum_r phi_ri^2`` of every point of the data, (n,) float64 each.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Both layers; a_r^2 is the mean over the outputs.
    active : Mask
        Who fires.
    X : Array
        (n, d) points of unit norm.

    Returns
    -------
    tuple of Array
        So that ``tr(G) = (1/m) sum_i w_i (||x_i||^2 first_i + second_i)`` of one output.
    """
    if active.lists is None:
        return _dense_squares(network, X)
    device, xp, lists, activation = network.device, network.device.xp, active.lists, network.activation
    real, slope, n = lists.values.dtype.type, activation.slope, len(X)
    weights = _mean_square(network.signs[lists.fired.neurons])  # (u,)
    pairs, ones = (lists.indptr, lists.compact), xp.ones_like(weights)
    fired = device.forward(*pairs, xp.ones_like(lists.values), weights, 0.0)  # (k n,)
    first, second = xp.zeros(n), xp.zeros(n)
    for k, hinge in enumerate(activation.hinges):
        part, offset = slice(k * n, (k + 1) * n), real(activation.offset(hinge, network.shift))
        heights = lists.values - offset  # (nnz,), of the pairs of this hinge
        squares = device.forward(*pairs, heights * heights, ones, 0.0)[part]
        first = first + (2 * slope * hinge.gain * hinge.direction + hinge.gain**2) * fired[part]
        second = second + hinge.gain**2 * squares
        if slope:
            crossed = device.forward(*pairs, heights * lists.values, ones, 0.0)[part]
            second = second + 2 * slope * hinge.gain * hinge.direction * crossed
    if slope:
        first = first + slope**2 * float(_mean_square(network.signs.astype(np.float64)).sum())
        W, X64 = network.rows.astype(np.float64), X.astype(np.float64)
        second = second + slope**2 * (device.matmul(X64, device.matmul(W.T, W)) * X64).sum(axis=1)
    return first, second


def _mean_square(signs: Array) -> Array:
    """Return the mean over the outputs of a_rl^2, (u,), for (u,) or (u, c)."""
    return signs * signs if signs.ndim == 1 else (signs * signs).mean(axis=1)


def _dense_squares(network: ShiftedReluNetwork, X: Array) -> tuple[Array, Array]:
    """Do the same where pairs are not listed: all pre-activations once more, block by block."""
    first, second = network.device.xp.zeros(len(X)), network.device.xp.zeros(len(X))
    for a2, h, phi in _dense_blocks(network, X):
        first += network.device.matmul(h * h, a2)
        second += (phi * phi).sum(axis=1)
    return first, second


def _dense_blocks(network: ShiftedReluNetwork, X: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Yield the mean of a_r^2 (k,), the derivatives and the values of phi (n, k), of the rows held, float64."""
    X64 = X.astype(np.float64)
    for start in range(0, len(network.rows), DENSE_ROWS):
        rows = slice(start, start + DENSE_ROWS)
        z = network.device.matmul(X64, network.rows[rows].astype(np.float64).T)  # (n, k)
        phi = network.activation.varying(z, network.shift)
        yield _mean_square(network.signs[rows].astype(np.float64)), network.activation.derivative(z, network.shift), phi


def trace(network: ShiftedReluNetwork, active: Mask, X: Array, weights: SampleWeights) -> float:
    """Return ``tr(G) = (1/m) sum_i w_i sum_r (a_r^2 h_ri^2 ||x_i||^2 + phi_ri^2)``, of one output.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Both layers.
    active : Mask
        The fired pairs.
    X : Array
        (n, d) points of unit norm.
    weights : SampleWeights
        Of the points.

    Returns
    -------
    float
        The trace.
    """
    squares, values = mean_squares(network, active, X)
    scaled = weights.scaled(X).astype(np.float64)
    w = 1.0 if weights.roots is None else weights.roots**2
    return float(((scaled**2).sum(axis=1) * squares + w * values).sum()) / network.width


def gram_of_both(network: ShiftedReluNetwork, active: Mask, X: Array, K: Array, weights: SampleWeights) -> np.ndarray:
    """Return ``G = (K o (H^T D H) + Phi^T Phi) / m`` of one output, on the host, (n, n), for choosing a penalty.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Both layers; D is the mean of a_r^2 over the outputs.
    active : Mask
        The fired pairs.
    X : Array
        (n, d) points of unit norm.
    K : Array
        (k n, k n) float64, inner products of the weighted points that the hinges look at; the first n are those here,
        up to the sign of all.
    weights : SampleWeights
        Of the points.

    Returns
    -------
    ndarray
        Weighted like K.
    """
    to_host, n = network.device.to_host, len(X)
    roots = np.ones(n) if weights.roots is None else to_host(weights.roots)
    if active.lists is not None and network.activation.plain:
        first, second = _listed_grams(network, active)
    else:
        first, second = np.zeros((n, n)), np.zeros((n, n))
        for a2, h, phi in _dense_blocks(network, X):
            a2, h, phi = to_host(a2), to_host(h), to_host(phi)
            first += (h * a2) @ h.T
            second += phi @ phi.T
    return (to_host(K[:n, :n]) * first + second * np.outer(roots, roots)) / network.width


def _listed_grams(network: ShiftedReluNetwork, active: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Return ``M^T D M`` and ``Phi^T Phi`` from lists, (n, n) each."""
    to_host, lists = network.device.to_host, active.lists
    assert lists is not None
    places, starts = to_host(lists.compact), to_host(lists.indptr)
    phi = to_host(lists.values).astype(np.float64) - network.shift
    a = columns_of(to_host(network.signs[lists.fired.neurons]).astype(np.float64))
    a = a[:, 0] if a.shape[1] == 1 else np.sqrt((a * a).mean(axis=1))
    shape = (len(starts) - 1, lists.union)
    Phi, A = (csr_array((values, places, starts), shape=shape) for values in (phi, a[places]))
    return (A @ A.T).toarray(), (Phi @ Phi.T).toarray()
