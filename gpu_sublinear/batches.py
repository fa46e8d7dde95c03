"""Gauss-Newton on batches: every step solves the small system of one block of points and moves the rows for it.

Follows Cai et al., "Gram-Gauss-Newton Method" (arXiv 1905.11675), with one index over all points
(:mod:`gpu_sublinear.blocks`) instead of a Jacobian made anew.  With J_B the rows of J that belong to the batch,

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
new best one, go back to the best weights and damp; a damped epoch that does not lower the loss is taken back and damped
more, one that does is followed by one damped less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from .active_set import ActiveSet
from .bits import BitMask
from .blocks import Blocks
from .damping import ENOUGH, StepControl
from .devices import Array
from .flips import FlipMask
from .gram import GramMatrix
from .history import PhaseClock
from .network import all_finite
from .run import Run
from .solvers import Solution
from .state import Attempt, State
from .sums import norm, row_distances

FIRST = 0.1  # of tr(G)/n, once epochs of full steps failed: above most of the spectrum's tail, below its bulk
RELAXED = 0.1  # of the damping, after an epoch that lowered the loss: damped epochs are slow, so try to leave them
GROWTH = 4.0  # of the damping, after an epoch that was taken back
SMALLEST = 1e-6  # below this an epoch is one of full steps in all but name


class EpochControl(StepControl):
    """Accepts and rejects epochs; what an epoch promises is not known, so damping goes by trial."""

    def accepts(self, attempt: Attempt, trial: State, step: int) -> bool:
        """Judge an epoch from ``source`` to ``trial``."""
        if self.always:
            self.source = trial
            return True
        if self.watches:
            return self._accepts_watched(FIRST, trial, step)
        if not trial.objective < (1 - ENOUGH) * self.source.objective or not math.isfinite(trial.objective):
            self.damping *= GROWTH
            return False
        self.damping *= RELAXED
        if self.damping < SMALLEST:
            self.damping, self.watches, self.failures, self.halved = 0.0, True, 0, 0.0
        self._keep(trial, step)
        return True


@dataclass(frozen=True)
class Firing:
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
    """A run whose move is an epoch, one step on every block, and whose look evaluates all points, block by block."""

    @property
    def blocks(self) -> Blocks:
        """The index."""
        return cast(Blocks, self.index)

    def control(self) -> StepControl:
        """Return what judges the epochs of one training."""
        return EpochControl(self.trainer.damping, self.trainer.watchdog)

    def look(self) -> State:
        """Evaluate the network on all points."""
        network, xp = self.network, self.network.device.xp
        clock, residual = PhaseClock(network.device), xp.empty_like(self.y)
        counts, visited, union = xp.zeros(len(self.X), np.int64), 0, _Union(self)
        for number in range(len(self.blocks.parts)):
            run = self._on(number, clock)
            state = run.look()
            clock.absorb(state.clock)
            points = self.blocks.points[number]
            residual[points], counts[points] = state.residual, state.active.counts
            visited += state.active.visited
            assert not isinstance(state.active, FlipMask)  # check_batches
            union.add(state.active)
        size = norm(residual)
        state = State(cast(Any, Firing(counts, union.size(), visited)), residual, size, 0.0, clock)
        if self.trainer.damping != "none":
            state.rows = network.rows.copy()
        return state

    def move(self, state: State, damping: float, step: int) -> Attempt:
        """Take one step on every block, in the order of this epoch."""
        blocks, before = self.blocks, self.blocks.travelled.copy()
        blocks.refreshed, largest = 0, 0.0
        reasons: list[str] = []
        for place, number in enumerate(blocks.order(step)):
            run = self._on(int(number), state.clock)
            there = run.look()
            solution = run.move(there, damping, step * len(blocks.parts) + place).solution
            state.clock.absorb(there.clock)
            largest, reasons = max(largest, solution.residual), [*reasons, solution.reason]
        common = max(sorted(set(reasons)), key=reasons.count)
        reason = f"{common}, in {reasons.count(common)} of {len(reasons)} batches"
        moved = int((blocks.travelled > before).sum())
        return Attempt(Solution(None, len(reasons), largest, reason), damping, 0.0, 0.0, moved=moved)

    def restore(self, state: State) -> None:
        """Bring the weights back to ``state``; the blocks hear of it as of any movement, unless that has no length."""
        rows, xp = self.network.rows, self.network.device.xp
        moved = row_distances(rows, state.rows)  # (u,)
        rows[...] = state.rows
        if all_finite(moved):
            self.blocks.update_any(rows, xp.arange(len(rows)), moved)
        else:  # rows overflowed: no bound on what their lists hold
            self.index = cast(Any, self.blocks.afresh())

    def _on(self, number: int, clock: PhaseClock) -> Run:
        """Return the run of one block, where it stands."""
        with clock("update"):
            visit = self.blocks.visit(number)
        solver = "gram" if self.trainer.solver == "auto" else self.trainer.solver
        trainer = replace(self.trainer, damping="none", batch_size=None, solver=solver)
        weights = self.weights.part(visit.points)
        gram = GramMatrix(self.network.device, weights.scaled(visit.X), self.network.width)
        y = self.y[visit.points]
        return Run(trainer, self.network, visit.X, y, self.signs, cast(Any, visit), gram, weights=weights)


class _Union:
    """Counts the rows that fire on some point of some block."""

    def __init__(self, run: Run):
        self.device = run.network.device
        self.fires = self.device.xp.zeros(len(run.network.rows), bool)
        self.words: Array = None

    def add(self, active: ActiveSet | BitMask) -> None:
        """Add those of one block."""
        if not isinstance(active, BitMask):
            self.fires[active.neurons] = True
            return
        words = active.bits
        while words.shape[1] > 1:  # or of all points, by halves
            half = (words.shape[1] + 1) // 2
            folded = words[:, :half].copy()
            folded[:, : words.shape[1] - half] |= words[:, half:]
            words = folded
        self.words = words if self.words is None else self.words | words

    def size(self) -> int:
        """Return their number."""
        if self.words is None:
            return int(self.fires.sum())
        return int(self.device.mask_sizes(self.device.xp.ascontiguousarray(self.words))[0][0])
