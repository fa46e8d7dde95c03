"""What a device must do where weights are implicit and the mask is kept: make rows, find flips, turn bits over.

One mode alone needs these (:mod:`gpu_sublinear.index.flips.index`); ``Device.follows_flips`` says whether they work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..formats import Array, Flips, ImplicitRows, NearPairs


class ImplicitOps(ABC):
    """Implicit rows, and the flips of a mask that is kept."""

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
