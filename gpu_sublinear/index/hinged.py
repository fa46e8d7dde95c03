r"""Training with other activations: shifted-ReLU networks at the points x and -x, combined.

**Hinges.**  With the points ``X~ = [X; -X]`` that the hinges look at (:meth:`Activation.points`) and the matrix
``C = [gain_1 I, gain_2 I]``, outputs, Jacobian and Gram matrix of the network are those of today's engine, folded:

    f = C f~,        J = C J~,        J^T g = J~^T (C^T g),        G = C G~ C^T,

because the hinge of direction -1 at x is the one of direction +1 at -x.  Lists, trees, certificate and kernels see the
k n points of X~ and nothing else.  A jump adds ``jump b`` to every number above the shift, so it changes what the
forward sum subtracts; the derivative of the step itself is not seen by a Gauss-Newton step.

**Slope.**  A line ``slope z`` gives every neuron the derivative ``h_ri = slope + c_ri``, ``c_ri`` being what the hinges
add.  With ``a_r^2 = 1`` and ``c_i = sum_r c_ri``,

    G = (X X^T) o sum_r h_ri h_rj / m = C G~ C^T + (X X^T) o (slope^2 + slope (c_i + c_j) / m),
    G g = C G~ C^T g + slope^2 K g + slope/m (c o (K g) + K (c o g)),                           K = X X^T,

and every row moves by ``-slope m^{-1/2} a_r X^T g`` besides.  So all m rows are held and have lists, empty or not, the
index is told how far each moved (neurons that fire nowhere may wake up), and a step costs O(m d) at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..devices import Array, Device
from ..devices.sums import row_distances
from ..errors import OptionError
from ..model.activation import Activation
from ..model.network import ShiftedReluNetwork
from .protocol import FiredPairs, Fold, Index, Jacobian, Mask, MaskedPoints, PairCounts, Products
from .wrapper import Wrapper

SLOPE_ROWS = 1 << 14  # rows taken to float64 at a time


@dataclass(frozen=True)
class HingeFold:
    """The matrix C: from the points that the hinges look at to the points of the data.

    Attributes
    ----------
    gains : tuple of float
        One for each hinge.
    n : int
        Points of the data.
    """

    gains: tuple[float, ...]
    n: int

    def parts(self, long: Array) -> list[Array]:
        """Return the part of each hinge of an array of k n rows."""
        return [long[k * self.n : (k + 1) * self.n] for k in range(len(self.gains))]

    def gather(self, long: Array) -> Array:
        """Return ``C long``: (k n, ...) to (n, ...)."""
        return sum(gain * part for gain, part in zip(self.gains, self.parts(long), strict=True))

    def spread(self, g: Array, xp: Any) -> Array:
        """Return ``C^T g``: (n,) to (k n,)."""
        return xp.concatenate([gain * g for gain in self.gains])

    def gram(self, long: Array) -> Array:
        """Return ``C G~ C^T``, exactly symmetric if G~ (k n, k n) is."""
        blocks = [self.parts(rows.T) for rows in self.parts(long)]  # blocks[k][l]: columns of l, rows of k, transposed
        total = self.gains[0] ** 2 * blocks[0][0]
        for k in range(1, len(self.gains)):
            total = total + self.gains[k] ** 2 * blocks[k][k]
            for j in range(k):
                total = total + self.gains[k] * self.gains[j] * (blocks[k][j] + blocks[k][j].T)
        return total


@dataclass(frozen=True)
class HingedMask:
    """The fired pairs of the points that the hinges look at, read as those of the data.

    Attributes
    ----------
    inner : Mask
        Of the k n points that the hinges look at.
    activation : Activation
        Its hinges.
    line : Array or None
        (n,) float64, ``slope sum_r a_r <w_r, x_i>``; None without a slope.
    rows, features : int
        Rows held, and d.
    """

    inner: Mask
    activation: Activation
    line: Array
    rows: int
    features: int

    @property
    def fold(self) -> HingeFold:
        """How pairs become those of the data."""
        hinges = self.activation.hinges
        return HingeFold(tuple(hinge.gain for hinge in hinges), len(self.inner.counts) // len(hinges))

    @property
    def folding(self) -> Fold:
        """C."""
        return self.fold

    @property
    def lists(self) -> FiredPairs | None:
        """The pairs of the points looked at."""
        return self.inner.lists

    @property
    def counts(self) -> Array:
        """(n,) number of neurons with a derivative on each point: fired ones, or all where there is a slope."""
        if self.line is not None:
            return 0 * self.inner.counts[: self.fold.n] + self.rows
        return sum(self.fold.parts(self.inner.counts))

    @property
    def union(self) -> int:
        """Number of neurons that fire on at least one point looked at."""
        return self.inner.union

    @property
    def moving(self) -> int:
        """Number of rows that a step moves: those that fire, or all where there is a slope."""
        return self.inner.moving if self.line is None else self.rows

    @property
    def nnz(self) -> int:
        """Number of fired pairs of the points looked at."""
        return self.inner.nnz

    @property
    def visited(self) -> int:
        """Numbers compared with the threshold."""
        return self.inner.visited

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_r a_r phi(P_ir)`` without the constant, (n,) float64."""
        fold, total = self.fold, 0.0 if self.line is None else self.line
        offsets = [self.activation.offset(hinge, shift) for hinge in self.activation.hinges]
        sums = {offset: self.inner.forward(device, signs, offset) for offset in set(offsets)}  # (k n,)
        for k, (gain, offset) in enumerate(zip(fold.gains, offsets, strict=True)):
            total = total + gain * fold.parts(sums[offset])[k]
        return total

    def pair_counts(self, device: Device, known: PairCounts | None) -> PairCounts:
        """Return ``M^T M`` of the points looked at."""
        return self.inner.pair_counts(device, known)

    def jacobian(self, system: Any) -> Jacobian:
        """Return J of the data from that of the points looked at."""
        inner = self.inner.jacobian(system)
        return HingedJacobian(inner, self, system.network, system.problem.scaled)

    def folded(self, G: Array, K: Array, width: int) -> Array:
        """Return G (n, n) of the data from G~ (k n, k n)."""
        G, slope = self.fold.gram(G), self.activation.slope
        if slope:
            c, n = slope / width * self.slopes, self.fold.n  # (n,)
            G = G + K[:n, :n] * (slope**2 + (c[:, None] + c[None, :]))
        return G

    def mean_diagonal(self, squares: Array, total: float, width: int) -> float:
        """Return the mean of the diagonal of G; at most one hinge fires on a point."""
        slope = self.activation.slope
        shares = [part / width for part in self.fold.parts(self.inner.counts)]
        sums = slope**2 + 0.0 * squares
        for hinge, share in zip(self.activation.hinges, shares, strict=True):
            sums = sums + share * (2 * slope * hinge.gain * hinge.direction + hinge.gain**2)
        return float((squares * sums).sum()) / total

    def masked(self, device: Device, X: Array) -> MaskedPoints:
        """Return the map of the derivatives on the points looked at, X (k n, d), in the order of the hinges."""
        return HingedPoints(self.inner.masked(device, X), self, device, X)

    def fires(self, device: Device, rows: int) -> Array:
        """Return whether each of the rows held fires somewhere, (rows,) bool."""
        return self.inner.fires(device, rows)

    @property
    def slopes(self) -> Array:
        """(n,) float64 ``c_i``: what the hinges of all neurons add to the derivative on each point."""
        slopes = [hinge.gain * hinge.direction for hinge in self.activation.hinges]
        parts = self.fold.parts(self.inner.counts)
        return sum(slope * part.astype(np.float64) for slope, part in zip(slopes, parts, strict=True))


