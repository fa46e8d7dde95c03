"""Training foretold from the network of infinite width: its Gram matrix, and the error after every full step.

**Gram matrix.**  At initialisation ``G -> H``, ``H_ij = <x_i, x_j> Pr[u > b, v > b]``
(:mod:`gpu_sublinear.foresight.ntk`).

**Error after a step.**  A full step solves ``H g = f - y`` and moves the pre-activation of neuron r on point i by
``-a_r s / sqrt(m)``, ``s = sum_j M_rj <x_i, x_j> g_j``.  If no pair flipped, the new residual would be
zero.  What is left comes from the pairs that flip, through the exact identity

    f_new = (what the linear model says) + m^{-1/2} sum over flipped pairs of a_r |z_new - b|.

Only pairs near the threshold flip.  So take neurons with ``<w, x_i> = b + u`` and all else random, and compare the two
sides u < 0 and u > 0: above the threshold the neuron fires on i itself, below it does not, so s differs by g_i, and the
farther above, the more of i's neighbours it sees.  Hence the mean of the sum,

    sqrt(m) / 2 integral sign(u) E[ sign(s(u)) max(0, |s(u)| / sqrt(m) - |u|) ] phi(b + u) du,

does not vanish (both signs a_r are equally frequent), and it dominates the random part, of variance
``sum over flips of (|s| / sqrt(m) - |u|)^2 / m``.  Both give the next residual; repeating this foretells the whole loss
curve.  Only the targets and the kernel enter, no weights.  The expectation is taken over a few sampled neurons per
point; the variance of that estimate is known from the sample and taken off its square.

It is a forecast, not a bound: the fired set and the Gram matrix are taken as they are at the start, and infinitely
wide.  Where it reaches 1e-8 within ``PROMPT`` steps, training took about as many on smooth targets and up to four times
as many on noisy ones (diabetes); where it does not settle, noisy targets hardly train, and smooth ones at large
shifts may still go well.  Where more than about half of the fired pairs flip, the later steps of a forecast vary with
its own random numbers.

Of several outputs each pattern of signs is a network of one output and width ``m / C`` whose targets are the
combination of all targets by its signs (:mod:`gpu_sublinear.linear.outputs`): each gets a forecast of its own step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numba import prange
from scipy.interpolate import CubicSpline
from scipy.linalg import cho_factor, cho_solve, eigvalsh

from ..devices.cpu.jit import parallel, serial
from ..model.shifts import firing_probability
from ..model.signs import pattern_count, pattern_signs
from .ntk import bivariate_tail

ANGLES = 1025  # of the table: its cubic interpolation is exact to about 1e-12, and n^2 integrals are saved
SAMPLES = 12  # neurons per point over which the expectation is taken
OFFSETS = np.array([0.0, 0.2, 0.6, 1.4, 3.0])  # |u| at which s is computed; between them it is interpolated
TAIL = 6.0  # the normal density is nothing farther out than this
NODES = 16  # of the integral over u, from 0 to the largest |s| / sqrt(m)
_GAUSS = np.polynomial.legendre.leggauss(NODES)
JITTER = 1e-12  # of H's diagonal: equal rows would otherwise end the factorisation
LEFT = 0.05  # of the squared mean, at least, when the variance of its estimate is taken off
PROMPT = 8  # steps: a forecast that needs no more is trusted, see above
GROWS = 10.0  # an mse beyond which a forecast only says "grows"


@dataclass(frozen=True)
class Forecast:
    """What full steps are expected to do.

    Attributes
    ----------
    width : int
        m.
    shift : float
        b.
    mse : list of float
        Mean squared error before step 0, 1, ...; the last is below the goal, or the forecast gave up.
    flips : float
        Pairs that the first step flips, as a share of the fired pairs.
    settles : bool
        Whether the goal is reached.
    """

    width: int
    shift: float
    mse: list[float]
    flips: float
    settles: bool

    @property
    def steps(self) -> int:
        """Steps until the forecast ends."""
        return len(self.mse) - 1

    @property
    def prompt(self) -> bool:
        """Whether the goal is reached in so few steps that training can be trusted to reach it."""
        return self.settles and self.steps <= PROMPT


class WideLimit:
    """The limit of infinite width for one data set and one shift.

    Parameters
    ----------
    X : ndarray
        (n, d) unit rows.
    y : ndarray
        (n,) or (n, c) targets.
    shift : float
        b.
    seed : int
        Of the neurons sampled at the threshold.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, shift: float, seed: int = 0) -> None:
        self.y, self.shift, self.points = y.reshape(len(y), -1), shift, len(y)  # (n, c)
        c = self.y.shape[1]
        self.patterns = pattern_count(c)
        self._signs = pattern_signs(c) / np.sqrt(self.patterns)  # (C, c)
        self._random = np.random.default_rng([seed, 3])
        K = np.clip(X @ X.T, -1.0, 1.0)  # (n, n)
        tails = _tails(K, shift)  # (n, n)
        self.kernel = K * tails  # (n, n), H
        self.pairs = float(tails.sum())  # expected sum_r |fire(r)|^2, per neuron
        factored = self.kernel + JITTER * self.kernel[0, 0] * np.eye(len(K))
        self._factor = cho_factor(factored, lower=True, overwrite_a=True)
        self._K = K.astype(np.float32)
        self._P = [self._at_threshold(X, K) for _ in range(SAMPLES)]

    def _at_threshold(self, X: np.ndarray, K: np.ndarray) -> np.ndarray:
        """Return ``<w_r, x_j>``, (n, n) float32, for one random neuron r with ``<w_r, x_i> = b`` for every i."""
        W = self._random.standard_normal(X.shape)  # (n, d)
        own = np.einsum("ij,ij->i", W, X)  # (n,)
        P = (W @ X.T + (self.shift - own)[:, None] * K).astype(np.float32)
        np.fill_diagonal(P, -np.inf)  # whether r fires on i itself is settled by the side of the threshold
        return P

    @property
    def eigenvalues(self) -> np.ndarray:
        """(n,) of H, ascending."""
        return eigvalsh(self.kernel)

    def forecast(self, width: int, goal: float, most: int = 12) -> Forecast:
        """Foretell the mean squared error after every step.

        Parameters
        ----------
        width : int
            m.
        goal : float
            Mean squared error at which training stops.
        most : int
            Steps to look ahead.

        Returns
        -------
        Forecast
            It ends at the goal, after ``most`` steps, or where the error grows past ``GROWS``.
        """
        residual, mse, first = self.y, [float(np.mean(self.y**2))], 0.0
        noise = np.random.default_rng(0)  # the same for all widths and shifts: they are compared with each other
        while goal < mse[-1] < GROWS and len(mse) <= most:
            parts = [self._step(residual @ s, width / self.patterns, noise) for s in self._signs]
            residual = sum(part[0][:, None] * s for part, s in zip(parts, self._signs, strict=True))  # (n, c)
            flips = float(np.mean([part[1] for part in parts]))
            first = first or flips
            mse.append(float(np.mean(residual**2)))
        return Forecast(width, self.shift, mse, first, mse[-1] <= goal)

    def _step(self, residual: np.ndarray, width: float, noise: np.random.Generator) -> tuple[np.ndarray, float]:
        """Return the residual after a full step (n,), and the share of fired pairs that flip."""
        g = cho_solve(self._factor, residual)  # (n,)
        means, variance, flips = [], 0.0, 0.0
        for P in self._P:
            above, below = (self._side(P, g, side, width) for side in (1, -1))
            means.append(np.sqrt(width) / 2 * (above[0] - below[0]))
            variance += float((above[1] + below[1]).mean()) / 2 / SAMPLES
            flips += float((above[2] + below[2]).mean()) / 2 / SAMPLES
        mean = np.mean(means, axis=0)  # (n,)
        excess = float(np.var(means, axis=0, ddof=1).mean()) / SAMPLES  # of mean^2, from the sampling alone
        square = float(np.mean(mean**2))
        if square:
            mean = mean * np.sqrt(max(LEFT, 1 - excess / square))
        share = flips / firing_probability(self.shift)
        return mean + np.sqrt(variance) * noise.standard_normal(len(g)), share

    def _side(self, P: np.ndarray, g: np.ndarray, side: int, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Integrate over one side of the threshold, with weight phi.

        Parameters
        ----------
        P : ndarray
            (n, n) of :meth:`_at_threshold`.
        g : ndarray
            (n,) solution of the step.
        side : int
            1 above the threshold, -1 below.
        width : float
            m.

        Returns
        -------
        total : ndarray
            (n,) of ``sign(s) (|s| / sqrt(m) - |u|)`` over the pairs that flip.
        square : ndarray
            (n,) of its square.
        count : ndarray
            (n,) flips.
        """
        s = _pulls(P, self._K, g.astype(np.float32), np.float32(self.shift), (side * OFFSETS).astype(np.float32))
        s = (s + (g if side > 0 else 0.0)) / np.sqrt(width)  # (offsets, n)
        return _integrals(s, OFFSETS, *_GAUSS, self.shift, side, self.shift + TAIL)


@partial(parallel, fastmath={"reassoc", "contract"})  # a vectorised sum needs both
def _pulls(P, K, g, shift, offsets):
    """Return ``sum_j M_ij K_ij g_j``, ``M_ij = P_ij + u K_ij > b``, over j other than i for every u, (offsets, n)."""
    n = len(P)
    sums = np.empty((len(offsets), n), np.float32)
    for i in prange(n):
        for k in range(len(offsets)):
            total = np.float32(0)
            for j in range(n):
                total += K[i, j] * g[j] if P[i, j] + offsets[k] * K[i, j] > shift else np.float32(0)
            sums[k, i] = total
    return sums


@serial
def _integrals(s, offsets, nodes, weights, shift, side, far):
    """Return the three integrals of :meth:`WideLimit._side`, (n,) each, by Gauss-Legendre from 0 to the largest |s|."""
    n = s.shape[1]
    total, square, count = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        end = min(np.abs(s[:, i]).max(), far)
        for q in range(len(nodes)):
            u = (nodes[q] + 1) / 2 * end
            k = min(np.searchsorted(offsets, u, side="right") - 1, len(offsets) - 2)
            part = min(1.0, (u - offsets[k]) / (offsets[k + 1] - offsets[k]))
            here = (1 - part) * s[k, i] + part * s[k + 1, i]
            past = abs(here) - u
            if past > 0:
                measure = weights[q] / 2 * end * np.exp(-((shift + side * u) ** 2) / 2) / np.sqrt(2 * np.pi)
                total[i] += measure * np.sign(here) * past
                square[i] += measure * past**2
                count[i] += measure
    return total, square, count


def _tails(K: np.ndarray, shift: float) -> np.ndarray:
    """Return ``Pr[u > b, v > b]`` for all correlations of K; a smooth function of the angle, so a table serves."""
    angles = np.linspace(0.0, np.pi, ANGLES)
    tails = CubicSpline(angles, bivariate_tail(shift, np.cos(angles)))(np.arccos(K))
    np.fill_diagonal(tails, firing_probability(shift))
    return tails.clip(0.0, None)
