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

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .active_set import ActiveSet
from .bits import BitIndex, sampled_share
from .blocks import Blocks
from .both_layers import check_network, trace
from .damping import StepControl
from .devices import Array
from .flip_mask import FlipJacobian, FlipMask
from .flips import FlipIndex
from .gram import GramMatrix
from .hinges import HingedGram, HingedIndex, HingedSet, check_activation, gram_of
from .history import PhaseClock, StepRecord
from .lazy import LazyIndex
from .linear import LinearSystem
from .memory import plan_memory
from .network import ShiftedReluNetwork
from .outputs import check_supported
from .penalty import choose_alpha
from .shifts import firing_probability
from .state import Attempt, Index, Mask, State, forward
from .sums import norm, rows_of
from .survey import survey
from .tree import ThresholdTree
from .weights import SampleWeights

if TYPE_CHECKING:
    from .gauss_newton import GaussNewton

_log = logging.getLogger(__name__)


@dataclass
class Run(LinearSystem):
    """What one call of ``fit`` keeps between its steps: the system of a step, and the following.

    Attributes
    ----------
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
    """

    initial: Array = None
    ridge: float = 0.0
    warm: bool = False
    square: float = 0.0
    here: State | None = None

    @classmethod
    def prepare(
        cls,
        trainer: GaussNewton,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        weights: SampleWeights | None = None,
    ) -> Run:
        """Plan the memory and look at all neurons once."""
        index = build_index(trainer, network, X, y)
        if trainer.batch_size:
            from .batches import BatchRun

            return BatchRun.begin(trainer, network, X, y, index, weights)
        return cls.begin(trainer, network, X, y, index, weights)

    @classmethod
    def begin(
        cls,
        trainer: GaussNewton,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        index: Index,
        weights: SampleWeights | None = None,
    ) -> Run:
        """Start from an index that exists; W_0 is what the network holds now."""
        weights = weights or SampleWeights()
        gram = gram_of(network, weights.scaled(X))
        run = cls(trainer, network, X, y, network.initial_signs, index, gram, weights=weights)
        if trainer.alpha == "auto":
            run.trainer = trainer = replace(trainer, alpha=choose_alpha(run))
        alpha = float(trainer.alpha)
        if alpha > 0:
            run.penalise(alpha, network.rows)
        return run

    @property
    def size(self) -> float:
        """``||y||``, weighted: what the residual is compared with."""
        return norm(self.weights.scaled(self.y))

    def penalise(self, alpha: float, initial: Array) -> None:
        """Set the penalty to ``alpha tr(G) / n`` of the network as it is now, towards ``initial`` (u, d).

        From now on steps make new rows (:meth:`Device.pull_rows`) and leave the old ones as they are, so that W_0 and
        the states to come back to need no copies.
        """
        self.initial, self.home = initial, self.network.signs if self.trainer.both_layers else None
        if isinstance(self.index, FlipIndex):
            self.index.penalise()
        self.measure()
        if isinstance(self.index, LazyIndex | HingedIndex):
            self.index.keep_empty = True
        self.ridge = alpha * self.mean_diagonal(self.who_fires())

    def who_fires(self) -> Any:
        """Return the active set now; of batches, the counts."""
        return self.index.query(self.network.shift)

    @property
    def foresees(self) -> bool:
        """Whether what a step promises is known before it is taken, so that one from the minimum need not be."""
        return self.ridge > 0

    def measure(self) -> None:
        """Compute ``||W - W_0||^2``, after rows were changed; with ``||a - a_0||^2`` where a is trained."""
        self.here, network = None, self.network
        if isinstance(self.index, FlipIndex):
            self.square = self.index.square
        elif self.initial is not None:
            self.square = network.device.square_distance(network.rows, self.initial)
            if self.home is not None:
                self.square += network.device.square_distance(network.signs, self.home)

    def went_back(self, neurons: Array, moved: Array) -> None:
        """Note that these rows (j,) were changed by other means than steps, and by how much."""
        assert not isinstance(self.index, FlipIndex)
        self.index.update_any(self.network.rows, neurons, moved)
        self.measure()

    def extend(self, X: Array, y: Array) -> None:
        """Add points (k, d) that arrive now, with their targets; weights stay, and W_0 stays for the rows held."""
        network, device = self.network, self.network.device
        size = (len(self.X) + len(X), X.shape[1], network.width, network.shift, network.dtype, network.outputs)
        left = plan_memory(self.trainer, device, *size)
        held = network.neurons
        assert not isinstance(self.index, HingedIndex | FlipIndex)  # sessions refuse them
        self.index = self.index.extend(network, X)
        if isinstance(self.index, LazyIndex):
            self.index.memory_limit = left
        self.X, self.y = device.xp.concatenate([self.X, X]), device.xp.concatenate([self.y, y])
        self.signs, self.gram = network.initial_signs, GramMatrix(device, self.X, network.width)
        if self.initial is not None:
            initial = network.rows.copy()
            initial[device.xp.searchsorted(network.neurons, held)] = self.initial
            self.initial = initial
            self.measure()

    def mean_diagonal(self, active: Any) -> float:
        """Return ``tr(G) / n = (1/n) sum_i ||x_i||^2 k_i / m``, weighted."""
        squares = (self.weights.scaled(self.X).astype(np.float64) ** 2).sum(axis=1)  # (n,)
        total = self.weights.total(len(squares))
        if self.trainer.both_layers:
            assert isinstance(active, ActiveSet)
            return trace(self.network, active, self.gram.X, self.weights) / total
        if isinstance(self.gram, HingedGram):
            assert isinstance(active, HingedSet)
            return float(self.gram.diagonal(active, squares).sum()) / total
        return float((squares * active.counts).sum()) / total / self.network.width

    def control(self) -> StepControl:
        """Return what judges the steps of one training."""
        trainer = self.trainer
        return StepControl(trainer.damping, 0 if trainer.alpha else trainer.watchdog)

    # ---- the three moves --------------------------------------------------------------------------------

    def look(self) -> State:
        """Evaluate the network where it stands."""
        network, device = self.network, self.network.device
        clock = PhaseClock(device)
        if self.here is not None:
            return replace(self.here, penalty=0.5 * self.ridge * self.square, clock=clock, proposal=None)
        with clock("query"):
            active = self.index.query(network.shift)
        with clock("forward"):
            residual = self.weights.scaled(forward(network, active) - self.y)  # (n,) or (n, c)
            size, penalty = norm(residual), 0.5 * self.ridge * self.square
            state = State(active, residual, size, penalty, clock, second=network.second, square=self.square)
            if self.trainer.damping != "none" or self.ridge:
                if not isinstance(self.index, FlipIndex):
                    state.rows = network.rows if self.ridge else network.rows.copy()
                state.index, state.mark = self.index, self.index.mark()
        self.here = state if self.ridge else None
        return state

    def move(self, state: State, damping: float, step: int) -> Attempt:
        """Take the step of the module docstring from ``state``, where the network stands."""
        proposal = self.propose(state, damping, step)
        with state.clock("update"):
            moved = self._apply(state, proposal)
            self.measure()
        return replace(proposal, moved=moved)

    def propose(self, state: State, damping: float, step: int) -> Attempt:
        """Compute the step, without moving; once for each state and damping."""
        if state.proposal is not None and state.proposal.damping == damping:
            return state.proposal
        clock = state.clock
        unit = self.mean_diagonal(state.active)
        mu = damping * unit
        kappa = self.ridge + mu
        theta = self.ridge / kappa if kappa else 0.0
        with clock("jacobian"):
            state.jacobian = state.jacobian or self.jacobian(state.active)
        rhs, pulled = state.residual, 0.0
        if theta:
            with clock("forward"):
                if state.pulled is None:
                    state.pulled = state.jacobian.along(self.network.rows, self.initial)
                pulled = state.pulled
                rhs = rhs - theta * pulled
        solution = self.solve(state.active, state.jacobian, rhs, step, clock, kappa, state)
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
        state.proposal = Attempt(solution, damping, theta, fit + penalty, unit * square)
        return state.proposal

    def _apply(self, state: State, proposal: Attempt) -> int:
        """Move the rows and tell the index; return how many moved."""
        network, jacobian = self.network, state.jacobian
        assert jacobian is not None
        g = proposal.solution.value
        if isinstance(jacobian, FlipJacobian):
            jacobian.step(network.rows, g, proposal.theta)
            return state.active.union
        if not self.ridge:
            moved = jacobian.step(network.rows, g)
            self._tell(state.active, moved)
            return len(network.rows) if network.activation.slope else state.active.union
        return self._replace_rows(*jacobian.pull(network.rows, self.initial, g, proposal.theta))

    def _replace_rows(self, rows: Array, moved: Array) -> int:
        """Take new rows (u, d), moved (u,) from the old ones; return how many moved."""
        network, xp = self.network, self.network.device.xp
        network.rows = rows
        everybody = int(xp.count_nonzero(moved)) == len(moved)
        neurons = xp.arange(len(moved), dtype=np.int32) if everybody else xp.flatnonzero(moved).astype(np.int32)
        assert not isinstance(self.index, FlipIndex)
        if not self._packed():
            self.index.update_any(rows, neurons, moved if everybody else moved[neurons])
        return len(neurons)

    def _tell(self, active: Mask, moved: Array) -> None:
        """Tell the index how far the rows moved."""
        assert not (isinstance(self.index, FlipIndex) or isinstance(active, FlipMask))  # their steps are no rows
        if not self._packed():
            self.index.update(self.network.rows, active.neurons, moved)

    def _packed(self) -> bool:
        """Pack masks from now on where lists would grow too long; tell whether that was so."""
        network, trainer = self.network, self.trainer
        if not isinstance(self.index, LazyIndex) or trainer.mask != "auto" or network.outputs > 1:
            return False
        if not trainer.packs(sampled_share(network, self.X)):
            return False
        _log.info("masks are packed from now on: too many pairs fire for lists")
        self.index = BitIndex(network.device, self.X, network, len(network.rows))
        return True

    def restore(self, state: State) -> None:
        """Bring weights and index back to ``state``, bit for bit."""
        network, xp = self.network, self.network.device.xp
        self.square, self.here = state.square, state if self.ridge else None
        if isinstance(state.index, FlipIndex):
            state.index.restore(state.mark)
            return
        network.second = state.second
        assert state.index is not None
        self.index = state.index  # a step may have gone over to packed masks
        if self.ridge and isinstance(self.index, LazyIndex):  # steps made new rows, and marks hold all that changed
            changed = xp.zeros(0, np.int32)
        else:
            changed = xp.flatnonzero((network.rows != state.rows).any(axis=1)).astype(np.int32)
        if self.ridge:
            network.rows = state.rows
        else:
            network.rows[changed] = state.rows[changed]
        self.index.restore(state.mark, network.rows, changed)

    def materialise(self) -> None:
        """Write the rows of the network where they are implicit: before anything outside the run reads them."""
        if isinstance(self.index, FlipIndex):
            self.index.materialise()

    def written(self, record: StepRecord) -> StepRecord:
        """Materialise; return the record with the seconds that took, as part of ``update``."""
        if not isinstance(self.index, FlipIndex):
            return record
        clock = PhaseClock(self.network.device)
        with clock("update"):
            self.materialise()
        update = record.phases["update"] + clock.seconds["update"]
        seconds = record.seconds + clock.seconds["update"]
        return replace(record, seconds=seconds, phases={**record.phases, "update": update})


