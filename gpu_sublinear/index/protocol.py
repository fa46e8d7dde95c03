"""What finds the fired pairs: what a run, a path and a checkpoint may ask of every kind of index."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices.sums import row_distances


class Index:
    """The answers of an index whose rows are stored."""

    kind = "lists"  # its word in a checkpoint
    owns_rows = False  # whether the weights are its own
    may_pack = False  # whether packed masks may take its place
    marks_all = False  # whether a mark holds all that steps change
    memory_limit: int | None = None

    def expect_any_row(self) -> None:
        """From now on rows may move that do not fire."""

    def at(self, network: Any, X: Any, points: Any) -> Any:
        """Return an index for one look at some of its points, by number; X (k, d) are these."""
        return self.again(network, X, points)

    def beside(self, network: Any, scan: Any, points: Any) -> Beside:
        """Return what a run's network says at other points of the scan that it comes from."""
        return Beside(network, scan.index_of(network, points))


class Beside:
    """An index over points that nobody trains on, which follows the rows of a network."""

    def __init__(self, network: Any, index: Any):
        self.network, self.index, self.rows = network, index, network.rows
        index.expect_any_row()

    def outputs(self) -> Any:
        """Return the outputs now, (k,) or (k, c) float64."""
        network = self.network
        if network.rows is not self.rows:
            moved = row_distances(network.rows, self.rows)
            neurons = network.device.xp.flatnonzero(moved).astype(np.int32)
            self.index.update_any(network.rows, neurons, moved[neurons])
        self.rows = network.rows
        found = self.index.query(network.shift)
        return found.forward(network.device, network.signs, network.shift) * network.scale
