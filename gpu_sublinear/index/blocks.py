"""One index cut into blocks of points, so that a step on a batch looks at the batch's pairs alone.

**What it keeps.**  The points are dealt into blocks once, at random; a batch is a block, and every epoch visits the
blocks in a new order.  Candidates are lists by neuron, and a list restricted to a batch of freshly drawn points would
have to be read whole; so every block has an index of its own over its points: a lazy index, threshold trees, or packed
masks.  The rows, and who is held, are shared; the first look at all neurons is one for all points.

**Rows move between visits.**  A step on one block moves rows that the other blocks must hear of, and telling all of
them would cost every step the number of blocks.  Instead the blocks share one number for each row, the length of the
path it has ``travelled`` since the beginning, and each remembers that number from its last visit.  When a block is
visited next, the difference bounds how far the row has moved since, and the block does what any index does when rows
move: it adds to the drift, and looks at rows past their margin again, on its own points.  The certificate of
:mod:`gpu_sublinear.index.lazy` then holds for the block by the triangle inequality.  The difference of two sums is off
by their rounding, which is added.

**Who never comes back.**  A row without candidates in one block may be moved by another and fire here later, so blocks
forget no row (``keep_empty``).  Rows that fire on no point of any block at the start never move, as ever.

**Price.**  A visit costs the block's candidates and two passes over the rows held, u; so an epoch costs the candidates
and ``u n / B``, and memory is ``40 u n / B`` bytes on top of the candidates.  With blocks so small that a row has less
than about one candidate in each, that is the larger part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..devices import Array, Device, philox
from ..model.network import ShiftedReluNetwork
from .newcomers import Newcomers
from .protocol import Index, Mask, PlainIndex

ROUNDING = 4 * float(np.finfo(np.float64).eps)  # of a difference of two lengths of a path, relative to the longer one


@dataclass
class Blocks(PlainIndex):
    """Blocks of points with an index each, of any kind.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    network : ShiftedReluNetwork
        Its rows are read at every query.
    X : Array
        (n, d) all points.
    points : list of Array
        (k,) int64, ascending: the numbers of each block's points.
    indices : list of Index
        Of each block.
    size : int
        Most points in a block.
    travelled : Array
        (u,) float64, how far each row held has moved in all.
    visited : list of Array
        (u,) float64, ``travelled`` when each block was visited last.
    refreshed : int
        Rows looked at afresh in visits since this was set to 0.
    """

    device: Device
    network: ShiftedReluNetwork
    X: Array
    points: list[Array]
    indices: list[Index]
    size: int
    travelled: Array
    visited: list[Array]
    refreshed: int = 0

    def __post_init__(self) -> None:
        self.kind = self.indices[0].kind

    @classmethod
    def deal(
        cls, network: ShiftedReluNetwork, X: Array, size: int, parted: Callable[[list[Array]], Sequence[Index]]
    ) -> Blocks:
        """Deal the points into blocks.

        Parameters
        ----------
        network : ShiftedReluNetwork
            Holds the rows that take part.
        X : Array
            (n, d) points.
        size : int
            Most points in a block.
        parted : callable
            Takes the points of all blocks, by number, and returns an index for each; called once.

        Returns
        -------
        Blocks
            Ready for visits, which have seen the rows as they are now.
        """
        device = network.device
        points = [device.asarray(block) for block in dealt(len(X), size, network.seed, 0)]
        indices: list[Index] = [*parted(points)]
        travelled = device.xp.zeros(len(network.rows))  # (u,)
        return cls(device, network, X, points, indices, size, travelled, [travelled.copy() for _ in points])

    def order(self, epoch: int) -> np.ndarray:
        """Return the order in which this epoch visits the blocks: a permutation keyed by (seed, epoch)."""
        return permutation(len(self.indices), self.network.seed, philox.BATCH_ORDER, epoch)

    def visit(self, number: int) -> Visit:
        """Tell block ``number`` how far rows have moved since its last visit, and return it."""
        moved = self.travelled - self.visited[number]  # (u,)
        neurons = self.device.xp.flatnonzero(moved).astype(np.int32)
        if len(neurons):
            index = self.indices[number]
            index.update(self.network.rows, neurons, moved[neurons] + ROUNDING * self.travelled[neurons])
            self.refreshed += index.refreshed
            self.visited[number] = self.travelled.copy()
        return Visit(self, number)

    def query(self, shift: float) -> Mask:
        """Refuse: blocks are visited, one after the other."""
        raise NotImplementedError("blocks of points are queried one by one: visit(number).query(shift)")

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note that these rows (j,) were moved by ``moved``; a row that moved has a longer path, however little."""
        xp, before = self.device.xp, self.travelled[neurons]  # (j,)
        further = xp.maximum(before + moved, xp.nextafter(before, np.inf))
        self.travelled[neurons] = xp.where(moved == 0, before, further)

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Newcomers | None = None) -> Blocks:
        """Return the blocks of this index followed by blocks of the new points X (k, d); the old ones stay as dealt."""
        came, xp, n = newcomers or Newcomers.welcome(network, X), self.device.xp, len(self.X)
        indices = [index.extend(network, X[:0], came) for index in self.indices]
        new = [self.device.asarray(block) for block in dealt(len(X), self.size, network.seed, n)]
        indices += [indices[0].afresh(network, X[block]) for block in new]
        travelled, visited = xp.zeros(came.rows), [xp.zeros(came.rows) for _ in indices]
        travelled[came.places] = self.travelled
        for after, before in zip(visited, self.visited, strict=False):
            after[came.places] = before
        for after in visited[len(self.indices) :]:
            after[...] = travelled
        everything = {"X": xp.concatenate([self.X, X]), "points": self.points + [block + n for block in new]}
        return replace(self, indices=indices, travelled=travelled, visited=visited, **everything)

    def at(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> Index:
        """Return an index for one look at some of its points, by a look at the rows held."""
        return self.indices[0].afresh(network, X)

    def look_again(self) -> None:
        """Make all indices anew, for rows whose path cannot be measured."""
        like = self.indices[0]
        self.indices = [like.afresh(self.network, self.X[block]) for block in self.points]
        self.travelled = self.device.xp.zeros(len(self.network.rows))  # (u,)
        self.visited = [self.travelled.copy() for _ in self.points]


@dataclass
class Visit(PlainIndex):
    """One block, as the index of a step on it.

    Attributes
    ----------
    blocks : Blocks
        All of them.
    number : int
        Which one.
    """

    blocks: Blocks
    number: int

    def __post_init__(self) -> None:
        self.network, self.X = self.blocks.network, self.blocks.indices[self.number].X

    @property
    def points(self) -> Array:
        """(k,) int64 numbers of its points."""
        return self.blocks.points[self.number]

    def query(self, shift: float) -> Mask:
        """Return the pairs of the block that fire."""
        return self.blocks.indices[self.number].query(shift)

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note what the rows moved; every block, this one too, hears of it when it is visited next."""
        self.blocks.update(W, neurons, moved)


def permutation(n: int, seed: int, purpose: int, draw: int) -> np.ndarray:
    """Return a random order of 0 .. n - 1 (n,) int64 that depends on (seed, purpose, draw) alone."""
    words = philox.philox4x32((np.arange(n), 0, draw, purpose), seed)
    return np.argsort(words[0] << np.uint64(32) | words[1], kind="stable")


def dealt(n: int, size: int, seed: int, draw: int) -> list[np.ndarray]:
    """Return 0 .. n - 1 dealt into blocks of at most ``size`` numbers, as equal as can be, each ascending."""
    order = permutation(n, seed, philox.BATCHES, draw)
    return [np.sort(block) for block in np.array_split(order, -(-n // size))]
