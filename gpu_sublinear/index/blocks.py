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
:mod:`gpu_sublinear.index.lazy` then holds for the block by the triangle inequality.  The difference of two sums is off by
their rounding, which is added.

**Who never comes back.**  A row without candidates in one block may be moved by another and fire here later, so blocks
forget no row (``keep_empty``).  Rows that fire on no point of any block at the start never move, as ever.

**Price.**  A visit costs the block's candidates and two passes over the rows held, u; so an epoch costs the candidates
and ``u n / B``, and memory is ``40 u n / B`` bytes on top of the candidates.  With blocks so small that a row has less
than about one candidate in each, that is the larger part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..devices import Array, Device, NeuronLists, philox
from ..model.network import ShiftedReluNetwork
from ..model.shifts import firing_probability
from ..options import Options
from .active_set import ActiveSet
from .bits import BitIndex, BitMask
from .first_look import survey
from .lazy import LazyIndex
from .newcomers import Newcomers
from .protocol import Index
from .tree import ThresholdTree

Part = LazyIndex | ThresholdTree | BitIndex
ROUNDING = 4 * float(np.finfo(np.float64).eps)  # of a difference of two lengths of a path, relative to the longer one


@dataclass
class Blocks(Index):
    """Blocks of points with an index each.

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
    parts : list
        The index of each block.
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
    parts: list[Part]
    size: int
    travelled: Array
    visited: list[Array]
    refreshed: int = 0

    @classmethod
    def build(cls, trainer: Options, network: ShiftedReluNetwork, X: Array, memory_limit: int | None = None) -> Blocks:
        """Look at all neurons once and cut what was found.

        Parameters
        ----------
        trainer : Options
            Batch size, margin, mask and tree.
        network : ShiftedReluNetwork
            Will hold the rows that take part.
        X : Array
            (n, d) points.
        memory_limit : int, optional
            Bytes that candidates and their products may take.

        Returns
        -------
        Blocks
            Ready for visits.
        """
        device = network.device
        if trainer.margin == 0:
            survey(network, X, 0)
            return cls.deal(
                trainer, network, X, lambda block: ThresholdTree.build(device, block, network.rows, trainer.tree)
            )
        if trainer.packs(firing_probability(network.shift), network.outputs):
            BitIndex.build(device, X, network)
            return cls.deal(trainer, network, X, lambda block: BitIndex(device, block, network))
        whole = LazyIndex.build(device, X, network, trainer.margin, memory_limit)
        return cls.deal(trainer, network, X, whole)

    @classmethod
    def deal(
        cls, trainer: Options, network: ShiftedReluNetwork, X: Array, find: Callable[[Array], Part] | LazyIndex
    ) -> Blocks:
        """Deal the points and give each block its index: made over its points (k, d), or cut out of one over all.

        Parameters
        ----------
        trainer : Options
            Batch size.
        network : ShiftedReluNetwork
            Holds the rows that take part.
        X : Array
            (n, d) points.
        find : callable or LazyIndex
            Takes the points of a block; or what is cut.

        Returns
        -------
        Blocks
            Ready for visits, which have seen the rows as they are now.
        """
        device, size = network.device, trainer.batch_size or len(X)
        points = [device.asarray(block) for block in dealt(len(X), size, network.seed, 0)]
        parts: list[Part]
        parts = [*cut(find, points)] if isinstance(find, LazyIndex) else [find(X[block]) for block in points]
        travelled = device.xp.zeros(len(network.rows))  # (u,)
        return cls(device, network, X, points, parts, size, travelled, [travelled.copy() for _ in points])

    @property
    def kind(self) -> str:
        """The word for what finds the pairs."""
        return self.parts[0].kind

    def order(self, epoch: int) -> np.ndarray:
        """Return the order in which this epoch visits the blocks: a permutation keyed by (seed, epoch)."""
        return permutation(len(self.parts), self.network.seed, philox.BATCH_ORDER, epoch)

    def visit(self, number: int) -> Visit:
        """Tell block ``number`` how far rows have moved since its last visit, and return it."""
        moved = self.travelled - self.visited[number]  # (u,)
        neurons = self.device.xp.flatnonzero(moved).astype(np.int32)
        if len(neurons):
            part = self.parts[number]
            part.update_any(self.network.rows, neurons, moved[neurons] + ROUNDING * self.travelled[neurons])
            self.refreshed += part.refreshed
            self.visited[number] = self.travelled.copy()
        return Visit(self, number)

    def update_any(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note that these rows (j,) were moved by ``moved``; a row that moved has a longer path, however little."""
        xp, before = self.device.xp, self.travelled[neurons]  # (j,)
        further = xp.maximum(before + moved, xp.nextafter(before, np.inf))
        self.travelled[neurons] = xp.where(moved == 0, before, further)

    def extend(self, network: ShiftedReluNetwork, X: Array) -> Blocks:
        """Return the blocks of this index followed by blocks of the new points X (k, d); the old ones stay as dealt."""
        came, xp, n = Newcomers.welcome(network, X), self.device.xp, len(self.X)
        everywhere = xp.concatenate([self.X, X])
        nothing = X[:0]
        parts = [part.extend(network, nothing, came) for part in self.parts]
        new = [self.device.asarray(block) for block in dealt(len(X), self.size, network.seed, n)]
        parts += self._new_parts(parts[0], [X[block] for block in new])
        travelled, visited = xp.zeros(came.rows), [xp.zeros(came.rows) for _ in parts]
        travelled[came.places] = self.travelled
        for after, before in zip(visited, self.visited, strict=False):
            after[came.places] = before
        for after in visited[len(self.parts) :]:
            after[...] = travelled
        points = self.points + [block + n for block in new]
        return replace(self, X=everywhere, points=points, parts=parts, travelled=travelled, visited=visited)

    def at(self, network: ShiftedReluNetwork, X: Array, points: Any) -> Part:
        """Return an index for one look at some of its points."""
        return self.over(self.device.asarray(points))

    def over(self, points: Array) -> Part:
        """Return an index over these of its points (k,), by a look at the rows held."""
        return self._new_parts(self.parts[0], [self.X[points]])[0]

    def afresh(self) -> Blocks:
        """Return the same blocks with indices made anew, for rows whose path cannot be measured."""
        parts = self._new_parts(self.parts[0], [self.X[block] for block in self.points])
        travelled = self.device.xp.zeros(len(self.network.rows))  # (u,)
        return replace(self, parts=parts, travelled=travelled, visited=[travelled.copy() for _ in parts])

    def _new_parts(self, like: Part, points: list[Array]) -> list[Part]:
        """Return an index over each of these blocks of points, with the rows that ``like`` lists."""
        return [like.over(X, self.network) for X in points]


