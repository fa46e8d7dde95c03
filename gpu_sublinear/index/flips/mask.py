"""What a step sees of a mask that is kept through flips: who fires, and a Jacobian whose rows are implicit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...devices import Array, Device
from ...linear.jacobian import Products
from ...model.loss import SampleWeights
from ..mask import Mask, PairCounts


@dataclass(frozen=True)
class FlipMask(Mask):
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

    def jacobian(self, system: Any) -> Any:
        """Return J of the implicit rows."""
        return FlipJacobian(self.index, system.weights)

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) float64, kept through the flips."""
        return self.totals


@dataclass(frozen=True)
class FlipJacobian(Products):
    """J of implicit weights: it takes the step by remembering g."""

    has_products, implicit = False, True

    index: Any
    weights: SampleWeights

    def step(self, W: Array, g: Array, theta: float = 0.0) -> None:
        """Apply ``W <- W - theta (W - W_0) - (S J)^T g`` without writing a row; ``W`` is left alone."""
        self.index.step(self.index.spread(self.weights.scaled(g)), theta)

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``S J (W - W_0)``, (n,) float64, of the implicit rows; the arguments are what others read."""
        return self.weights.scaled(self.index.of_chosen(self.index.along()))
