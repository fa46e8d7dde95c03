"""The loop of a training: look, step, judge, until something says stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..model.network import ShiftedReluNetwork
from ..step.damping import StepControl
from ..step.history import StepRecord, TrainingResult
from ..step.run import Run
from ..step.state import Attempt, State
from .checkpoints.keeper import Keeper
from .checks import check_every_point_fires
from .stops import Stops
from .validation import Validation

Callback = Callable[[StepRecord, ShiftedReluNetwork], Any]

_log = logging.getLogger(__name__)


def train(
    run: Run,
    callbacks: Iterable[Callback] = (),
    watch: Validation | None = None,
    build_seconds: float = 0.0,
    keeper: Keeper | None = None,
) -> TrainingResult:
    """Train from a run that is prepared; ``fit`` without the first scan.

    Parameters
    ----------
    run : Run
        Data, network and index.
    callbacks : iterable of callable
        As for ``fit``.
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
    watch, keeper = watch or Validation(run.network), keeper or Keeper()
    callbacks = list(callbacks)
    control = run.control()
    keeper.restore_control(control)
    keeper.build_seconds += build_seconds
    stops = Stops(run.trainer, run.size, keeper.build_seconds, control)
    history = list(keeper.history)
    verdict = stops(history, False, watch, keeper.seconds) if history else (False, "")
    control.finished = bool(verdict[1])
    for record in _steps(run, control, watch, len(history), keeper.best):
        history.append(record)
        if callbacks:
            run.materialise()
        stopped = any([callback(record, run.network) for callback in callbacks])
        verdict = verdict if verdict[1] else stops(history, stopped, watch, keeper.seconds)
        keeper.after(run, control, watch, history, bool(verdict[1]) or stops.will_end(len(history)))
        if verdict[1] and (stopped or not record.moved_neurons):
            break
        control.finished = bool(verdict[1])  # one more record, of the state that the last step led to
    best = watch.restore_best() if watch.active else control.restore_best(run, history)
    if not watch.active:
        history[-1] = run.written(history[-1])
    if best is not None:
        verdict = verdict[0], f"{verdict[1]}; the weights before step {best}, the best, were restored"
    seconds = keeper.build_seconds + keeper.seconds + sum(record.seconds for record in history)
    times = seconds, keeper.build_seconds
    alpha = float(run.trainer.alpha)  # a number since the run was prepared
    kept = keeper.seconds, keeper.resumed_seconds
    return TrainingResult(run.network, history, *verdict, *times, best, alpha, *kept)


def _steps(
    run: Run, control: StepControl, watch: Validation, first: int = 0, best: State | None = None
) -> Iterator[StepRecord]:
    """Yield one record per step: query, forward, Jacobian, sketch, solve, update; rejected ones try again."""
    options = run.trainer
    goal = options.tolerance * run.size
    state = run.look()
    if not run.warm:
        check_every_point_fires(state.active, run.X, run.network)
    control.start(state, best)
    for step in range(first, options.max_steps + 1):
        if watch.active:
            run.materialise()
        error, attempt, trial, rejected = watch.error(step), None, None, 0
        if step < options.max_steps and goal < state.norm < np.inf:
            while trial is None and not (control.stuck or control.finished):
                source = control.source
                if run.foresees and not control.always:
                    promise = control.expect(run.propose(source, control.damping, step))
                    if promise <= options.tolerance or control.settled(options.tolerance):
                        break  # at the minimum: the step is not worth taking
                attempt = run.move(source, control.damping, step)
                trial = run.look()
                if not control.accepts(attempt, trial, step + 1):
                    rejected += 1
                    state.clock.absorb(trial.clock)
                    trial = None
                    run.restore(control.source)
        yield _record(step, state, attempt if trial else None, rejected, error, run)
        if trial is None:
            return
        state = trial


def _record(
    step: int, state: State, attempt: Attempt | None, rejected: int, validation_mse: float | None, run: Run
) -> StepRecord:
    active, seconds = state.active, state.clock.seconds
    solution = attempt.solution if attempt else None
    n = len(active.counts)  # points; the mean error is over the sum of their weights
    silent = int((active.counts == 0).sum())
    if silent:
        _log.warning("step %d: %d of %d points fire no neuron; their error cannot shrink", step, silent, n)
    return StepRecord(
        step=step,
        loss=0.5 * state.norm**2,
        mse=state.norm**2 / (run.weights.total(n) * (state.residual.size / n)),
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
        rejected=rejected,
        penalty=state.penalty,
        validation_mse=validation_mse,
    )
