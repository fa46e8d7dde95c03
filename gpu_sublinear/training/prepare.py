"""From options to a run that is ready for its first step: the one place that knows every kind of index and run.

To add a kind of index, name it in ``KINDS``: then ``mask="its name"`` trains with it, from the first look to
checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..devices import Array
from ..index.adaptive import AdaptiveIndex
from ..index.bits import BitIndex
from ..index.blocks import Blocks
from ..index.first_look import hold_firing, survey
from ..index.flips.index import FlipIndex
from ..index.hinged import HingedIndex
from ..index.lazy import LazyIndex
from ..index.protocol import Index
from ..index.tree import ThresholdTree
from ..linear.gram import gram_of
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..model.shifts import firing_probability
from ..options import Options
from ..step.epochs import BatchRun
from ..step.run import Run
from . import support
from .memory import plan_memory
from .penalty import choose_alpha


@dataclass(frozen=True)
class Look:
    """What an index is made of.

    Attributes
    ----------
    options : Options
        What the user chose.
    network : ShiftedReluNetwork
        Whose neurons are looked at.
    X : Array
        (k n, d) the points to look at: those of the data, or those that the hinges of an activation look at.
    y : Array
        (n,) or (n, c) targets; only the speed depends on them.
    memory_limit : int or None
        Bytes that lists may take.
    any_row : bool
        Whether rows move that fire on none of the points.
    """

    options: Options
    network: ShiftedReluNetwork
    X: Array
    y: Array
    memory_limit: int | None
    any_row: bool = False

    @property
    def alpha(self) -> float:
        """The penalty, as far as it is known."""
        return 0.0 if self.options.alpha == "auto" else float(self.options.alpha)


@dataclass(frozen=True)
class Kind:
    """How to make an index of one kind.

    Attributes
    ----------
    hold : callable
        Makes the network hold the rows that take part, of its points (n, d).
    over_rows : callable
        Returns the index over the rows that the network holds; no other neuron is looked at.
    first : callable or None
        Does both in one look, where that is less than one after the other.
    """

    hold: Callable[[ShiftedReluNetwork, Array], object]
    over_rows: Callable[[Look], Index]
    first: Callable[[Look], Index] | None = None

    def look(self, look: Look) -> Index:
        """Look at all neurons and return the index."""
        if self.first is not None:
            return self.first(look)
        self.hold(look.network, look.X)
        return self.over_rows(look)

    def parted(self, look: Look) -> Callable[[list[Array]], Sequence[Index]]:
        """Look at all neurons; return what makes an index for each of some sets of points, by number."""
        if self.first is not None:
            return self.first(look).parts
        self.hold(look.network, look.X)
        return self.parted_over_rows(look)

    def parted_over_rows(self, look: Look) -> Callable[[list[Array]], Sequence[Index]]:
        """Do the same for the rows that the network holds."""
        return lambda points: [self.over_rows(replace(look, X=look.X[block], any_row=True)) for block in points]


def _tree(look: Look) -> Index:
    return ThresholdTree.build(look.network.device, look.X, look.network.rows, look.options.tree)


def _lists(look: Look) -> Index:
    network, options = look.network, look.options
    return LazyIndex.build(network.device, look.X, network, options.margin, look.memory_limit)


def _lists_over_rows(look: Look) -> Index:
    network, limit = look.network, look.memory_limit
    return LazyIndex.over_rows(network.device, look.X, network, look.options.margin, limit, look.any_row)


def _bits(look: Look) -> Index:
    return BitIndex(look.network.device, look.X, look.network)


def _flips(look: Look) -> Index:
    return FlipIndex.over_rows(look.network.device, look.X, look.network, look.y, look.alpha)


KINDS = {
    "trees": Kind(partial(survey, margin=0), _tree),
    "lists": Kind(partial(survey, margin=0), _lists_over_rows, _lists),
    "bits": Kind(hold_firing, _bits),
    "flips": Kind(hold_firing, _flips),
}


def masks() -> tuple[str, ...]:
    """Return what ``mask`` may be."""
    return "auto", *(name for name in KINDS if name != "trees")


def kind_of(options: Options, network: ShiftedReluNetwork) -> str:
    """Return the kind of index that the options ask for, a key of ``KINDS``."""
    if options.margin == 0:
        return "trees"
    if options.mask != "auto":
        return options.mask
    plain = network.activation.plain
    return "bits" if plain and options.packs(firing_probability(network.shift), network.outputs) else "lists"


def build_index(options: Options, network: ShiftedReluNetwork, problem: Problem, trainings: int = 1) -> Index:
    """Plan the memory of so many trainings and look at all neurons once; only the speed depends on the targets."""
    support.check(options, network)
    kind = kind_of(options, network)
    look = _look(options, network, problem, trainings)
    if options.batch_size:
        return Blocks.deal(network, problem.X, options.batch_size, KINDS[kind].parted(look))
    return _wrapped(KINDS[kind].look(look), options, network, problem)


def index_over_rows(kind: str, options: Options, network: ShiftedReluNetwork, problem: Problem, any_row: bool) -> Index:
    """Return an index of this kind over the rows that the network holds, for a run that goes on.

    Parameters
    ----------
    kind : str
        A key of ``KINDS``.
    options : Options
        Batch size, margin, tree, memory.
    network : ShiftedReluNetwork
        Its rows.
    problem : Problem
        Points and targets.
    any_row : bool
        Whether rows move that fire on none of the points.

    Returns
    -------
    Index
        Ready for queries: the pairs that it finds are those of the rows, however they came there.
    """
    look = replace(_look(options, network, problem), any_row=any_row)
    if options.batch_size:
        return Blocks.deal(network, problem.X, options.batch_size, KINDS[kind].parted_over_rows(look))
    return _wrapped(KINDS[kind].over_rows(look), options, network, problem)


def _look(options: Options, network: ShiftedReluNetwork, problem: Problem, trainings: int = 1) -> Look:
    points = network.activation.points(problem.X, network.device.xp)  # X itself for one hinge
    return Look(options, network, points, problem.y, memory_left(options, network, points, trainings))


def _wrapped(index: Index, options: Options, network: ShiftedReluNetwork, problem: Problem) -> Index:
    """Return the index as a run on all points takes it."""
    if not network.activation.plain:
        return HingedIndex(index, network, problem.X)
    if index.kind in ("lists", "bits") and options.mask == "auto" and options.can_pack and network.outputs == 1:
        return AdaptiveIndex(index, network, options.packs)
    return index


def memory_left(options: Options, network: ShiftedReluNetwork, points: Array, trainings: int = 1) -> int | None:
    """Return the bytes that the limit leaves to lists over these points (n, d); see :func:`plan_memory`."""
    n, d = points.shape
    size = (n, d, network.width, network.shift, network.dtype, network.outputs, bool(network.activation.slope))
    return plan_memory(options, network.device, *size, trainings)


# ---- runs -----------------------------------------------------------------------------------------------


def prepare(options: Options, network: ShiftedReluNetwork, problem: Problem) -> Run:
    """Plan the memory and look at all neurons once."""
    return begin(options, network, problem, build_index(options, network, problem))


def begin(options: Options, network: ShiftedReluNetwork, problem: Problem, index: Index) -> Run:
    """Start from an index that exists; choose the penalty where that is asked for."""
    kind = BatchRun if options.batch_size else Run
    if options.alpha != "auto":
        return kind.begin(options, network, problem, index)
    run = kind.begin(replace(options, alpha=0.0), network, problem, index)
    run.options = replace(options, alpha=choose_alpha(run))
    if run.options.alpha:
        run.penalise(float(run.options.alpha), network.rows)
    return run


def resumed(
    kind: str,
    options: Options,
    network: ShiftedReluNetwork,
    problem: Problem,
    ridge: float,
    initial: Array,
    home: Array,
) -> Run:
    """Return a run over the rows that the network holds; no other neuron is looked at.

    Parameters
    ----------
    kind : str
        How fired pairs are found, a key of ``KINDS``.
    options : Options
        With ``alpha`` settled.
    network : ShiftedReluNetwork
        With the rows and the second layer to go on from.
    problem : Problem
        What is trained on.
    ridge : float
        lambda, in absolute units.
    initial, home : Array or None
        (u, d) W_0, where there is a ridge penalty, and (u,) a_0, where the second layer is trained as well.

    Returns
    -------
    Run
        Ready for its next step.
    """
    moving = ridge > 0 or bool(network.activation.slope) or bool(options.batch_size)
    index = index_over_rows(kind, options, network, problem, moving)
    make, gram = BatchRun if options.batch_size else Run, gram_of(network, problem.scaled)
    run = make(options, network, problem, gram, home, index, initial, ridge, warm=True)
    if ridge:
        run.rows.penalise(run)
    run.measure()
    return run
