"""Which solver is cheapest: a cost model with one constant per kind of work.

The constants are single-core times of the CPU device on a 2.6 GHz server core, measured by ``python -m bench costs``,
which also checks that the choice is the fastest, or within a third of it, over a grid of problems.  Only their ratios
matter, and they differ by less than a factor of two between processors of the last ten years.
"""

from __future__ import annotations

import numpy as np

from .active_set import ActiveSet
from .devices import Array
from .sketch import SketchOptions

PAIR = 0.8e-9  # seconds to count one pair of points of one neuron (sparse Gram)
FLOP = 4e-11  # seconds of a double operation in BLAS and LAPACK
FEATURE = 0.7e-9  # seconds per fired pair and feature of one product with G
SKETCHED_STEPS = 6  # iterations to 1e-2 with the sketched preconditioner
PLAIN_STEPS = 40  # without it, at the conditions of real data (64 for the digits at b = 2.3, 4 for the sphere)


def solver_seconds(pairs: float, nnz: int, n: int, d: int, rows: int) -> dict[str, float]:
    """Estimate the seconds of each solver on one core.

    Parameters
    ----------
    pairs : float
        ``sum_r |fire(r)|^2``.
    nnz : int
        Fired pairs.
    n, d : int
        Points and features.
    rows : int
        Rows of the sketch.

    Returns
    -------
    dict
        Seconds by solver name.
    """
    cholesky = FLOP * n**3 / 3
    product = FEATURE * nnz * d
    return {
        "gram": PAIR * pairs + cholesky,
        "sketch-cg": FLOP * rows * n**2 + cholesky + SKETCHED_STEPS * (product + 2 * FLOP * n**2),
        "cg": PLAIN_STEPS * product,
    }


def cheapest_solver(active: ActiveSet, X: Array, sketch: SketchOptions) -> str:
    """Return the name of the solver with the least estimated time for this active set."""
    n, d = X.shape
    lengths = (active.fired.indptr[1:] - active.fired.indptr[:-1]).astype(np.float64)
    seconds = solver_seconds(float((lengths**2).sum()), active.nnz, n, d, sketch.rows(n))
    return min(seconds, key=seconds.__getitem__)
