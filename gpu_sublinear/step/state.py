"""Where a run stands, and what it tries next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..devices import Array
from ..devices.clock import PhaseClock
from ..index.protocol import Mask
from ..linear.solvers import Solution
from ..linear.system import Place


@dataclass
class State:
    """The network at one place: enough to step from there, and to come back.

    Attributes
    ----------
    active : Mask
        Who fires.
    residual : Array
        (n,) or (n, c) float64, f - y, times sqrt(w).
    norm : float
        ``||f - y||``, weighted.
    penalty : float
        ``lambda/2 ||W - W_0||^2``.
    clock : PhaseClock
        Seconds spent on this state.
    kind : str
        What the index found the pairs with.
    rows : Array or None
        (u, d) the weights here, where steps can be undone and weights are not implicit.
    second : Array or None
        (u,) or (u, c) the second layer here, where it is trained.
    mark : object
        What the index needs to come back.
    shares : tuple of Array
        Of a run on batches with a penalty, how far each block has moved the rows.
    square : float
        ``||W - W_0||^2``, where there is a ridge penalty.
    place : Place or None
        J, G and J D once computed: a rejected step uses them again.
    proposal : Attempt or None
        The last step that was computed here.
    """

    active: Mask
    residual: Array
    norm: float
    penalty: float
    clock: PhaseClock
    kind: str = "lists"
    rows: Array = None
    second: Array = None
    mark: Any = None
    shares: tuple[Array, ...] = ()
    square: float = 0.0
    place: Place | None = None
    proposal: Attempt | None = None

    @property
    def objective(self) -> float:
        """``1/2 ||f - y||^2 + lambda/2 ||W - W_0||^2``."""
        return 0.5 * self.norm**2 + self.penalty

    @property
    def linear(self) -> Place:
        """The network linearised here; made when first asked for."""
        if self.place is None:
            self.place = Place(self.active)
        return self.place

    def forget(self) -> None:
        """Drop what can be computed again: no step will be taken from here soon."""
        self.place = self.proposal = None


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