def build_index(trainer: GaussNewton, network: ShiftedReluNetwork, X: Array, y: Array, trainings: int = 1) -> Index:
    """Plan the memory of so many trainings and look at all neurons once; only the speed depends on the targets y."""
    check_activation(trainer, network)
    check_network(trainer, network)
    device = network.device
    check_supported(trainer, network)
    points = network.activation.points(X, device.xp)  # those that the hinges look at: X itself for one hinge
    left = memory_left(trainer, network, points, trainings)
    if trainer.batch_size:
        return cast(Index, Blocks.build(trainer, network, X, left))
    index: Index
    if trainer.margin == 0:
        survey(network, points, 0)
        index = ThresholdTree.build(device, points, network.rows, trainer.tree)
    elif trainer.mask == "flips":
        index = FlipIndex.build(device, X, network, y, 0.0 if trainer.alpha == "auto" else float(trainer.alpha))
    elif network.activation.plain and trainer.packs(firing_probability(network.shift), network.outputs):
        index = BitIndex.build(device, X, network)
    else:
        index = LazyIndex.build(device, points, network, trainer.margin, left)
    if not network.activation.plain:
        assert isinstance(index, ThresholdTree | LazyIndex)
        index = HingedIndex(index, network, X)
    return index


def memory_left(trainer: GaussNewton, network: ShiftedReluNetwork, points: Array, trainings: int = 1) -> int | None:
    """Return the bytes that the limit leaves to lists over these points (n, d); see :func:`plan_memory`."""
    n, d = points.shape
    size = (n, d, network.width, network.shift, network.dtype, network.outputs, bool(network.activation.slope))
    return plan_memory(trainer, network.device, *size, trainings)