@dataclass
class HingedIndex(Wrapper):
    """Any index over the points that the hinges look at.

    Attributes
    ----------
    inner : Index
        Finds their pairs.
    network : ShiftedReluNetwork
        Its rows are read at every query.
    X : Array
        (n, d) points of the data.
    """

    inner: Index
    network: ShiftedReluNetwork
    X: Array

    def __post_init__(self) -> None:
        if self.network.activation.slope:
            self.expect_any_row()

    def query(self, shift: float) -> HingedMask:
        """Return who fires now, and what the line adds up to."""
        network, found = self.network, self.inner.query(shift)
        slope = network.activation.slope
        line = slope * _line(network, self.X) if slope else None
        return HingedMask(found, network.activation, line, *network.rows.shape)

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> HingedIndex:
        """Return an index of its own over X (k, d), the points ``chosen`` of this."""
        every = None if chosen is None else self._looked_at(chosen)
        return HingedIndex(self.inner.again(network, self._points(network, X), every), network, X)

    def afresh(self, network: ShiftedReluNetwork, X: Array) -> HingedIndex:
        """Return an index over other points X (k, d) by a look at the rows that take part."""
        return HingedIndex(self.inner.afresh(network, self._points(network, X)), network, X)

    def at(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> HingedIndex:
        """Return an index for one look at some of its points."""
        inner = self.inner.at(network, self._points(network, X), self._looked_at(chosen))
        return HingedIndex(inner, network, X)

    def follower(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> HingedIndex:
        """Return an index for looks alone."""
        return self.again(network, X, chosen)

    def parts(self, points: Sequence[Array]) -> list[HingedIndex]:
        """Return an index for each of these sets of its points."""
        n, hinges, xp = len(self.X), len(self.network.activation.hinges), self.network.device.xp
        every = [xp.concatenate([chosen + k * n for k in range(hinges)]) for chosen in points]
        inner = self.inner.parts(every)
        return [HingedIndex(index, self.network, self.X[chosen]) for index, chosen in zip(inner, points, strict=True)]

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Any = None) -> HingedIndex:
        """Refuse: the points that the hinges look at are in the order of the hinges."""
        raise OptionError(f"points cannot be added to a training with the activation {network.activation.name}")

    def _points(self, network: ShiftedReluNetwork, X: Array) -> Array:
        return network.activation.points(X, network.device.xp)

    def _looked_at(self, chosen: np.ndarray) -> np.ndarray:
        """Return the numbers of the points that the hinges look at, of these points of the data."""
        n, hinges = len(self.X), len(self.network.activation.hinges)
        return np.concatenate([np.asarray(chosen) + k * n for k in range(hinges)])


def _line(network: ShiftedReluNetwork, X: Array) -> Array:
    """Return ``sum_r a_r <w_r, x_i>`` over all rows, (n,) float64."""
    signs, total = network.signs.astype(np.float64), network.device.xp.zeros(network.features)  # (u,), (d,)
    for first in range(0, len(network.rows), SLOPE_ROWS):
        rows = network.rows[first : first + SLOPE_ROWS].astype(np.float64)
        total += (signs[first : first + SLOPE_ROWS, None] * rows).sum(axis=0)
    return network.device.matmul(X.astype(np.float64), total)


@dataclass(frozen=True)
class HingedPoints:
    """The map of all derivatives on the points looked at, ``T = T~ C^T + slope X^T``: see ``MaskedPoints``.

    Attributes
    ----------
    inner : MaskedPoints
        T~ of the k n points looked at.
    mask : HingedMask
        C, and the slope.
    device : Device
        Owner of the arrays.
    X : Array
        (k n, d) the points looked at; with a last coordinate that is no feature where ``d`` is above the network's.
    """

    inner: MaskedPoints
    mask: HingedMask
    device: Device
    X: Array

    @property
    def neurons(self) -> Array:
        """(u,) int32: those that fire, or all where there is a slope."""
        if not self.mask.activation.slope:
            return self.inner.neurons
        return self.device.xp.arange(self.mask.rows, dtype=np.int32)

    def gathered(self, g: Array) -> Array:
        """Return ``sum_i h_ri g_i x_i``, (u, d) float64."""
        T = self.inner.gathered(self.mask.fold.spread(g, self.device.xp))
        if not self.mask.activation.slope:
            return T
        everywhere = self.device.xp.zeros((self.mask.rows, T.shape[1])) + self.device.matmul(self._line.T, g)
        everywhere[self.inner.neurons] += T
        return everywhere

    def summed(self, V: Array) -> Array:
        """Return ``sum_r h_ri <V_r, x_i>``, (n,) float64."""
        if not self.mask.activation.slope:
            return self.mask.fold.gather(self.inner.summed(V))
        fired = self.device.xp.ascontiguousarray(V[self.inner.neurons])
        return self.mask.fold.gather(self.inner.summed(fired)) + self.device.matmul(self._line, V.sum(axis=0))

    def move(self, W: Array, weights: Array, g: Array) -> Array:
        """Apply ``w_r <- w_r - weights_r T_r`` in place, without a slope; return how far each moved, (u,) float64."""
        assert not self.mask.activation.slope  # then rows move that do not fire
        return self.inner.move(W, weights, self.mask.fold.spread(g, self.device.xp))

    @property
    def _line(self) -> Array:
        """(n, d) float64: slope times the points of the data, nothing at a last coordinate that is no feature."""
        first = self.mask.activation.hinges[0]
        line = self.mask.activation.slope * first.direction * self.X[: self.mask.fold.n].astype(np.float64)
        line[:, self.mask.features :] = 0.0
        return line


@dataclass(frozen=True)
class HingedJacobian:
    """J of the data from that of the points that the hinges look at.

    Attributes
    ----------
    inner : Jacobian
        J~ (k n, u d), with products.
    active : HingedMask
        Who fires.
    network : ShiftedReluNetwork
        Its signs and scale.
    X : Array
        (n, d) points of the data, weighted.
    """

    gram_is_whole = True

    inner: Jacobian
    active: HingedMask
    network: ShiftedReluNetwork
    X: Array

    @property
    def products(self) -> Products | None:
        """Itself, where J~ has products."""
        return self if self.inner.products else None

    @property
    def _fold(self) -> HingeFold:
        return self.active.fold

    @property
    def entries(self) -> Any:
        """Those of J~."""
        return self._inner.entries

    @property
    def _inner(self) -> Products:
        """Products with J~."""
        assert self.inner.products is not None  # asked for where they are
        return self.inner.products

    def matvec(self, v: Array) -> Array:
        """Return ``J v``, (n,), for v (u d,) of the neurons that fire, or of all where there is a slope."""
        V, slope = v.reshape(-1, self.X.shape[1]), self.network.activation.slope
        if not slope:
            return self._fold.gather(self._inner.matvec(v))
        fired = V[self._fired].ravel()
        return self._fold.gather(self._inner.matvec(fired)) + self._along_line(V)

    def rmatvec(self, g: Array) -> Array:
        """Return ``J^T g``, float64, of the neurons that fire, or of all where there is a slope."""
        change = self._inner.rmatvec(self._fold.spread(g, self.network.device.xp))  # (u d,)
        if not self.network.activation.slope:
            return change
        every = self.network.signs.astype(np.float64)[:, None] * self._common(g)  # (m, d)
        every[self._fired] += change.reshape(-1, self.X.shape[1])
        return every.ravel()

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) float64, for the movement D of the rows from ``initial`` (u, d) to W."""
        along = self._fold.gather(self.inner.along(W, initial))
        if not self.network.activation.slope:
            return along
        return along + self._along_line(W.astype(np.float64) - initial)

    def gram(self, g: Array) -> Array:
        """Return ``G g``, (n,)."""
        product = self._fold.gather(self._inner.gram(self._fold.spread(g, self.network.device.xp)))
        slope, width = self.network.activation.slope, self.network.width
        if not slope:
            return product
        c, X = slope / width * self.active.slopes, self.X.astype(np.float64)  # (n,), (n, d)
        matmul = self.network.device.matmul
        Kg = matmul(X, matmul(X.T, g))  # (n,)
        return product + slope**2 * Kg + c * Kg + matmul(X, matmul(X.T, c * g))

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Apply ``W <- W - J^T g`` in place; return the fired rows and how far they moved, or all with a slope."""
        xp, network = self.network.device.xp, self.network
        long = self._fold.spread(g, xp)
        if not network.activation.slope:
            return self.inner.step(W, long)
        before = W.copy()
        self.inner.step(W, long)
        common, moved = self._common(g), xp.zeros(len(W))  # (d,), (m,)
        for first in range(0, len(W), SLOPE_ROWS):
            rows = slice(first, first + SLOPE_ROWS)
            W[rows] = W[rows].astype(np.float64) - network.signs[rows].astype(np.float64)[:, None] * common
            moved[rows] = row_distances(W[rows], before[rows])
        return xp.arange(len(W), dtype=np.int32), moved

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances, see :meth:`Device.pull_rows`."""
        xp, slope = self.network.device.xp, self.network.activation.slope
        if self.products is None:
            return self.inner.pull(W, initial, self._fold.spread(g, xp), theta)
        neurons = xp.arange(len(W), dtype=np.int32) if slope else self._fired
        change = self.rmatvec(g).reshape(-1, W.shape[1])  # (u, d)
        return self.network.device.pull_rows(W, initial, neurons, change, theta)

    @property
    def _fired(self) -> Array:
        """(u,) int32: the neurons that fire."""
        assert self.active.lists is not None  # products are made from lists
        return self.active.lists.fired.neurons

    def _common(self, g: Array) -> Array:
        """Return ``slope m^{-1/2} X^T g``, (d,): how a neuron of sign +1 moves by its line."""
        network = self.network
        return network.activation.slope * network.scale * network.device.matmul(self.X.astype(np.float64).T, g)

    def _along_line(self, D: Array) -> Array:
        """Return what the lines of all rows add to ``J D``, (n,), for D (m, d) float64."""
        network = self.network
        total = (network.signs.astype(np.float64)[:, None] * D).sum(axis=0)  # (d,)
        return network.activation.slope * network.scale * (self.X.astype(np.float64) @ total)
