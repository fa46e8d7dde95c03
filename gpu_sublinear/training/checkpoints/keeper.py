"""Checkpoints in a run: when they are written, whose they are, and how a run goes on from one with the same bytes.

What is made anew when a run is resumed cannot change its trajectory: candidate lists, trees and masks all give exactly
the pairs ``P_ir > b`` of the stored rows, and all that is computed from them is done in an order that depends on them
alone.  What depends on the way here (rows, damping, the best weights, early stopping, sums kept through flips) is in
the file.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np

from ...devices import Array
from ...environment import package_version
from ...errors import CheckpointError, OptionError
from ...files.atomic import discard_temporary
from ...model.network import ShiftedReluNetwork
from ...model.problem import Problem
from ...options import Options
from ...step.damping import StepControl
from ...step.history import StepRecord
from ...step.run import Run
from ...step.state import State
from ...step.stepper import Stepper
from ..prepare import prepare, resumed
from ..validation import Validation
from .file import CHECKPOINT, CONTROL, SHARES, WATCH, Checkpoint, Checkpointing
from .identity import identity

_log = logging.getLogger(__name__)


class Keeper:
    """Keeps nothing: a run without checkpoints, from the beginning.

    Attributes
    ----------
    history : list of StepRecord
        Steps taken before this process; empty at the beginning.
    best : State or None
        The best state so far, where that is not the present one.
    build_seconds : float
        Spent on preparation before this process.
    seconds : float
        Spent on checkpoints, earlier processes included.
    """

    def __init__(self) -> None:
        self.history: list[StepRecord] = []
        self.best: State | None = None
        self.build_seconds = self.seconds = 0.0

    @property
    def resumed_seconds(self) -> float:
        """Seconds of training before this process."""
        return 0.0

    def prepare(self, options: Options, network: ShiftedReluNetwork, problem: Problem, watch: Validation) -> Stepper:
        """Return a run that is ready for its next step."""
        run = prepare(options, network, problem)
        watch.prepare()
        return run

    def restore_control(self, control: StepControl) -> None:
        """Bring back what damping has learnt."""

    def after(
        self, run: Stepper, control: StepControl, watch: Validation, history: list[StepRecord], ending: bool
    ) -> None:
        """Look at a run after a step; ``ending`` if no further one will be taken."""


class CheckpointKeeper(Keeper):
    """Writes checkpoints of a run and brings one back.

    Parameters
    ----------
    where : Checkpointing
        File, interval, and whether to resume.
    options : Options
        Of the run.
    network : ShiftedReluNetwork
        As it is given to ``fit``.
    problem : Problem
        What is trained on, without the points held out.
    watch : Validation
        Its points.

    Raises
    ------
    CheckpointError
        If the file holds another run.
    """

    def __init__(
        self,
        where: Checkpointing,
        options: Options,
        network: ShiftedReluNetwork,
        problem: Problem,
        watch: Validation,
    ):
        super().__init__()
        self.where = where
        self.identity = identity(options, network, problem, watch)
        self.saved = where.find()
        discard_temporary(where.path)
        if self.saved is not None:
            self._check(self.saved, options, len(problem))
            self.history, self.seconds = self.saved.history, self.saved.seconds["checkpoints"]
            self.build_seconds = self.saved.seconds["build"]
        self._resumed = self.seconds + self.build_seconds + sum(record.seconds for record in self.history)

    @property
    def resumed_seconds(self) -> float:
        """Seconds of training before this process."""
        return self._resumed

    def _check(self, saved: Checkpoint, options: Options, n: int) -> None:
        different = list(saved.differences(self.identity))
        if different:
            raise CheckpointError(
                f"'{self.where.path}' is a checkpoint of another run: {'; '.join(different[:6])}; give the settings, "
                "network and data of that run, or another path"
            )
        if len(saved.arrays.get("flips_total", range(n))) != n:
            raise CHECKPOINT.damaged(self.where.path, "its flips are those of other points")
        if any(
            len(saved.arrays[name]) != -(-n // (options.batch_size or n)) for name in SHARES if name in saved.arrays
        ):
            raise CHECKPOINT.damaged(self.where.path, "its shares are those of other batches")
        if options.max_steps < len(saved.history):
            raise OptionError(
                f"'{self.where.path}' has {len(saved.history)} steps already, more than max_steps, which is "
                f"{options.max_steps}"
            )
        if saved.package_version != package_version():
            _log.warning(
                "'%s' was written by version %s; the rest of the run may have other bytes than it would have had there",
                self.where.path,
                saved.package_version,
            )

    # ---- bringing a run back ----------------------------------------------------------------------------

    def prepare(self, options: Options, network: ShiftedReluNetwork, problem: Problem, watch: Validation) -> Stepper:
        """Return the run where the checkpoint left it; a new one if there is none.

        Parameters
        ----------
        options : Options
            Of the run.
        network : ShiftedReluNetwork
            Gets the rows of the checkpoint.
        problem : Problem
            What is trained on.
        watch : Validation
            Gets the state of early stopping.

        Returns
        -------
        Stepper
            Ready for its next step.
        """
        if self.saved is None:
            return super().prepare(options, network, problem, watch)
        saved = self.saved
        network.sampling, network.seen = saved.sampling, self._on(network, "seen")
        network.hold(self._on(network, "neurons", "int64"), self._on(network, "rows"))
        network.second = self._on(network, "second")
        watch.best_rows, watch.best_second = (self._on(network, f"validation_{part}") for part in ("rows", "second"))
        restore_watch(watch, saved, self._on(network, "validation_rest", "float64"))
        options = replace(options, alpha=saved.alpha)  # "auto" was settled when the run began
        best = self._best(options, network, problem)
        run = self._run(saved.index, "shares", options, network, problem)
        self.best = run.rows.go_on(run, saved.arrays) or best
        return run

    def _best(self, options: Options, network: ShiftedReluNetwork, problem: Problem) -> State | None:
        """Return the best place, where another one was, whose rows are stored; the network stays where it is."""
        saved, here = self.saved, (network.rows, network.second)
        if saved is None or "best_rows" not in saved.arrays:
            return None
        network.rows, network.second = self._on(network, "best_rows"), self._on(network, "best_second")
        state = self._run(saved.best_index, "best_shares", options, network, problem).look()
        network.rows, network.second = here
        return state

    def _run(self, kind: str, shares: str, options: Options, network: ShiftedReluNetwork, problem: Problem) -> Run:
        """Return a run made anew over the rows that the network holds, with the shares of that name."""
        assert self.saved is not None
        initial, ridge = self._on(network, "initial"), self.saved.ridge
        if initial is None and ridge:  # rows that follow from the steps begin with W_0
            initial = network.rows
        run = resumed(kind, options, network, problem, ridge, initial, self._on(network, "initial_second"))
        run.shares = tuple(self._on(network, shares)) if shares in self.saved.arrays else run.shares
        return run

    def _on(self, network: ShiftedReluNetwork, name: str, dtype: str | None = None) -> Array:
        """Return an array of the file on the network's device, of its type by default; None where there is none."""
        assert self.saved is not None
        arrays = self.saved.arrays
        return network.device.asarray(arrays[name], dtype or network.dtype) if name in arrays else None

    def restore_control(self, control: StepControl) -> None:
        """Bring back what damping has learnt."""
        if self.saved is not None:
            for name in CONTROL:
                setattr(control, name, self.saved.control[name])

    # ---- writing ----------------------------------------------------------------------------------------

    def after(
        self, run: Stepper, control: StepControl, watch: Validation, history: list[StepRecord], ending: bool
    ) -> None:
        """Write a checkpoint if one is due; the network stands at the place that the last step led to."""
        if not history[-1].moved_neurons or not (ending or len(history) % self.where.every == 0):
            return
        begin = time.perf_counter()
        self._captured(run, control, watch, history).save(self.where.path)
        self.seconds += time.perf_counter() - begin

    def _captured(self, run: Stepper, control: StepControl, watch: Validation, history: list[StepRecord]) -> Checkpoint:
        network, elsewhere = run.network, not control.always and control.best is not control.source
        best = control.best if elsewhere else None
        arrays = run.captured(best) | {
            "neurons": network.neurons,
            "seen": network.seen,
            "validation_rest": watch.rest if watch.active else None,
            "validation_rows": watch.best_rows,
            "validation_second": watch.best_second,
        }
        return Checkpoint(
            identity=self.identity,
            arrays={name: np.asarray(network.device.to_host(a)) for name, a in arrays.items() if a is not None},
            history=history,
            index=run.index.kind,
            best_index=best.kind if best else run.index.kind,
            control={name: getattr(control, name) for name in CONTROL},
            watch={name: getattr(watch, name) for name in WATCH},
            ridge=run.ridge,
            alpha=float(run.options.alpha),
            sampling=network.sampling,
            seconds={"build": self.build_seconds, "checkpoints": self.seconds},
            package_version=package_version(),
        )


def restore_watch(watch: Validation, saved: Checkpoint, rest: Array) -> None:
    """Bring back the numbers of early stopping; ``rest`` (k,) or (k, c) is None where there is none."""
    for name in WATCH:
        setattr(watch, name, saved.watch[name])
    if rest is not None:
        watch.rest = rest
