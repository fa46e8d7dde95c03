"""Checkpoints in a run: when they are written, whose they are, and how a run goes on from one with the same bytes.

What is made anew when a run is resumed cannot change its trajectory: candidate lists, trees and masks all give exactly
the pairs ``P_ir > b`` of the stored rows, and all that is computed from them is done in an order that depends on them
alone.  What depends on the way here (rows, damping, the best weights, early stopping) is in the file.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import asdict, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .bits import BitIndex
from .checkpoint import CONTROL, WATCH, Checkpoint, Checkpointing
from .damping import StepControl
from .devices import Array, Device
from .environment import package_version
from .errors import CheckpointError, OptionError
from .files import discard_temporary
from .gram import GramMatrix
from .history import StepRecord
from .lazy import LazyIndex
from .memory import plan_memory
from .network import ShiftedReluNetwork
from .run import Run
from .state import Index, State
from .tensor_files import update
from .tree import ThresholdTree
from .validation import Validation
from .weights import SampleWeights

if TYPE_CHECKING:
    from .gauss_newton import GaussNewton

LIMITS = ("max_steps", "time_budget", "memory_limit", "tolerance")  # say when to end, not how to get there

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
        trainer: GaussNewton,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        weights: SampleWeights,
        watch: Validation,
    ) -> Run:
        """Return a run that is ready for its next step."""
        run = Run.prepare(trainer, network, X, y, weights)
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
    trainer : GaussNewton
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
        trainer: GaussNewton,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        weights: SampleWeights,
        watch: Validation,
    ):
        super().__init__()
        check_can_resume(trainer, network)
        self.options = options
        self.identity = identity(trainer, network, X, y, weights, watch)
        self.saved = options.find()
        discard_temporary(options.path)
        if self.saved is not None:
            self._check(self.saved, trainer)
            self.history, self.seconds = self.saved.history, self.saved.seconds["checkpoints"]
            self.build_seconds = self.saved.seconds["build"]
        self._resumed = self.seconds + self.build_seconds + sum(record.seconds for record in self.history)

    @property
    def resumed_seconds(self) -> float:
        """Seconds of training before this process."""
        return self._resumed

    def _check(self, saved: Checkpoint, trainer: GaussNewton) -> None:
        different = list(saved.differences(self.identity))
        if different:
            raise CheckpointError(
                f"'{self.options.path}' is a checkpoint of another run: {'; '.join(different[:6])}; give the settings, "
                "network and data of that run, or another path"
            )
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
        trainer: GaussNewton,
        network: ShiftedReluNetwork,
        X: Array,
        y: Array,
        weights: SampleWeights,
        watch: Validation,
    ) -> Run:
        """Return the run where the checkpoint left it; a new one if there is none.

        Parameters
        ----------
        trainer : GaussNewton
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
        restore_watch(watch, saved, on_device("validation_rest", "float64"), on_device("validation_rows"))
        trainer = replace(trainer, alpha=saved.alpha)  # "auto" was settled when the run began
        build = partial(resumed_run, trainer, network, X, y, weights, on_device("initial"), saved.ridge)
        best_rows, rows = on_device("best_rows"), network.rows
        if best_rows is None:
            return build(saved.index)
        network.rows = best_rows
        self.best = build(saved.best_index).look()
        network.rows = rows
        trees = isinstance(self.best.index, ThresholdTree)
        if trees:
            self.best.index = None  # the one set of trees that a run has follows its rows, there and back
        run = build(saved.index)
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
        arrays = {
            "rows": network.rows,
            "neurons": network.neurons,
            "seen": network.seen,
            "initial": run.initial,
            "best_rows": control.best.rows if elsewhere else None,
            "validation_rest": watch.rest if watch.active else None,
            "validation_rows": watch.best_rows,
        }
        return Checkpoint(
            identity=self.identity,
            arrays={name: host(array) for name, array in arrays.items() if array is not None},
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


def resumed_run(
    trainer: GaussNewton,
    network: ShiftedReluNetwork,
    X: Array,
    y: Array,
    weights: SampleWeights,
    initial: Array,
    ridge: float,
    kind: str,
) -> Run:
    """Return a run over the rows that the network holds, with an index of this kind; no other neuron is looked at."""
    device = network.device
    size = (*X.shape, network.width, network.shift, network.dtype, network.outputs)  # n, d, m, b, type, c
    left = plan_memory(trainer, device, *size)
    index: Index
    if kind == "trees":
        index = ThresholdTree.build(device, X, network.rows, trainer.tree)
    elif kind == "bits":
        index = BitIndex(device, X, network, len(network.rows))
    else:
        index = LazyIndex.over_rows(device, X, network, trainer.margin, left, keep_empty=ridge > 0)
    gram = GramMatrix(device, weights.scaled(X), network.width)
    run = Run(trainer, network, X, y, network.initial_signs, index, gram, weights, initial, ridge, warm=True)
    run.measure()
    return run


def check_can_resume(trainer: GaussNewton, network: ShiftedReluNetwork) -> None:
    """Refuse what a checkpoint cannot bring back: it holds the rows and the kind of one index over the points.

    Parameters
    ----------
    trainer : GaussNewton
        Options.
    network : ShiftedReluNetwork
        To be trained.

    Raises
    ------
    OptionError
        Naming the option.
    """
    other = {
        f"mask={trainer.mask!r}": trainer.mask == "flips",
        f"batch_size={trainer.batch_size}": trainer.batch_size is not None,
        "both_layers=True": trainer.both_layers,
        f"activation={network.activation.name!r}": not network.activation.plain,
    }
    for name, found in other.items():
        if found:
            raise OptionError(f"checkpoint and {name} exclude each other: not supported yet; leave out one of them")


def kind_of(index: Index) -> str:
    """Return the word for an index in a checkpoint."""
    return "trees" if isinstance(index, ThresholdTree) else "bits" if isinstance(index, BitIndex) else "lists"


def restore_watch(watch: Validation, saved: Checkpoint, rest: Array, rows: Array) -> None:
    """Bring back the state of early stopping; ``rest`` (k,) and ``rows`` (u, d) are None where there are none."""
    for name in WATCH:
        setattr(watch, name, saved.watch[name])
    watch.best_rows = rows
    if rest is not None:
        watch.rest = rest


# ---- whose checkpoint it is -----------------------------------------------------------------------------


def identity(
    trainer: GaussNewton,
    network: ShiftedReluNetwork,
    X: Array,
    y: Array,
    weights: SampleWeights,
    watch: Validation,
) -> dict[str, Any]:
    """Return all that a trajectory begins from: settings as they are, arrays as digests.

    Parameters
    ----------
    trainer : GaussNewton
        Its options, without those that only say when to end.
    network : ShiftedReluNetwork
        As it is before training.
    X, y : Array
        (n, d), and (n,) or (n, c) training points and targets.
    weights : SampleWeights
        Of the training points.
    watch : Validation
        Its points.

    Returns
    -------
    dict
        Of numbers and words, as JSON gives them back.
    """
    device = network.device
    parts = {part.name: getattr(network, part.name) for part in fields(network)}
    drawn = {name: value for name, value in parts.items() if hasattr(value, "shape")}
    settings = {name: value for name, value in asdict(trainer).items() if name not in LIMITS}
    settings |= {name: value for name, value in parts.items() if name not in drawn}
    settings |= {"features": network.features, "dtype": network.dtype, "device": device.name}
    return {
        **_plain(settings),
        "training points": digest(device, X=X),
        "targets": digest(device, y=y),
        "sample weights": None if weights.roots is None else digest(device, roots=weights.roots),
        "validation points": digest(device, X=watch.X, y=watch.y) if watch.active else None,
        "initial weights": digest(device, **drawn),
    }


def _plain(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings as one level of ``outer.inner`` names with plain values."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _plain(value, f"{before}{name}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            flat[before + name] = value if plain else str(getattr(value, "name", value))
    return flat


def digest(device: Device, **arrays: Array) -> str:
    """Return a digest of the shapes, types and bytes of some arrays."""
    total = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        update(total, name, np.asarray(device.to_host(array)))
    return total.hexdigest()
