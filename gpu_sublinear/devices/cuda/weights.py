"""Weights on the GPU: drawn and changed by kernels."""

from __future__ import annotations

import numpy as np

from ..formats import Array
from ..ops.weights import WeightOps
from .checks import check_array
from .launcher import GpuOps, names_memory, philox_key


class CudaWeightOps(GpuOps, WeightOps):
    """Weights by kernels/normal_rows.cu and kernels/update_rows.cu."""

    @names_memory
    def normal_rows(self, seed: int, start: int, stop: int, d: int, dtype: str, paired: bool = False) -> Array:
        """Return counter-based standard normals."""
        count = stop - start
        out = self._gpu.empty("weights", (count, d), dtype)
        arguments = (out, np.int64(start), np.int64(count), np.int32(d), np.int32(paired), philox_key(seed))
        self._gpu.run("normal_rows", "normal_rows", dtype, count * ((d + 1) // 2), arguments)
        return out

    @names_memory
    def cap_rows(self, seed: int, directions: Array, tails: Array, owners: Array, places: Array, dtype: str) -> Array:
        """Return counter-based normals conditioned on a cap."""
        check_array("directions", directions, 2, "float64")
        check_array("tails", tails, 1, "float64", (len(directions),))
        check_array("owners", owners, 1, "int32")
        count, d = len(owners), directions.shape[1]
        check_array("places", places, 1, "int64", (count,))
        out = self._gpu.empty("weights", (count, d), dtype)
        arguments = (out, directions, tails, owners, places, np.int64(count), np.int32(d), philox_key(seed))
        self._gpu.run("normal_rows", "cap_rows", dtype, count, arguments)
        return out

    def update_rows(self, W: Array, neurons: Array, delta: Array) -> None:
        """Subtract ``delta`` from the rows ``neurons``."""
        check_array("W", W, 2, "REAL")
        check_array("neurons", neurons, 1, "int32")
        d, real = W.shape[1], W.dtype.name
        check_array("delta", delta, 2, real, (len(neurons), d))
        arguments = (W, neurons, delta, np.int64(len(neurons)), np.int32(d))
        self._gpu.run("update_rows", "update_rows", real, delta.size, arguments)
