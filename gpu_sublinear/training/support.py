"""What goes with what: one table of the features of a training that exclude each other, and why.

A feature is something that options, network or use of a training have or have not.  A rule names two that do not go
together, and the sentence that says so; everything else goes together.  :func:`check` raises the first rule that is
broken, :func:`markdown` prints the table for the documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import OptionError
from ..model.network import ShiftedReluNetwork
from ..options import Options

FIT, SESSION, SHARED_SCAN = "fit", "session", "shared scan"


@dataclass(frozen=True)
class Chosen:
    """What was chosen for a training.

    Attributes
    ----------
    options : Options
        By the user.
    network : ShiftedReluNetwork or None
        None while only the options are known: then no rule about networks applies.
    use : str
        ``FIT``, ``SESSION`` or ``SHARED_SCAN``.
    """

    options: Options
    network: ShiftedReluNetwork | None = None
    use: str = FIT


@dataclass(frozen=True)
class Feature:
    """Something that a training has or has not.

    Attributes
    ----------
    words : str
        Its name in the table.
    present : callable
        Tells of what was chosen whether it is there.
    """

    words: str
    present: Callable[[Chosen], bool]


@dataclass(frozen=True)
class Rule:
    """Two features that exclude each other.

    Attributes
    ----------
    one, other : str
        Keys of ``FEATURES``.
    sentence : str
        What to say; ``{options...}`` and ``{network...}`` are filled in.
    """

    one: str
    other: str
    sentence: str


def _of_options(test: Callable[[Options], bool]) -> Callable[[Chosen], bool]:
    return lambda chosen: test(chosen.options)


def _of_network(test: Callable[[ShiftedReluNetwork], bool]) -> Callable[[Chosen], bool]:
    return lambda chosen: chosen.network is not None and test(chosen.network)


FEATURES = {
    "csr": Feature("jacobian csr", _of_options(lambda o: o.jacobian == "csr")),
    "iterative": Feature("solver cg or sketch-cg", _of_options(lambda o: o.solver in ("cg", "sketch-cg"))),
    "neuron sketch": Feature("solver sketch-cg", _of_options(lambda o: o.solver == "sketch-cg")),
    "row sketch": Feature("sketch of rows", _of_options(lambda o: o.solver == "sketch-cg" and o.sketch.kind == "rows")),
    "factored": Feature("jacobian factored", _of_options(lambda o: o.jacobian == "factored")),
    "margin": Feature("a margin or trees", _of_options(lambda o: o.margin != "auto")),
    "bits": Feature("mask bits", _of_options(lambda o: o.mask == "bits")),
    "flips": Feature("mask flips", _of_options(lambda o: o.mask == "flips")),
    "batches": Feature("mini-batches", _of_options(lambda o: o.batch_size is not None)),
    "both layers": Feature("both layers trained", _of_options(lambda o: o.both_layers)),
    "fraction": Feature("a validation fraction", _of_options(lambda o: bool(o.validation_fraction))),
    "outputs": Feature("several outputs", _of_network(lambda n: n.outputs > 1)),
    "activation": Feature("activation other than relu and max", _of_network(lambda n: not n.activation.plain)),
    "slope": Feature("activation with a slope", _of_network(lambda n: bool(n.activation.slope))),
    "constant": Feature("activation with a constant", _of_network(lambda n: bool(n.activation.constant))),
    "first layer": Feature("first layer trained alone", _of_options(lambda o: not o.both_layers)),
    "trained second": Feature("a second layer trained before", _of_network(lambda n: n.second is not None)),
    "session": Feature("sessions", lambda chosen: chosen.use == SESSION),
    "scan": Feature("shared scans and paths", lambda chosen: chosen.use == SHARED_SCAN),
}

PACKED = "mask={options.mask!r} needs solver 'auto' or 'gram', margin 'auto' and jacobian 'factored'"
RULES = (
    Rule(
        "row sketch",
        "factored",
        "a sketch of rows needs the entries of J; use jacobian='csr' or a sketch of neurons",
    ),
    Rule(
        "both layers",
        "csr",
        "both_layers=True needs jacobian='factored'; got jacobian={options.jacobian!r}",
    ),
    Rule(
        "both layers",
        "batches",
        "both_layers=True trains on all points at once; got batch_size={options.batch_size}: leave it out",
    ),
    Rule(
        "both layers",
        "flips",
        "both_layers=True needs rows that are stored; got mask='flips': use 'auto', 'lists' or 'bits'",
    ),
    Rule("bits", "iterative", PACKED),
    Rule("bits", "margin", PACKED),
    Rule("bits", "csr", PACKED),
    Rule("flips", "iterative", PACKED),
    Rule("flips", "margin", PACKED),
    Rule("flips", "csr", PACKED),
    Rule(
        "batches",
        "flips",
        "batch_size and mask='flips' exclude each other; use mask='auto', 'bits' or 'lists'",
    ),
    Rule(
        "flips",
        "session",
        "mask='flips' is for one fit, not for a session; use mask='auto', 'bits' or 'lists'",
    ),
    Rule(
        "fraction",
        "session",
        "validation_fraction cannot hold points out of a session, whose points arrive in pieces; give "
        "validation=(X, y) to its trainings",
    ),
    Rule(
        "both layers",
        "session",
        "sessions train the first layer alone; got both_layers=True: fit on all points at once",
    ),
    Rule(
        "activation",
        "session",
        "sessions are for the activations relu and max; got activation={network.activation.name!r}: fit on all points "
        "at once",
    ),
    Rule(
        "batches",
        "scan",
        "a shared scan and batch_size exclude each other; train each target or fold by itself",
    ),
    Rule(
        "both layers",
        "scan",
        "shared scans train the first layer; got both_layers=True: fit the networks one by one",
    ),
    Rule(
        "fraction",
        "scan",
        "trainings from a shared scan keep no points for early stopping; got validation_fraction="
        "{options.validation_fraction}: give them the points to train on, or train one by one",
    ),
    Rule(
        "activation",
        "scan",
        "shared scans and ridge paths are for the activations relu and max; got {network.activation.name}: train the "
        "networks one by one",
    ),
    Rule(
        "activation",
        "bits",
        "mask={options.mask!r} is for the activations relu and max; use mask='auto' or 'lists' with "
        "{network.activation.name}",
    ),
    Rule(
        "activation",
        "flips",
        "mask={options.mask!r} is for the activations relu and max; use mask='auto' or 'lists' with "
        "{network.activation.name}",
    ),
    Rule(
        "activation",
        "batches",
        "batch_size={options.batch_size} is for the activations relu and max; got activation="
        "{network.activation.name!r}: train on all points at once",
    ),
    Rule(
        "slope",
        "neuron sketch",
        "solver='sketch-cg' hashes fired neurons, and with the activation {network.activation.name}, whose slope is "
        "{network.activation.slope:g} everywhere, all neurons count; use solver 'auto', 'gram' or 'cg'",
    ),
    Rule(
        "trained second",
        "first layer",
        "the second layer of this network was trained, and both_layers=False holds it at +1 and -1; use "
        "both_layers=True",
    ),
    Rule(
        "both layers",
        "constant",
        "both_layers=True needs an activation without a constant, which would move the second layer of every neuron; "
        "got activation={network.activation.name!r}, whose constant is {network.activation.constant:g}: use relu, "
        "softshrink, hardshrink or an Activation with constant=0",
    ),
    Rule(
        "outputs",
        "csr",
        "jacobian='{options.jacobian}' has one output, not a network with {network.outputs} outputs; use "
        "jacobian='factored'",
    ),
    Rule(
        "outputs",
        "bits",
        "mask='{options.mask}' has one output, not a network with {network.outputs} outputs; use mask='auto' or "
        "'lists'",
    ),
    Rule(
        "outputs",
        "flips",
        "mask='{options.mask}' has one output, not a network with {network.outputs} outputs; use mask='auto' or "
        "'lists'",
    ),
    Rule(  # refused where the network is made
        "outputs",
        "activation",
        "outputs={network.outputs} is for the activations relu and max; got activation={network.activation.name!r}: "
        "use one of these, or a network for each output",
    ),
)


def check(options: Options, network: ShiftedReluNetwork | None = None, use: str = FIT) -> None:
    """Refuse what does not go together.

    Parameters
    ----------
    options : Options
        What the user chose.
    network : ShiftedReluNetwork, optional
        What is to be trained, once it is known.
    use : str
        ``FIT``, ``SESSION`` or ``SHARED_SCAN``.

    Raises
    ------
    OptionError
        The sentence of the first rule that is broken.
    """
    chosen = Chosen(options, network, use)
    there = {name for name, feature in FEATURES.items() if feature.present(chosen)}
    for rule in RULES:
        if rule.one in there and rule.other in there:
            raise OptionError(rule.sentence.format(options=options, network=network))


def markdown() -> str:
    """Return the table for the documentation: a row for each feature, with those that it excludes."""
    lines = ["| with | there is no |", "|---|---|"]
    for name, feature in FEATURES.items():
        others = [rule.other if rule.one == name else rule.one for rule in RULES if name in (rule.one, rule.other)]
        lines.append(f"| {feature.words} | {', '.join(FEATURES[other].words for other in others)} |")
    return "\n".join(lines) + "\n"
