"""What a step sees of a mask that is kept through flips: who fires, and a Jacobian whose rows are implicit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...devices import Array, Device
from ...errors import OptionError
from ...model.loss import SampleWeights
from ..protocol import Jacobian, MaskedPoints, PairCounts, PlainMask


@dataclass(frozen=True)
class FlipMask(PlainMask):
    """The state after a query: what :class:`gpu_sublinear.index.active_set.ActiveSet` is for lists.

    Attributes
    ----------
    index : FlipIndex
        Owner of bits and pair counts.
    counts : Array
        (n,) number of neurons fired on each point that is trained on, k_i.
    totals : Array
        (n,) float64, ``sum_r a_r M_ri (P_ri - b)``, of the same points.
    union : int
        Neurons that fire on at least one point of all.
    visited : int
        Pairs computed and compared by the query.
    """

    lists = None

    index: Any
    counts: Array
    totals: Array
    union: int
    visited: int

    @cached_property
    def nnz(self) -> int:
        """Number of fired pairs."""
        return int(self.counts.sum())

    def pair_counts(self, device: Device, known: PairCounts | None) -> PairCounts:
        """Return ``M^T M`` of the points that are trained on, kept by the index."""
        chosen, counts = self.index.chosen, self.index.pair_counts
        return PairCounts(counts if chosen is None else counts[chosen][:, chosen], recounted=False)

    def jacobian(self, system: Any) -> Jacobian:
        """Return J of the implicit rows."""
        return FlipJacobian(self.index, system.problem.weights)

    def masked(self, device: Device, X: Array) -> MaskedPoints:
        """Refuse: rows that follow from the steps move with their first layer alone."""
        raise OptionError("rows that follow from the steps train the first layer alone; use mask='lists' or 'bits'")

    def fires(self, device: Device, rows: int) -> Array:
        """Return whether each of the rows held fires somewhere, (rows,) bool."""
        return self.index.bits.any(axis=1)

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) float64, kept through the flips."""
        return self.totals


@dataclass(frozen=True)
class FlipJacobian:
    """J of implicit weights: it takes the step by remembering g.

    Attributes
    ----------
    index : FlipIndex
        Whose rows follow from the steps.
    weights : SampleWeights
        Of the points.
    """

    products = None  # the index keeps the Gram matrix
    gram_is_whole = True

    index: Any
    weights: SampleWeights

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Take the step ``-(S J)^T g`` without writing a row; return none that moved."""
        self.pull(W, W, g, 0.0)
        xp = self.index.device.xp
        return xp.zeros(0, np.int32), xp.zeros(0)

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Take the step ``-theta (W - W_0) - (S J)^T g`` without writing a row; return W as it is written."""
        self.index.step(self.index.spread(self.weights.scaled(g)), theta)
        return W, self.index.device.xp.zeros(len(W))

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``S J (W - W_0)``, (n,) float64, of the implicit rows; the arguments are what others read."""
        return self.weights.scaled(self.index.of_chosen(self.index.along()))
