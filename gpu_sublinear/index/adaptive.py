"""Lists that become packed bits: the index of ``mask="auto"``.

Where rows move far more and more pairs fire, and lists of them cost more than one bit for each pair.  Before every
update a part of the rows is looked at; where lists would grow too long, packed masks take their place for good, unless
the step is taken back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..devices import Array
from ..model.network import ShiftedReluNetwork
from .bits import BitIndex
from .first_look import sampled_share
from .protocol import Index, Mask
from .wrapper import Wrapper

_log = logging.getLogger(__name__)


@dataclass
class AdaptiveIndex(Wrapper):
    """Any index, until so many pairs fire that packed masks are faster.

    Attributes
    ----------
    inner : Index
        Finds the pairs now.
    network : ShiftedReluNetwork
        Its rows are read at every query.
    packs : callable
        Tells of a share of the pairs whether masks are packed where so many fire.
    """

    inner: Index
    network: ShiftedReluNetwork
    packs: Callable[[float], bool]

    @property
    def X(self) -> Array:
        """(n, d) points."""
        return self.inner.X

    @property
    def packed(self) -> bool:
        """Whether masks are packed by now."""
        return self.inner.kind == BitIndex.kind

    def query(self, shift: float) -> Mask:
        """Return who fires now."""
        return self.inner.query(shift)

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Pack masks where lists would grow too long; else note how far rows moved."""
        network = self.network
        if not self.packed and self.packs(sampled_share(network, self.X)):
            _log.info("masks are packed from now on: too many pairs fire for lists")
            self.inner = BitIndex(network.device, self.X, network, len(network.rows))
        else:
            super().update(W, neurons, moved)

    def mark(self) -> tuple[Index, Any]:
        """Return what :meth:`restore` needs: what finds the pairs now, and its mark."""
        return self.inner, self.inner.mark()

    def restore(self, mark: tuple[Index, Any], W: Array, changed: Array) -> None:
        """Come back to ``mark``; W holds the same rows again."""
        self.inner, inner = mark
        self.inner.restore(inner, W, changed)

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> AdaptiveIndex:
        """Return an index of its own over X (k, d), the points ``chosen`` of this."""
        return AdaptiveIndex(self.inner.again(network, X, chosen), network, self.packs)

    def afresh(self, network: ShiftedReluNetwork, X: Array) -> AdaptiveIndex:
        """Return an index over other points X (k, d) by a look at the rows that take part."""
        return AdaptiveIndex(self.inner.afresh(network, X), network, self.packs)

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Any = None) -> AdaptiveIndex:
        """Return the index over its points followed by X (k, d)."""
        return AdaptiveIndex(self.inner.extend(network, X, newcomers), network, self.packs)

    def at(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> Index:
        """Return an index for one look."""
        return self.inner.at(network, X, chosen)

    def follower(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> Index:
        """Return an index for looks alone, which stays as it is."""
        return self.inner.follower(network, X, chosen)

    def parts(self, points: Sequence[Array]) -> Sequence[Index]:
        """Return an index for each of these sets of its points."""
        return self.inner.parts(points)
