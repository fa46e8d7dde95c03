"""The loop of a training: look; while not at the goal, propose, move, look, accept or restore; record.

:func:`steps` and :func:`taken` are the algorithm.  What the four words do where the published method is followed
(:meth:`GaussNewton.faithful`):

    ===========  ==========================================================  ====================================
    look         S_i <- tree.query(b) for every point, then f from leaves    index/tree.py, index/active_set.py
    propose      J as CSR, R-factor of S J^T, g by conjugate gradients       linear/system.py, jacobian.py, sketch.py
    move         W <- W - J^T g, then tree.update(U)                         step/rows.py, index/tree.py
    restore      the same back, where a step did not help (not published)    step/damping.py
    ===========  ==========================================================  ====================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.network import ShiftedReluNetwork
from ..step.damping import StepControl
from ..step.history import StepRecord, TrainingResult
from ..step.state import Attempt, State
from ..step.stepper import Stepper
from .checkpoints.keeper import Keeper
from .checks import check_every_point_fires
from .stops import Stops
from .validation import Validation

Callback = Callable[[StepRecord, ShiftedReluNetwork], Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tried:
    """What came of a step: how it was computed and where it led; nothing where none was taken.

    Attributes
    ----------
    attempt : Attempt or None
        The step.
    trial : State or None
        Where it led.
    rejected : int
        Steps that were taken back before it.
    """

    attempt: Attempt | None = None
    trial: State | None = None
    rejected: int = 0


def steps(
    run: Stepper, control: StepControl, watch: Validation, first: int = 0, best: State | None = None
) -> Iterator[StepRecord]:
    """Yield one record per step: the algorithm, from where the run stands to the goal or the last step.

    Parameters
    ----------
    run : Stepper
        Looks, proposes, moves and restores.
    control : StepControl
        Judges steps.
    watch : Validation
        Early stopping.
    first : int
        Number of the first step: not 0 where a run goes on.
    best : State, optional
        An earlier place that was better.

    Yields
    ------
    StepRecord
        Of each state, and the step taken from it; the last one is of a state that no step leaves.
    """
    state = run.look()
    if not run.warm:
        check_every_point_fires(state.active.counts, run.problem.X, run.network)
    control.start(state, best)
    for step in range(first, run.options.max_steps + 1):
        error = watch.look(run, step)
        tried = taken(run, control, state, step) if wanted(run, state, step) else Tried()
        yield _record(step, state, tried, error, run)
        if tried.trial is None:
            return
        state = tried.trial


def wanted(run: Stepper, state: State, step: int) -> bool:
    """Tell whether a step may be taken from this state: it is not at the goal, and still a number."""
    return step < run.options.max_steps and run.options.tolerance * run.problem.size < state.norm < np.inf


def taken(run: Stepper, control: StepControl, state: State, step: int) -> Tried:
    """Take steps back until one is accepted, or none is worth taking."""
    rejected = 0
    while not (control.stuck or control.finished) and worth_taking(run, control, step):
        attempt = run.move(control.source, control.damping, step)
        trial = run.look()
        if control.accepts(attempt, trial, step + 1):
            return Tried(attempt, trial, rejected)
        rejected += 1
        state.clock.absorb(trial.clock)
        run.restore(control.source)
    return Tried(rejected=rejected)


def worth_taking(run: Stepper, control: StepControl, step: int) -> bool:
    """Tell whether the next step promises enough, where that is known before it is taken: no step from a minimum."""
    if not run.foresees or control.always:
        return True
    promise, least = control.expect(run.propose(control.source, control.damping, step)), run.options.tolerance
    return promise > least and not control.settled(least)


def train(
    run: Stepper,
    callbacks: Iterable[Callback] = (),
    watch: Validation | None = None,
    build_seconds: float = 0.0,
    keeper: Keeper | None = None,
) -> TrainingResult:
    """Train from a run that is prepared: steps, until something says stop.

    Parameters
    ----------
    run : Stepper
        Data, network and index.
    callbacks : iterable of callable
        As for :meth:`GaussNewton.fit`.
    watch : Validation, optional
        What decides on early stopping.
    build_seconds : float
        What the preparation took.
    keeper : Keeper, optional
        Writes checkpoints, and knows the steps that were taken before.

    Returns
    -------
    TrainingResult
        History, and why training stopped.
    """
    watch, keeper, callbacks = watch or Validation(run.network), keeper or Keeper(), list(callbacks)
    control = run.control()
    keeper.restore_control(control)
    keeper.build_seconds += build_seconds
    stops = Stops(run.options, run.problem.size, keeper.build_seconds, control)
    history = list(keeper.history)
    verdict = stops(history, False, watch, keeper.seconds) if history else (False, "")
    control.finished = bool(verdict[1])
    for record in steps(run, control, watch, len(history), keeper.best):
        history.append(record)
        stopped = _told(callbacks, record, run)
        verdict = verdict if verdict[1] else stops(history, stopped, watch, keeper.seconds)
        keeper.after(run, control, watch, history, bool(verdict[1]) or stops.will_end(len(history)))
        if verdict[1] and (stopped or not record.moved_neurons):
            break
        control.finished = bool(verdict[1])  # one more record, of the state that the last step led to
    return _result(run, control, watch, keeper, history, *verdict)


def _told(callbacks: list[Callback], record: StepRecord, run: Stepper) -> bool:
    """Call all callbacks; return whether one of them wants to stop."""
    if callbacks:
        run.materialise()
    return any([callback(record, run.network) for callback in callbacks])


def _result(
    run: Stepper,
    control: StepControl,
    watch: Validation,
    keeper: Keeper,
    history: list[StepRecord],
    converged: bool,
    reason: str,
) -> TrainingResult:
    """Go back to the best weights where the run ended elsewhere, and sum up."""
    best = watch.restore_best() if watch.active else control.restore_best(run, history)
    if not watch.active:
        history[-1] = run.written(history[-1])
    if best is not None:
        reason = f"{reason}; the weights before step {best}, the best, were restored"
    return TrainingResult(
        run.network,
        history,
        converged,
        reason,
        seconds=keeper.build_seconds + keeper.seconds + sum(record.seconds for record in history),
        build_seconds=keeper.build_seconds,
        best_step=best,
        alpha=float(run.options.alpha),  # a number since the run was prepared
        checkpoint_seconds=keeper.seconds,
        resumed_seconds=keeper.resumed_seconds,
    )


def _record(step: int, state: State, tried: Tried, validation_mse: float | None, run: Stepper) -> StepRecord:
    """Return the record of a state and what came of the step from it."""
    active, seconds, attempt = state.active, state.clock.seconds, tried.attempt
    solution = attempt.solution if attempt else None
    n = len(active.counts)  # points; the mean error is over the sum of their weights
    silent = int((active.counts == 0).sum())
    if silent:
        _log.warning("step %d: %d of %d points fire no neuron; their error cannot shrink", step, silent, n)
    return StepRecord(
        step=step,
        loss=0.5 * state.norm**2,
        mse=state.norm**2 / (run.problem.weights.total(n) * (state.residual.size / n)),
        residual_norm=state.norm,
        fired=active.nnz / n,
        union=active.union,
        solver_iterations=solution.iterations if solution else 0,
        solver_residual=solution.residual if solution else 0.0,
        solver_reason=solution.reason if solution else "no step was taken",
        moved_neurons=attempt.moved if attempt else 0,
        tree_nodes_visited=active.visited,
        seconds=sum(seconds.values()),
        phases=seconds,
        refreshed=run.index.refreshed if solution else 0,
        peak_bytes=run.network.device.peak_bytes(),
        damping=attempt.damping if attempt else 0.0,
        rejected=tried.rejected,
        penalty=state.penalty,
        validation_mse=validation_mse,
    )
