r"""Activations with kinks at the shift: what the same trees, lists and kernels serve besides the shifted ReLU.

An activation is stated by numbers,

    phi(z) = constant b + slope z + sum_k gain_k h_k(z),
    h_k(z) = relu(direction_k z - b) + jump_k b [direction_k z > b],        direction_k = +1 or -1.

A hinge with direction -1 at the point x is one with direction +1 at -x, and a computed number negates exactly.  So a
network with this activation is a linear combination, with the gains, of shifted-ReLU networks at x and -x
(:mod:`gpu_sublinear.index.hinged`); nothing below that level knows other activations.  To add one, state it::

    dead_zone = Activation("dead-zone", (Hinge(), Hinge(direction=-1)))  # max(|z| - b, 0)

The constant is the same for all neurons, so balanced signs cancel it and no output contains it.  A slope is what costs:
then every neuron has a derivative on every point, all m rows are held and every step moves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..devices import Array
from ..errors import OptionError, shown

LEAK = 0.1  # slope of "leaky" below the shift where none is given


@dataclass(frozen=True)
class Hinge:
    """One kink: zero up to it, and a line from there.

    Attributes
    ----------
    direction : int
        +1: non-zero for ``z > b``; -1: non-zero for ``-z > b``.
    gain : float
        Factor of the whole term.
    jump : float
        Value right behind the kink, in units of the shift; its place is where gradients see nothing.
    """

    direction: int = 1
    gain: float = 1.0
    jump: float = 0.0


@dataclass(frozen=True)
class Activation:
    """A piecewise-linear function with kinks at +b and -b; see the module docstring.

    Attributes
    ----------
    name : str
        For people; two activations are equal when their numbers are.
    hinges : tuple of Hinge
        One or two, of different directions.
    slope : float
        Of the line that is everywhere; anything but 0 makes the cost of a step linear in the width.
    constant : float
        In units of the shift; it matters where the second layer is trained.

    Raises
    ------
    OptionError
        If the numbers state no such function.
    """

    name: str = field(default="relu", compare=False)
    hinges: tuple[Hinge, ...] = (Hinge(),)
    slope: float = 0.0
    constant: float = 0.0

    def __post_init__(self) -> None:
        directions = [hinge.direction for hinge in self.hinges]
        if not directions or len(set(directions)) < len(directions) or not set(directions) <= {1, -1}:
            raise OptionError(f"hinges must be one or two, of different directions +1 and -1; got {directions}")
        numbers = [self.slope, self.constant, *(x for hinge in self.hinges for x in (hinge.gain, hinge.jump))]
        if not all(math.isfinite(number) for number in numbers) or not all(hinge.gain for hinge in self.hinges):
            raise OptionError(
                f"slopes, gains and jumps must be finite and gains not 0; got {self.hinges}, {self.slope}"
            )

    @property
    def plain(self) -> bool:
        """Whether it is the shifted ReLU up to a constant, which the engine trains without detour."""
        return self.hinges == (Hinge(),) and not self.slope

    def __call__(self, z: Array, shift: float) -> Array:
        """Return ``phi(z)``."""
        return self.varying(z, shift) + z.dtype.type(self.constant * shift)

    def varying(self, z: Array, shift: float) -> Array:
        """Return ``phi(z)`` without its constant, in the type of z: what networks add up."""
        real = z.dtype.type
        if self.plain:
            return (z - real(shift)).clip(0)
        total = real(self.slope) * z
        for hinge in self.hinges:
            along = z if hinge.direction == 1 else -z
            above = along - real(self.offset(hinge, shift))
            total = total + real(hinge.gain) * above * (along > real(shift))
        return total

    def derivative(self, z: Array, shift: float) -> Array:
        """Return ``phi'(z)``, with 0 for the unseen part of a jump and the left limit (of |z|) at a kink."""
        total = 0 * z + self.slope
        for hinge in self.hinges:
            total = total + hinge.gain * hinge.direction * (hinge.direction * z > shift)
        return total

    @staticmethod
    def offset(hinge: Hinge, shift: float) -> float:
        """Return what a hinge subtracts from the numbers above the shift: ``b (1 - jump)``."""
        return shift * (1 - hinge.jump)

    def points(self, X: Array, xp: Any) -> Array:
        """Return the points that the hinges look at, (k n, d): X, -X or both, in the order of the hinges."""
        sides = [X if hinge.direction == 1 else -X for hinge in self.hinges]
        return sides[0] if len(sides) == 1 else xp.concatenate(sides)

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, for files."""
        hinges = [[hinge.direction, hinge.gain, hinge.jump] for hinge in self.hinges]
        return {"name": self.name, "hinges": hinges, "slope": self.slope, "constant": self.constant}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Activation:
        """Return what :meth:`as_dict` described; anything else raises."""
        hinges = tuple(Hinge(int(k), float(gain), float(jump)) for k, gain, jump in content["hinges"])
        return cls(str(content["name"]), hinges, float(content["slope"]), float(content["constant"]))


SHIFTED_RELU = Activation()


def leaky(slope: float = LEAK) -> Activation:
    """Return ``z - b`` above the shift and ``slope (z - b)`` below it."""
    return Activation(f"leaky:{slope:g}", (Hinge(gain=1 - slope),), slope, -slope)


NAMED: dict[str, Callable[[], Activation]] = {  # what --activation takes, besides leaky:SLOPE
    "relu": lambda: SHIFTED_RELU,
    "max": lambda: Activation("max", constant=1.0),  # max(z, b) = b + relu(z - b)
    "leaky": leaky,
    "abs": lambda: Activation("abs", (Hinge(gain=2.0),), -1.0, 1.0),  # |z - b| = b - z + 2 relu(z - b)
    "softshrink": lambda: Activation("softshrink", (Hinge(), Hinge(-1, -1.0))),  # z -+ b where |z| > b, else 0
    "hardshrink": lambda: Activation("hardshrink", (Hinge(1, 1.0, 1.0), Hinge(-1, -1.0, 1.0))),  # z where |z| > b
}


def activation_of(given: str | Activation) -> Activation:
    """Return the activation of a name.

    Parameters
    ----------
    given : str or Activation
        A key of ``NAMED``, ``"leaky:SLOPE"``, or an activation, which is returned.

    Returns
    -------
    Activation
        The activation.

    Raises
    ------
    OptionError
        If there is no such activation.
    """
    if isinstance(given, Activation):
        return given
    if given in NAMED:
        return NAMED[given]()
    kind, _, number = str(given).partition(":")
    try:
        if kind == "leaky" and float(number) not in (0.0, 1.0):
            return leaky(float(number))
    except ValueError:
        pass
    raise OptionError(
        f"activation must be one of {', '.join(NAMED)}, leaky:SLOPE with a slope other than 0 and 1, or an Activation; "
        f"got {shown(repr(given))}"
    )
