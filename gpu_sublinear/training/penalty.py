r"""The ridge penalty by leave-one-out cross-validation of the linearised network.

Around the initial weights the network is linear, and training it with the penalty ``lambda`` is kernel ridge
regression with the kernel G_0 of this very network.  Its residuals are ``e = lambda (G_0 + lambda I)^{-1} r``,
``r = f_0 - y``, and the residual at point i of the network trained without point i is

    e_i / (1 - h_i),      1 - h_i = lambda ((G_0 + lambda I)^{-1})_ii

(Allen's PRESS, *Technometrics* 16, 1974), so one eigendecomposition of G_0 gives the error of every penalty on points
that were not seen.  Equal points are left out together, because a copy would give the answer away: they are one point
with the sum of their weights and the mean of their targets.  Hence whole sample weights and as many copies of a point
choose the same penalty.  The trained network is not linear, so this is a choice, not an optimum: docs/estimators.md
has what it gave.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from scipy.linalg import eigh

from ..errors import OptionError
from ..linear.layers import gram_of_both
from ..step.run import Run

PENALTIES = np.logspace(-6, 3, 37)  # in units of tr(G_0)/n; the least interpolates, the largest hardly moves a weight
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
    total, weights = problem.total, problem.weights
    roots = np.ones(len(r)) if weights.roots is None else to_host(weights.roots)  # (n,)
    scores = leave_one_out(*merged(to_host(problem.X), G, r.reshape(len(r), -1), roots), total)
    alpha = float(PENALTIES[np.argmin(scores)])
    _log.info("alpha %.3g by leave-one-out cross-validation of the linearised network", alpha)
    return alpha


def leave_one_out(G: np.ndarray, r: np.ndarray, total: float, alphas: np.ndarray = PENALTIES) -> np.ndarray:
    """Return the leave-one-out error of every penalty.

    Parameters
    ----------
    G : ndarray
        (n, n) Gram matrix of points that are all different, times the roots of their weights on both sides.
    r : ndarray
        (n, c) residuals before training, times the roots of the weights; columns share the penalty.
    total : float
        Sum of the weights, n without.
    alphas : ndarray
        (k,) penalties in units of tr(G) / total, above 0.

    Returns
    -------
    ndarray
        (k,) mean squared errors.

    Raises
    ------
    OptionError
        If no neuron fires anywhere, so that G is zero.
    """
    unit = float(np.trace(G)) / total
    if not unit > 0:
        raise OptionError("alpha='auto' needs a Gram matrix that is not zero; use a smaller shift or a larger width")
    eigenvalues, U = eigh(G / unit)  # (n,), (n, n)
    rotated = U.T @ r  # (n, c)
    errors = []
    for alpha in alphas:
        lost = alpha / (eigenvalues.clip(0) + alpha)  # (n,), 1 where the fit gives nothing
        e, free = U @ (lost[:, None] * rotated), U**2 @ lost  # (n, c), (n,)
        errors.append(float(((e / free[:, None]) ** 2).sum()) / total)
    return np.array(errors)


def merged(X: np.ndarray, G: np.ndarray, r: np.ndarray, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return G and r with equal rows of X as one point: of all their weight, of the mean of their residuals.

    Parameters
    ----------
    X : ndarray
        (n, d) points.
    G : ndarray
        (n, n) weighted Gram matrix.
    r : ndarray
        (n, c) weighted residuals.
    roots : ndarray
        (n,) roots of the weights.

    Returns
    -------
    G : ndarray
        (k, k) for the k different points.
    r : ndarray
        (k, c).
    """
    _, first, group = np.unique(X, axis=0, return_index=True, return_inverse=True)
    k, group = len(first), group.reshape(-1)
    if k == len(X):
        return G, r
    together = np.sqrt(np.bincount(group, roots**2, k))  # (k,)
    sums = np.stack([np.bincount(group, roots * column, k) for column in r.T], axis=1)  # (k, c)
    grown = together / roots[first]
    return G[np.ix_(first, first)] * np.outer(grown, grown), sums / together[:, None]


def _smaller(run: Run) -> Run:
    """Return the run on at most ``MOST_POINTS`` of its points, all at once."""
    n, network = len(run.problem), run.network
    if n <= MOST_POINTS and not run.options.batch_size:
        return run
    points = np.sort(np.random.default_rng(network.seed).permutation(n)[:MOST_POINTS])
    options = replace(run.options, alpha=0.0, batch_size=None, damping="auto")
    problem = run.problem.part(network.device.asarray(points))
    return Run.begin(options, network, problem, run.index.at(network, problem.X, points))
