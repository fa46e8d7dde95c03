"""All experiments of the suite, in the order of the questions."""

from __future__ import annotations

from bench.experiments import (
    accuracy,
    activations,
    agreement,
    batches,
    bias,
    costs,
    digits10,
    engine,
    enough,
    faithful,
    flips,
    floors,
    gpu_steps,
    gpu_widths,
    hardware,
    implicit,
    layers,
    micro,
    ntk,
    path,
    race,
    robust,
    search,
    second_layer,
    sensitivity,
    settle,
    shift,
    solvers,
    sparsity,
    spectrum,
    tree,
    unshifted,
    virtual,
    widths,
)
from bench.harness.experiment import Experiment

ALL: tuple[Experiment, ...] = tuple(
    module.EXPERIMENT
    for module in (
        widths,
        race,
        sparsity,
        hardware,
        sensitivity,
        shift,
        unshifted,
        flips,
        spectrum,
        enough,
        ntk,
        bias,
        solvers,
        implicit,
        layers,
        activations,
        second_layer,
        batches,
        digits10,
        accuracy,
        path,
        search,
        robust,
        settle,
        engine,
        faithful,
        virtual,
        agreement,
        costs,
        tree,
        floors,
        micro,
        gpu_steps,
        gpu_widths,
    )
)
BY_NAME = {experiment.name: experiment for experiment in ALL}


def of_suite(suite: str) -> list[Experiment]:
    """Return the experiments that have this size."""
    return [experiment for experiment in ALL if suite in experiment.sizes]
