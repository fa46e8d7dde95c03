"""The op list: what a device must be able to do, with its meaning.

Everything above this layer speaks of networks, trees and Jacobians; everything below it of loops, blocks and
streams.  :class:`Device` states the operations once: names, arguments, shapes, dtypes and formulas.
``reference`` (NumPy) is the specification, ``cpu`` (Numba) and ``cuda`` (CuPy and raw kernels) are fast, and
one set of tests runs on all of them.

Letters, as in the papers: n points, d features, m neurons, i a point, r a neuron, j a feature, b the shift.
``REAL`` below is the data type of the run, float32 or float64.

**The computed number.**  Whether a neuron fires is decided by one floating-point number, the pre-activation
``P[i, r]``.  Every device computes it in the same order, ``((x_0 w_0 + x_1 w_1) + x_2 w_2) + ...``, each product
and each sum rounded to ``REAL`` (no fused multiply-add), so that equal weights give equal bits, and equal
firing decisions, on every device and in every evaluation.
"""

from __future__ import annotations

from abc import abstractmethod
from types import ModuleType
from typing import Any

import numpy as np

from .formats import Array
from .ops.algebra import AlgebraOps
from .ops.bits import BitOps
from .ops.implicit import ImplicitOps
from .ops.jacobian import JacobianOps
from .ops.lists import ListOps
from .ops.pairs import PairOps
from .ops.products import ProductOps
from .ops.sketches import SketchOps
from .ops.trees import TreeOps
from .ops.weights import WeightOps


class Device(WeightOps, TreeOps, PairOps, ListOps, BitOps, ProductOps, JacobianOps, SketchOps, AlgebraOps, ImplicitOps):
    """One machine that can run the method; see the module docstring for the conventions.

    Attributes
    ----------
    name : str
        ``"reference"``, ``"cpu"`` or ``"cuda"``.
    xp : module
        NumPy or CuPy: the owner of this device's arrays.
    check_every : int
        Solver iterations between two looks at the residual from the host (1 where a look is free).
    sort_bytes : int
        Bytes per fired pair that :meth:`evaluate` holds for a moment besides its results.
    follows_flips : bool
        Whether the operations of :class:`~gpu_sublinear.devices.ops.implicit.ImplicitOps` work here, as
        ``mask="flips"`` needs.
    """

    name: str
    xp: ModuleType
    check_every: int = 1
    sort_bytes: int = 0
    follows_flips: bool = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Device:
        """Return the device itself: there is one of a name in a process, whoever copies what is on it."""
        return self

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return the name, model and library versions of this device, for reports."""

    @abstractmethod
    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """Return ``array`` as a C-contiguous array of this device, copied only where needed."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """Return ``array`` as a NumPy array."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    @abstractmethod
    def peak_bytes(self) -> int:
        """Return the largest memory held so far: device memory for a GPU, resident memory of the process else."""

    @abstractmethod
    def total_bytes(self) -> int:
        """Return the memory of the device: what no array may exceed."""
