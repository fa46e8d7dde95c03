"""A least-squares problem: points, targets and how much each counts, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..devices import Array
from ..devices.sums import norm
from .loss import SampleWeights


@dataclass(frozen=True)
class Problem:
    """What a training fits: the loss is ``1/2 sum_i w_i ||f_i - y_i||^2``.

    Attributes
    ----------
    X : Array
        (n, d) points of unit norm, on the device, of the network's dtype.
    y : Array
        (n,) or (n, c) float64 targets, on the device.
    weights : SampleWeights
        Of the points; all 1 by default.
    """

    X: Array
    y: Array
    weights: SampleWeights = field(default_factory=SampleWeights)

    def __len__(self) -> int:
        """Return the number of points, n."""
        return len(self.X)

    @property
    def size(self) -> float:
        """``||y||``, weighted: what the residual is compared with."""
        return norm(self.weights.scaled(self.y))

    @property
    def scaled(self) -> Array:
        """(n, d) the points times the roots of their weights: rows of S J are made of these."""
        return self.weights.scaled(self.X)

    @property
    def total(self) -> float:
        """``sum_i w_i``: n without weights."""
        return self.weights.total(len(self.X))

    def residual(self, outputs: Array) -> Array:
        """Return ``f - y``, times the roots of the weights, for the outputs f (n,) or (n, c)."""
        return self.weights.scaled(outputs - self.y)

    def part(self, points: Array) -> Problem:
        """Return the problem on some of its points, by number (k,) int64; all of them for None."""
        if points is None:
            return self
        return Problem(self.X[points], self.y[points], self.weights.part(points))

    def without_zeros(self) -> Problem:
        """Return the problem without the points of weight 0."""
        return Problem(*self.weights.without_zeros(self.X, self.y))
