"""Random numbers, scalar by scalar, to the bit those of :mod:`gpu_sublinear.devices.philox`."""

from __future__ import annotations

import math

import numpy as np

from .. import philox
from .jit import serial

_M0, _M1 = np.uint64(philox.MULTIPLIER_0), np.uint64(philox.MULTIPLIER_1)
_W0, _W1 = np.uint64(philox.WEYL_0), np.uint64(philox.WEYL_1)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = philox.ROUNDS
_CENTRAL_A, _CENTRAL_B = philox.CENTRAL_A, philox.CENTRAL_B
_MIDDLE_C, _MIDDLE_D = philox.MIDDLE_C, philox.MIDDLE_D
_TAIL_E, _TAIL_F = philox.TAIL_E, philox.TAIL_F
_LOG_SERIES, _LN2, _SQRT_HALF = philox.LOG_SERIES, philox.LN2, philox.SQRT_HALF


@serial
def philox4x32(c0, c1, c2, c3, seed):
    """Philox4x32-10; all words and the key as uint64."""
    k0, k1 = seed & _MASK, seed >> _32
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@serial
def horner(coefficients, x):
    """Polynomial, constant term first in the tuple."""
    value = coefficients[len(coefficients) - 1]
    for k in range(len(coefficients) - 2, -1, -1):
        value = value * x + coefficients[k]
    return value


@serial
def log(x):
    """Natural logarithm by the operations of philox.log."""
    mantissa, exponent = math.frexp(x)
    k = float(exponent)
    if mantissa < _SQRT_HALF:
        mantissa *= 2.0
        k -= 1.0
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = z * horner(_LOG_SERIES, z)
    half = 0.5 * f * f
    return k * _LN2 + (f - (half - s * (half + series)))


@serial
def uniform(high, low):
    """Double in (0, 1) from two words."""
    bits = ((high >> np.uint64(6)) << np.uint64(26)) | (low >> np.uint64(6))
    return (float(bits) + 0.5) * 2.0**-52


@serial
def normal_quantile(u):
    """Inverse normal distribution function."""
    q = u - 0.5
    if abs(q) <= 0.425:
        near = 0.180625 - q * q
        return q * horner(_CENTRAL_A, near) / horner(_CENTRAL_B, near)
    r = math.sqrt(-log(min(u, 1.0 - u)))
    if r <= 5.0:
        value = horner(_MIDDLE_C, r - 1.6) / horner(_MIDDLE_D, r - 1.6)
    else:
        value = horner(_TAIL_E, r - 5.0) / horner(_TAIL_F, r - 5.0)
    return -value if q < 0.0 else value
