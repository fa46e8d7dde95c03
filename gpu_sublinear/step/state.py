"""Where a run stands and what it tries next, and the kinds of index, mask and Jacobian that it may do so with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..devices import Array
from ..devices.clock import PhaseClock
from ..index.active_set import ActiveSet
from ..index.bits import BitIndex, BitJacobian, BitMask
from ..index.flips.index import FlipIndex
from ..index.flips.mask import FlipJacobian, FlipMask
from ..index.hinged import HingedIndex, HingedJacobian
from ..index.lazy import LazyIndex
from ..index.tree import ThresholdTree
from ..linear.both_layers import BothLayersJacobian
from ..linear.jacobian import FactoredJacobian, SparseJacobian
from ..linear.outputs import OutputsJacobian
from ..linear.solvers import Solution
from ..model.network import ShiftedReluNetwork

Mask = ActiveSet | BitMask | FlipMask
Jacobian = (
    FactoredJacobian
    | SparseJacobian
    | BitJacobian
    | FlipJacobian
    | OutputsJacobian
    | HingedJacobian
    | BothLayersJacobian
)
Index = ThresholdTree | LazyIndex | BitIndex | FlipIndex | HingedIndex


@dataclass
class State:
    """The network at one place: enough to step from there, and to come back.

    Attributes
    ----------
    active : ActiveSet, BitMask or FlipMask
        The fired pairs.
    residual : Array
        (n,) or (n, c) float64, f - y, times sqrt(w).
    norm : float
        ``||f - y||``, weighted.
    penalty : float
        ``lambda/2 ||W - W_0||^2``.
    clock : PhaseClock
        Seconds spent on this state.
    rows : Array or None
        (u, d) the weights here, where steps can be undone and weights are not implicit.
    second : Array or None
        (u,) the second layer here, where it is trained.
    index, mark : object
        What found the fired pairs, and what it needs to come back.
    jacobian, G : optional
        J and its Gram matrix once computed: a rejected step uses them again.
    pulled : Array or None
        (n,) or (n, c) ``J (W - W_0)``, likewise.
    square : float
        ``||W - W_0||^2``, where there is a ridge penalty.
    proposal : Attempt or None
        The last step that was computed here.
    """

    active: Mask
    residual: Array
    norm: float
    penalty: float
    clock: PhaseClock
    rows: Array = None
    second: Array = None
    index: Index | None = None
    mark: Any = None
    jacobian: Jacobian | None = None
    G: Array = None
    pulled: Array = None
    square: float = 0.0
    proposal: Attempt | None = None

    @property
    def objective(self) -> float:
        """``1/2 ||f - y||^2 + lambda/2 ||W - W_0||^2``."""
        return 0.5 * self.norm**2 + self.penalty


@dataclass(frozen=True)
class Attempt:
    """A step that was computed, and tried once ``moved`` is set.

    Attributes
    ----------
    solution : Solution
        g.
    damping : float
        mu in units of tr(G)/n.
    theta : float
        Part of D that the step takes back.
    promise : float
        What the objective would become if the network were linear.
    square : float
        ``||s||^2`` of the step, in units of damping: times tr(G)/n.
    moved : int
        Rows that moved.
    """

    solution: Solution
    damping: float
    theta: float
    promise: float
    square: float = 0.0
    moved: int = 0

    def curvature(self, trial: State) -> float:
        """Return c of ``objective = promise + c/2 ||s||^2`` in units of damping, from where the step led to."""
        return 2 * (trial.objective - self.promise) / self.square if self.square > 0 else 0.0


def forward(network: ShiftedReluNetwork, active: Mask) -> Array:
    """Return the outputs on the training points from the active set alone, (n,) or (n, c) float64."""
    return active.forward(network.device, network.signs, network.shift) * network.scale
