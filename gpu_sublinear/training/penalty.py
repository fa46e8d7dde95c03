r"""The ridge penalty by leave-one-out cross-validation of the linearised network.

Around the initial weights the network is linear, and training it with the penalty ``lambda`` is kernel ridge
regression with the kernel G_0 of this very network.  Its residuals are ``e = lambda (G_0 + lambda I)^{-1} r``,
``r = f_0 - y``, and the residual at point i of the network trained without point i is

    e_i / (1 - h_i),      1 - h_i = lambda ((G_0 + lambda I)^{-1})_ii

(Allen's PRESS, *Technometrics* 16, 1974), so one eigendecomposition of G_0 gives the error of every penalty on points
that were not seen.

**Equal rows.**  One point is left out at a time, so of k equal points k - 1 stay: where a feature has few values, those
that stay are what a new point of this value will find, too.  Equal points are one row of the system, of all their
weight W_a and of the mean of their residuals.  With its residual e_a and its leverage h_a, a point of weight w_j whose
residual differs from that mean by d_j has

    (e_a + d_j) / (1 - h_a w_j / W_a)

when it alone is left out: the row keeps the rest of its weight.  Whole sample weights count points, so one of them is
left out, and as many copies of a point choose the same penalty; where weights are no whole numbers, the point goes with
all its weight.  The trained network is not linear, so this is a choice, not an optimum: docs/estimators.md has what it
gave.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh

from ..errors import OptionError
from ..linear.layers import gram_of_both
from ..step.run import Run

PENALTIES = np.logspace(-6, 3, 37)  # in units of tr(G_0)/n; the least interpolates, the largest hardly moves a weight
WHOLE = 1e-12  # relative: squares of square roots of whole numbers are these up to rounding
MOST_POINTS = 2000  # an eigendecomposition of so many takes some seconds; a good lambda hardly depends on n

_log = logging.getLogger(__name__)


def choose_alpha(run: Run) -> float:
    """Return the penalty of least leave-one-out error, in units of tr(G_0)/n.

    Parameters
    ----------
    run : Run
        A run that is prepared and has taken no step.

    Returns
    -------
    float
        One of ``PENALTIES``.
    """
    run = _smaller(run)
    state, to_host, problem = run.look(), run.network.device.to_host, run.problem
    G, r = to_host(run.gram(state.active)), to_host(state.residual)  # (n, n), (n,)
    if run.options.both_layers:
        G = gram_of_both(run.network, state.active, problem.X, run.gram.K, problem.weights)
    weights = problem.weights.roots
    roots = np.ones(len(r)) if weights is None else to_host(weights)  # (n,)
    rows = Rows.of(to_host(problem.X), r.reshape(len(r), -1) / roots[:, None], roots**2)
    scores = leave_one_out(rows.gram(G, roots), rows)
    alpha = float(PENALTIES[np.argmin(scores)])
    _log.info("alpha %.3g by leave-one-out cross-validation of the linearised network", alpha)
    return alpha


@dataclass(frozen=True)
class Rows:
    """Points, with those that are equal as one row.

    Attributes
    ----------
    row : ndarray
        (n,) int64, the row of each point.
    first : ndarray
        (k,) int64, a point of each row.
    weight : ndarray
        (k,) of each row, the sum of its points'.
    mean : ndarray
        (k, c) residual before training, the weighted mean of the row's points.
    apart : ndarray
        (n, c) by how much each point's residual differs from that of its row.
    weights, units : ndarray
        (n,) of each point, and what is left out of it at a time.
    """

    row: np.ndarray
    first: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    apart: np.ndarray
    weights: np.ndarray
    units: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, r: np.ndarray, weights: np.ndarray) -> Rows:
        """Find the rows of points X (n, d) with residuals r (n, c) and weights (n,) above 0."""
        _, first, row = np.unique(X, axis=0, return_index=True, return_inverse=True)
        row, k = row.reshape(-1), len(first)
        if k == len(X):  # no two are equal: rows in the order of the points
            first = row = np.arange(k)
        weight = np.bincount(row, weights, k)
        mean = np.stack([np.bincount(row, weights * column, k) for column in r.T], axis=1) / weight[:, None]
        counts = np.round(weights)
        whole = np.allclose(weights, counts, rtol=WHOLE, atol=0)
        return cls(row, first, weight, mean, r - mean[row], weights, np.ones(len(X)) if whole else weights)

    def gram(self, G: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """Return the weighted Gram matrix of the rows (k, k), from that of the points (n, n)."""
        if len(self.first) == len(self.row):
            return G
        grown = np.sqrt(self.weight) / roots[self.first]
        return G[np.ix_(self.first, self.first)] * np.outer(grown, grown)


def leave_one_out(G: np.ndarray, rows: Rows, alphas: np.ndarray = PENALTIES) -> np.ndarray:
    """Return the leave-one-out error of every penalty: see the module docstring.

    Parameters
    ----------
    G : ndarray
        (k, k) Gram matrix of the rows, times the roots of their weights on both sides.
    rows : Rows
        What they are made of; columns of the residuals share the penalty.
    alphas : ndarray
        (a,) penalties in units of tr(G) / total weight, above 0.

    Returns
    -------
    ndarray
        (a,) mean squared errors.

    Raises
    ------
    OptionError
        If no neuron fires anywhere, so that G is zero.
    """
    total = float(rows.weights.sum())
    unit = float(np.trace(G)) / total
    if not unit > 0:
        raise OptionError("alpha='auto' needs a Gram matrix that is not zero; use a smaller shift or a larger width")
    eigenvalues, U = eigh(G / unit)  # (k,), (k, k)
    roots = np.sqrt(rows.weight)[:, None]
    rotated = U.T @ (roots * rows.mean)  # (k, c)
    share = rows.units / rows.weight[rows.row]  # (n,), of a row's weight that is left out
    errors = []
    for alpha in alphas:
        lost = alpha / (eigenvalues.clip(0) + alpha)  # (k,), 1 where the fit gives nothing
        e, free = U @ (lost[:, None] * rotated) / roots, U**2 @ lost  # (k, c), (k,) 1 - h
        wrong = (e[rows.row] + rows.apart) / (1 - share + share * free[rows.row])[:, None]  # (n, c)
        errors.append(float((rows.weights[:, None] * wrong**2).sum()) / total)
    return np.array(errors)


def _smaller(run: Run) -> Run:
    """Return the run on at most ``MOST_POINTS`` of its points, all at once."""
    n, network = len(run.problem), run.network
    if n <= MOST_POINTS and not run.options.batch_size:
        return run
    points = np.sort(np.random.default_rng(network.seed).permutation(n)[:MOST_POINTS])
    options = replace(run.options, alpha=0.0, batch_size=None, damping="auto")
    problem = run.problem.part(network.device.asarray(points))
    return Run.begin(options, network, problem, run.index.at(network, problem.X, points))
