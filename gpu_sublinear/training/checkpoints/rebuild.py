"""A run made anew over the rows that a network holds, as a checkpoint brings them back.

Every kind of index follows from the rows: lists over one look at the rows held, trees, packed masks, each of these over
the points that the hinges of an activation look at, or one for each block of a batch run.  None of them has looked at
the rows as they were before, and none needs to: the pairs that they find are exactly those of the stored rows.  With
``mask="flips"`` alone an index is led on from the start, see :mod:`gpu_sublinear.index.flips.kept`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from ...devices import Array
from ...index.bits import BitIndex
from ...index.blocks import Blocks, Part
from ...index.flips.index import FlipIndex
from ...index.flips.kept import BEST, HERE, go_on
from ...index.hinged import HingedIndex, gram_of
from ...index.lazy import LazyIndex
from ...index.tree import ThresholdTree
from ...model.loss import SampleWeights
from ...model.network import ShiftedReluNetwork
from ...options import Options
from ...step.epochs import BatchRun
from ...step.run import Run
from ...step.state import Index, State
from ..prepare import memory_left


def kind_of(index: Index | Blocks) -> str:
    """Return the word for an index in a checkpoint; of a hinged one or of blocks, that of what finds their pairs."""
    return index.kind


def rebuilt_run(
    trainer: Options,
    network: ShiftedReluNetwork,
    X: Array,
    y: Array,
    weights: SampleWeights,
    initial: Array,
    home: Array,
    ridge: float,
    kind: str,
) -> Run:
    """Return a run over the rows that the network holds; no other neuron is looked at.

    Parameters
    ----------
    trainer : Options
        Options, with ``alpha`` settled.
    network : ShiftedReluNetwork
        With the rows and the second layer to go on from.
    X, y : Array
        (n, d), and (n,) or (n, c) training points and targets.
    weights : SampleWeights
        Of the training points.
    initial, home : Array or None
        (u, d) W_0, where there is a ridge penalty, and (u,) a_0, where the second layer is trained as well.
    ridge : float
        lambda, in absolute units.
    kind : str
        How fired pairs are found: "trees", "lists" or "bits".

    Returns
    -------
    Run
        Ready for its next step.
    """
    activation = network.activation
    points = activation.points(X, network.device.xp)  # (k n, d)
    left = memory_left(trainer, network, points)
    moving = ridge > 0 or bool(activation.slope) or bool(trainer.batch_size)  # rows move also where they do not fire

    def find(points: Array) -> Part:
        return index_over(kind, trainer, network, points, left, moving)

    index: Index
    if trainer.batch_size:
        index = cast(Index, Blocks.deal(trainer, network, X, find))
    elif activation.plain:
        index = find(points)
    else:
        index = HingedIndex(cast(LazyIndex | ThresholdTree, find(points)), network, X)
        if moving:
            index.expect_any_row()
    return _run_with(index, trainer, network, X, y, weights, initial, home, ridge)


def rebuilt_flips(
    trainer: Options,
    network: ShiftedReluNetwork,
    X: Array,
    y: Array,
    weights: SampleWeights,
    ridge: float,
    arrays: Mapping[str, np.ndarray],
) -> tuple[Run, State | None]:
    """Return a run with ``mask="flips"`` over implicit rows.

    Parameters
    ----------
    trainer, network, X, y, weights
        As for :func:`rebuilt_run`; the network holds the rows that the run began with.
    ridge : float
        lambda, 0 without a penalty.
    arrays : mapping of ndarray
        What :func:`gpu_sublinear.index.flips.kept.kept` returned.

    Returns
    -------
    run : Run
        Ready for its next step.
    best : State or None
        The best place, where that is another one.
    """
    device = network.device
    memory_left(trainer, network, X)
    index = FlipIndex.over_rows(device, X, network, y, float(trainer.alpha))
    initial = None
    if ridge:
        index.penalise()
        initial = network.rows
    run, best = _run_with(index, trainer, network, X, y, weights, initial, None, ridge), None
    if BEST + "lengths" in arrays:
        go_on(index, arrays, BEST)
        run.measure()
        best = run.look()
    go_on(index, arrays, HERE)
    run.measure()
    return run, best


def _run_with(
    index: Index,
    trainer: Options,
    network: ShiftedReluNetwork,
    X: Array,
    y: Array,
    weights: SampleWeights,
    initial: Array = None,
    home: Array = None,
    ridge: float = 0.0,
) -> Run:
    gram = gram_of(network, weights.scaled(X))
    parts = (trainer, network, X, y, network.initial_signs, index, gram, weights)
    kind = BatchRun if trainer.batch_size else Run
    run = kind(*parts, initial=initial, ridge=ridge, warm=True, home=home)
    run.measure()
    return run


def index_over(
    kind: str,
    trainer: Options,
    network: ShiftedReluNetwork,
    points: Array,
    memory_limit: int | None,
    keep_empty: bool,
) -> Part:
    """Return an index of this kind over points (n, d) and the rows held.

    Parameters
    ----------
    kind : str
        "trees", "lists" or "bits".
    trainer : Options
        Margin and tree.
    network : ShiftedReluNetwork
        Its rows.
    points : Array
        (n, d) of the network's dtype.
    memory_limit : int or None
        Bytes that lists may take.
    keep_empty : bool
        Whether rows move that fire on none of the points.

    Returns
    -------
    ThresholdTree, BitIndex or LazyIndex
        Ready for queries.
    """
    device = network.device
    if kind == "trees":
        return ThresholdTree.build(device, points, network.rows, trainer.tree)
    if kind == "bits":
        return BitIndex(device, points, network, len(network.rows))
    return LazyIndex.over_rows(device, points, network, trainer.margin, memory_limit, keep_empty)