@dataclass
class Visit(Index):
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
    refreshed = 0

    @property
    def points(self) -> Array:
        """(k,) int64 numbers of its points."""
        return self.blocks.points[self.number]

    @property
    def X(self) -> Array:
        """(k, d) its points."""
        return self.blocks.parts[self.number].X

    def query(self, shift: float) -> ActiveSet | BitMask:
        """Return the pairs of the block that fire."""
        return self.blocks.parts[self.number].query(shift)

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note what the rows moved; every block, this one too, hears of it when it is visited next."""
        self.blocks.update_any(W, neurons, moved)

    update_any = update


def permutation(n: int, seed: int, purpose: int, draw: int) -> np.ndarray:
    """Return a random order of 0 .. n - 1 (n,) int64 that depends on (seed, purpose, draw) alone."""
    words = philox.philox4x32((np.arange(n), 0, draw, purpose), seed)
    return np.argsort(words[0] << np.uint64(32) | words[1], kind="stable")


def dealt(n: int, size: int, seed: int, draw: int) -> list[np.ndarray]:
    """Return 0 .. n - 1 dealt into blocks of at most ``size`` numbers, as equal as can be, each ascending."""
    order = permutation(n, seed, philox.BATCHES, draw)
    return [np.sort(block) for block in np.array_split(order, -(-n // size))]


def cut(whole: LazyIndex, points: list[Array]) -> list[LazyIndex]:
    """Return the index over all points as one for each block of ``points``, with all its rows in each."""
    xp, lists = whole.device.xp, whole.candidates
    block_of, number = xp.zeros(len(whole.X), np.int32), xp.zeros(len(whole.X), np.int32)
    for block, chosen in enumerate(points):
        block_of[chosen] = block
        number[chosen] = xp.arange(len(chosen), dtype=np.int32)
    blocks = block_of[lists.points]  # (nnz,)
    order = xp.argsort(blocks, kind="stable")
    ends = xp.searchsorted(blocks[order], xp.arange(len(points) + 1))
    parts = []
    for block, chosen in enumerate(points):
        pairs = order[int(ends[block]) : int(ends[block + 1])]  # by neuron, ascending points
        own = NeuronLists(
            lists.neurons,
            xp.searchsorted(pairs, lists.indptr).astype(np.int64),
            number[lists.points[pairs]],
        )
        part = replace(whole, X=whole.X[chosen], candidates=own, keep_empty=True)
        part.drift, part.margin = whole.drift.copy(), whole.margin.copy()
        parts.append(part)
    return parts
