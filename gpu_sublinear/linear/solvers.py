"""Solvers of ``G g = r`` with G = J J^T: conjugate gradients, plain or preconditioned, and exact Cholesky.

Each returns a :class:`Solution` that says how good it is.  The residual reported is always the true one,
``||r - G g|| / ||r||``, computed afresh, never the recursive one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..devices import Array, Device
from ..devices.sums import dot, norm
from ..options import CGOptions

Operator = Callable[[Array], Array]


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes
    ----------
    value : Array
        (n,) float64, g; always finite.
    iterations : int
        Products with G, over all attempts (1 for a direct solve).
    residual : float
        True relative residual ``||r - G g|| / ||r||``.
    reason : str
        Why it stopped, in one sentence.
    """

    value: Array
    iterations: int
    residual: float
    reason: str


def conjugate_gradient(
    device: Device,
    gram: Operator,
    rhs: Array,
    options: CGOptions,
    precondition: Operator | None = None,
    start: Array | None = None,
) -> Solution:
    """Solve ``G g = rhs`` for a symmetric positive semidefinite G by (preconditioned) conjugate gradients.

    Scalars stay on the device; the host looks at the recursive residual every ``device.check_every`` iterations.
    When it is small enough the true residual is computed, and the recursion starts again from it if they disagree.
    The best value seen is returned, so that a singular and inconsistent G gives a finite answer.

    Parameters
    ----------
    device : Device
        Owner of the vectors.
    gram : callable
        ``v -> G v``.
    rhs : Array
        (n,) float64.
    options : CGOptions
        Tolerance and cap.
    precondition : callable, optional
        ``v -> M^{-1} v``.
    start : Array, optional
        (n,) first guess; zero by default.

    Returns
    -------
    Solution
        Value, iterations, true residual and reason.
    """
    precondition = precondition or (lambda v: v)
    size = norm(rhs)
    zero = device.xp.zeros_like(rhs)
    if size == 0.0:
        return Solution(zero, 0, 0.0, "the right-hand side is zero")
    best = Solution(zero, 0, 1.0, f"{options.max_iterations} iterations are used up")
    if start is not None:
        best = _checked(gram, rhs, size, start, best)
    iterations = 0
    while iterations < options.max_iterations and best.residual > options.tolerance:
        found, used, broken = _run(device, gram, rhs, size, options, precondition, best.value, iterations)
        iterations += used + 1
        before, best = best.residual, _checked(gram, rhs, size, found, best)
        if best.residual > options.tolerance and (broken or best.residual > 0.5 * before):
            best = replace(best, reason=f"the residual no longer falls below {best.residual:.1e}")
            break
    if best.residual <= options.tolerance:
        best = replace(best, reason=f"the relative residual is {best.residual:.1e}")
    return replace(best, iterations=iterations)


def _run(device, gram, rhs, size, options, precondition, start, used_before):
    """Iterate from ``start`` until the recursive residual is small; return (value, iterations, broke down)."""
    xp = device.xp
    value = start.copy()
    residual = rhs - gram(value) if value.any() else rhs.copy()
    z = precondition(residual)
    direction = z.copy()
    energy = dot(residual, z)
    for iteration in range(1, options.max_iterations - used_before + 1):
        product = gram(direction)
        curvature = dot(direction, product)
        usable = (curvature > 0) & xp.isfinite(curvature)  # zero once the residual is, or in the null space of G
        step = xp.where(usable, energy / xp.where(usable, curvature, 1.0), 0.0)
        value += step * direction
        residual -= step * product
        if iteration % device.check_every == 0:
            if not bool(usable):
                return value, iteration, True
            if norm(residual) <= options.tolerance * size:
                return value, iteration, False
        z = precondition(residual)
        energy, previous = dot(residual, z), energy
        direction = z + (energy / xp.where(previous == 0, 1.0, previous)) * direction
    return value, options.max_iterations - used_before, False


def _checked(gram: Operator, rhs: Array, size: float, value: Array, best: Solution) -> Solution:
    """Return ``value`` with its true residual if that is finite and below the best so far, else the best."""
    residual = float(((rhs - gram(value)) ** 2).sum()) ** 0.5 / size
    return replace(best, value=value, residual=residual) if residual < best.residual else best


def sketched_cg(
    device: Device, gram: Operator, rhs: Array, options: CGOptions, precondition: Operator | None
) -> Solution:
    """Solve by preconditioned CG; go on with plain CG, and say so, where the preconditioner fails.

    Parameters
    ----------
    device : Device
        Owner of the vectors.
    gram : callable
        ``v -> G v``.
    rhs : Array
        (n,) float64.
    options : CGOptions
        Tolerance and cap, for each of the two attempts.
    precondition : callable or None
        From :func:`gpu_sublinear.linear.sketch.sketched_preconditioner`.

    Returns
    -------
    Solution
        The better of what the attempts found.
    """
    if precondition is None:
        plain = conjugate_gradient(device, gram, rhs, options)
        return replace(plain, reason=f"plain CG, because the sketch is singular: {plain.reason}")
    first = conjugate_gradient(device, gram, rhs, options, precondition)
    if first.residual <= options.tolerance:
        return first
    plain = conjugate_gradient(device, gram, rhs, options, start=first.value)
    reason = f"preconditioned CG stopped ({first.reason}), plain CG went on: {plain.reason}"
    return replace(plain, iterations=first.iterations + plain.iterations, reason=reason)


def gram_cholesky(device: Device, G: Array, rhs: Array) -> Solution:
    """Solve with the exact Gram matrix: Cholesky, or the minimum-norm solution where G is singular.

    Parameters
    ----------
    device : Device
        Owner of the arrays.
    G : Array
        (n, n) float64.
    rhs : Array
        (n,) float64.

    Returns
    -------
    Solution
        Exact up to rounding, or the least-squares solution of least norm for a singular G.
    """
    lower = device.cholesky(G)
    if lower is None or _singular(lower):
        value, reason = _minimum_norm(device, G, rhs), "minimum-norm solution, because the Gram matrix is singular"
    else:
        half = device.solve_triangular(lower, rhs)
        value, reason = device.solve_triangular(lower, half, transposed=True), "Cholesky"
    size = float(device.xp.linalg.norm(rhs)) or 1.0
    residual = float(device.xp.linalg.norm(rhs - G @ value)) / size
    return Solution(value, 1, residual, reason)


def _singular(lower: Array) -> bool:
    """Tell whether a Cholesky factor has a pivot that is nothing but rounding."""
    pivots = lower.diagonal() ** 2
    return bool(pivots.min() <= len(pivots) * np.finfo(np.float64).eps * pivots.max())


def _minimum_norm(device: Device, G: Array, rhs: Array) -> Array:
    values, vectors = device.eigh(G)
    cutoff = len(G) * np.finfo(np.float64).eps * abs(values).max()
    keep = values > cutoff
    inverse = device.xp.where(keep, 1.0 / device.xp.where(keep, values, 1.0), 0.0)
    return vectors @ (inverse * (vectors.T @ rhs))
