"""What a run asks of what finds the fired pairs: index, mask and Jacobian.  Nobody asks which kind it is.

A step goes through the three in this order: an :class:`Index` is queried and returns a :class:`Mask`, who fires on
which point; the mask gives a :class:`Jacobian`; the Jacobian moves the rows and says how far, which the index hears.

To add an index, write one file with these three (``PlainIndex`` and ``PlainMask`` have the usual answers, and the
lists of :class:`gpu_sublinear.index.active_set.ActiveSet` come with Jacobians), and name it in
:data:`gpu_sublinear.training.prepare.KINDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..devices import Array, Device, NeuronLists
from ..devices.sums import row_distances
from ..errors import OptionError
from ..model.network import ShiftedReluNetwork


@dataclass
class PairCounts:
    """``M^T M`` of a mask, and the mask itself in the form in which the next one can start from it.

    Attributes
    ----------
    counts : Array
        (n, n) float64, whole numbers.
    lists, bits : optional
        The fired lists, or the packed mask, that were counted; a mask of another kind counts anew.
    recounted : bool
        Whether all pairs were counted.
    """

    counts: Array
    lists: NeuronLists | None = None
    bits: Array = None
    recounted: bool = True


class FiredPairs(Protocol):
    """Fired pairs as lists: what sketches, solvers and explicit Jacobians read.

    See :class:`gpu_sublinear.index.active_set.ActiveSet` for shapes.
    """

    @property
    def indptr(self) -> Array:
        """(n + 1,) int64: where each point's pairs begin."""

    @property
    def compact(self) -> Array:
        """(nnz,) int32: positions in ``fired.neurons``."""

    @property
    def values(self) -> Array:
        """(nnz,) the computed numbers above the threshold."""

    @property
    def fired(self) -> NeuronLists:
        """The pairs by neuron."""

    @property
    def pairs(self) -> float:
        """``sum_r |fire(r)|^2``."""

    @property
    def nnz(self) -> int:
        """Number of fired pairs."""

    @property
    def union(self) -> int:
        """Number of neurons that fire somewhere."""


class Fold(Protocol):
    """The matrix C from the points that the hinges of an activation look at to the points of the data."""

    def gather(self, long: Array) -> Array:
        """Return ``C long``: (k n, ...) to (n, ...)."""

    def spread(self, g: Array, xp: Any) -> Array:
        """Return ``C^T g``: (n,) to (k n,)."""

    def gram(self, long: Array) -> Array:
        """Return ``C G~ C^T``, (n, n)."""


class Products(Protocol):
    """Products with J, which conjugate gradients need."""

    @property
    def entries(self) -> Any:
        """J with its entries written, where it is."""

    def matvec(self, v: Array) -> Array:
        """Return ``J v``, (n,) or (n, c) float64, for v with the numbers of all rows that fire."""

    def rmatvec(self, g: Array) -> Array:
        """Return ``J^T g``, float64."""

    def gram(self, g: Array) -> Array:
        """Return ``G g = J (J^T g)``, of the shape of g."""


class MaskedPoints(Protocol):
    """The linear map of a mask on some points (n, d), given with one more coordinate or as they are.

    Both sums of a trained layer go through it; see :mod:`gpu_sublinear.linear.layers`.
    """

    @property
    def neurons(self) -> Array:
        """(u,) int32 ascending: the rows that have a derivative somewhere."""

    def gathered(self, g: Array) -> Array:
        """Return ``T_r = sum_i M_ri g_i x_i``, (u, d) float64, for g (n,)."""

    def summed(self, V: Array) -> Array:
        """Return ``sum_r M_ri <V_r, x_i>``, (n,) float64, for V (u, d)."""

    def move(self, W: Array, weights: Array, g: Array) -> Array:
        """Apply ``w_r <- w_r - weights_r T_r`` to the rows W in place; return how far each moved, (u,) float64."""


