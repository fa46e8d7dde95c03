"""What the command ``train`` does, from checked options to files."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import time
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from .activation import activation_of
from .checkpoint import Checkpointing
from .checkpoint_command import beginning, checkpointing, how_to_go_on, resumed
from .data import Dataset, load, split
from .devices import Device, get_device
from .environment import environment, package_version
from .errors import DataError, GpuSublinearError, OptionError, SilentPointsError
from .figure import check_figure, check_matplotlib, save_figure
from .files import check_writable, write_text
from .gauss_newton import GaussNewton
from .history import StepRecord, TrainingResult
from .html_report import page
from .interrupt import StopOnInterrupt
from .io import FittedModel
from .memory import plan_memory
from .network import ShiftedReluNetwork
from .outputs import check_supported
from .preprocessing import Preprocessing, TargetScaling
from .progress import LiveLine
from .report import STEP_HEADER, Fit, closing_table, narrowed, step_line
from .shifts import resolve_shift
from .sketch import SketchOptions
from .solvers import CGOptions
from .tree import TreeOptions
from .virtual import settle_sampling
from .warmup import warm_up

NOTEWORTHY = 1.0  # seconds of compilation that a user should know of
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended
MODEL_SETTINGS = (  # the options that the weights depend on: these travel in the model file
    "width",
    "shift",
    "init",
    "sampling",
    "activation",
    "both_layers",
    "seed",
    "dtype",
    "solver",
    "tolerance",
    "max_steps",
    "test_fraction",
    "classify",
    "solver_tolerance",
    "engine",
    "margin",
    "jacobian",
    "sketch",
    "sketch_rows",
    "arity",
    "memory_limit",
    "damping",
    "alpha",
    "time_budget",
    "validation_fraction",
    "patience",
    "batch_size",
    "mask",
)


class DivergedError(GpuSublinearError, ArithmeticError):
    """Training left the finite numbers; there is no model to save."""


def say(text: str = "") -> None:
    """Print a line at once; when nobody reads any more (a closed pipe), go on without printing."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Send standard output to nowhere, so that neither we nor the interpreter's exit trip over a closed pipe."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


# ---- train ----------------------------------------------------------------------------------------------


def train(options: Namespace) -> int:
    """Train a network on ``options.data`` and write what was asked for.

    Parameters
    ----------
    options : argparse.Namespace
        As parsed by :func:`gpu_sublinear.cli.parser`.

    Returns
    -------
    int
        Exit code: 0, or 130 after Ctrl-C.

    Raises
    ------
    DivergedError
        If the loss is not finite at the end; the history is written, the model is not.
    """
    begin = time.perf_counter()
    outputs = ("out", "history", "figure", "report", "checkpoint")
    _check_outputs({f"--{name}": getattr(options, name) for name in outputs}, options.data)
    checkpoint = checkpointing(options)
    if options.figure:
        check_figure(options.figure)
    if options.report:
        check_matplotlib("--report")
    trainer = _trainer(options)
    if options.init == "auto":
        options.init = "iid" if options.engine == "faithful" else "paired"
    resolved = {name: getattr(trainer, name) for name in ("solver", "margin", "jacobian")}
    vars(options).update(resolved, sketch=trainer.sketch.kind, sketch_rows=trainer.sketch.c)
    dataset = load(options.data, options.target, options.classify)
    rows, held_out = split(len(dataset.y), options.test_fraction, options.seed)
    if dataset.classes and dataset.labels is not None:
        dataset.classes.check_training(dataset.labels[rows])
    preprocessing = Preprocessing.fit(dataset.X[rows], dataset.preprocessing)
    targets = TargetScaling.fit(dataset.y[rows])
    device = get_device(options.device)
    b = resolve_shift(options.shift, options.width)
    phi = activation_of(options.activation)
    n = len(rows) * len(phi.hinges)
    size = (n, preprocessing.inputs, options.width, b, options.dtype, dataset.outputs)  # n, d, m, b, type, c
    plan_memory(trainer, device, *size, everyone=bool(phi.slope))
    network = ShiftedReluNetwork.initialize(
        options.width,
        preprocessing.inputs,
        shift=b,
        seed=options.seed,
        dtype=options.dtype,
        paired=options.init == "paired",
        sampling=options.sampling,
        outputs=dataset.outputs,
        device=device,
        activation=phi,
    )
    check_supported(trainer, network)
    settle_sampling(network, n)
    say(_opening(dataset, rows, held_out, network, device, trainer))
    if text := beginning(options):
        say(text)
    compiling = warm_up(device, trainer, options.dtype, network.sampling, phi, network.outputs)
    begin += compiling
    if compiling > NOTEWORTHY:
        say(f"compiled {compiling:.0f} s, kept for the next run; not counted below")
    X, y = preprocessing.transform(dataset.X[rows]), targets.transform(dataset.y[rows])  # (n, d), (n,) or (n, c)
    with StopOnInterrupt() as interrupt:
        result = _fit(options, trainer, network, X, y, interrupt, checkpoint)
    model = FittedModel(network, preprocessing, targets, _metadata(options, dataset))
    reason = _why(result, interrupt)
    finite = math.isfinite(result.history[-1].residual_norm)
    fits = _errors(model, dataset, rows, held_out) if finite else {}
    summary = _summary(result, reason, fits, time.perf_counter() - begin + result.resumed_seconds)
    settings = _settings(options, dataset, network, len(rows), len(held_out))
    history = history_json(settings, result, summary)
    if options.history:
        write_text(options.history, history)
    if options.report:
        write_text(options.report, page(json.loads(history)))
    if not finite:
        raise DivergedError(f"{reason}; no model was saved")
    say(f"result   {'converged' if result.converged else 'not converged'}: {reason}")
    say(closing_table(result, network.width, fits["training"], fits.get("held_out"), summary["total_seconds"]))
    _save(options, model, result, _title(dataset, network, len(rows)))
    if interrupt.requested and (text := how_to_go_on(options)):
        say(text)
    return INTERRUPTED if interrupt.requested else 0


