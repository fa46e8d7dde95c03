"""Who fires, as a step sees it: what every kind of mask answers, so that nobody asks which kind it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from ..devices import Array, Device, NeuronLists


@dataclass
class PairCounts:
    """``M^T M`` of a mask, and the mask itself in the form in which the next one can start from it.

    Attributes
    ----------
    counts : Array
        (n, n) float64, whole numbers.
    lists, bits : optional
        The fired lists, or the packed mask, that were counted; a mask of another kind counts anew.
    recounted : bool
        Whether all pairs were counted.
    """

    counts: Array
    lists: NeuronLists | None = None
    bits: Array = None
    recounted: bool = True


class Mask(ABC):
    """The fired pairs of some points.

    Every kind also has ``counts`` (n,), how many neurons fire on each point, ``union``, how many fire on some point,
    ``nnz``, the number of pairs, and ``visited``, the numbers that were compared to find them.
    """

    @abstractmethod
    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) or (n, c) float64."""

    @abstractmethod
    def pair_counts(self, device: Device, known: PairCounts | None) -> PairCounts:
        """Return ``M^T M``, exactly, from that of an earlier mask where few pairs differ."""

    @abstractmethod
    def jacobian(self, system: Any) -> Any:
        """Return J of these pairs for a linear system."""

    def folded(self, G: Array, K: Array, width: int) -> Array:
        """Return the Gram matrix of the data from that of the points looked at: the same."""
        return G

    def mean_diagonal(self, squares: Array, total: float, width: int) -> float:
        """Return ``sum_i ||x_i||^2 k_i / m`` over the total weight."""
        return float((squares * self.counts).sum()) / total / width

    def add_to(self, union: Any) -> None:
        """Add the neurons that fire to those of other points."""
        union.add_rows(self.neurons)
