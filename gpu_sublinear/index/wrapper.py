"""What a wrapper around any index leaves to the index inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import Array
from ..model.network import ShiftedReluNetwork
from .protocol import Beside, Following, Index


class Wrapper:
    """An index that asks another one; what is not overridden is the answer of that one."""

    owns_rows = False
    inner: Index

    @property
    def kind(self) -> str:
        """The word for what finds the pairs."""
        return self.inner.kind

    @property
    def refreshed(self) -> int:
        """Rows looked at afresh in the last update."""
        return self.inner.refreshed

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Note how far rows moved."""
        self.inner.update(W, neurons, moved)

    def mark(self) -> Any:
        """Return what :meth:`restore` needs."""
        return self.inner.mark()

    def restore(self, mark: Any, W: Array, changed: Array) -> None:
        """Come back to ``mark``; W holds the same rows again."""
        self.inner.restore(mark, W, changed)

    def expect_any_row(self) -> None:
        """From now on rows may move that do not fire."""
        self.inner.expect_any_row()

    def limit_memory(self, nbytes: int | None) -> None:
        """Hold at most so many bytes of lists from now on."""
        self.inner.limit_memory(nbytes)

    def beside(self, network: ShiftedReluNetwork, scan: Index, X: Array, chosen: np.ndarray) -> Beside:
        """Return an index over points that nobody trains on, which follows the rows of the network."""
        return Following(network, scan.follower(network, X, chosen))
