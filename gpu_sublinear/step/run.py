"""One training run: the data, what finds the fired pairs, and the two things that are done over and over.

``look`` evaluates the network where it stands, ``move`` takes a step from there, ``restore`` undoes it.  A step
minimises the linearised objective with Levenberg's term (Levenberg 1944, Marquardt 1963),

    1/2 ||r + J s||^2 + lambda/2 ||D + s||^2 + mu/2 ||s||^2,      r = f - y,  D = W - W_0,

whose minimiser is, with ``kappa = lambda + mu`` and ``theta = lambda / kappa`` (0 where both are 0),

    s = -theta D - J^T g,      (G + kappa I) g = r - theta J D,      G = J J^T.

``mu = 0`` is the exact step of ridge regression on the linearised network, ``W <- W_0 - J^T g``: the weights stay
implicit.  ``lambda = mu = 0`` is the full Gauss-Newton step.  Both are given in units of ``tr(G) / n``: mu of the
present G, lambda of the first one, so that the objective does not change in a run.

**Implicit weights with the penalty.**  D is never stored: W and W_0 are, and a full step is ``W_0 - J^T g`` of one g
(n,), whatever the earlier steps were.  The system needs ``J D``, one product over the fired pairs; the objective after
the step follows from g alone, ``||D + s||^2 = ||(1 - theta) D||^2 - 2 (1 - theta) <g, J D> + <g, G g>`` with ``G g``
from the system, so a step that promises less than the tolerance is never taken.  Applying it is one pass over the rows
held (:meth:`Device.pull_rows`) that makes new rows and measures what each moved; W_0 and every
state to come back to are older arrays that nobody changes.

Sample weights w_i replace ``||r||^2`` by ``sum_i w_i r_i^2``: with ``S = diag(sqrt(w))`` the same formulas hold for
``S r`` and ``S J``.  Row i, block r of J is ``m^{-1/2} a_r M_ri x_i^T``, so ``S J`` is J with the points
``sqrt(w_i) x_i``; who fires is still decided by the unit rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..devices import Array
from ..devices.clock import PhaseClock
from ..devices.sums import norm, rows_of
from ..index.protocol import Index, Mask, forward
from ..linear.gram import GramMatrix, gram_of
from ..linear.layers_gram import trace
from ..linear.system import LinearSystem
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..options import Options
from .damping import StepControl
from .history import StepRecord
from .rows import IMPLICIT, STORED, Rows
from .state import Attempt, State


@dataclass
class Run(LinearSystem):
    """What one call of ``fit`` keeps between its steps: the system of a step, and the following.

    Attributes
    ----------
    index : Index
        Finds the fired pairs.
    initial : Array or None
        (u, d) W_0, where there is a ridge penalty.
    ridge : float
        lambda, in absolute units; 0 without a penalty.
    warm : bool
        Whether it was trained before, so that a point may have fallen silent.
    square : float
        ``||W - W_0||^2``, of both layers where both are trained, with a ridge penalty.
    here : State or None
        What the last look found, with a ridge penalty, until the next move: a path looks once for two penalties.
    shares : tuple of Array
        Of a run on batches: see :class:`gpu_sublinear.step.epochs.BatchRun`.
    """

    index: Index = None  # type: ignore[assignment]
    initial: Array = None
    ridge: float = 0.0
    warm: bool = False
    square: float = 0.0
    here: State | None = None
    shares: tuple[Array, ...] = ()

    @classmethod
    def begin(cls, options: Options, network: ShiftedReluNetwork, problem: Problem, index: Index) -> Run:
        """Start from an index that exists; W_0 is what the network holds now."""
        run = cls(options, network, problem, gram_of(network, problem.scaled), index=index)
        if options.alpha:
            run.penalise(float(options.alpha), network.rows)
        return run

    def penalise(self, alpha: float, initial: Array) -> None:
        """Set the penalty to ``alpha tr(G) / n`` of the network as it is now, towards ``initial`` (u, d).

        From now on steps make new rows (:meth:`Device.pull_rows`) and leave the old ones as they are, so that W_0 and
        the states to come back to need no copies.
        """
        self.initial, self.home = initial, self.network.signs if self.options.both_layers else None
        self.rows.penalise(self)
        self.measure()
        self.ridge = alpha * self.mean_diagonal(self.who_fires())

    def who_fires(self) -> Mask:
        """Return the active set now; of batches, the counts."""
        return self.index.query(self.network.shift)

    @property
    def foresees(self) -> bool:
        """Whether what a step promises is known before it is taken, so that one from the minimum need not be."""
        return self.ridge > 0

    @property
    def rows(self) -> Rows:
        """Where the weights are."""
        return IMPLICIT if self.index.owns_rows else STORED

    def measure(self) -> None:
        """Compute ``||W - W_0||^2``, after rows were changed; with ``||a - a_0||^2`` where a is trained."""
        self.here = None
        if self.initial is not None:
            self.square = self.rows.square(self)

    def went_back(self, neurons: Array, moved: Array) -> None:
        """Hear that these rows (j,) went back to earlier weights, and how far (j,), from outside the run."""
        self.index.update(self.network.rows, neurons, moved)
        self.measure()

    def extend(self, X: Array, y: Array, memory_limit: int | None) -> None:
        """Add points (k, d) that arrive now, with their targets; weights stay, and W_0 stays for the rows held."""
        network, device = self.network, self.network.device
        held = network.neurons
        self.index = self.index.extend(network, X)
        self.index.limit_memory(memory_limit)
        join = device.xp.concatenate
        self.problem = Problem(join([self.problem.X, X]), join([self.problem.y, y]))
        self.gram = GramMatrix(device, self.problem.X, network.width)
        if self.initial is not None:
            initial = network.rows.copy()
            initial[device.xp.searchsorted(network.neurons, held)] = self.initial
            self.initial = initial
            self.measure()

    def mean_diagonal(self, active: Mask) -> float:
        """Return ``tr(G) / n = (1/n) sum_i ||x_i||^2 k_i / m``, weighted."""
        problem, network = self.problem, self.network
        if self.options.both_layers:
            return trace(network, active, problem.X, problem.weights) / problem.total
        squares = (problem.scaled.astype(np.float64) ** 2).sum(axis=1)  # (n,)
        return active.mean_diagonal(squares, problem.total, network.width)

    def control(self) -> StepControl:
        """Return what judges the steps of one training."""
        options = self.options
        return StepControl(options.damping, 0 if options.alpha else options.watchdog)

    # ---- the four moves ---------------------------------------------------------------------------------

    def look(self) -> State:
        """Evaluate the network where it stands."""
        network, clock = self.network, PhaseClock(self.network.device)
        if self.here is not None:
            return replace(self.here, penalty=0.5 * self.ridge * self.square, clock=clock, proposal=None)
        with clock("query"):
            active = self.index.query(network.shift)
        with clock("forward"):
            residual = self.problem.residual(forward(network, active))  # (n,) or (n, c)
            size, penalty = norm(residual), 0.5 * self.ridge * self.square
            state = State(active, residual, size, penalty, clock, self.index.kind)
            state.second, state.square = network.second, self.square
            if self.options.damping != "none" or self.ridge:
                state.rows, state.mark = self.rows.kept(self), self.index.mark()
        self.here = state if self.ridge else None
        return state

    def propose(self, state: State, damping: float, step: int) -> Attempt:
        """Compute the step, without moving; once for each state and damping."""
        if state.proposal is None or state.proposal.damping != damping:
            state.proposal = self._proposed(state, damping, step)
        return state.proposal

    def move(self, state: State, damping: float, step: int) -> Attempt:
        """Take the step of the module docstring from ``state``, where the network stands."""
        proposal = self.propose(state, damping, step)
        with state.clock("update"):
            moved = self.rows.apply(self, state, proposal)
            self.measure()
        return replace(proposal, moved=moved)

    def restore(self, state: State) -> None:
        """Bring weights and index back to ``state``, bit for bit."""
        self.square, self.here = state.square, state if self.ridge else None
        self.rows.restore(self, state)

    def _proposed(self, state: State, damping: float, step: int) -> Attempt:
        """Solve the system of the module docstring, and foresee what the step brings."""
        place, clock = state.linear, state.clock
        unit = self.mean_diagonal(state.active)
        kappa = self.ridge + damping * unit
        theta = self.ridge / kappa if kappa else 0.0
        with clock("jacobian"):
            jacobian = self.linearised(place)
        rhs, pulled = state.residual, 0.0
        if theta:
            with clock("forward"):
                if place.pulled is None:
                    place.pulled = jacobian.along(self.network.rows, self.initial)
                pulled = place.pulled
                rhs = rhs - theta * pulled
        solution = self.solve(place, rhs, step, clock, kappa)
        g = solution.value
        seen = rhs * rows_of(state.active.counts > 0, rhs)
        error = solution.residual * norm(seen)
        unseen = float(((rhs - seen) ** 2).sum())
        size = float((g**2).sum())
        fit = 0.5 * (kappa**2 * size + error**2 + unseen)
        own, cross = float((g * seen).sum()) - kappa * size, float((g * pulled).sum())  # <g, G g>, <g, J D>
        kept = 1 - theta  # of D: W - W_0 becomes kept D - J^T g
        penalty = 0.5 * self.ridge * (kept**2 * state.square - 2 * kept * cross + own)
        square = theta**2 * state.square + 2 * theta * cross + own  # ||theta D + J^T g||^2
        return Attempt(solution, damping, theta, fit + penalty, unit * square)

    # ---- for others to read -----------------------------------------------------------------------------

    def materialise(self) -> None:
        """Write the rows of the network where they are implicit: before anything outside the run reads them."""
        self.rows.materialise(self)

    def written(self, record: StepRecord) -> StepRecord:
        """Materialise; return the record with the seconds that took, as part of ``update``."""
        clock = PhaseClock(self.network.device)
        with clock("update"):
            if not self.rows.materialise(self):
                return record
        update = record.phases["update"] + clock.seconds["update"]
        seconds = record.seconds + clock.seconds["update"]
        return replace(record, seconds=seconds, phases={**record.phases, "update": update})

    def captured(self, best: State | None) -> dict[str, Any]:
        """Return the arrays of a checkpoint that belong to the run; ``best`` is the best place, where another one."""
        return {
            **self.rows.captured(self, best),
            "second": self.network.second,
            "initial_second": self.home,
            "best_second": best.second if best else None,
        }
