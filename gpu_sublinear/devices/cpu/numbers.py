"""Computed numbers (:mod:`gpu_sublinear.devices.base`) of one point and many neurons at a time.

Inner loops run over neurons, where the lanes are independent.
"""

from __future__ import annotations

from .jit import serial

LANES = 128  # neurons worked on together: their sums and weights stay in the first-level cache


@serial
def gather_rows(W, neurons, first, last, columns):
    """Write the weights of some neurons to ``columns`` (d, LANES), feature by feature."""
    for k in range(first, last):
        for j in range(len(columns)):
            columns[j, k - first] = W[neurons[k], j]


@serial
def computed_numbers(x, columns, total):
    """Set total (LANES,) to the computed numbers of one point; four features per pass: same order, fewer stores."""
    d = len(x)
    for k in range(LANES):
        total[k] = x[0] * columns[0, k]
    j = 1
    while j + 3 < d:
        x0, x1, x2, x3 = x[j], x[j + 1], x[j + 2], x[j + 3]
        for k in range(LANES):
            total[k] = (
                ((total[k] + x0 * columns[j, k]) + x1 * columns[j + 1, k]) + x2 * columns[j + 2, k]
            ) + x3 * columns[j + 3, k]
        j += 4
    while j < d:
        for k in range(LANES):
            total[k] = total[k] + x[j] * columns[j, k]
        j += 1
