"""Where the weights of a run are: rows that are stored, or rows that follow from the steps taken."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import Array
from ..index.flips.kept import kept
from .state import Attempt, State


class StoredRows:
    """The network's rows, written by every step."""

    def penalise(self, run: Any) -> None:
        """Keep what a ridge penalty asks for."""
        run.index.expect_any_row()

    def measure(self, run: Any) -> None:
        """Compute ``||W - W_0||^2``, of both layers where both are trained."""
        network = run.network
        if run.initial is not None:
            run.square = network.device.square_distance(network.rows, run.initial)
            if run.home is not None:
                run.square += network.device.square_distance(network.signs, run.home)

    def kept(self, run: Any) -> Array:
        """Return the rows to come back to; with a penalty steps make new ones."""
        return run.network.rows if run.ridge else run.network.rows.copy()

    def apply(self, run: Any, state: State, proposal: Attempt) -> int:
        """Take a step; return how many rows moved."""
        network, jacobian, g = run.network, state.jacobian, proposal.solution.value
        assert jacobian is not None
        if run.ridge:
            return self._replace(run, *jacobian.pull(network.rows, run.initial, g, proposal.theta))
        moved = jacobian.step(network.rows, g)
        if not run.packed():
            run.index.update(network.rows, state.active.neurons, moved)
        return len(network.rows) if network.activation.slope else state.active.union

    def _replace(self, run: Any, rows: Array, moved: Array) -> int:
        """Take new rows (u, d), moved (u,) from the old ones; return how many moved."""
        network, xp = run.network, run.network.device.xp
        network.rows = rows
        everybody = int(xp.count_nonzero(moved)) == len(moved)
        neurons = xp.arange(len(moved), dtype=np.int32) if everybody else xp.flatnonzero(moved).astype(np.int32)
        if not run.packed():
            run.index.update_any(rows, neurons, moved if everybody else moved[neurons])
        return len(neurons)

    def restore(self, run: Any, state: State) -> None:
        """Bring weights and index back, bit for bit."""
        network, xp = run.network, run.network.device.xp
        network.second = state.second
        assert state.index is not None
        run.index = state.index  # a step may have gone over to packed masks
        if run.ridge and run.index.marks_all:  # steps made new rows, and marks hold all that changed
            changed = xp.zeros(0, np.int32)
        else:
            changed = xp.flatnonzero((network.rows != state.rows).any(axis=1)).astype(np.int32)
        if run.ridge:
            network.rows = state.rows
        else:
            network.rows[changed] = state.rows[changed]
        run.index.restore(state.mark, network.rows, changed)

    def materialise(self, run: Any) -> bool:
        """Write the rows of the network; tell whether there was something to write."""
        return False

    def captured(self, run: Any, best: State | None) -> dict[str, Any]:
        """Return what a checkpoint keeps of the rows, on the device."""
        return {"rows": run.network.rows, "initial": run.initial}


class ImplicitRows:
    """Rows that the index remembers the steps of."""

    def penalise(self, run: Any) -> None:
        """Keep what a ridge penalty asks for."""
        run.index.penalise()

    def measure(self, run: Any) -> None:
        """Read ``||W - W_0||^2``."""
        run.square = run.index.square

    def kept(self, run: Any) -> None:
        """Return no rows: a mark of the index is enough."""

    def apply(self, run: Any, state: State, proposal: Attempt) -> int:
        """Remember a step; return how many rows moved."""
        state.jacobian.step(run.network.rows, proposal.solution.value, proposal.theta)
        return state.active.union

    def restore(self, run: Any, state: State) -> None:
        """Bring the index back, bit for bit."""
        state.index.restore(state.mark)

    def materialise(self, run: Any) -> bool:
        """Write the rows of the network; tell whether there was something to write."""
        run.index.materialise()
        return True

    def captured(self, run: Any, best: State | None) -> dict[str, Any]:
        """Return what a checkpoint keeps: the rows of the start, and the flips since."""
        return {"rows": run.index.base, "initial": None} | kept(run.index, best.mark if best else None)