class Jacobian(Protocol):
    """J of the fired pairs of one place, as a sum of blocks, one for each layer that is trained: ``G = sum_l G_l``."""

    @property
    def products(self) -> Products | None:
        """Products with J; None where only the Gram matrix is at hand."""

    @property
    def gram_is_whole(self) -> bool:
        """Whether the Gram matrix of the mask is G, and no block of it."""

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Apply ``W <- W - J^T g`` in place; return the rows that may have moved (u,) int32, and how far each."""

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return new rows ``W - theta (W - W_0) - J^T g``, and how far each of all rows moved, (u,)."""

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) or (n, c) float64, for the movement D of the rows from ``initial`` to W."""


class Mask(Protocol):
    """Who fires on which point."""

    @property
    def counts(self) -> Array:
        """(n,) number of neurons fired on each point, k_i."""

    @property
    def union(self) -> int:
        """Number of neurons that fire on at least one point."""

    @property
    def moving(self) -> int:
        """Number of rows that a step moves."""

    @property
    def nnz(self) -> int:
        """Number of fired pairs."""

    @property
    def visited(self) -> int:
        """Numbers that were compared with the threshold to find them."""

    @property
    def lists(self) -> FiredPairs | None:
        """The pairs as lists, of the points looked at; None where they are not listed."""

    @property
    def folding(self) -> Fold | None:
        """From the points looked at to those of the data; None where they are the same."""

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) or (n, c) float64; signs (u,) or (u, c) of all rows held."""

    def pair_counts(self, device: Device, known: PairCounts | None) -> PairCounts:
        """Return ``M^T M``, exactly, from that of an earlier mask where few pairs differ."""

    def jacobian(self, system: Any) -> Jacobian:
        """Return J of these pairs; ``system`` is a :class:`gpu_sublinear.linear.system.LinearSystem`."""

    def folded(self, G: Array, K: Array, width: int) -> Array:
        """Return the Gram matrix of the data (n, n) from that of the points looked at."""

    def mean_diagonal(self, squares: Array, total: float, width: int) -> float:
        """Return ``sum_i G_ii`` over the total weight; ``squares`` (n,) are ``||x_i||^2``, weighted."""

    def masked(self, device: Device, X: Array) -> MaskedPoints:
        """Return the map of the mask on the points that it looks at, X (k n, d) of any d."""

    def fires(self, device: Device, rows: int) -> Array:
        """Return whether each of the rows held fires somewhere, (rows,) bool."""


class PlainMask:
    """The answers of a mask whose points are those of the data."""

    folding: Fold | None = None
    counts: Any
    union: Any

    @property
    def moving(self) -> int:
        """Number of rows that a step moves: those that fire."""
        return self.union

    def folded(self, G: Array, K: Array, width: int) -> Array:
        """Return G itself."""
        return G

    def mean_diagonal(self, squares: Array, total: float, width: int) -> float:
        """Return ``sum_i ||x_i||^2 k_i / m`` over the total weight."""
        return float((squares * self.counts).sum()) / total / width


class Index(Protocol):
    """What finds the fired pairs of a run's points, whatever its rows did."""

    @property
    def kind(self) -> str:
        """What finds the pairs, its word in options and checkpoints."""

    @property
    def owns_rows(self) -> bool:
        """Whether the weights are its own, and the network's rows are written when somebody asks."""

    @property
    def refreshed(self) -> int:
        """Rows looked at afresh in the last update."""

    @property
    def X(self) -> Array:
        """(n, d) points."""

    def query(self, shift: float) -> Mask:
        """Return all pairs with ``P_ir > shift``, exactly those that a full recomputation would find."""

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Hear that these rows (u,) int32 ascending, of W, were moved this far (u,) float64."""

    def mark(self) -> Any:
        """Return what :meth:`restore` needs to come back here, after a query; later updates do not change it."""

    def restore(self, mark: Any, W: Array, changed: Array) -> None:
        """Come back to where :meth:`mark` was called: W holds the same rows again, and those ``changed`` went back."""

    def expect_any_row(self) -> None:
        """From now on rows may move that do not fire."""

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> Index:
        """Return an index of its own for a network with the same rows, over X (k, d), the points ``chosen`` of this."""

    def afresh(self, network: ShiftedReluNetwork, X: Array) -> Index:
        """Return an index over other points X (k, d) by a look at the rows that take part."""

    def at(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> Index:
        """Return an index for one look at some of its points, by number; X (k, d) are these."""

    def beside(self, network: ShiftedReluNetwork, scan: Index, X: Array, chosen: np.ndarray) -> Beside:
        """Return what a run's network says at points that nobody trains on; ``scan`` found who fires on them, too."""

    def follower(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> Index:
        """Return an index as :meth:`again` does, for points that are looked at only."""

    def parts(self, points: Sequence[Array]) -> Sequence[Index]:
        """Return an index for each of these sets of its points (k,) int64, which hears of rows that do not fire."""

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Any = None) -> Index:
        """Return the index over its points followed by X (k, d); this one is of no use any more.

        ``newcomers`` is what the look at the new points found
        (:class:`gpu_sublinear.index.newcomers.Newcomers`), where another index has looked already.
        """

    def limit_memory(self, nbytes: int | None) -> None:
        """Hold at most so many bytes of lists from now on."""


