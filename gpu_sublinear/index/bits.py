r"""Packed masks: the index for small shifts, where so many pairs fire that listing them costs more than looking anew.

**What it keeps.**  One bit for each pair of a held row and a point, ``u n / 8`` bytes; a listed pair takes 12 bytes and
more.  Nothing else outlives a step, so there is no certificate to keep, and restoring the rows restores everything.

**A step.**

1. *Query and forward pass together.*  All computed numbers are made anew, compared and forgotten; the bits stay, and
   the sums ``sum_r a_r (P_ri - b)`` in float64.  2 u n d operations without a branch.
2. *Gram matrix.*  ``(M^T M)_ij`` is the number of bits common to two points: ``u n^2 / 128`` words.  With the mask M of
   the step before, ``delta = M' - M`` and ``S = M' + M``,

       M'^T M' - M^T M = (delta^T S + S^T delta) / 2,

   (expand the right-hand side: the mixed terms cancel), so only words with a flipped bit need be visited, n operations
   each.  All are whole numbers: the result is exact whichever way it was reached.
3. *Update.*  ``J^T g`` of row r is ``a_r m^{-1/2} sum_i M_ri g_i x_i``.  For every eight points the 256 sums of subsets
   are tabulated once, and each row adds n / 8 table entries (the method of four Russians): ``u n d / 8`` additions.

With a ridge penalty a step also needs ``J (W - W_0)``, a product of the bits with all rows: as long as a query.

**Invariant.**  After every query the bits are exactly ``P > b`` of the stored rows, because they were just computed
from them; so the trajectory is that of the lists and of dense algebra.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..devices import Array, Device
from ..devices.sums import row_distances
from ..linear.jacobian import Products
from ..model.caps import settle_sampling
from ..model.network import ShiftedReluNetwork
from .first_look import survey
from .mask import Mask, PairCounts
from .newcomers import Newcomers
from .protocol import Index

SAMPLED = 1024  # rows looked at to learn whether lists would grow too long, or how many fire at all
MOST = 0.7  # share of rows that fire somewhere from which holding the others too costs less than finding them


def sampled_share(network: ShiftedReluNetwork, X: Array) -> float:
    """Return the share of the pairs that fire, from about 1024 of the rows held, evenly spaced."""
    u = len(network.rows)
    counts = _points_fired(network, X, network.rows[:: max(1, u // SAMPLED)])
    return int(counts.sum()) / max(1, len(counts) * len(X))


def most_fire(network: ShiftedReluNetwork, X: Array) -> bool:
    """Tell whether most rows of a fresh network fire on some point (n, d), from the first 1024."""
    counts = _points_fired(network, X, network.block(0, min(SAMPLED, network.width)))
    return int((counts > 0).sum()) >= MOST * len(counts)


def _points_fired(network: ShiftedReluNetwork, X: Array, rows: Array) -> Array:
    """Return on how many points (n, d) each of these rows (k, d) fires, (k,) int64."""
    xp = network.device.xp
    neurons, limits = xp.arange(len(rows), dtype=np.int32), xp.full(len(rows), network.shift, dtype=network.dtype)
    indptr, _ = network.device.scan(X, xp.ascontiguousarray(rows), neurons, limits)
    return indptr[1:] - indptr[:-1]


@dataclass(frozen=True)
class BitMask(Mask):
    """Which held row fires on which point, one bit each: what :class:`gpu_sublinear.index.active_set.ActiveSet` is for lists.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    bits : Array
        (ceil(u / 64), n) uint64, see :meth:`gpu_sublinear.devices.base.Device.pack_mask`.
    totals : Array
        (n,) float64, ``sum_r a_r (P_ri - b)`` over the rows that fire.
    rows : int
        u, rows held.
    """

    device: Device
    bits: Array
    totals: Array
    rows: int

    @cached_property
    def _sizes(self) -> tuple[Array, int]:
        return self.device.mask_sizes(self.bits)

    @property
    def counts(self) -> Array:
        """(n,) number of neurons fired on each point, k_i."""
        return self._sizes[0]

    @property
    def union(self) -> int:
        """Number of neurons that fire on at least one point."""
        return self._sizes[1]

    @cached_property
    def nnz(self) -> int:
        """Number of fired pairs."""
        return int(self.counts.sum())

    @property
    def visited(self) -> int:
        """Numbers compared with the threshold: all."""
        return self.rows * len(self.totals)

    @property
    def neurons(self) -> Array:
        """(u,) int32: the rows that a step writes, all of them; those that fire nowhere stay as they are."""
        return self.device.xp.arange(self.rows, dtype=np.int32)

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) float64; the query summed it for these signs and shift."""
        return self.totals

    def pair_counts(self, device: Device, known: PairCounts | None) -> PairCounts:
        """Return ``M^T M``, from that of the bits before where few words differ."""
        if known is None or known.bits is None:
            return PairCounts(device.count_mask(self.bits, None, None), bits=self.bits)
        return PairCounts(device.count_mask(self.bits, known.bits, known.counts), bits=self.bits, recounted=False)

    def jacobian(self, system: Any) -> Any:
        """Return J from the bits."""
        return BitJacobian.build(self, system.gram.X, system.signs, system.network.width)

    def add_to(self, union: Any) -> None:
        """Add the bits of all points, by halves."""
        words = self.bits
        while words.shape[1] > 1:
            half = (words.shape[1] + 1) // 2
            folded = words[:, :half].copy()
            folded[:, : words.shape[1] - half] |= words[:, half:]
            words = folded
        union.add_words(words)