def _check_outputs(outputs: dict[str, str | None], *inputs: str) -> None:
    """Raise before any work if two files would overwrite each other or one cannot be written."""
    taken = {Path(name).resolve(): "an input" for name in inputs if Path(name).is_file()}
    for option, name in outputs.items():
        if name is None:
            continue
        path = check_writable(name, option).resolve()
        if path in taken:
            raise OptionError(f"{option}: '{name}' is also {taken[path]}; choose another path")
        if path.is_file() or not path.exists():  # two options may share /dev/null
            taken[path] = f"the file of {option}"


def _trainer(options: Namespace) -> GaussNewton:
    """Return the trainer of the engine, with what the user chose in place of its defaults."""
    chosen = {"solver": options.solver, "margin": options.margin, "jacobian": options.jacobian}
    faithful = options.engine == "faithful"
    make = GaussNewton.faithful if faithful else GaussNewton
    return make(
        tolerance=options.tolerance,
        max_steps=options.max_steps,
        memory_limit=options.memory_limit,
        damping=options.damping,
        alpha=options.alpha,
        time_budget=options.time_budget,
        validation_fraction=options.validation_fraction,
        patience=options.patience,
        batch_size=options.batch_size,
        both_layers=options.both_layers,
        mask=options.mask,
        tree=TreeOptions(arity=options.arity),
        sketch=SketchOptions(options.sketch or ("rows" if faithful else "neurons"), options.sketch_rows),
        cg=CGOptions(tolerance=options.solver_tolerance),
        **{name: value for name, value in chosen.items() if value is not None},
    )


def _fit(
    options: Namespace,
    trainer: GaussNewton,
    network: ShiftedReluNetwork,
    X: np.ndarray,
    y: np.ndarray,
    interrupt: StopOnInterrupt,
    checkpoint: Checkpointing | None,
) -> TrainingResult:
    """Train with a line per step; errors that name rows say which rows are meant."""
    line = LiveLine()
    columns = line.columns if line.shown else len(STEP_HEADER)
    first = True

    def live(record: StepRecord, network: ShiftedReluNetwork) -> bool:
        nonlocal first
        line.settle()
        if first:
            first = False
            if text := resumed(options, record):
                say(text)
            say(narrowed(STEP_HEADER, columns))
        say(narrowed(step_line(record, network.width), columns))
        line.count(f"step {record.step + 1}")
        return interrupt.requested

    try:
        with line:
            line.count("first scan and step 0")
            return trainer.fit(network, X, y, callbacks=[live], checkpoint=checkpoint)
    except (DataError, SilentPointsError) as error:
        where = "; rows and points are numbered from 0 among the training points (--test-fraction 0 keeps all)"
        raise type(error)(f"{error}{where}") from error


def _why(result: TrainingResult, interrupt: StopOnInterrupt) -> str:
    if interrupt.requested and not result.converged:
        steps = sum(1 for record in result.history if record.moved_neurons)
        return f"stopped by Ctrl-C after {steps} step{'s' * (steps != 1)}"
    return result.reason


def _errors(model: FittedModel, dataset: Dataset, rows: np.ndarray, held_out: np.ndarray) -> dict[str, Fit]:
    fits, variance = {}, np.asarray(model.targets.std) ** 2
    for name, which in {"training": rows, "held_out": held_out}.items():
        if not len(which):
            continue
        predicted = model.predict(dataset.X[which])  # (k,) or (k, c)
        fits[name] = Fit.of(predicted, dataset.y[which], variance)
        if dataset.classes and dataset.labels is not None:
            right = dataset.classes.decide(predicted) == dataset.labels[which]
            fits[name] = replace(fits[name], accuracy=float(right.mean()))
    return fits


