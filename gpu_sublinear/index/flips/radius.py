"""How near to the shift the first look of ``mask="flips"`` must list pairs, before any step is known."""

from __future__ import annotations

import math

import numpy as np

from ...devices import Array, Device
from ...devices.sums import dot
from ...model.network import ShiftedReluNetwork

WIDENED_ROWS = 65536  # rows that are widened to float64 at a time
SAMPLE = 4096  # rows from which the first step's length is foreseen
FIRST_PART = 1.5  # of the first step's length (root mean square): rows that move further are looked at on all points
FIRST_PULLED = 12.0  # the same of a first step with a penalty, for several steps and for a bound that few rows reach
SMALLEST_SHARE = 1e-3  # of tr(G)/n, added to its diagonal: a sample of rows says nothing of smaller eigenvalues
MOST_RADIUS = 0.3  # radius beyond which a quarter of all pairs would be listed


def foreseen_radius(device: Device, X: Array, network: ShiftedReluNetwork, y: Array, alpha: float = 0.0) -> float:
    """Return how near to the shift pairs must be that the first steps may flip.

    A step moves the rows by ``sqrt(g^T G g / u)`` (root mean square), ``(G + lambda I) g = r``, r = f - y.  G is of a
    sample of rows; f, unknown as yet, is taken to be as large as y, unless initialisation is paired, where it is 0.

    Parameters
    ----------
    device : Device
        Owner of X and the network.
    X : Array
        (n, d) points.
    network : ShiftedReluNetwork
        With the rows it holds.
    y : Array
        (n,) targets.
    alpha : float
        Ridge penalty, in units of tr(G)/n: with one, all steps shall do with these pairs, but not with more than a
        full step asks for.

    Returns
    -------
    float
        A distance, at most ``MOST_RADIUS``; only the speed depends on it.
    """
    xp, u = device.xp, len(network.rows)
    chosen = network.rows[:: max(1, u // SAMPLE)]
    bits, _ = device.pack_mask(X, xp.ascontiguousarray(chosen), network.signs[: len(chosen)], network.shift)
    K = device.gram(X.astype(np.float64))
    G = K * device.count_mask(bits) / max(1, len(chosen))
    point_max = float(xp.sqrt(xp.diagonal(K).max()))
    length = point_max * math.sqrt(network.width * (1.0 if network.paired else 2.0)) / max(1, u)
    longest = FIRST_PART * length * _movement(device, G, y)
    return min(MOST_RADIUS, longest, FIRST_PULLED * length * _movement(device, G, y, alpha) if alpha else longest)


def _movement(device: Device, G: Array, r: Array, alpha: float = 0.0) -> float:
    """Return ``sqrt(g^T G g)`` of the step that G (n, n), r (n,) and the penalty give; infinity for a singular G."""
    shifted = G.copy()
    shifted.ravel()[:: len(G) + 1] += (alpha + SMALLEST_SHARE) * float(device.xp.diagonal(G).mean()) + 1e-30
    factor = device.cholesky(shifted)
    if factor is None:
        return math.inf
    g = device.solve_triangular(factor, device.solve_triangular(factor, r), transposed=True)
    return math.sqrt(max(0.0, float(dot(g, device.matmul(G, g)))))


def rounding(X: Array, rows: Array, shift: float, radius: float) -> float:
    """Return how far a computed number near the shift may be from the inner product of the stored rows.

    Parameters
    ----------
    X, rows : Array
        (n, d) points and (u, d) weights.
    shift, radius : float
        b, and how near.

    Returns
    -------
    float
        A bound of the rounding of both.
    """
    eps, d = float(np.finfo(rows.dtype).eps), X.shape[1]
    blocks = (rows[k : k + WIDENED_ROWS].astype(np.float64) for k in range(0, len(rows), WIDENED_ROWS))
    squares = max((float((block**2).sum(axis=1).max()) for block in blocks), default=0.0)
    point_max = float(((X.astype(np.float64) ** 2).sum(axis=1) ** 0.5).max())
    return (d + 1) * eps * point_max * math.sqrt(squares) + 2 * eps * (abs(shift) + radius)
