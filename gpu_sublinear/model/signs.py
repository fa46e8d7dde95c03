"""The second layer of several outputs: Walsh signs, keyed patterns; see :mod:`gpu_sublinear.linear.outputs`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import Array, philox
from ..errors import OptionError


def pattern_count(outputs: int) -> int:
    """Return C, the number of different sign vectors up to the sign: the power of two from c on."""
    return 1 << (outputs - 1).bit_length()


def pattern_signs(outputs: int) -> np.ndarray:
    """Return ``s_pl = (-1)^popcount(p & l)``, (C, c) float64."""
    common = np.arange(pattern_count(outputs))[:, None] & np.arange(outputs)  # (C, c)
    odd = np.zeros_like(common)
    while common.any():
        odd ^= common & 1
        common >>= 1
    return 1.0 - 2.0 * odd


def check_outputs(outputs: int, width: int) -> int:
    """Return the number of outputs.

    Parameters
    ----------
    outputs : int
        c.
    width : int
        m.

    Returns
    -------
    int
        c.

    Raises
    ------
    OptionError
        If it is below 1, or the width has not two neurons for every sign vector.
    """
    if not (isinstance(outputs, int | np.integer) and outputs >= 1):
        raise OptionError(f"outputs must be a whole number from 1 on; got {outputs!r}")
    least = 2 * pattern_count(outputs)
    if outputs > 1 and width < least:
        raise OptionError(f"{outputs} outputs need a width of at least {least}; got {width}")
    return int(outputs)


def patterns_of(network: Any, neurons: Array) -> Array:
    """Return the pattern of the pair of each neuron (u,), (u,) int64 from 0 to C - 1."""
    pairs, count = neurons // 2, pattern_count(network.outputs)
    if network.sampling != "virtual":
        return pairs % count
    known, places = np.unique(network.device.to_host(pairs), return_inverse=True)
    words = philox.philox4x32((known, known >> 32, 0, philox.SIGNS), network.seed)[0]  # of each pair once
    return network.device.asarray((words % np.uint64(count)).astype(np.int64)[places])


def sign_matrix(network: Any, neurons: Array) -> Array:
    """Return the second layer of these neurons (u,), (u, c) of the network's type, columns contiguous."""
    vectors = network.device.asarray(pattern_signs(network.outputs).T, network.dtype)  # (c, C)
    parity = (1 - 2 * (neurons % 2)).astype(network.dtype)  # (u,)
    return (vectors[:, patterns_of(network, neurons)] * parity).T
