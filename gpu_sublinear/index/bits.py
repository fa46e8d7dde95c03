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
from ..errors import OptionError
from ..model.network import ShiftedReluNetwork
from .newcomers import Newcomers
from .protocol import Jacobian, PairCounts, PlainIndex, PlainMask


@dataclass(frozen=True)
class BitMask(PlainMask):
    """Which held row fires on which point, one bit each.

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
    shift : float
        b.
    """

    lists = None

    device: Device
    bits: Array
    totals: Array
    rows: int
    shift: float

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

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) float64; the query summed it for these signs and shift."""
        if shift != self.shift:
            raise OptionError(f"these outputs were summed at the shift {self.shift}; got {shift}")
        return self.totals

    def pair_counts(self, device: Device, known: PairCounts | None) -> PairCounts:
        """Return ``M^T M``, from that of the bits before where few words differ."""
        if known is None or known.bits is None:
            return PairCounts(device.count_mask(self.bits, None, None), bits=self.bits)
        return PairCounts(device.count_mask(self.bits, known.bits, known.counts), bits=self.bits, recounted=False)

    def jacobian(self, system: Any) -> Jacobian:
        """Return J from the bits."""
        return BitJacobian.build(self, system.gram.X, system.signs, system.network.width)

    def masked(self, device: Device, X: Array) -> PackedPoints:
        """Return the map of the mask on points X (n, d)."""
        return PackedPoints(self, X)

    def fires(self, device: Device, rows: int) -> Array:
        """Return whether each of the rows held fires somewhere, (rows,) bool: the bits of all points, by halves."""
        words = self.bits
        while words.shape[1] > 1:
            half = (words.shape[1] + 1) // 2
            folded = words[:, :half].copy()
            folded[:, : words.shape[1] - half] |= words[:, half:]
            words = folded
        bits = words >> device.xp.arange(64, dtype=np.uint64) & np.uint64(1)  # (words, 64)
        return bits.astype(bool).ravel()[:rows]


@dataclass
class BitIndex(PlainIndex):
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

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Newcomers | None = None) -> BitIndex:
        """Return the index over the points of this one followed by X (k, d): nothing is kept of any pair."""
        if newcomers is None and len(network.rows) < network.width:
            Newcomers.welcome(network, X)
        return BitIndex(self.device, self.device.xp.concatenate([self.X, X]), network)

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> BitIndex:
        """Return an index of its own for a network with the same rows, over X (k, d)."""
        return BitIndex(self.device, X, network)

    def query(self, shift: float) -> BitMask:
        """Return who fires now, ``P_ir > shift``."""
        network = self.network
        found = self.device.pack_mask(self.X, network.rows, network.signs, shift)
        return BitMask(self.device, *found, len(network.rows), shift)

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note that the next query looks at all rows."""
        self.refreshed = len(W)


@dataclass(frozen=True)
class BitJacobian:
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

    products = None  # a product costs as much as a query, so solvers take the Gram matrix
    gram_is_whole = True

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

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Apply ``W <- W - J^T g`` in place; return all rows (u,) and how far each moved, (u,) float64."""
        everybody = self.mask.device.xp.arange(self.mask.rows, dtype=np.int32)
        return everybody, self.mask.device.move_mask(W, self.X, self.mask.bits, self.weights, g)

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances, see :meth:`Device.pull_rows`."""
        xp = self.mask.device.xp
        nothing = xp.zeros(0, np.int32), xp.zeros((0, W.shape[1]))  # neurons, their change
        rows, _ = self.mask.device.pull_rows(W, initial, *nothing, theta)
        self.step(rows, g)
        return rows, row_distances(rows, W)


@dataclass(frozen=True)
class PackedPoints:
    """The map of packed bits on points: see :class:`gpu_sublinear.index.protocol.MaskedPoints`.

    Attributes
    ----------
    mask : BitMask
        The bits.
    X : Array
        (n, d) points.
    """

    mask: BitMask
    X: Array

    @cached_property
    def neurons(self) -> Array:
        """(u,) int32: all rows held."""
        return self.mask.device.xp.arange(self.mask.rows, dtype=np.int32)

    def gathered(self, g: Array) -> Array:
        """Return ``T_r = sum_i M_ri g_i x_i``, (u, d) float64: rows of zeros, moved by it."""
        device = self.mask.device
        T = device.xp.zeros((self.mask.rows, self.X.shape[1]))
        device.move_mask(T, self._wide, self.mask.bits, -self._ones, g)
        return T

    def summed(self, V: Array) -> Array:
        """Return ``sum_r M_ri <V_r, x_i>``, (n,) float64."""
        return self.mask.device.mask_product(self.X, self.mask.bits, self._ones, V)

    def move(self, W: Array, weights: Array, g: Array) -> Array:
        """Apply ``w_r <- w_r - weights_r T_r`` in place; return how far each moved, (u,) float64."""
        return self.mask.device.move_mask(W, self.X, self.mask.bits, weights, g)

    @cached_property
    def _ones(self) -> Array:
        return self.mask.device.xp.ones(self.mask.rows)

    @cached_property
    def _wide(self) -> Array:
        return self.X.astype(np.float64)
