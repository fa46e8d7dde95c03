"""Which solver is cheapest: a cost model with one constant per kind of work.

The constants are wall-clock seconds of the cpu device on two 2.6 GHz server cores, fitted to ``python -m bench
--only costs``, which prints estimate and measurement of every solver on a grid of problems and how often the choice is
right.  Only their ratios matter.
"""

from __future__ import annotations

from ..devices import Array
from ..index.protocol import FiredPairs
from ..options import SketchOptions

PAIR = 0.25e-9  # to count one pair of points of one neuron (sparse Gram)
FLOP = 5e-11  # per double operation of BLAS and LAPACK
FIRED, FEATURE = 3.5e-9, 0.26e-9  # per fired pair of one product with G, and per feature of it on top
SKETCHED_STEPS = 4  # iterations to 1e-2 with the sketched preconditioner
SHARED_STEPS = 6  # with the exact diagonal block of several outputs
PLAIN_STEPS = 20  # without it: 3 to 24 on the sphere, 64 on the digits


def solver_seconds(pairs: float, nnz: int, n: int, d: int, rows: int, outputs: int = 1) -> dict[str, float]:
    """Estimate the seconds of each solver.

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
    outputs : int
        c.

    Returns
    -------
    dict
        Seconds by solver name.
    """
    cholesky = FLOP * n**3 / 3
    product = (FIRED + FEATURE * d) * nnz
    triangles = 2 * FLOP * n**2 * outputs
    return {
        "gram": PAIR * pairs + cholesky + (SHARED_STEPS * (product + triangles) if outputs > 1 else 0.0),
        "sketch-cg": FLOP * rows * n**2 + cholesky + SKETCHED_STEPS * (product + triangles),
        "cg": PLAIN_STEPS * product,
    }


def cheapest_solver(active: FiredPairs, X: Array, sketch: SketchOptions, outputs: int = 1) -> str:
    """Return the name of the solver with the least estimated time for this active set."""
    n, d = X.shape
    seconds = solver_seconds(active.pairs, active.nnz, n, d, sketch.rows(n), outputs)
    return min(seconds, key=seconds.__getitem__)
