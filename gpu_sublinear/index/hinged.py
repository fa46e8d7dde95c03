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

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..devices import Array, Device
from ..devices.sums import row_distances
from ..errors import OptionError
from ..linear.gram import GramMatrix
from ..linear.jacobian import FactoredJacobian, Products, SparseJacobian
from ..model.activation import SHIFTED_RELU, Activation
from ..model.network import ShiftedReluNetwork
from ..options import Options
from .active_set import ActiveSet
from .lazy import LazyIndex
from .protocol import Index
from .tree import ThresholdTree

SLOPE_ROWS = 1 << 14  # rows taken to float64 at a time


def check_activation(trainer: Options, network: ShiftedReluNetwork) -> None:
    """Refuse options that the network's activation does not go with.

    Parameters
    ----------
    trainer : Options
        The options.
    network : ShiftedReluNetwork
        What is to be trained.

    Raises
    ------
    OptionError
        Naming the activation and the option.
    """
    activation = network.activation
    if not activation.plain and trainer.mask not in ("auto", "lists"):
        raise OptionError(
            f"mask={trainer.mask!r} is for the activations relu and max; use mask='auto' or 'lists' "
            f"with {activation.name}"
        )
    if not activation.plain and trainer.batch_size:
        raise OptionError(
            f"batch_size={trainer.batch_size} is for the activations relu and max; got activation={activation.name!r}: "
            "train on all points at once"
        )
    if activation.slope and trainer.solver == "sketch-cg":
        raise OptionError(
            f"solver='sketch-cg' hashes fired neurons, and with the activation {activation.name}, whose slope is "
            f"{activation.slope:g} everywhere, all neurons count; use solver 'auto', 'gram' or 'cg'"
        )


