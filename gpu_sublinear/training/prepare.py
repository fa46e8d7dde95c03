"""From options to a run that is ready for its first step: the one place that knows every kind of index and run."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from ..devices import Array
from ..index.bits import BitIndex
from ..index.blocks import Blocks
from ..index.first_look import survey
from ..index.flips.index import FlipIndex
from ..index.hinged import HingedIndex, check_activation
from ..index.lazy import LazyIndex
from ..index.tree import ThresholdTree
from ..linear.both_layers import check_network
from ..linear.outputs import check_supported
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork
from ..model.shifts import firing_probability
from ..options import Options
from ..step.epochs import BatchRun
from ..step.run import Run
from ..step.state import Index
from .memory import plan_memory
from .penalty import choose_alpha


def prepare(
    trainer: Options, network: ShiftedReluNetwork, X: Array, y: Array, weights: SampleWeights | None = None
) -> Run:
    """Plan the memory and look at all neurons once."""
    index = build_index(trainer, network, X, y)
    return begin(trainer, network, X, y, index, weights, BatchRun if trainer.batch_size else Run)


def begin(
    trainer: Options,
    network: ShiftedReluNetwork,
    X: Array,
    y: Array,
    index: Index,
    weights: SampleWeights | None = None,
    kind: type[Run] = Run,
) -> Run:
    """Start from an index that exists; choose the penalty where that is asked for."""
    if trainer.alpha != "auto":
        return kind.begin(trainer, network, X, y, index, weights)
    run = kind.begin(replace(trainer, alpha=0.0), network, X, y, index, weights)
    run.trainer = replace(trainer, alpha=choose_alpha(run))
    if run.trainer.alpha:
        run.penalise(float(run.trainer.alpha), network.rows)
    return run


def build_index(trainer: Options, network: ShiftedReluNetwork, X: Array, y: Array, trainings: int = 1) -> Index:
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
        index = HingedIndex(index, network, X)
    return index


def memory_left(trainer: Options, network: ShiftedReluNetwork, points: Array, trainings: int = 1) -> int | None:
    """Return the bytes that the limit leaves to lists over these points (n, d); see :func:`plan_memory`."""
    n, d = points.shape
    size = (n, d, network.width, network.shift, network.dtype, network.outputs, bool(network.activation.slope))
    return plan_memory(trainer, network.device, *size, trainings)
