"""The log of flips: which pairs turned over, in what order, and what each says of the implicit weights.

Entry e belongs to the pair (neurons_e, points_e); its coefficient c is that of the formula in
:mod:`gpu_sublinear.index.flips.index`.  The entries of a neuron are a chain, ``heads[r]``, ``before[heads[r]]``, ...
until -1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...devices import Array, Device, Flips

WHOLE = 2**20  # the largest of some magnitudes, as a whole number


@dataclass
class FlipLog:
    """One entry per flip; arrays but ``heads`` are replaced, never changed.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    heads : Array
        (u,) int32, the latest entry of each neuron, -1 for none.
    before, neurons, points : Array
        (L,) int32: the entry of the same neuron before, and the pair.
    coefficients : Array
        (L,) float64.
    segments : list of Flips
        The flips of every query that found some, in order.
    """

    device: Device
    heads: Array
    before: Array
    neurons: Array
    points: Array
    coefficients: Array
    segments: list[Flips] = field(default_factory=list)

    @classmethod
    def empty(cls, device: Device, rows: int) -> FlipLog:
        """Return a log of so many neurons, none of which has flipped."""
        xp = device.xp
        before, neurons, points = (xp.zeros(0, np.int32) for _ in range(3))
        return cls(device, xp.full(rows, -1, dtype=np.int32), before, neurons, points, xp.zeros(0))

    def __len__(self) -> int:
        return int(self.before.shape[0])

    def append(self, flips: Flips, before: Array, coefficients: Array) -> None:
        """Write down flips (f,), not none, as :meth:`Device.flip_mask` made entries of them: heads are true."""
        join = self.device.xp.concatenate
        self.before, self.neurons = join([self.before, before]), join([self.neurons, flips.neurons])
        self.points, self.coefficients = join([self.points, flips.points]), join([self.coefficients, coefficients])
        self.segments.append(flips)

    def drop_last(self) -> Flips:
        """Forget the flips of the last query that found some, and return them."""
        flips = self.segments.pop()
        size, first = len(self) - len(flips), self.device.run_starts(flips.neurons)
        self.heads[flips.neurons[first]] = self.before[size:][first]
        self.before, self.neurons, self.points = self.before[:size], self.neurons[:size], self.points[:size]
        self.coefficients = self.coefficients[:size]
        return flips

    def scale(self, part: float) -> None:
        """Multiply all coefficients by ``part``."""
        self.coefficients = part * self.coefficients

    def sizes(self) -> tuple[float, int]:
        """Return the largest ``sum_e |c_e|`` of a neuron, rounded up, and the largest number of its entries."""
        xp = self.device.xp
        top = float(abs(self.coefficients).max()) if len(self) else 0.0
        if not top:
            return 0.0, 0
        # whole numbers, so that the sums do not depend on their order
        sums = xp.bincount(self.neurons, weights=xp.ceil(abs(self.coefficients) * (WHOLE / top)))
        return float(sums.max()) * (top / WHOLE) * (1 + 1e-9), int(xp.bincount(self.neurons).max())
