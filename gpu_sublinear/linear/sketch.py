"""Sketching J^T: a small matrix with nearly the same Gram matrix, whose R factor preconditions the solve.

**Rows** (the paper's).  S is a sparse-sign matrix with s = c n rows (Clarkson and Woodruff's CountSketch when each
column has one nonzero).
``Y = S J^T`` (s, n) satisfies ``E[Y^T Y] = J J^T = G``; with R^T R = Y^T Y the eigenvalues of R^{-T} G R^{-1} lie
near the Marchenko-Pastur interval ``[(1 + c^{-1/2})^{-2}, (1 - c^{-1/2})^{-2}]``: condition about 4 for c = 8.

**Neurons** (ours, the default).  J is a Khatri-Rao product: with ``A = (M o a) / sqrt(m)``, (m, n), the Gram matrix is
``G = (A^T A) o (X X^T)``, entry by entry.  Sketch only A: S a CountSketch with B = c n buckets of neurons, ``C = S A``,

    G~ = (C^T C) o (X X^T).

*Unbiased*: E[S^T S] = I, because the signs of two neurons are independent with mean zero and each column of S has norm
1; so E[C^T C] = A^T A, and the entrywise product with the fixed matrix X X^T is linear.  *Positive semidefinite*: both
factors are Gram matrices, and the entrywise product of two positive semidefinite matrices is one (Schur).  It costs
nnz + B n^2 operations, without the factor d, and for the same number of rows it is the better preconditioner: the
products with the off-diagonal of X X^T damp the noise of the sketch.

S is drawn anew for every step, because J depends on the sketches of the steps before.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..devices import Array, Device
from ..index.protocol import FiredPairs, Fold
from ..options import SketchOptions
from .jacobian import SparseJacobian

JITTER = 1e-12  # of the mean diagonal: 1e4 times the rounding of a float64 Cholesky, harmless in a preconditioner


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


def preconditioner_of_rows(
    device: Device,
    jacobian: SparseJacobian,
    options: SketchOptions,
    seed: int,
    step: int,
    kappa: float = 0.0,
    fold: Fold | None = None,
) -> Preconditioner | None:
    """Return the R factor of S J^T from the entries of J.

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
    kappa : float
        Damping and ridge that are added to the diagonal.
    fold : Fold, optional
        From the points that an activation's hinges look at to those of the data.

    Returns
    -------
    Preconditioner or None
        See :func:`factor`.
    """
    rows = options.rows(jacobian.points)
    sketched = device.sketch_rows(jacobian.csr, rows, options.nonzeros, seed, step)  # (n, s) = Y^T
    return factor(device, _damped(device.gram(sketched if fold is None else fold.gather(sketched)), kappa))


def preconditioner_of_neurons(
    device: Device,
    active: FiredPairs,
    signs: Array,
    width: int,
    K: Array,
    options: SketchOptions,
    seed: int,
    step: int,
    kappa: float = 0.0,
    fold: Fold | None = None,
) -> Preconditioner | None:
    """Return the R factor of ``(C^T C) o K`` from the fired pairs.

    Parameters
    ----------
    device : Device
        Owner of the arrays.
    active : FiredPairs
        The fired pairs of this step.
    signs : Array
        (u,) second layer of the rows that the active set speaks of.
    width : int
        m, nominal.
    K : Array
        (n, n) float64, ``X X^T``.
    options : SketchOptions
        Number of buckets.
    seed, step : int
        Key and number of the draw.
    kappa : float
        Damping and ridge that are added to the diagonal.
    fold : Fold, optional
        From the points that an activation's hinges look at to those of the data.

    Returns
    -------
    Preconditioner or None
        See :func:`factor`.
    """
    buckets = options.rows(len(K))
    neurons = active.fired.neurons
    sketched = device.sketch_neurons(active.indptr, active.compact, neurons, signs, buckets, seed, step)  # (n, B)
    estimate = device.gram(sketched) * K / width
    return factor(device, _damped(estimate if fold is None else fold.gram(estimate), kappa))


def _damped(gram: Array, kappa: float) -> Array:
    if kappa:
        gram.ravel()[:: len(gram) + 1] += kappa
    return gram


def factor(device: Device, gram: Array) -> Preconditioner | None:
    """Return the Cholesky factor of a sketched Gram matrix (changed in place), with jitter where it needs some.

    The factor is taken by Cholesky in float64: R equals that of a QR factorisation of the sketch up to signs, at less
    than half the operations, and is accurate while the condition of G is below 1e14.

    Parameters
    ----------
    device : Device
        Owner of the matrix.
    gram : Array
        (n, n) float64.

    Returns
    -------
    Preconditioner or None
        A callable that applies M^{-1}; None where even the jittered matrix is not positive definite.
    """
    for jitter in (0.0, JITTER, 1e3 * JITTER):
        if jitter:
            diagonal = device.xp.arange(len(gram))
            gram[diagonal, diagonal] += jitter * gram.trace() / len(gram)
        lower = device.cholesky(gram)
        if lower is not None:
            return Preconditioner(lower, jitter, device)
    return None