@dataclass(frozen=True)
class Fold:
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
class HingedSet(ActiveSet):
    """The fired pairs of the points that the hinges look at, read as those of the data.

    Attributes
    ----------
    activation : Activation
        Its hinges.
    line : Array or None
        (n,) float64, ``slope sum_r a_r <w_r, x_i>``; None without a slope.
    rows : int
        Rows held.
    """

    activation: Activation = field(default=SHIFTED_RELU)
    line: Array = None
    rows: int = 0

    @property
    def fold(self) -> Fold:
        """How pairs become those of the data."""
        hinges = self.activation.hinges
        return Fold(tuple(hinge.gain for hinge in hinges), (len(self.indptr) - 1) // len(hinges))

    @property
    def fired_counts(self) -> Array:
        """(k n,) pairs of every point that the hinges look at."""
        return self.indptr[1:] - self.indptr[:-1]

    @property
    def counts(self) -> Array:
        """(n,) number of neurons with a derivative on each point: fired ones, or all where there is a slope."""
        if self.line is not None:
            return 0 * self.fired_counts[: self.fold.n] + self.rows
        return sum(self.fold.parts(self.fired_counts))

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_r a_r phi(P_ir)`` without the constant, (n,) float64."""
        fold, total = self.fold, 0.0 if self.line is None else self.line
        offsets = [self.activation.offset(hinge, shift) for hinge in self.activation.hinges]
        sums = {offset: super(HingedSet, self).forward(device, signs, offset) for offset in set(offsets)}  # (k n,)
        for k, (gain, offset) in enumerate(zip(fold.gains, offsets, strict=True)):
            total = total + gain * fold.parts(sums[offset])[k]
        return total

    def jacobian(self, system: Any) -> HingedJacobian:
        """Return J of the data from that of the points looked at."""
        return HingedJacobian(system.of_lists(self), self.fold, self, system.network, system.weights.scaled(system.X))

    def folded(self, G: Array, K: Array, width: int) -> Array:
        """Return G (n, n) of the data from G~ (k n, k n)."""
        G, slope = self.fold.gram(G), self.activation.slope
        if slope:
            c, n = slope / width * hinge_slopes(self), self.fold.n  # (n,)
            G = G + K[:n, :n] * (slope**2 + (c[:, None] + c[None, :]))
        return G

    def mean_diagonal(self, squares: Array, total: float, width: int) -> float:
        """Return the mean of the diagonal of G; at most one hinge fires on a point."""
        slope = self.activation.slope
        shares = [part / width for part in self.fold.parts(self.fired_counts)]
        sums = slope**2 + 0.0 * squares
        for hinge, share in zip(self.activation.hinges, shares, strict=True):
            sums = sums + share * (2 * slope * hinge.gain * hinge.direction + hinge.gain**2)
        return float((squares * sums).sum()) / total


@dataclass
class HingedIndex(Index):
    """An index over the points that the hinges look at.

    Attributes
    ----------
    inner : LazyIndex or ThresholdTree
        Finds the pairs.
    network : ShiftedReluNetwork
        Its rows are read at every query.
    X : Array
        (n, d) points of the data.
    """

    inner: LazyIndex | ThresholdTree
    network: ShiftedReluNetwork
    X: Array

    def __post_init__(self) -> None:
        if self.network.activation.slope:
            self.expect_any_row()

    @property
    def refreshed(self) -> int:
        """Rows looked at afresh in the last update."""
        return self.inner.refreshed

    @property
    def kind(self) -> str:
        """The word for what finds the pairs."""
        return self.inner.kind

    def expect_any_row(self) -> None:
        """Tell what finds the pairs."""
        self.inner.expect_any_row()

    def query(self, shift: float) -> HingedSet:
        """Return who fires now, and what the line adds up to."""
        network, found = self.network, self.inner.query(shift)
        slope = network.activation.slope
        line = slope * _line(network, self.X) if slope else None
        parts = (found.indptr, found.compact, found.values, found.fired, found.visited)
        return HingedSet(*parts, network.activation, line, len(network.rows))

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note how far rows moved: those that fired, or all where there is a slope."""
        if self.network.activation.slope:
            self.inner.update_any(W, self.network.device.xp.arange(len(W), dtype=np.int32), moved)
        else:
            self.inner.update(W, neurons, moved)

    def update_any(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note how far any rows moved."""
        self.inner.update_any(W, neurons, moved)

    def mark(self) -> Any:
        """Return what :meth:`restore` needs."""
        return self.inner.mark()

    def restore(self, mark: Any, W: Array, neurons: Array) -> None:
        """Come back to ``mark``; W holds the same rows again."""
        self.inner.restore(mark, W, neurons)


def _line(network: ShiftedReluNetwork, X: Array) -> Array:
    """Return ``sum_r a_r <w_r, x_i>`` over all rows, (n,) float64."""
    signs, total = network.signs.astype(np.float64), network.device.xp.zeros(network.features)  # (u,), (d,)
    for first in range(0, len(network.rows), SLOPE_ROWS):
        rows = network.rows[first : first + SLOPE_ROWS].astype(np.float64)
        total += (signs[first : first + SLOPE_ROWS, None] * rows).sum(axis=0)
    return network.device.matmul(X.astype(np.float64), total)


@dataclass(frozen=True)
class HingedJacobian(Products):
    """J of the data from that of the points that the hinges look at.

    Attributes
    ----------
    inner : FactoredJacobian or SparseJacobian
        J~ (k n, u d).
    fold : Fold
        C.
    active : HingedSet
        Who fires.
    network : ShiftedReluNetwork
        Its signs and scale.
    X : Array
        (n, d) points of the data.
    """

    inner: FactoredJacobian | SparseJacobian
    fold: Fold
    active: HingedSet
    network: ShiftedReluNetwork
    X: Array

    @property
    def folding(self) -> Fold:
        """C."""
        return self.fold

    @property
    def entries(self) -> SparseJacobian | None:
        """Those of J~."""
        return self.inner.entries

    @property
    def points(self) -> int:
        """Number of rows, n."""
        return self.fold.n

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) float64, for the movement D of the rows from ``initial`` (u, d) to W."""
        along = self.fold.gather(self.inner.along(W, initial))
        slope = self.network.activation.slope
        if not slope:
            return along
        D = W.astype(np.float64) - initial
        total = (self.network.signs.astype(np.float64)[:, None] * D).sum(axis=0)  # (d,)
        return along + slope * self.network.scale * (self.X.astype(np.float64) @ total)

    def gram(self, g: Array) -> Array:
        """Return ``G g``, (n,)."""
        product = self.fold.gather(self.inner.gram(self.fold.spread(g, self.network.device.xp)))
        slope, width = self.network.activation.slope, self.network.width
        if not slope:
            return product
        c, X = slope / width * hinge_slopes(self.active), self.X.astype(np.float64)  # (n,), (n, d)
        matmul = self.network.device.matmul
        Kg = matmul(X, matmul(X.T, g))  # (n,)
        return product + slope**2 * Kg + c * Kg + matmul(X, matmul(X.T, c * g))

    def step(self, W: Array, g: Array) -> Array:
        """Apply ``W <- W - J^T g`` in place; return how far the fired rows moved, or all where there is a slope."""
        xp, network = self.network.device.xp, self.network
        long = self.fold.spread(g, xp)
        slope = network.activation.slope
        if not slope:
            return self.inner.step(W, long)
        before = W.copy()
        self.inner.step(W, long)
        common = slope * network.scale * network.device.matmul(self.X.astype(np.float64).T, g)  # (d,)
        moved = xp.zeros(len(W))  # (m,)
        for first in range(0, len(W), SLOPE_ROWS):
            rows = slice(first, first + SLOPE_ROWS)
            W[rows] = W[rows].astype(np.float64) - network.signs[rows].astype(np.float64)[:, None] * common
            moved[rows] = row_distances(W[rows], before[rows])
        return moved

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances, see :meth:`Device.pull_rows`."""
        xp, network = self.network.device.xp, self.network
        neurons, d = self.active.neurons, W.shape[1]
        change = self.inner.rmatvec(self.fold.spread(g, xp)).reshape(-1, d)  # (u, d)
        slope = network.activation.slope
        if slope:
            common = slope * network.scale * network.device.matmul(self.X.astype(np.float64).T, g)  # (d,)
            every = network.signs.astype(np.float64)[:, None] * common  # (m, d)
            every[neurons] += change
            neurons, change = xp.arange(len(W), dtype=np.int32), every
        return network.device.pull_rows(W, initial, neurons, change, theta)


def hinge_slopes(active: HingedSet) -> Array:
    """Return ``c_i``, what the hinges of all neurons add to the derivative on each point, (n,) float64."""
    slopes = [hinge.gain * hinge.direction for hinge in active.activation.hinges]
    parts = active.fold.parts(active.fired_counts)
    return sum(slope * part.astype(np.float64) for slope, part in zip(slopes, parts, strict=True))


def gram_of(network: ShiftedReluNetwork, X: Array) -> GramMatrix:
    """Return what computes G of the points X (n, d), weighted or not, for the network's activation."""
    return GramMatrix(network.device, network.activation.points(X, network.device.xp), network.width)
