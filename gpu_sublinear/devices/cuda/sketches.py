"""Sketches on the GPU: integer sums, so that their order does not matter."""

from __future__ import annotations

import numpy as np

from ..formats import CSR, Array
from ..ops.sketches import SketchOps
from .checks import check_array, check_offsets
from .launcher import BLOCK_THREADS, GpuOps, names_memory, philox_key

SKETCHED_BUCKETS = 8192  # of sketch_neurons at a time: 32 KiB of shared memory
SKETCH_BITS = 61  # see kernels/sketch_rows.cu


class CudaSketchOps(GpuOps, SketchOps):
    """Hashes and sums by kernels/sketch_neurons.cu and kernels/sketch_rows.cu."""

    @names_memory
    def sketch_neurons(
        self, indptr: Array, compact: Array, neurons: Array, signs: Array, buckets: int, seed: int, draw: int
    ) -> Array:
        """Hash every neuron once, then add up by points in shared memory."""
        check_array("indptr", indptr, 1, "int64")
        check_array("compact", compact, 1, "int32")
        check_array("neurons", neurons, 1, "int32")
        check_array("signs", signs, 1, "REAL")
        n, u, real = len(indptr) - 1, len(neurons), signs.dtype.name
        hashed = self._gpu.empty("buckets of the neurons", u, np.int32)
        key, word = philox_key(seed), np.uint32(draw & 0xFFFFFFFF)
        hashing = (neurons, signs, np.int64(u), np.int32(buckets), key, word, hashed)
        self._gpu.run("sketch_neurons", "hash_neurons", real, u, hashing)
        out = self._gpu.empty("sketch of the neurons", (n, buckets), np.float64)
        width = min(buckets, SKETCHED_BUCKETS)
        if out.size:
            shape = {"rows": n, "layers": -(-buckets // width), "shared_mem": 4 * width}
            arguments = (indptr, compact, hashed, np.int64(n), np.int32(buckets), np.int32(width), out)
            self._gpu.run("sketch_neurons", "sketch_points", real, BLOCK_THREADS, arguments, **shape)
        return out

    @names_memory
    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Hash the columns on the fly and sum in fixed point; the host reads the scale."""
        check_array("data", matrix.data, 1, "REAL")
        check_offsets("indptr", matrix.indptr, "indices", matrix.indices)
        count = matrix.shape[0]
        exponent = self._fixed_point_exponent(matrix, nonzeros)
        if exponent is None:  # not finite: so is the result, and the caller notices
            return self.xp.full((count, rows), np.nan)
        sums = self._gpu.zeros("sketch sums", (count, rows), np.uint64)
        arguments = (
            matrix.data, matrix.indices, matrix.indptr, np.int64(count), sums, np.int32(rows),
            np.int32(nonzeros), philox_key(seed), np.uint32(draw & 0xFFFFFFFF), np.float64(2.0**exponent),
        )  # fmt: skip
        if matrix.nnz:
            work = -(-matrix.nnz // count)
            self._gpu.run("sketch_rows", "sketch_rows", matrix.data.dtype.name, work, arguments, rows=count)
        return sums.view(np.int64) * (2.0**-exponent / np.sqrt(nonzeros))

    def _fixed_point_exponent(self, matrix: CSR, nonzeros: int) -> int | None:
        """Return the largest e with nonzeros (longest row) max|data| 2^e <= 2^61; None if the data is not finite."""
        if not matrix.nnz:
            return 0
        xp = self.xp
        facts = xp.stack([
            matrix.data.max().astype(np.float64),
            -matrix.data.min().astype(np.float64),
            (matrix.indptr[1:] - matrix.indptr[:-1]).max().astype(np.float64),
        ])
        highest, lowest, longest = (float(fact) for fact in self.toolkit.to_host(facts))
        bound = nonzeros * longest * max(highest, lowest)
        if not np.isfinite(bound):
            return None
        return min(SKETCH_BITS - int(np.ceil(np.log2(bound))), 1000) if bound else 0
