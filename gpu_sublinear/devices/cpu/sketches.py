"""Sketches: columns hashed on the fly, neurons once."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .. import philox
from ..formats import CSR, Array
from ..ops.sketches import SketchOps
from .jit import parallel
from .philox import philox4x32

_SKETCH, _NEURONS = philox.SKETCH, np.uint64(philox.NEURONS)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@parallel
def _hash_neurons(neurons, buckets, seed, draw, bucket, sign):
    """Place every neuron in a bucket, with a sign."""
    for k in prange(len(neurons)):
        r = np.uint64(neurons[k])
        group, lane = r >> np.uint64(2), r & np.uint64(3)
        w0, w1, w2, w3 = philox4x32(group & _MASK, group >> _32, draw, _NEURONS, seed)
        word = w0 if lane == 0 else w1 if lane == 1 else w2 if lane == 2 else w3
        bucket[k] = (word >> np.uint64(1)) * np.uint64(buckets) >> np.uint64(31)
        sign[k] = 1.0 - 2.0 * float(word & np.uint64(1))


@parallel
def _sketch_neurons(indptr, compact, bucket, sign, out):
    """Add the signs of the neurons that fire on each point in their buckets."""
    for i in prange(len(out)):
        for p in range(indptr[i], indptr[i + 1]):
            out[i, bucket[compact[p]]] += sign[compact[p]]


@parallel
def _sketch_rows(data, indices, indptr, nonzeros, seed, draw, out):
    """Add every entry of row i to its buckets of out[i]; the hash of four neighbouring columns is one Philox call."""
    rows = np.uint64(out.shape[1])
    scale = 1.0 / math.sqrt(nonzeros)
    for i in prange(len(indptr) - 1):
        for nonzero in range(nonzeros):
            purpose = np.uint64(_SKETCH + nonzero)
            group = np.uint64(1) << np.uint64(62)  # no column has it
            w0, w1, w2, w3 = group, group, group, group
            for p in range(indptr[i], indptr[i + 1]):
                column = np.uint64(indices[p])
                if column >> np.uint64(2) != group:
                    group = column >> np.uint64(2)
                    w0, w1, w2, w3 = philox4x32(group & _MASK, group >> _32, draw, purpose, seed)
                lane = column & np.uint64(3)
                word = w0 if lane == 0 else w1 if lane == 1 else w2 if lane == 2 else w3
                bucket = (word >> np.uint64(1)) * rows >> np.uint64(31)
                out[i, bucket] += scale * (1.0 - 2.0 * float(word & np.uint64(1))) * data[p]


class CpuSketchOps(SketchOps):
    """Loops over points and rows."""

    def sketch_neurons(
        self, indptr: Array, compact: Array, neurons: Array, signs: Array, buckets: int, seed: int, draw: int
    ) -> Array:
        """Hash every neuron once, then add up by points."""
        bucket, sign = np.empty(len(neurons), np.int64), np.empty(len(neurons))
        _hash_neurons(neurons, buckets, np.uint64(seed), np.uint64(draw), bucket, sign)
        out = np.zeros((len(indptr) - 1, buckets))
        _sketch_neurons(indptr, compact, bucket, sign * signs[neurons], out)
        return out

    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Hash the columns on the fly."""
        out = np.zeros((matrix.shape[0], rows))
        _sketch_rows(matrix.data, matrix.indices, matrix.indptr, nonzeros, np.uint64(seed), np.uint64(draw), out)
        return out
