"""Inner products and norms whose bytes do not depend on the number of threads."""

from __future__ import annotations

import numpy as np

from .devices import Array

SERIAL = 8192  # numbers: BLAS shares out an inner product only beyond 10^4
BLOCK = 1 << 14  # rows widened at a time: their float64 copy stays in the cache


def dot(a: Array, b: Array) -> Array:
    """Return ``<a, b>`` of two arrays of one shape, a scalar on the device."""
    if a.size <= SERIAL:
        return a.ravel() @ b.ravel()
    return (a * b).sum()


def norm(a: Array) -> float:
    """Return the Euclidean norm of all entries; waits for the device."""
    return float(dot(a, a)) ** 0.5


def rows_of(mask: Array, values: Array) -> Array:
    """Return mask (n,) in a shape that multiplies ``values`` (n,) or (n, c) row by row."""
    return mask if values.ndim == 1 else mask[:, None]


def row_distances(A: Array, B: Array) -> Array:
    """Return the Euclidean distance of each row of A (u, d) from that of B, (u,) float64."""
    return ((A.astype(np.float64) - B) ** 2).sum(axis=1) ** 0.5


def movement(W: Array, initial: Array, neurons: Array) -> Array:
    """Return how these rows (k,) of W (u, d) differ from those of ``initial`` (u, d), (k, d) float64."""
    D = W.take(neurons, axis=0).astype(np.float64)
    D -= initial.take(neurons, axis=0)
    return D


def square_distance(A: Array, B: Array) -> float:
    """Return ``||A - B||^2`` (Frobenius) of two arrays (u, d), summed in float64; waits for the device."""
    total = 0.0
    for first in range(0, len(A), BLOCK):
        block = A[first : first + BLOCK].astype(np.float64)
        block -= B[first : first + BLOCK]
        block *= block
        total += float(block.sum())
    return total
