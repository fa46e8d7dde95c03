"""The clock of a step: seconds of each of its phases, as the device spent them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .base import Device

PHASES = ("query", "forward", "jacobian", "sketch", "solve", "update")


@dataclass
class PhaseClock:
    """Adds up wall-clock seconds by phase, waiting for the device at the end of each.

    Attributes
    ----------
    device : Device
        Whose work is timed.
    seconds : dict of str to float
        Seconds of each of :data:`PHASES` so far.
    """

    device: Device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the body of a ``with`` statement as part of ``phase``."""
        start = time.perf_counter()
        yield
        self.device.synchronize()
        self.seconds[phase] += time.perf_counter() - start

    def absorb(self, other: PhaseClock) -> None:
        """Add the seconds of another clock."""
        for phase, seconds in other.seconds.items():
            self.seconds[phase] += seconds
