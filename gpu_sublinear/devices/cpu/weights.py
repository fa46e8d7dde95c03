"""Initial weights and their update, a row at a time."""

from __future__ import annotations

import numpy as np
from numba import prange

from .. import philox
from ..formats import Array
from ..ops.weights import WeightOps
from .jit import parallel
from .philox import normal_quantile, philox4x32, uniform

_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_CAPS, _CAP_DEPTHS = np.uint64(philox.CAPS), np.uint64(philox.CAP_DEPTHS)


@parallel
def _normal_rows(seed, start, paired, out):
    """Fill out (rows, d) with the initial weights of neurons start, start + 1, ..."""
    rows, d = out.shape
    for k in prange(rows):
        r = np.uint64(start + k)
        if paired:
            r = r >> np.uint64(1)
        for pair in range((d + 1) // 2):
            w0, w1, w2, w3 = philox4x32(r & _MASK, r >> _32, np.uint64(pair), np.uint64(0), seed)
            out[k, 2 * pair] = normal_quantile(uniform(w0, w1))
            if 2 * pair + 1 < d:
                out[k, 2 * pair + 1] = normal_quantile(uniform(w2, w3))


@parallel
def _cap_rows(seed, directions, tails, owners, places, out):
    """Fill out (rows, d) with initial weights conditioned on the caps of their owners."""
    rows, d = out.shape
    for k in prange(rows):
        owner, place, e = np.uint64(owners[k]), np.uint64(places[k]), directions[owners[k]]
        z = np.empty(d + 1)
        for pair in range((d + 1) // 2):
            w0, w1, w2, w3 = philox4x32(place, owner, np.uint64(pair), _CAPS, seed)
            z[2 * pair] = normal_quantile(uniform(w0, w1))
            z[2 * pair + 1] = normal_quantile(uniform(w2, w3))
        along = z[0] * e[0]
        for j in range(1, d):
            along += z[j] * e[j]
        w0, w1, w2, w3 = philox4x32(place, owner, np.uint64(0), _CAP_DEPTHS, seed)
        rest = -normal_quantile(tails[owners[k]] * uniform(w0, w1)) - along
        for j in range(d):
            out[k, j] = z[j] + rest * e[j]


@parallel
def _update_rows(W, neurons, delta):
    """Subtract delta from the rows of W that moved."""
    for k in prange(len(neurons)):
        for j in range(W.shape[1]):
            W[neurons[k], j] -= delta[k, j]


class CpuWeightOps(WeightOps):
    """Weights row by row, on all threads."""

    def normal_rows(self, seed: int, start: int, stop: int, d: int, dtype: str, paired: bool = False) -> Array:
        """Return counter-based standard normals."""
        out = np.empty((stop - start, d), dtype)
        _normal_rows(np.uint64(seed), start, paired, out)
        return out

    def cap_rows(self, seed: int, directions: Array, tails: Array, owners: Array, places: Array, dtype: str) -> Array:
        """Return counter-based normals conditioned on a cap."""
        out = np.empty((len(owners), directions.shape[1]), dtype)
        _cap_rows(np.uint64(seed), directions, tails, owners, places, out)
        return out

    def update_rows(self, W: Array, neurons: Array, delta: Array) -> None:
        """Subtract ``delta`` from the rows ``neurons``."""
        _update_rows(W, neurons, delta)
