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
from ...index.flips.index import FlipIndex
from ...index.flips.kept import kept
from ...model.loss import SampleWeights
from ...model.network import ShiftedReluNetwork
from ...options import Options
from ...step.damping import StepControl
from ...step.epochs import BatchRun
from ...step.history import StepRecord
from ...step.run import Run
from ...step.state import State
from ..prepare import prepare
from ..validation import Validation
from .file import CHECKPOINT, CONTROL, SHARES, WATCH, Checkpoint, Checkpointing
from .identity import identity
from .rebuild import kind_of, rebuilt_flips, rebuilt_run

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

    def prepare(
        self,
        trainer: Options,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        weights: SampleWeights,
        watch: Validation,
    ) -> Run:
        """Return a run that is ready for its next step."""
        run = prepare(trainer, network, X, y, weights)
        watch.prepare()
        return run

    def restore_control(self, control: StepControl) -> None:
        """Bring back what damping has learnt."""

    def after(self, run: Run, control: StepControl, watch: Validation, history: list[StepRecord], ending: bool) -> None:
        """Look at a run after a step; ``ending`` if no further one will be taken."""


class CheckpointKeeper(Keeper):
    """Writes checkpoints of a run and brings one back.

    Parameters
    ----------
    options : Checkpointing
        File, interval, and whether to resume.
    trainer : Options
        Options of the run.
    network : ShiftedReluNetwork
        As it is given to ``fit``.
    X, y : Array
        (n, d), and (n,) or (n, c) training points and targets, without those held out.
    weights : SampleWeights
        Of the training points.
    watch : Validation
        Its points.

    Raises
    ------
    CheckpointError
        If the file holds another run.
    """

    def __init__(
        self,
        options: Checkpointing,
        trainer: Options,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        weights: SampleWeights,
        watch: Validation,
    ):
        super().__init__()
        self.options = options
        self.identity = identity(trainer, network, X, y, weights, watch)
        self.saved = options.find()
        discard_temporary(options.path)
        if self.saved is not None:
            self._check(self.saved, trainer, len(X))
            self.history, self.seconds = self.saved.history, self.saved.seconds["checkpoints"]
            self.build_seconds = self.saved.seconds["build"]
        self._resumed = self.seconds + self.build_seconds + sum(record.seconds for record in self.history)

    @property
    def resumed_seconds(self) -> float:
        """Seconds of training before this process."""
        return self._resumed

    def _check(self, saved: Checkpoint, trainer: Options, n: int) -> None:
        different = list(saved.differences(self.identity))
        if different:
            raise CheckpointError(
                f"'{self.options.path}' is a checkpoint of another run: {'; '.join(different[:6])}; give the settings, "
                "network and data of that run, or another path"
            )
        if len(saved.arrays.get("flips_total", range(n))) != n:
            raise CHECKPOINT.damaged(self.options.path, "its flips are those of other points")
        if any(
            len(saved.arrays[name]) != -(-n // (trainer.batch_size or n)) for name in SHARES if name in saved.arrays
        ):
            raise CHECKPOINT.damaged(self.options.path, "its shares are those of other batches")
        if trainer.max_steps < len(saved.history):
            raise OptionError(
                f"'{self.options.path}' has {len(saved.history)} steps already, more than max_steps, which is "
                f"{trainer.max_steps}"
            )
        if saved.package_version != package_version():
            _log.warning(
                "'%s' was written by version %s; the rest of the run may have other bytes than it would have had there",
                self.options.path,
                saved.package_version,
            )

    # ---- bringing a run back ----------------------------------------------------------------------------

    def prepare(
        self,
        trainer: Options,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        weights: SampleWeights,
        watch: Validation,
    ) -> Run:
        """Return the run where the checkpoint left it; a new one if there is none.

        Parameters
        ----------
        trainer : Options
            Options.
        network : ShiftedReluNetwork
            Gets the rows of the checkpoint.
        X, y : Array
            (n, d), and (n,) or (n, c) training points and targets.
        weights : SampleWeights
            Of the training points.
        watch : Validation
            Gets the state of early stopping.

        Returns
        -------
        Run
            Ready for its next step.
        """
        if self.saved is None:
            return super().prepare(trainer, network, X, y, weights, watch)
        saved, device = self.saved, network.device

        def on_device(name: str, dtype: str = network.dtype) -> Array:
            return device.asarray(saved.arrays[name], dtype) if name in saved.arrays else None

        network.sampling, network.seen = saved.sampling, on_device("seen")
        network.hold(on_device("neurons", "int64"), on_device("rows"))
        network.second = on_device("second")
        watch.best_rows, watch.best_second = on_device("validation_rows"), on_device("validation_second")
        restore_watch(watch, saved, on_device("validation_rest", "float64"))
        trainer = replace(trainer, alpha=saved.alpha)  # "auto" was settled when the run began
        if saved.index == "flips":
            run, self.best = rebuilt_flips(trainer, network, X, y, weights, saved.ridge, saved.arrays)
            return run

        home = on_device("initial"), on_device("initial_second")

        def build(index: str, shares: str) -> Run:
            run = rebuilt_run(trainer, network, X, y, weights, *home, saved.ridge, index)
            if isinstance(run, BatchRun) and shares in saved.arrays:
                run.shares = tuple(on_device(shares))
            return run

        best_rows, here = on_device("best_rows"), (network.rows, network.second)
        if best_rows is None:
            return build(saved.index, "shares")
        network.rows, network.second = best_rows, on_device("best_second")
        self.best = build(saved.best_index, "best_shares").look()
        network.rows, network.second = here
        trees = self.best.index is not None and saved.best_index == "trees"
        if trees:
            self.best.index = None  # the one set of trees that a run has follows its rows, there and back
        run = build(saved.index, "shares")
        if trees:
            self.best.index = run.index
        return run

    def restore_control(self, control: StepControl) -> None:
        """Bring back what damping has learnt."""
        if self.saved is not None:
            for name in CONTROL:
                setattr(control, name, self.saved.control[name])

    # ---- writing ----------------------------------------------------------------------------------------

    def after(self, run: Run, control: StepControl, watch: Validation, history: list[StepRecord], ending: bool) -> None:
        """Write a checkpoint if one is due; the network stands at the place that the last step led to."""
        if not history[-1].moved_neurons or not (ending or len(history) % self.options.every == 0):
            return
        begin = time.perf_counter()
        self._captured(run, control, watch, history).save(self.options.path)
        self.seconds += time.perf_counter() - begin

    def _captured(self, run: Run, control: StepControl, watch: Validation, history: list[StepRecord]) -> Checkpoint:
        network, here = run.network, kind_of(run.index)
        host = network.device.to_host
        elsewhere = not control.always and control.best is not control.source
        best_shares = control.best.mark if elsewhere and isinstance(run, BatchRun) else None
        arrays = {
            "shares": _stacked(network, run.shares) if isinstance(run, BatchRun) else None,
            "best_shares": _stacked(network, best_shares),
            "rows": run.index.base if isinstance(run.index, FlipIndex) else network.rows,
            "second": network.second,
            "neurons": network.neurons,
            "seen": network.seen,
            "initial": None if isinstance(run.index, FlipIndex) else run.initial,  # its rows are those of the start
            "initial_second": run.home,
            "best_rows": control.best.rows if elsewhere else None,
            "best_second": control.best.second if elsewhere else None,
            "validation_rest": watch.rest if watch.active else None,
            "validation_rows": watch.best_rows,
            "validation_second": watch.best_second,
        }
        stored = {name: host(array) for name, array in arrays.items() if array is not None}
        if isinstance(run.index, FlipIndex):
            stored |= kept(run.index, control.best.mark if elsewhere else None)
        return Checkpoint(
            identity=self.identity,
            arrays=stored,
            history=history,
            index=here,
            best_index=kind_of(control.best.index) if elsewhere and control.best.index is not None else here,
            control={name: getattr(control, name) for name in CONTROL},
            watch={name: getattr(watch, name) for name in WATCH},
            ridge=run.ridge,
            alpha=float(run.trainer.alpha),
            sampling=network.sampling,
            seconds={"build": self.build_seconds, "checkpoints": self.seconds},
            package_version=package_version(),
        )


def _stacked(network: ShiftedReluNetwork, shares: tuple[Array, ...] | None) -> Array:
    """Return the shares of blocks as one array (blocks, u, d) on the host; None before the first epoch."""
    return None if not shares or shares[0] is None else np.stack([network.device.to_host(share) for share in shares])


def restore_watch(watch: Validation, saved: Checkpoint, rest: Array) -> None:
    """Bring back the numbers of early stopping; ``rest`` (k,) or (k, c) is None where there is none."""
    for name in WATCH:
        setattr(watch, name, saved.watch[name])
    if rest is not None:
        watch.rest = rest
