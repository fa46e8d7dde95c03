"""What the command ``train`` does, from checked options to files."""

from __future__ import annotations

import json
import math
import time
from argparse import Namespace
from dataclasses import asdict
from typing import Any

import numpy as np

from ..environment import environment
from ..errors import GpuSublinearError
from ..files.atomic import write_text
from ..fitted.model import FittedModel
from ..model.network import ShiftedReluNetwork
from ..options import CGOptions, SketchOptions, TreeOptions
from ..step.history import StepRecord, TrainingResult
from ..training.checkpoints.file import Checkpointing
from ..training.gauss_newton import GaussNewton
from ..views.progress import LiveLine
from ..views.run_figure import check_figure, check_matplotlib, save_figure
from ..views.run_page import page
from ..views.run_text import STEP_HEADER, Fit, closing_table, narrowed, step_line
from .checkpoint import beginning, checkpointing, how_to_go_on, resumed
from .console import INTERRUPTED, among_training_points, check_output_files, json_text, say
from .inputs import Inputs
from .interrupt import StopOnInterrupt


class DivergedError(GpuSublinearError, ArithmeticError):
    """Training left the finite numbers; there is no model to save."""


# ---- train ----------------------------------------------------------------------------------------------


def train(options: Namespace) -> int:
    """Train a network on ``options.data`` and write what was asked for.

    Parameters
    ----------
    options : argparse.Namespace
        As parsed by :func:`gpu_sublinear.app.cli.parser`.

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
    check_output_files({f"--{name}": getattr(options, name) for name in outputs}, options.data)
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
    inputs = Inputs.of(options, trainer)
    network = inputs.network
    say(inputs.opening(_method(trainer)))
    if text := beginning(options):
        say(text)
    begin += inputs.compile(trainer)
    with StopOnInterrupt() as interrupt:
        result = _fit(options, trainer, network, inputs.X, inputs.y, interrupt, checkpoint)
        stopped, reason = interrupt.requested, _why(result, interrupt)  # later Ctrl-C waits for the files
        model = inputs.model(options, network)
        model.metadata["alpha"] = result.alpha
        sound = math.isfinite(result.history[-1].residual_norm)
        fits = inputs.fits(model) if sound else {}
        summary = _summary(result, reason, fits, time.perf_counter() - begin + result.resumed_seconds)
        history = history_json(inputs.settings(options), result, summary)
        if options.history:
            write_text(options.history, history)
        if options.report:
            write_text(options.report, page(json.loads(history)))
        if not sound:
            raise DivergedError(f"{reason}; no model was saved")
        say(f"result   {'converged' if result.converged else 'not converged'}: {reason}")
        if options.alpha == "auto":
            say(f"penalty  {chosen_penalty(result)}")
        say(closing_table(result, network.width, fits["training"], fits.get("held_out"), summary["total_seconds"]))
        _save(options, model, result, inputs.title)
        if stopped and (text := how_to_go_on(options)):
            say(text)
    return INTERRUPTED if interrupt.requested else 0


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

    with line, among_training_points():
        line.count("first scan and step 0")
        return trainer.fit(network, X, y, callbacks=[live], checkpoint=checkpoint)


def _method(trainer: GaussNewton) -> str:
    index = "threshold trees" if trainer.margin == 0 else f"lazy index (margin {trainer.margin})"
    layers = ", both layers" * trainer.both_layers
    return f"{index}, {trainer.jacobian} Jacobian, solver {trainer.solver}{layers}"


def _why(result: TrainingResult, interrupt: StopOnInterrupt) -> str:
    if interrupt.requested and not result.converged:
        steps = sum(1 for record in result.history if record.moved_neurons)
        return f"stopped by Ctrl-C after {steps} step{'s' * (steps != 1)}"
    return result.reason


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


def _summary(result: TrainingResult, reason: str, fits: dict[str, Fit], total: float) -> dict[str, Any]:
    return {
        "converged": result.converged,
        "reason": reason,
        "alpha": result.alpha,
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


def chosen_penalty(result: TrainingResult) -> str:
    """Return the penalty that ``--alpha auto`` chose, and from what."""
    return f"alpha = {result.alpha:.3g}, chosen by leave-one-out of the linearised network; --alpha takes another"


def history_json(settings: dict[str, Any], result: TrainingResult, summary: dict[str, Any]) -> str:
    """Return the history file: environment, settings, steps, result; numbers that are not finite become null."""
    content = {
        "environment": environment() | {"device": result.network.device.describe()},
        "settings": settings,
        "steps": [record.as_dict() for record in result.history],
        "result": summary,
    }
    return json_text(content)
