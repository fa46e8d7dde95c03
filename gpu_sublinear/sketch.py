"""Sketching J^T: a small matrix with nearly the same Gram matrix, whose R factor preconditions the solve.

S is a sparse-sign matrix with s = c n rows (Clarkson and Woodruff's CountSketch when each column has one nonzero).
``Y = S J^T`` (s, n) satisfies ``E[Y^T Y] = J J^T = G``; with R^T R = Y^T Y the eigenvalues of R^{-T} G R^{-1} lie
near the Marchenko-Pastur interval ``[(1 + c^{-1/2})^{-2}, (1 - c^{-1/2})^{-2}]``: condition about 4 for c = 8.
S is drawn anew for every step, because J depends on the sketches of the steps before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .devices import Array, Device
from .errors import OptionError
from .jacobian import SparseJacobian

JITTER = 1e-12  # of the mean diagonal: 1e4 times the rounding of a float64 Cholesky, harmless in a preconditioner


@dataclass(frozen=True)
class SketchOptions:
    """Size of the sketch.

    Attributes
    ----------
    rows_per_point : float
        c: the sketch has ``ceil(c n)`` rows.  Fewer rows cost solver iterations, never correctness.
    nonzeros : int
        Nonzeros per column of S; 1, 4 and 8 give the same spectrum to two digits on Jacobians like ours.
    """

    rows_per_point: float = 8.0
    nonzeros: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rows_per_point) and self.rows_per_point >= 1):
            raise OptionError(f"rows_per_point must be a number >= 1; got {self.rows_per_point}")
        if self.nonzeros < 1:
            raise OptionError(f"nonzeros must be at least 1; got {self.nonzeros}")

    def rows(self, n: int) -> int:
        """Return the number of rows of the sketch for n points."""
        return math.ceil(self.rows_per_point * n)


@dataclass(frozen=True)
class Preconditioner:
    """``M^{-1} = (R^T R)^{-1}``, R^T = L lower triangular.

    Attributes
    ----------
    lower : Array
        (n, n) float64, L.
    jitter : float
        What was added to the diagonal of Y^T Y, relative to its mean, to make it positive definite.
    device : Device
        Owner of the factor.
    """

    lower: Array
    jitter: float
    device: Device

    def __call__(self, residual: Array) -> Array:
        """Return ``L^{-T} L^{-1} residual``."""
        half = self.device.solve_triangular(self.lower, residual)
        return self.device.solve_triangular(self.lower, half, transposed=True)


def sketched_preconditioner(
    device: Device, jacobian: SparseJacobian, options: SketchOptions, seed: int, step: int
) -> Preconditioner | None:
    """Return the R factor of S J^T, or None where even a jittered Y^T Y is not positive definite.

    The factor is taken by Cholesky of Y^T Y in float64: R equals that of a QR factorisation of Y up to signs, at
    less than half the operations, and is accurate while the condition of G is below 1e14.

    Parameters
    ----------
    device : Device
        Owner of the Jacobian.
    jacobian : SparseJacobian
        J of this step.
    options : SketchOptions
        Size of S.
    seed, step : int
        Key and number of the draw.

    Returns
    -------
    Preconditioner or None
        A callable that applies M^{-1}.
    """
    rows = options.rows(jacobian.csr.shape[0])
    sketched = device.sketch_rows(jacobian.csr, rows, options.nonzeros, seed, step)  # (n, s) = Y^T
    gram = device.gram(sketched)  # (n, n)
    for jitter in (0.0, JITTER, 1e3 * JITTER):
        if jitter:
            gram[device.xp.arange(len(gram)), device.xp.arange(len(gram))] += jitter * gram.trace() / len(gram)
        lower = device.cholesky(gram)
        if lower is not None:
            return Preconditioner(lower, jitter, device)
    return None
