"""Inner products and norms whose bytes do not depend on the number of threads."""

from __future__ import annotations

import math

import numpy as np

from .formats import Array

SERIAL_NUMBERS = 8192  # BLAS shares out an inner product only beyond 10^4


def dot(a: Array, b: Array) -> Array:
    """Return ``<a, b>`` of two arrays of one shape, a scalar on the device."""
    if a.size <= SERIAL_NUMBERS:
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


def longest_point(X: Array) -> float:
    """Return the norm of the longest row of X (n, d) float64."""
    return math.sqrt(float((X * X).sum(axis=1).max()))