class Beside(Protocol):
    """The outputs of a network in training at points that nobody trains on."""

    def outputs(self) -> Array:
        """Return the outputs now, (k,) or (k, c) float64."""


class PlainIndex:
    """The usual answers of an index: rows are stored by the network, and nothing is kept of any pair."""

    kind = "lists"  # its word in options and checkpoints
    owns_rows = False  # whether the weights are its own
    refreshed = 0  # rows looked at afresh in the last update
    X: Array
    network: ShiftedReluNetwork

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Do nothing: the next query looks anew."""

    def mark(self) -> Any:
        """Return nothing: the rows are enough."""
        return None

    def restore(self, mark: Any, W: Array, changed: Array) -> None:
        """Do nothing: the rows are enough."""

    def expect_any_row(self) -> None:
        """Do nothing: any row may move."""

    def limit_memory(self, nbytes: int | None) -> None:
        """Do nothing: what is held does not grow."""

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> Any:
        """Return an index of its own over X (k, d)."""
        raise NotImplementedError(f"{type(self).__name__}.again")

    def afresh(self, network: ShiftedReluNetwork, X: Array) -> Any:
        """Return an index over other points: :meth:`again`, where nothing is kept of any pair."""
        return self.again(network, X)

    def parts(self, points: Sequence[Array]) -> list[Any]:
        """Return an index of its own for each of these sets of points (k,) int64."""
        return [self.afresh(self.network, self.X[chosen]) for chosen in points]

    def at(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> Any:
        """Return an index for one look: :meth:`again`."""
        return self.again(network, X, chosen)

    def follower(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> Any:
        """Return an index for looks alone: :meth:`again`."""
        return self.again(network, X, chosen)

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Any = None) -> Any:
        """Refuse."""
        raise OptionError(f"points cannot be added to a training whose pairs are found by {self.kind}")

    def beside(self, network: ShiftedReluNetwork, scan: Index, X: Array, chosen: np.ndarray) -> Beside:
        """Return an index over the other points, which follows the rows of the network."""
        return Following(network, scan.follower(network, X, chosen))


class Following:
    """An index over points that nobody trains on, which follows the rows of a network.

    Parameters
    ----------
    network : ShiftedReluNetwork
        In training.
    index : Index
        Over the points.
    """

    def __init__(self, network: ShiftedReluNetwork, index: Index):
        self.network, self.index, self.rows = network, index, network.rows
        index.expect_any_row()

    def outputs(self) -> Array:
        """Return the outputs now, (k,) or (k, c) float64."""
        network = self.network
        if network.rows is not self.rows:
            moved = row_distances(network.rows, self.rows)
            neurons = network.device.xp.flatnonzero(moved).astype(np.int32)
            self.index.update(network.rows, neurons, moved[neurons])
        self.rows = network.rows
        return forward(network, self.index.query(network.shift))


def forward(network: ShiftedReluNetwork, active: Mask) -> Array:
    """Return the outputs on the training points from the active set alone, (n,) or (n, c) float64."""
    return active.forward(network.device, network.signs, network.shift) * network.scale
