"""The certified lazy index: candidates found once, exact products every step, refreshes only where needed.

**What it keeps.**  For every neuron r the points whose pre-activation was above ``b - margin_r`` when they were last
looked at, and the drift ``D_r``: the sum of the distances that the stored row w_r has moved since.

**Certificate.**  Let p~ be the computed number of a pair at its last look, p the one that a full recomputation would
give now, w~ and w the stored rows.  A computed number differs from the exact inner product by at most
``gamma ||x|| ||w||``, ``gamma = (d + 1) eps`` (a sum of d rounded products; Higham, *Accuracy and Stability of
Numerical Algorithms*, section 3.1, with Cauchy-Schwarz), and ``||w - w~|| <= D_r``.  Hence

    p <= p~ + ||x|| D_r + gamma ||x|| (||w|| + ||w~||) <= p~ + reach_r,   reach_r = ||x||_max (D_r + 2 gamma w_max)

with ``w_max`` an upper bound of all row norms.  If ``reach_r <= margin_r`` and p > b then p~ > b - margin_r, so the
pair is a candidate: testing the candidates alone finds exactly the pairs that a scan of all n m numbers would find.
A neuron whose reach passes its margin is looked at afresh, on all points, before the next query.  The limit
``b - margin_r`` is rounded down, distances are measured on the stored rows in float64, so rounding cannot open a gap.

**Why there is no tree here.**  In a lazy index every computed number is compared once and forgotten.  Comparing it as
it is computed costs less than the maxima above it would; memory is O(m d + candidates) instead of O(m n).  The tree
remains the faithful path (``margin=0``), where the same leaves are queried again and again.

**Who never comes back.**  A neuron that fires on no point at the start never moves
(:mod:`gpu_sublinear.index.first_look`) and has no list from the beginning; one whose list runs empty later does not
fire, so it does not move either and is forgotten.  Each step's work follows the neurons that have candidates.  With a
ridge penalty the second half is false: a row that fires no more is drawn back to its initial value, where it did fire.
Then (``keep_empty``) neurons with empty lists stay, their drift counts whatever moved them, and the certificate looks
at them afresh like at all others. The first half stays true: without data gradient and at its initial value, a row
outside U_0 has penalty gradient zero.

**Taking a step back.**  :meth:`LazyIndex.mark` keeps lists, drift and margins as they are after a query; they are
replaced, not changed, by what follows.  Restoring them together with the same rows restores a state in which the
certificate held, so nothing has to be proved or counted as drift.

**Points that arrive later** (:meth:`LazyIndex.extend`).  The certificate speaks of one pair at a time, so the pairs of
earlier points keep theirs.  A pair of a new point is looked at now, where its row has drifted ``D_r`` already.  Until
the row is looked at afresh the sum of all its movement D' satisfies ``||x||_max (D' + 2 gamma w_max) <= margin_r``, and
what it moves from now on is D' - D_r; so the number of the new pair can rise by at most

    ||x||_max (D' - D_r + 2 gamma w_max) <= margin_r - ||x||_max D_r,

and the pairs above ``b - (margin_r - ||x||_max D_r)`` are all that can fire before then: with them on its list the row
is certified on all points by the margin and drift that it has.  A row whose reach passes its margin because the new
points have a larger norm, or are computed with a larger w_max, is looked at afresh, on all points.  So is a row without
a list that fires on a new point: drawn now, or forgotten before and not moved since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..devices import Array, Device, NeuronLists
from ..errors import DeviceMemoryError, OptionError
from ..model.network import ShiftedReluNetwork
from ..options import check_margin
from .active_set import ActiveSet
from .first_look import lower_limit, survey
from .lists import appended, restricted, united, without_empty
from .newcomers import Newcomers
from .protocol import PlainIndex

FIRST_MARGIN = 0.1  # before any movement is known: a third more candidates at b = 2.5, rows that move less stay put
NEXT_MARGIN = 0.3  # of the row's last movement: enough for all later steps if each is at most a third of the last
RIDGE_MARGIN = 4.0  # the same with a ridge penalty, where steps shrink slowly: 0.3 looks at nearly all rows every step
SMALLEST_MARGIN = 1e-3  # far above rounding, far below any spacing of pre-activations that would cost candidates
LARGEST_MARGIN = 0.5  # rows that move further are looked at again for less than their candidates would cost
WORTH_DROPPING = 0.3  # of the candidates: a smaller gain does not pay for one pass over their products
NORM_ROWS = 1 << 16  # rows squared at a time for w_max


@dataclass
class LazyIndex(PlainIndex):
    """Candidate lists over stale pre-activations, with the certificate of the module docstring.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    X : Array
        (n, d) points.
    network : ShiftedReluNetwork
        Its rows are read at every query.
    fixed_margin : float or None
        The margin of all rows, or None to choose each from the row's own movement.
    candidates : NeuronLists
        The pairs to look at.
    drift, margin : Array
        (c,) float64 for each neuron of ``candidates``.
    memory_limit : int or None
        Bytes that the candidates and their products may take.
    refreshed : int
        Rows looked at afresh in the last update.
    keep_empty : bool
        Whether rows move that do not fire, so that an empty list may fill again.
    """

    device: Device
    X: Array
    network: ShiftedReluNetwork
    fixed_margin: float | None
    candidates: NeuronLists
    drift: Array
    margin: Array
    point_max: float
    row_max: float
    memory_limit: int | None = None
    refreshed: int = 0
    keep_empty: bool = False
    _places: Array = field(default=None, repr=False)
    _fired: Array = field(default=None, repr=False)
    _fired_pairs: int = 0

    @classmethod
    def build(
        cls,
        device: Device,
        X: Array,
        network: ShiftedReluNetwork,
        margin: float | str = "auto",
        memory_limit: int | None = None,
    ) -> LazyIndex:
        """Look at all neurons once, in blocks whose numbers are forgotten: O(n m d) operations, no n m array.

        Parameters
        ----------
        device : Device
            Owner of X and the network.
        X : Array
            (n, d) points of the network's dtype.
        network : ShiftedReluNetwork
            Weights and shift.
        margin : float or "auto"
            A margin > 0 for all rows, or chosen for each row from what it moved last.
        memory_limit : int, optional
            Bytes that candidates and their products may take.

        Returns
        -------
        LazyIndex
            Ready for queries.
        """
        fixed = None if margin == "auto" else check_margin(margin)
        first = FIRST_MARGIN if fixed is None else fixed
        candidates = survey(network, X, first)
        point_max = _largest_row(X)
        drift, margins = device.xp.zeros(len(candidates.neurons)), device.xp.full(len(candidates.neurons), first)
        row_max = _largest_row(network.rows)
        index = cls(device, X, network, fixed, candidates, drift, margins, point_max, row_max, memory_limit)
        index._check_memory()
        return index

    @classmethod
    def over_rows(
        cls,
        device: Device,
        X: Array,
        network: ShiftedReluNetwork,
        margin: float | str,
        memory_limit: int | None,
        keep_empty: bool,
    ) -> LazyIndex:
        """Do the same, but look at the rows that the network holds alone: for a run that goes on."""
        xp, fixed = device.xp, None if margin == "auto" else check_margin(margin)
        lists = NeuronLists(xp.zeros(0, np.int32), xp.zeros(1, np.int64), xp.zeros(0, np.int32))
        norms = _largest_row(X), _largest_row(network.rows)
        index = cls(device, X, network, fixed, lists, xp.zeros(0), xp.zeros(0), *norms, memory_limit)
        index.keep_empty = keep_empty
        index._admit(xp.arange(len(network.rows), dtype=np.int32))
        index._drop_empty()
        index._check_memory()
        return index

    def expect_any_row(self) -> None:
        """Keep neurons with empty lists."""
        self.keep_empty = True

    def limit_memory(self, nbytes: int | None) -> None:
        """Let candidates and their products take at most so many bytes."""
        self.memory_limit = nbytes

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> LazyIndex:
        """Return an index of its own for a network with the same rows, over X (k, d), the points ``chosen`` of this."""
        lists = self.candidates
        lists = lists if chosen is None else restricted(lists, chosen, len(self.X), network)
        own = replace(self, X=X, network=network, candidates=lists)
        own.drift, own.margin = own.drift.copy(), own.margin.copy()
        return own

    def query(self, shift: float) -> ActiveSet:
        """Return all pairs with ``P_ir > shift``, exactly those that a full recomputation would find.

        Parameters
        ----------
        shift : float
            The network's shift: the certificate holds for no other threshold.

        Returns
        -------
        ActiveSet
            The fired pairs.

        Raises
        ------
        OptionError
            If ``shift`` is another one.
        """
        if shift != self.network.shift:
            raise OptionError(f"this index was built for the shift {self.network.shift}; got {shift}")
        fired, self._places, indptr, compact, values = self.device.evaluate(
            self.X, self.network.rows, self.candidates, shift
        )
        self._fired, self._fired_pairs = fired.neurons, fired.nnz
        return ActiveSet(indptr, compact, values, fired, self.candidates.nnz)

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Add what rows moved (u,) to their drift; refresh those past their margin.

        Parameters
        ----------
        W : Array
            (r, d) all rows held.
        neurons : Array
            (u,) int32, ascending: neurons that have a list; fastest where they are those of the last query, itself.
        moved : Array
            (u,) float64.
        """
        self._update(self._places_of(neurons, len(W)), moved)

    def _places_of(self, neurons: Array, rows: int) -> Array | None:
        """Return the places (u,) of these neurons, which have lists, among the lists; None for all of them."""
        listed = self.candidates.neurons
        if neurons is self._fired:
            return self._places
        if len(neurons) == len(listed):
            return None
        if len(listed) == rows:  # then each has the place of its number
            return neurons.astype(np.int64)
        return self.device.xp.searchsorted(listed, neurons)

    def mark(self) -> tuple[Any, ...]:
        """Return what :meth:`restore` needs; arrays are replaced, never changed, by later updates."""
        fired = self._places, self._fired, self._fired_pairs
        return self.candidates, self.drift, self.margin, self.row_max, *fired

    def restore(self, mark: tuple[Any, ...], W: Array, changed: Array) -> None:
        """Come back to ``mark``; W holds the same rows again."""
        self.candidates, self.drift, self.margin, self.row_max, *fired = mark
        self._places, self._fired, self._fired_pairs = fired

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Newcomers | None = None) -> LazyIndex:
        """Return the index over the points of this one followed by X; this one is of no use any more.

        Parameters
        ----------
        network : ShiftedReluNetwork
            The index's own; gets the rows that fire on the new points alone.
        X : Array
            (k, d) new points of the network's dtype.  They alone are scanned, O(k m d); rows that join, on all points.
        newcomers : Newcomers, optional
            What the look at the new points found, where another index has looked already.

        Returns
        -------
        LazyIndex
            Ready for queries, which find what those of a fresh index over all points would.
        """
        came = newcomers or Newcomers.welcome(network, X)
        neurons = came.places[self.candidates.neurons]
        index = replace(
            self,
            X=self.device.xp.concatenate([self.X, X]),
            candidates=NeuronLists(neurons, self.candidates.indptr, self.candidates.points),
            drift=self.drift.copy(),
            margin=self.margin.copy(),
            point_max=max(self.point_max, _largest_row(X)),
            row_max=max(self.row_max, _largest_row(network.rows)),
            _places=None,
            _fired=None,
        )
        if len(X):
            index._see(X)
        index._admit(came.without(self.device, neurons))
        index._check_memory()
        return index

    def afresh(self, network: ShiftedReluNetwork, X: Array) -> LazyIndex:
        """Return an index over other points X (k, d) with lists for the same rows, by a look at them."""
        xp, rows = self.device.xp, self.candidates.neurons
        margin = xp.full(len(rows), FIRST_MARGIN if self.fixed_margin is None else self.fixed_margin)
        index = replace(self, X=X, network=network, drift=xp.zeros(len(rows)), margin=margin, _places=None, _fired=None)
        index.point_max, index.row_max = _largest_row(X), _largest_row(self.network.rows)
        index.candidates = NeuronLists(rows, *index._look(rows, margin))
        return index

    def parts(self, points: Sequence[Array]) -> list[LazyIndex]:
        """Return an index for each of these sets of its points (k,) int64, with all its rows in each."""
        xp, lists, n = self.device.xp, self.candidates, len(self.X)
        block_of, number = xp.zeros(n, np.int32), xp.zeros(n, np.int32)
        for block, chosen in enumerate(points):
            block_of[chosen] = block
            number[chosen] = xp.arange(len(chosen), dtype=np.int32)
        blocks = block_of[lists.points]  # (nnz,)
        order = xp.argsort(blocks, kind="stable")
        ends = xp.searchsorted(blocks[order], xp.arange(len(points) + 1))
        parts = []
        for block, chosen in enumerate(points):
            pairs = order[int(ends[block]) : int(ends[block + 1])]  # by neuron, ascending points
            indptr = xp.searchsorted(pairs, lists.indptr).astype(np.int64)
            own = NeuronLists(lists.neurons, indptr, number[lists.points[pairs]])
            copies = {"drift": self.drift.copy(), "margin": self.margin.copy()}
            parts.append(replace(self, X=self.X[chosen], candidates=own, keep_empty=True, **copies))
        return parts

    def _see(self, X: Array) -> None:
        """Append the new points X, the last of ``self.X``, to the lists where their pairs may fire."""
        xp, lists = self.device.xp, self.candidates
        late = self._reach(self.drift) > self.margin
        limits = lower_limit(self.network, self.margin - self.point_max * self.drift)
        limits[late] = np.inf  # looked at below
        indptr, points = self.device.scan(X, self.network.rows, lists.neurons, limits)
        first = np.int32(len(self.X) - len(X))
        self.candidates = appended(self.device, lists, indptr, points + first)
        places = xp.flatnonzero(late)
        if len(places):
            self._refresh(places, self.drift[places])

    def _admit(self, rows: Array) -> None:
        """Give these rows (j,), which have none, lists of their own."""
        if not len(rows):
            return
        xp = self.device.xp
        margin = xp.full(len(rows), FIRST_MARGIN if self.fixed_margin is None else self.fixed_margin)
        found = NeuronLists(rows, *self._look(rows, margin))
        self.candidates, order = united(self.device, self.candidates, found)
        self.drift = xp.concatenate([self.drift, xp.zeros(len(rows))])[order]
        self.margin = xp.concatenate([self.margin, margin])[order]

    def _update(self, places: Array | None, moved: Array) -> None:
        """Do what :meth:`update` says for the neurons at these places (u,), or for all."""
        self.refreshed = 0
        if not len(moved):
            return
        xp, where = self.device.xp, slice(None) if places is None else places
        self.drift, self.margin = self.drift.copy(), self.margin.copy()  # a mark may hold the old ones
        self.drift[where] += moved
        self.row_max += float(moved.max())
        slack = self._reach(self.drift[where])
        xp.subtract(self.margin[where], slack, out=slack)  # (u,)
        late = xp.flatnonzero(slack < 0)
        self.refreshed = len(late)
        if self.fixed_margin is None:
            self._tighten(places, slack, self._next_margin(moved))
        if len(late):
            self._refresh(late if places is None else places[late], moved[late])
        self._drop_empty()
        self._check_memory()

    def _tighten(self, places: Array | None, slack: Array, wanted: Array) -> None:
        """Drop candidates that a smaller margin no longer needs, where that drops a good part of all.

        A pair that is no candidate is at most ``b - margin_r + reach_r`` now.  So a list with the margin ``wanted``
        <= margin_r - reach_r, counted from now, needs only products of the candidates to be made.
        """
        xp, where = self.device.xp, slice(None) if places is None else places
        gain = (slack - wanted).clip(0, None)
        dropped = float((gain / self.margin[where]).mean()) * (self.candidates.nnz - self._fired_pairs)
        if dropped < WORTH_DROPPING * self.candidates.nnz:
            return
        loose = xp.flatnonzero(gain > 0)
        limits = xp.full(len(self.candidates.neurons), -np.inf, dtype=self.network.dtype)
        places = loose if places is None else places[loose]
        limits[places] = lower_limit(self.network, wanted[loose])
        self.drift[places], self.margin[places] = 0.0, wanted[loose]
        self.candidates = self.device.rescan(self.X, self.network.rows, self.candidates, limits)

    def _reach(self, drift: Array) -> Array:
        """Return how far a computed number can have risen since it was last looked at."""
        reach = drift * (self.point_max * (1 + 1e-12))
        reach += self.point_max * 2 * self._gamma * self.row_max
        return reach

    @property
    def _gamma(self) -> float:
        return (self.X.shape[1] + 1) * float(np.finfo(self.network.dtype).eps)

    def _next_margin(self, moved: Array) -> Array:
        """Return the margins of rows that are looked at now and moved this far last."""
        smallest = max(SMALLEST_MARGIN, 8 * self.point_max * self._gamma * self.row_max)
        if self.fixed_margin is None:
            part = RIDGE_MARGIN if self.keep_empty else NEXT_MARGIN
            return (part * self.point_max * moved).clip(smallest, max(smallest, LARGEST_MARGIN))
        return self.device.xp.full(len(moved), max(self.fixed_margin, smallest))

    def _refresh(self, places: Array, moved: Array) -> None:
        """Look at these rows on all points again and replace their candidates."""
        margin = self._next_margin(moved)
        indptr, points = self._look(self.candidates.neurons[places], margin)
        self.drift[places], self.margin[places] = 0.0, margin
        self.candidates = self.device.splice(self.candidates, places, indptr, points)

    def _drop_empty(self) -> None:
        """Forget neurons without candidates, unless they can come back."""
        if self.keep_empty:
            return
        lists = self.candidates
        listed = self.device.xp.flatnonzero(lists.indptr[1:] > lists.indptr[:-1])
        if len(listed) < len(lists.neurons):
            self.drift, self.margin = self.drift[listed], self.margin[listed]
            self.candidates = without_empty(self.device, lists)

    def _look(self, neurons: Array, margins: Array) -> tuple[Array, Array]:
        """Return the points above ``b - margin`` for each of the neurons."""
        return self.device.scan(self.X, self.network.rows, neurons, lower_limit(self.network, margins))

    def _check_memory(self) -> None:
        """Refuse to go on when the next query would need more than the limit."""
        needed = candidate_bytes(self.device, self.candidates.nnz, len(self.candidates.neurons), self.network.dtype)
        if self.memory_limit is not None and needed > self.memory_limit:
            raise DeviceMemoryError(
                f"{self.candidates.nnz:,} candidate pairs and their products take {needed:,} bytes, more than the "
                f"{self.memory_limit:,} that the memory limit leaves; raise --memory-limit or the shift"
            )


def candidate_bytes(device: Device, pairs: int, neurons: int, dtype: str) -> int:
    """Return the peak bytes of a query over ``pairs`` candidates of ``neurons`` rows, all of which may fire."""
    size = np.dtype(dtype).itemsize
    candidates = 4 + 4 + size  # points, their copy while lists are spliced, products
    fired = 4 + 4 + size + device.sort_bytes  # by neuron and by point
    return pairs * (candidates + fired) + neurons * 8 * 8  # eight numbers for each row


def _largest_row(W: Array) -> float:
    """Return an upper bound of the Euclidean norms of the rows of W."""
    blocks = (W[first : first + NORM_ROWS].astype(np.float64) for first in range(0, len(W), NORM_ROWS))
    return max((float((block * block).sum(axis=1).max()) for block in blocks), default=0.0) ** 0.5 * (1 + 1e-12)
