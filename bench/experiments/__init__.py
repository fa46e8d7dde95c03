"""All experiments of the suite, in the order of the questions."""

from __future__ import annotations

from bench.experiment import Experiment
from bench.experiments import (
    accuracy,
    activations,
    batches,
    digits10,
    flips,
    gpu,
    hardware,
    kernel,
    layers,
    path,
    race,
    robust,
    search,
    second_layer,
    sensitivity,
    settle,
    shift,
    sparsity,
    widths,
)

ALL: tuple[Experiment, ...] = (
    widths.EXPERIMENT,
    race.EXPERIMENT,
    sparsity.EXPERIMENT,
    hardware.EXPERIMENT,
    sensitivity.EXPERIMENT,
    shift.EXPERIMENT,
    hardware.UNSHIFTED,
    flips.EXPERIMENT,
    shift.SPECTRUM,
    shift.WIDTH,
    kernel.EXPERIMENT,
    kernel.BIAS,
    sensitivity.SOLVER,
    sparsity.IMPLICIT,
    layers.EXPERIMENT,
    activations.EXPERIMENT,
    second_layer.EXPERIMENT,
    batches.EXPERIMENT,
    digits10.EXPERIMENT,
    accuracy.EXPERIMENT,
    path.EXPERIMENT,
    search.EXPERIMENT,
    robust.EXPERIMENT,
    settle.EXPERIMENT,
    gpu.MICRO,
    gpu.STEPS,
    gpu.WIDTHS,
)
BY_NAME = {experiment.name: experiment for experiment in ALL}


def of_suite(suite: str) -> list[Experiment]:
    """Return the experiments that have this size."""
    return [experiment for experiment in ALL if suite in experiment.sizes]
