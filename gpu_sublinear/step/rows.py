"""Where the weights of a run are: rows that are stored, or rows that follow from the steps taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..devices import Array
from ..index.flips.kept import BEST, HERE, go_on, kept
from .state import Attempt, State


class Rows(Protocol):
    """What a run asks of its weights; ``run`` is a :class:`gpu_sublinear.step.run.Run`."""

    def penalise(self, run: Any) -> None:
        """Keep, from now on, what a ridge penalty asks for."""

    def square(self, run: Any) -> float:
        """Return ``||W - W_0||^2``, of both layers where both are trained; with a penalty."""

    def kept(self, run: Any) -> Array:
        """Return the rows to come back to, (u, d); None where a mark of the index is enough."""

    def apply(self, run: Any, state: State, proposal: Attempt) -> int:
        """Take a step from ``state``; return how many rows moved."""

    def restore(self, run: Any, state: State) -> None:
        """Bring weights and index back to ``state``, bit for bit."""

    def materialise(self, run: Any) -> bool:
        """Write the rows of the network; tell whether there was something to write."""

    def captured(self, run: Any, best: State | None) -> dict[str, Any]:
        """Return what a checkpoint keeps of the rows: ``rows``, and ``initial`` with a penalty; the best place too."""

    def go_on(self, run: Any, arrays: Mapping[str, np.ndarray]) -> State | None:
        """Lead a run, made anew over the rows of a checkpoint, to where it was; return the best place, if another."""


class StoredRows:
    """The network's rows, written by every step."""

    def penalise(self, run: Any) -> None:
        """Tell the index that rows which do not fire are drawn back."""
        run.index.expect_any_row()

    def square(self, run: Any) -> float:
        """Measure all rows."""
        network, home = run.network, run.home
        square = network.device.square_distance(network.rows, run.initial)
        return square if home is None else square + network.device.square_distance(network.signs, home)

    def kept(self, run: Any) -> Array:
        """Return the rows; copies without a penalty, with which steps make new ones."""
        return run.network.rows if run.ridge else run.network.rows.copy()

    def apply(self, run: Any, state: State, proposal: Attempt) -> int:
        """Move rows, and tell the index how far."""
        network, g = run.network, proposal.solution.value
        jacobian = run.linearised(state.linear)
        if run.ridge:
            return self._replace(run, *jacobian.pull(network.rows, run.initial, g, proposal.theta))
        run.index.update(network.rows, *jacobian.step(network.rows, g))
        return state.active.moving

    def _replace(self, run: Any, rows: Array, moved: Array) -> int:
        """Take new rows (u, d), moved (u,) from the old ones; return how many moved."""
        network, xp = run.network, run.network.device.xp
        network.rows = rows
        everybody = int(xp.count_nonzero(moved)) == len(moved)
        neurons = xp.arange(len(moved), dtype=np.int32) if everybody else xp.flatnonzero(moved).astype(np.int32)
        run.index.update(rows, neurons, moved if everybody else moved[neurons])
        return len(neurons)

    def restore(self, run: Any, state: State) -> None:
        """Put the rows back, and tell the index which."""
        network = run.network
        network.second = state.second
        changed = network.device.xp.flatnonzero((network.rows != state.rows).any(axis=1)).astype(np.int32)
        if run.ridge:
            network.rows = state.rows
        else:
            network.rows[changed] = state.rows[changed]
        run.index.restore(state.mark, network.rows, changed)

    def materialise(self, run: Any) -> bool:
        """Do nothing: rows are written."""
        return False

    def captured(self, run: Any, best: State | None) -> dict[str, Any]:
        """Return the rows now, at the best place, and W_0."""
        return {"rows": run.network.rows, "initial": run.initial, "best_rows": best.rows if best else None}

    def go_on(self, run: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Do nothing: the rows are there."""


class ImplicitRows:
    """Rows that the index remembers the steps of."""

    def penalise(self, run: Any) -> None:
        """Let the index keep its sums."""
        run.index.penalise()

    def square(self, run: Any) -> float:
        """Read the index's sum."""
        return run.index.square

    def kept(self, run: Any) -> None:
        """Return no rows."""

    def apply(self, run: Any, state: State, proposal: Attempt) -> int:
        """Let the index remember the step."""
        run.linearised(state.linear).pull(run.network.rows, run.initial, proposal.solution.value, proposal.theta)
        return state.active.moving

    def restore(self, run: Any, state: State) -> None:
        """Let the index go back."""
        nothing = run.network.device.xp.zeros(0, np.int32)
        run.index.restore(state.mark, run.network.rows, nothing)

    def materialise(self, run: Any) -> bool:
        """Let the index write the rows."""
        run.index.materialise()
        return True

    def captured(self, run: Any, best: State | None) -> dict[str, Any]:
        """Return the rows of the start, which are W_0, and the flips since."""
        return {"rows": run.index.base} | kept(run.index, best.mark if best else None)

    def go_on(self, run: Any, arrays: Mapping[str, np.ndarray]) -> State | None:
        """Take the flips of the file, by way of the best place."""
        best = None
        if BEST + "lengths" in arrays:
            go_on(run.index, arrays, BEST)
            run.measure()
            best = run.look()
        go_on(run.index, arrays, HERE)
        run.measure()
        return best


STORED, IMPLICIT = StoredRows(), ImplicitRows()
