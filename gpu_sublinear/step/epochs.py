"""Gauss-Newton on batches: every step solves the small system of one block of points and moves the rows for it.

Follows Cai et al., "Gram-Gauss-Newton Method" (arXiv 1905.11675), with one index over all points
(:mod:`gpu_sublinear.index.blocks`) instead of a Jacobian made anew.  With J_B the rows of J that belong to the batch,

    W <- W - J_B^T g,      (J_B J_B^T + mu I) g = f_B - y_B,

a system of B x B: no matrix of n x n is ever made.

**What converges.**  While the mask holds still a full step (mu = 0) projects W onto the weights that fit the batch, and
visiting the blocks one after another is the block Kaczmarz method, that is block Gauss-Seidel on ``G g = f - y``: it
converges to the weights nearest to where it began whenever some weights fit all points, at a rate that depends on how
much the blocks' Jacobians overlap, and without any step size.  A smaller step, or a Levenberg term, only slows it down
(``python -m bench --only batches``); so full steps are the default here too.  What a batch gains the others lose in
part: where a full Gauss-Newton step squares the error, an epoch divides it by a number.

**Where it does not.**  Targets that contradict each other, or a mask that changes too much: then an epoch of full steps
ends above the best loss.  The rule is that of full steps, epoch by epoch: after ``watchdog`` epochs in a row without a
new best one, go back to the best weights and damp; a damped epoch that raises the loss is taken back and damped
more, one that lowers it at the first try is followed by one damped less.

**A ridge penalty.**  The minimum has ``W - W_0 = -J^T u``, ``u = (f - y) / lambda``: every block adds a share to the
movement, ``W - W_0 = sum_B D_B``.  A visit keeps the shares of the others and finds that of B anew: the penalised step
of :mod:`gpu_sublinear.step.run` with ``q_B = W - D_B``, where the weights would be without the block, for W_0,

    W <- W - theta D_B - J_B^T g,      (J_B J_B^T + kappa I) g = f_B - y_B - theta J_B D_B,      kappa = lambda + mu.

While the mask holds still and mu = 0 this is the ascent of the dual problem by blocks (Shalev-Shwartz, Zhang, *JMLR*
14, 2013), block Gauss-Seidel on ``(G + lambda I) u = f_0 - y``, which converges for every order and size of the blocks.
Where a run stands still, mask, damping or not, ``lambda D_B = -J_B^T (f_B - y_B)`` for each block with the present J,
and the sum of these is the condition of the minimum on all points.  The price is one copy of the rows for each block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..devices import Array
from ..devices.clock import PhaseClock
from ..devices.sums import norm, row_distances
from ..index.blocks import Blocks
from ..index.protocol import PlainMask
from ..linear.gram import GramMatrix
from ..linear.solvers import Solution
from ..model.network import all_finite
from .damping import ENOUGH, StepControl
from .run import Run
from .state import Attempt, State

FIRST_DAMPING = 0.1  # of tr(G)/n, once epochs of full steps failed: above most of the spectrum's tail, below its bulk
RELAXED = 0.25  # of the damping, after an epoch that lowered the loss at the first try
GROWTH = 4.0  # of the damping, after an epoch that was taken back
LEAST_EPOCH_DAMPING = 1e-6  # below this an epoch is one of full steps in all but name


class EpochControl(StepControl):
    """Accepts and rejects epochs; what an epoch promises is not known, so damping goes by trial."""

    def set_out(self, taken: int) -> bool:
        """Stay: epochs of full steps are tried again as soon as damping has become small."""
        return False

    def accepts(self, attempt: Attempt, trial: State, step: int) -> bool:
        """Judge an epoch from ``source`` to ``trial``."""
        if self.always:
            self.source = trial
            return True
        if self.watches:
            return self._accepts_watched(FIRST_DAMPING, trial, step)
        if not trial.objective <= (1 + ENOUGH) * self.source.objective:  # so that NaN is refused
            self.damping, self.failures = self.damping * GROWTH, 1
            return False
        if trial.objective < (1 - ENOUGH) * self.source.objective and not self.failures:
            self.damping *= RELAXED
        self.failures = 0
        if self.damping < LEAST_EPOCH_DAMPING:
            self.damping, self.watches, self.failures, self.halved = 0.0, True, 0, 0.0
        self._keep(trial, step)
        return True


@dataclass(frozen=True)
class Firing(PlainMask):
    """How many pairs fire, over all blocks: what is left of their active sets.

    Attributes
    ----------
    counts : Array
        (n,) neurons fired on each point.
    union : int
        Neurons that fire on at least one point.
    visited : int
        Numbers compared with the threshold.
    """

    counts: Array
    union: int
    visited: int

    @property
    def nnz(self) -> int:
        """Number of fired pairs."""
        return int(self.counts.sum())


@dataclass
class BatchRun(Run):
    """A run whose move is an epoch, one step on every block, and whose look evaluates all points, block by block.

    Attributes
    ----------
    shares : tuple of Array or None
        With a ridge penalty (u, d), how far each block has moved the rows; None before its first visit.
    """

    foresees = False  # the steps of an epoch begin where those before them ended

    def __post_init__(self) -> None:
        self.shares = self.shares or (None,) * len(self.blocks.indices)

    def who_fires(self) -> Any:
        """Return how many pairs fire; the first look of a training need not be taken again."""
        self.here = self.look()
        return self.here.active

    def went_back(self, neurons: Array, moved: Array) -> None:
        """Do the same; the shares, any that add up will do, add up to the movement again."""
        super().went_back(neurons, moved)
        if self.shares[0] is not None:
            missing = self.network.rows - self.initial - sum(self.shares)
            self.shares = (self.shares[0] + missing, *self.shares[1:])

    def extend(self, X: Array, y: Array, memory_limit: int | None) -> None:
        """Add points that arrive now, as blocks of their own."""
        network, held = self.network, self.network.neurons
        super().extend(X, y, memory_limit)
        places, shares = network.device.xp.searchsorted(network.neurons, held), list(self.shares)
        for number, share in enumerate(shares):
            if share is not None:
                shares[number] = network.device.xp.zeros_like(network.rows)
                shares[number][places] = share
        self.shares = (*shares, *(None,) * (len(self.blocks.indices) - len(shares)))

    @property
    def blocks(self) -> Blocks:
        """The index."""
        return cast(Blocks, self.index)

    def control(self) -> StepControl:
        """Return what judges the epochs of one training."""
        return EpochControl(self.options.damping, self.options.watchdog)

    def look(self) -> State:
        """Evaluate the network on all points."""
        network, xp = self.network, self.network.device.xp
        here = self.here
        self.measure()
        if here is not None:
            return replace(here, clock=PhaseClock(network.device))
        clock, residual = PhaseClock(network.device), xp.empty_like(self.problem.y)
        counts, visited = xp.zeros(len(self.problem), np.int64), 0
        fires = xp.zeros(len(network.rows), bool)
        for number, points in enumerate(self.blocks.points):
            state = self._on(number, clock).look()
            clock.absorb(state.clock)
            residual[points], counts[points] = state.residual, state.active.counts
            visited += state.active.visited
            fires |= state.active.fires(network.device, len(fires))
        size, penalty = norm(residual), 0.5 * self.ridge * self.square
        firing = cast(Any, Firing(counts, int(fires.sum()), visited))
        state = State(firing, residual, size, penalty, clock, self.index.kind, square=self.square, shares=self.shares)
        if self.options.damping != "none" or self.ridge:
            state.rows = network.rows if self.ridge else network.rows.copy()
        return state

    def move(self, state: State, damping: float, step: int) -> Attempt:
        """Take one step on every block, in the order of this epoch."""
        blocks, before = self.blocks, self.blocks.travelled.copy()
        blocks.refreshed, largest = 0, 0.0
        reasons: list[str] = []
        for place, number in enumerate(blocks.order(step)):
            run = self._on(int(number), state.clock)
            there = run.look()
            draw = step * len(blocks.indices) + place
            if self.ridge:
                solution = self._renew(run, there, int(number), damping, draw)
            else:
                solution = run.move(there, damping, draw).solution
            state.clock.absorb(there.clock)
            largest, reasons = max(largest, solution.residual), [*reasons, solution.reason]
        common = max(sorted(set(reasons)), key=reasons.count)
        reason = f"{common}, in {reasons.count(common)} of {len(reasons)} batches"
        moved = int((blocks.travelled > before).sum())
        return Attempt(Solution(None, len(reasons), largest, reason), damping, 0.0, 0.0, moved=moved)

    def _renew(self, run: Run, there: State, number: int, damping: float, draw: int) -> Solution:
        """Take the step of a block with a penalty: new rows, so that W_0 and the states to come back to stay."""
        W, share = self.network.rows, self.shares[number]
        run.initial, run.ridge = W if share is None else W - share, self.ridge
        proposal = run.propose(there, damping, draw)
        with there.clock("update"):
            run.rows.apply(run, there, proposal)  # not move: what it measures is the distance from q_B
            step = self.network.rows - W
            share = step if share is None else share + step
            self.shares = (*self.shares[:number], share, *self.shares[number + 1 :])
        return proposal.solution

    def restore(self, state: State) -> None:
        """Bring the weights back to ``state``; the blocks hear of it as of any movement, unless that has no length."""
        rows, xp = self.network.rows, self.network.device.xp
        moved = row_distances(rows, state.rows)  # (u,)
        if self.ridge:
            self.network.rows, self.shares = state.rows, state.shares
        else:
            rows[...] = state.rows
        rows = self.network.rows
        if all_finite(moved):
            self.blocks.update(rows, xp.arange(len(rows)), moved)
        else:  # rows overflowed: no bound on what their lists hold
            self.blocks.look_again()

    def _on(self, number: int, clock: PhaseClock) -> Run:
        """Return the run of one block, where it stands."""
        with clock("update"):
            visit = self.blocks.visit(number)
        solver = "gram" if self.options.solver == "auto" else self.options.solver
        options = replace(self.options, damping="none", batch_size=None, solver=solver)
        problem = self.problem.part(visit.points)
        gram = GramMatrix(self.network.device, problem.scaled, self.network.width)
        return Run(options, self.network, problem, gram, index=visit)

    def captured(self, best: State | None) -> dict[str, Any]:
        """Return what other runs keep, and the shares, stacked (blocks, u, d)."""
        shares = {"shares": self._stacked(self.shares), "best_shares": self._stacked(best.shares if best else ())}
        return super().captured(best) | shares

    def _stacked(self, shares: tuple[Array, ...]) -> Array:
        """Return shares as one array; None before the first epoch."""
        return None if not shares or shares[0] is None else self.network.device.xp.stack(shares)
