"""How far a step moves the pre-activations of implicit rows: bounds that hold whatever the mask.

The formulas, and what they are for, are in :mod:`gpu_sublinear.index.flips.index`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...devices import Array, Device
from ...devices.sums import dot
from ...model.network import ShiftedReluNetwork
from .radius import MOST_RADIUS


@dataclass(frozen=True)
class Movement:
    """A step whose flips are not known yet: rows move by ``-weights_r (sum_i M_ri g_i x_i + sum_e logged_e x_e)``.

    Attributes
    ----------
    g : Array
        (n,) float64.
    logged : Array
        (L,) float64, one for each log entry, or empty: none moves.
    most : float
        The largest ``sum_e |logged_e|`` of a neuron.
    entries : int
        The largest number of entries of a neuron that moves by its log.
    """

    g: Array
    logged: Array
    most: float = 0.0
    entries: int = 0


class Bounds:
    """What a movement can have done to ``u`` rows, from the points alone.

    Parameters
    ----------
    device : Device
        Owner of X and the network.
    X : Array
        (n, d) points.
    network : ShiftedReluNetwork
        Width, shift and data type.
    u : int
        Number of rows.
    """

    def __init__(self, device: Device, X: Array, network: ShiftedReluNetwork, u: int):
        self._matmul, self._network, self._shape, self._rows = device.matmul, network, X.shape, max(1, u)
        self.K = device.gram(X.astype(np.float64))  # (n, n)
        self._size = abs(self.K)
        self._longest = float(device.xp.diagonal(self.K).max())  # the largest ||x||^2

    def furthest(self, movement: Movement, total: Array) -> float:
        """Return B: how far a pre-activation can have moved; ``total`` (n,) is Gamma, for the rounding."""
        g = movement.g
        reach = float((self._matmul(self._size, abs(g)) + abs(self._matmul(self.K, g))).max()) / 2
        reach += movement.most * self._longest
        return reach * self._network.scale * (1 + 1e-9) + self._wide_rounding(total)

    def mean(self, movement: Movement, G: Array) -> float:
        """Return the root mean square of the rows' movements, as if log entries moved them at right angles."""
        square = max(0.0, float(dot(movement.g, self._matmul(G, movement.g))))  # ||J^T g||^2
        square += float(dot(movement.logged, movement.logged)) * self._network.scale**2
        return math.sqrt(square / self._rows)

    def rounding(self, movement: Movement, total: Array) -> float:
        """Return what REAL sums of a movement and one more rounding of a value lose."""
        (n, d), eps = self._shape, float(np.finfo(self._network.dtype).eps)
        size = (float(abs(movement.g).sum()) + movement.most) * self._network.scale * self._longest
        value = abs(self._network.shift) + MOST_RADIUS
        return (n + d + 8 + movement.entries) * eps * size + 2 * eps * value + self._wide_rounding(total)

    def _wide_rounding(self, total: Array) -> float:
        """Return what a float64 recomputation of a pre-activation may be off, for rows of ordinary length."""
        (n, d), eps = self._shape, float(np.finfo(np.float64).eps)
        return 4 * (n + d) * eps * (float(abs(total).sum()) * self._network.scale + 8) * self._longest
