"""Counter-based random numbers: what (seed, purpose, index) says, on every device, in every order.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a
128-bit counter and a 64-bit key into 128 random bits.  There is no state: chunking, threads and devices cannot
change a draw.  Normals come from the inverse distribution function (Wichura, algorithm AS 241, Appl. Statist. 37,
1988), computed with +, -, *, / and sqrt only, which IEEE 754 rounds in one way, so that devices agree to the bit.
"""

from __future__ import annotations

import numpy as np

# Purposes: the last word of the counter keeps the streams of one seed apart.
WEIGHTS = 0
SKETCH = 1 << 16
NEURONS = 2 << 16
CAPS = 3 << 16
CAP_DEPTHS = CAPS + 1
CAP_COUNTS = CAPS + 2
SIGNS = 4 << 16
BATCHES = 8 << 16
BATCH_ORDER = BATCHES + 1

MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10

# AS 241 (PPND16): numerator and denominator of the three ranges, constant term first.
CENTRAL_A = (
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
)  # fmt: skip
CENTRAL_B = (
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
)  # fmt: skip
MIDDLE_C = (
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
)  # fmt: skip
MIDDLE_D = (
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
)  # fmt: skip
TAIL_E = (
    6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
)  # fmt: skip
TAIL_F = (
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
)  # fmt: skip

# log(1 + f) = 2 s + 2/3 s^3 + ..., s = f / (2 + f): the coefficients of fdlibm's e_log.c, lowest power first.
LOG_SERIES = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip
LN2 = 6.93147180559945286227e-01
SQRT_HALF = 7.07106781186547524401e-01


def philox4x32(counter: tuple[np.ndarray | int, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Return the four 32-bit words of Philox4x32-10 for every counter.

    Parameters
    ----------
    counter : tuple of 4 arrays or ints
        The counter words, broadcast against each other; only the low 32 bits count.
    seed : int
        The 64-bit key.

    Returns
    -------
    tuple of 4 ndarray
        uint64 arrays that hold 32-bit words.
    """
    mask = np.uint64(0xFFFFFFFF)
    words = np.broadcast_arrays(*(np.asarray(word, np.uint64) & mask for word in counter))
    c0, c1, c2, c3 = words
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(MULTIPLIER_0), c2 * np.uint64(MULTIPLIER_1)
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & mask,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & mask,
        )  # fmt: skip
        k0, k1 = (k0 + WEYL_0) & 0xFFFFFFFF, (k1 + WEYL_1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def uniform(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return doubles in (0, 1), centres of 2^52 equal cells (all exact), from two 32-bit words each."""
    bits = (high >> np.uint64(6) << np.uint64(26)) | (low >> np.uint64(6))
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


def log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of normal positive doubles by a fixed sequence of IEEE operations (1 ulp)."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    k = exponent.astype(np.float64) - small
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = z * horner(LOG_SERIES, z)
    half = 0.5 * f * f
    return k * LN2 + (f - (half - s * (half + series)))


def horner(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Return the polynomial with the constant term first, from the highest power down."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def normal_quantile(u: np.ndarray) -> np.ndarray:
    """Return the standard normal quantile of u in (0, 1), relative error about 1e-16 (AS 241)."""
    q = u - 0.5
    tail = np.minimum(u, 1.0 - u)
    r = np.sqrt(-log(tail))
    near = 0.180625 - q * q
    central = q * horner(CENTRAL_A, near) / horner(CENTRAL_B, near)
    middle = horner(MIDDLE_C, r - 1.6) / horner(MIDDLE_D, r - 1.6)
    far = horner(TAIL_E, r - 5.0) / horner(TAIL_F, r - 5.0)
    outer = np.where(r <= 5.0, middle, far)
    return np.where(np.abs(q) <= 0.425, central, np.where(q < 0.0, -outer, outer))


def normal_rows(seed: int, start: int, stop: int, d: int, paired: bool = False) -> np.ndarray:
    """Return standard normals (stop - start, d) float64 that depend on (seed, row, column) alone."""
    rows = np.arange(start, stop, dtype=np.uint64)
    rows = (rows // np.uint64(2) if paired else rows)[:, None]
    pairs = np.arange((d + 1) // 2, dtype=np.uint64)[None, :]
    words = philox4x32((rows, rows >> np.uint64(32), pairs, WEIGHTS), seed)
    u = np.stack([uniform(words[0], words[1]), uniform(words[2], words[3])], axis=-1)
    return normal_quantile(u.reshape(len(rows), 2 * pairs.size)[:, :d])


def cap_rows(
    seed: int, directions: np.ndarray, tails: np.ndarray, owners: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Return standard normals (k, d) float64 conditioned on ``<w, e_i> > Q^{-1}(q_i)``: see ``Device.cap_rows``.

    Parameters
    ----------
    seed : int
        Key.
    directions : ndarray
        (n, d) float64 unit vectors e_i.
    tails : ndarray
        (n,) float64 in (0, 1/2], q_i.
    owners : ndarray
        (k,) int32, the i of every row.
    places : ndarray
        (k,) int64 in [0, 2^32), its number among those of the same i.

    Returns
    -------
    ndarray
        (k, d) float64.
    """
    d = directions.shape[1]
    pairs = np.arange((d + 1) // 2, dtype=np.uint64)[None, :]
    words = philox4x32((places[:, None], owners[:, None], pairs, CAPS), seed)
    u = np.stack([uniform(words[0], words[1]), uniform(words[2], words[3])], axis=-1)
    z = normal_quantile(u.reshape(len(places), 2 * pairs.size)[:, :d])
    e = directions[owners]  # (k, d)
    along = z[:, 0] * e[:, 0]
    for j in range(1, d):
        along = along + z[:, j] * e[:, j]
    words = philox4x32((places, owners, 0, CAP_DEPTHS), seed)
    depth = -normal_quantile(tails[owners] * uniform(words[0], words[1]))
    return z + (depth - along)[:, None] * e


def sketch_entries(columns: int, rows: int, purpose: int, seed: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row (int64) and sign (+-1.0) of one entry of every column of a sparse-sign matrix.

    Parameters
    ----------
    columns, rows : int
        Shape (rows, columns) of the sketch; rows below 2^31.
    purpose : int
        Which stream: ``SKETCH + t`` for entry t of a column of the row sketch, ``NEURONS`` for the neuron sketch.
    seed, draw : int
        Key, and number of the redraw.

    Returns
    -------
    bucket : ndarray
        (columns,) int64 in [0, rows).
    sign : ndarray
        (columns,) float64.
    """
    groups = np.arange(-(-columns // 4), dtype=np.uint64)
    words = philox4x32((groups, groups >> np.uint64(32), draw, purpose), seed)
    word = np.stack(words, axis=-1).reshape(-1)[:columns]
    bucket = (word >> np.uint64(1)) * np.uint64(rows) >> np.uint64(31)
    return bucket.astype(np.int64), 1.0 - 2.0 * (word & np.uint64(1)).astype(np.float64)
