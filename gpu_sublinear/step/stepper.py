"""What the loop of a training asks of a run, whether a step is one on all points or one on every batch."""

from __future__ import annotations

from typing import Any, Protocol

from ..devices import Array
from ..index.protocol import Index
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..options import Options
from .damping import StepControl
from .history import StepRecord
from .state import Attempt, State


class Stepper(Protocol):
    """A run: look, propose, move, restore."""

    options: Options
    network: ShiftedReluNetwork
    problem: Problem
    index: Index
    warm: bool
    ridge: float
    initial: Array
    shares: tuple[Array, ...]

    @property
    def foresees(self) -> bool:
        """Whether what a step promises is known before it is taken, so that one from the minimum need not be."""

    def control(self) -> StepControl:
        """Return what judges the steps of one training."""

    def look(self) -> State:
        """Evaluate the network where it stands."""

    def propose(self, state: State, damping: float, step: int) -> Attempt:
        """Compute the step from ``state``, without moving; once for each state and damping."""

    def move(self, state: State, damping: float, step: int) -> Attempt:
        """Take the step from ``state``, where the network stands."""

    def restore(self, state: State) -> None:
        """Bring weights and index back to ``state``, bit for bit."""

    def materialise(self) -> None:
        """Write the rows of the network where they are implicit: before anything outside the run reads them."""

    def written(self, record: StepRecord) -> StepRecord:
        """Materialise; return the record with the seconds that took, as part of ``update``."""

    def captured(self, best: State | None) -> dict[str, Any]:
        """Return what a checkpoint keeps of the rows and of how the run came here; ``best`` is the best other place."""