def _save(options: Namespace, model: FittedModel, result: TrainingResult, title: str) -> None:
    if options.out:
        model.save(options.out)
        say(f"model    {options.out}")
    if options.history:
        say(f"history  {options.history}")
    if options.figure:
        first = result.history[0]
        n = 2 * first.loss / first.mse if first.mse else 0  # the standard targets have ||y||^2 = n (n c)
        save_figure(options.figure, result.history, title, 0.5 * options.tolerance**2 * n)
        say(f"figure   {options.figure}")
    if options.report:
        say(f"report   {options.report}")


# ---- words and records ----------------------------------------------------------------------------------


def _opening(
    dataset: Dataset,
    rows: np.ndarray,
    held_out: np.ndarray,
    network: ShiftedReluNetwork,
    device: Device,
    trainer: GaussNewton,
) -> str:
    on = ", ".join(f"{key} {value}" for key, value in device.describe().items() if key != "device")
    index = "threshold trees" if trainer.margin == 0 else f"lazy index (margin {trainer.margin})"
    initial = "paired" if network.paired else "iid"
    if network.sampling == "virtual":
        initial += ", virtual (only neurons that take part exist)"
    return "\n".join((
        f"data     {dataset.name}: {len(rows):,} points to train on, {len(held_out):,} held out, "
        f"{dataset.X.shape[1]} features, {_targets(dataset)}",
        f"network  m = {network.width:,} neurons, d = {network.features}, shift b = {network.shift:.4g}, "
        f"{initial}, {network.activation.name}, {network.dtype}, seed {network.seed}",
        f"device   {device.name} ({on})",
        f"method   {index}, {trainer.jacobian} Jacobian, solver {trainer.solver}"
        + ", both layers" * trainer.both_layers,
    ))


def _targets(dataset: Dataset) -> str:
    several = f"{dataset.outputs} targets '{dataset.target_name}'"
    if dataset.classes:
        return f"{len(dataset.classes.names)} classes of '{dataset.target_name}'"
    return f"target '{dataset.target_name}'" if dataset.outputs == 1 else several


def _title(dataset: Dataset, network: ShiftedReluNetwork, n: int) -> str:
    return f"{dataset.name}   n = {n:,}   d = {network.features}   m = {network.width:,}   b = {network.shift:.4g}"


def _metadata(options: Namespace, dataset: Dataset) -> dict[str, Any]:
    metadata = {
        "data": dataset.name,
        "feature_names": list(dataset.feature_names),
        "target_name": dataset.target_name,
        "package_version": package_version(),
        "settings": {name: getattr(options, name) for name in MODEL_SETTINGS},
    }
    if dataset.target_names:
        metadata["target_names"] = list(dataset.target_names)
    if dataset.classes:
        metadata["classes"] = list(dataset.classes.names)
    return metadata


def _settings(
    options: Namespace, dataset: Dataset, network: ShiftedReluNetwork, n: int, held_out: int
) -> dict[str, Any]:
    """Return every option as given, and what followed from them and the data."""
    given = {name: value for name, value in vars(options).items() if name not in ("run", "command")}
    return given | {
        "data": dataset.name,
        "target": dataset.target_name,
        "device": network.device.name,
        "shift": network.shift,
        "shift_option": options.shift,
        "outputs": network.outputs,
        "points": n,
        "held_out_points": held_out,
        "raw_features": dataset.X.shape[1],
        "features": network.features,
        "preprocessing": dataset.preprocessing,
    }


def _summary(result: TrainingResult, reason: str, fits: dict[str, Fit], total: float) -> dict[str, Any]:
    return {
        "converged": result.converged,
        "reason": reason,
        "steps_taken": sum(1 for record in result.history if record.moved_neurons),
        "build_seconds": result.build_seconds,
        "checkpoint_seconds": result.checkpoint_seconds,
        "resumed_seconds": result.resumed_seconds,
        "seconds": result.seconds,
        "total_seconds": total,
        "peak_bytes": max(record.peak_bytes for record in result.history),
        "training": asdict(fits["training"]) if "training" in fits else None,
        "held_out": asdict(fits["held_out"]) if "held_out" in fits else None,
    }


def history_json(settings: dict[str, Any], result: TrainingResult, summary: dict[str, Any]) -> str:
    """Return the history file: environment, settings, steps, result; numbers that are not finite become null."""
    content = {
        "environment": environment() | {"device": result.network.device.describe()},
        "settings": settings,
        "steps": [record.as_dict() for record in result.history],
        "result": summary,
    }
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