@dataclass
class BitIndex(Index):
    """Looks at all held rows in every query.

    Attributes
    ----------
    device : Device
        Owner of X and the network.
    X : Array
        (n, d) points.
    network : ShiftedReluNetwork
        Its rows are read at every query.
    refreshed : int
        Rows looked at afresh after the last step: all.
    """

    kind = "bits"

    device: Device
    X: Array
    network: ShiftedReluNetwork
    refreshed: int = 0

    @classmethod
    def build(cls, device: Device, X: Array, network: ShiftedReluNetwork) -> BitIndex:
        """Make the network hold its rows and look at them in every query."""
        cls.hold(X, network)
        return cls(device, X, network)

    @staticmethod
    def hold(X: Array, network: ShiftedReluNetwork) -> None:
        """Make the network hold its rows: all of them where most fire on some point, else those that do."""
        settle_sampling(network, len(X))
        if network.sampling == "virtual" or not most_fire(network, X):
            survey(network, X, 0)
        else:
            network.sampling = "explicit"
            network.hold_all()

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Newcomers | None = None) -> BitIndex:
        """Return the index over the points of this one followed by X (k, d): nothing is kept of any pair."""
        if newcomers is None and len(network.rows) < network.width:
            Newcomers.welcome(network, X)
        return BitIndex(self.device, self.device.xp.concatenate([self.X, X]), network)

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: Any = None) -> BitIndex:
        """Return an index of its own for a network with the same rows, over X (k, d)."""
        return BitIndex(self.device, X, network)

    def over(self, X: Array, network: ShiftedReluNetwork) -> BitIndex:
        """Return an index over other points X (k, d)."""
        return self.again(network, X)

    def query(self, shift: float) -> BitMask:
        """Return who fires now, ``P_ir > shift``."""
        network = self.network
        return BitMask(
            self.device, *self.device.pack_mask(self.X, network.rows, network.signs, shift), len(network.rows)
        )

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note that the next query looks at all rows."""
        self.refreshed = len(W)

    update_any = update

    def mark(self) -> None:
        """Return what :meth:`restore` needs: nothing, because every query looks at all rows."""

    def restore(self, mark: None, W: Array, changed: Array) -> None:
        """Come back to where :meth:`mark` was called: nothing to do."""


@dataclass(frozen=True)
class BitJacobian(Products):
    """J from the bits: it takes the step; its Gram matrix comes from :class:`gpu_sublinear.linear.gram.GramMatrix`.

    Attributes
    ----------
    mask : BitMask
        Who fires.
    X : Array
        (n, d) points.
    weights : Array
        (u,) float64, ``m^{-1/2} a_r`` of the rows held.
    """

    has_products = False

    mask: BitMask
    X: Array
    weights: Array

    @classmethod
    def build(cls, mask: BitMask, X: Array, signs: Array, width: int) -> BitJacobian:
        """Scale the signs (u,); ``width`` is m, nominal."""
        return cls(mask, X, signs.astype(np.float64) * width**-0.5)

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) float64, for the movement D of all rows from ``initial`` (u, d)."""
        D = W.astype(np.float64)
        D -= initial
        return self.mask.device.mask_product(self.X, self.mask.bits, self.weights, D)

    def step(self, W: Array, g: Array) -> Array:
        """Apply ``W <- W - J^T g`` in place; return how far each row moved, (u,) float64."""
        return self.mask.device.move_mask(W, self.X, self.mask.bits, self.weights, g)

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances, see :meth:`Device.pull_rows`."""
        xp = self.mask.device.xp
        nothing = xp.zeros(0, np.int32), xp.zeros((0, W.shape[1]))  # neurons, their change
        rows, _ = self.mask.device.pull_rows(W, initial, *nothing, theta)
        self.step(rows, g)
        return rows, row_distances(rows, W)
