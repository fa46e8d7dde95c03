"""What a device must do where weights are implicit and the mask is kept through flips (:mod:`gpu_sublinear.index.flips.index`).

The operations are apart from those of :class:`gpu_sublinear.devices.Device`, because one mode alone needs them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from .base import Array, Device


@dataclass(frozen=True)
class NearPairs:
    """Pairs near the threshold, by neuron: neuron r owns entries starts[r] .. stops[r] of ``points`` and ``values``.

    Attributes
    ----------
    starts, stops : Array
        (u,) int64; entries that nobody owns may lie between.
    points : Array
        (capacity,) int32, ascending for each neuron.
    values : Array
        (capacity,) REAL, their pre-activations when last looked at.
    """

    starts: Array
    stops: Array
    points: Array
    values: Array

    @property
    def nnz(self) -> int:
        """Number of pairs."""
        return int((self.stops - self.starts).sum())


@dataclass(frozen=True)
class ImplicitRows:
    """Rows that are known, not stored.

    ``w_r = W_r - weights_r (sum_i M_ri total_i x_i + sum_e coefficients_e x_{points_e})``, and e runs over the log
    entries of neuron r: ``heads[r]``, ``before[heads[r]]``, ... until -1.

    Attributes
    ----------
    W : Array
        (u, d) REAL, the rows where they were last stored.
    X : Array
        (n, d) REAL points.
    bits : Array
        (u, ceil(n / 64)) uint64: bit i % 64 of bits[r, i // 64] is M_ri, zeros beyond n.
    weights : Array
        (u,) float64, ``a_r m^{-1/2}``.
    total : Array
        (n,) float64, the sum of all steps g.
    heads : Array
        (u,) int32, the latest log entry of each neuron, -1 for none.
    before : Array
        (L,) int32, the entry before.
    points : Array
        (L,) int32.
    coefficients : Array
        (L,) float64.
    """

    W: Array
    X: Array
    bits: Array
    weights: Array
    total: Array
    heads: Array
    before: Array
    points: Array
    coefficients: Array


@dataclass(frozen=True)
class Flips:
    """Pairs whose bit is wrong, ascending by neuron, then by point.

    Attributes
    ----------
    neurons, points : Array
        (f,) int32.
    above : Array
        (f,) float64, ``|<w_r, x_i> - b|`` at the implicit rows.
    """

    neurons: Array
    points: Array
    above: Array

    def __len__(self) -> int:
        return int(self.neurons.shape[0])


class ImplicitDevice(Device):
    """A device with operations on implicit rows."""

    def by_point(self, points: Array, n: int) -> tuple[Array, Array]:
        """Return the order (f,) int64 that sorts points (f,) stably, and where each begins in it, (n + 1,) int64."""
        order = self.xp.argsort(points, kind="stable")
        starts = self.xp.searchsorted(points[order], self.xp.arange(n + 1, dtype=points.dtype))
        return order, starts.astype(np.int64)

    def sums_by_point(self, order: Array, ends: Array, terms: Array) -> Array:
        """Return the sums of terms (f,) float64 of each point, (n,), in the order of :meth:`by_point`."""
        return self.forward(ends, self.xp.zeros(len(order), np.int32), terms[order], self.xp.ones(1), 0.0)

    @abstractmethod
    def near_mask(self, X: Array, W: Array, signs: Array, shift: float, radius: float) -> tuple[Array, Array, Array]:
        """Return what :meth:`pack_mask` does, and as many bits that say which pairs are near.

        Near is a pair whose computed number is within REAL(radius) of REAL(shift), the difference rounded.
        """

    @abstractmethod
    def mask_by_rows(self, bits: Array, rows: int) -> Array:
        """Turn words of neurons (words, n) into words of points, (rows, ceil(n / 64)) uint64, zeros beyond n."""

    @abstractmethod
    def implicit_rows(self, implicit: ImplicitRows) -> Array:
        """Return the rows, (u, d) REAL, computed in float64 and rounded once."""

    @abstractmethod
    def near_flips(self, implicit: ImplicitRows, near: NearPairs, shift: float, reach: float) -> tuple[Flips, int]:
        """Look at the near pairs whose value is within ``reach`` of ``shift``; return those whose bit is wrong.

        A bit is wrong where it differs from ``<w_r, x_i> > shift``, computed in float64 from the implicit rows.

        Returns
        -------
        flips : Flips
            The pairs, in order.
        looked : int
            Number of pairs computed.
        """

    @abstractmethod
    def first_flips(
        self, implicit: ImplicitRows, near: Array, shift: float, radius: float, known: float
    ) -> tuple[Flips, NearPairs, int]:
        """Do what :meth:`all_flips` does for rows that moved once, by ``total``, from a mask of near pairs.

        near (u, ceil(n / 64)) uint64 holds every pair that was within ``known`` of the shift before; the log is empty.
        """

    @abstractmethod
    def all_flips(
        self,
        implicit: ImplicitRows,
        near: NearPairs,
        shift: float,
        radius: float,
        known: float,
        g: Array,
        logged: Array,
        slack: float,
        afresh: bool = False,
    ) -> tuple[Flips, NearPairs, int]:
        """Return all pairs whose bit is wrong, and the pairs that are near now.

        The rows moved by ``-weights_r (sum_i M_ri g_i x_i + sum_e logged_e x_{points_e})`` since ``near`` was made,
        e over the log entries of neuron r, where every pair within ``known`` of the shift is listed, with a value that
        is ``slack`` off at most, this step's rounding included; all bits were right then.  g (n,), logged (L,) float64,
        or empty where the log's part of the rows stayed.  A device may use this to skip pairs, or look at all of them.
        ``afresh`` asks for values that are REAL(P), P in float64, whatever the slack was.

        Returns
        -------
        flips : Flips
            As for :meth:`near_flips`.
        near : NearPairs
            Every pair within ``radius`` of the shift, and perhaps more, with values that are one rounding off if they
            are computed ``afresh``; else ``slack`` at most, and what REAL sums of the movement lose: ``(n + d + 8 + E)
            eps max_r |weights_r| S max ||x||^2``, S the largest ``sum_i |g_i| + sum_e |logged_e|`` and E the largest
            number of entries of a neuron, and one rounding.
        looked : int
            Number of pairs computed.
        """

    @abstractmethod
    def flip_mask(
        self, bits: Array, counts: Array, heads: Array, flips: Flips, terms: Array, total: Array, size: int
    ) -> tuple[Array, int, Array, Array]:
        """Turn over the bits of ``flips``, keep ``M^T M`` true and log it; bits, counts and heads change in place.

        With ``delta = M' - M`` the counts (n, n) float64 change by ``delta^T M' + M^T delta``.  Flip e becomes entry
        ``size + e`` of the log, with the coefficient ``-total_i`` if the pair fires now, else ``+total_i``.

        Returns
        -------
        sums : Array
            (n,) float64: the sum of ``terms`` (f,) float64 by point, in the order of the flips.
        union : int
            Change of the number of neurons that fire on some point.
        before : Array
            (f,) int32, the entry of the same neuron before each new one, -1 for none.
        coefficients : Array
            (f,) float64.
        """


def longest_point(X: Array) -> float:
    """Return the norm of the longest row of X (n, d) float64."""
    return math.sqrt(float((X * X).sum(axis=1).max()))


def run_starts(xp: ModuleType, values: Array) -> Array:
    """Return the places at which runs of equal values (f,) start, int64; there is at least one value."""
    return xp.flatnonzero(xp.concatenate([xp.ones(1, bool), values[1:] != values[:-1]]))
