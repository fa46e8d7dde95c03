"""Fired pairs on the GPU: outputs, sorted lists, common neurons, and how these change with the lists."""

from __future__ import annotations

import numpy as np

from ..formats import Array, NeuronLists
from ..ops.pairs import PairOps
from .checks import check_array, check_lists, check_offsets
from .launcher import BLOCK_THREADS, GROUP, WARP, GpuOps, list_arguments, names_memory

COUNTED_COLUMNS = 8192  # of count_pairs at a time: 32 KiB of shared memory


class CudaPairOps(GpuOps, PairOps):
    """Integer sums and stable sorts."""

    @names_memory
    def forward(self, indptr: Array, indices: Array, values: Array, signs: Array, shift: float) -> Array:
        """Sum over the fired neurons of each point."""
        check_offsets("indptr", indptr, "indices", indices)
        check_array("values", values, 1, "REAL", (len(indices),))
        check_array("signs", signs, 1, values.dtype.name)
        n = len(indptr) - 1
        out = self._gpu.empty("outputs", n, np.float64)
        arguments = (indptr, indices, values, signs, np.float64(shift), np.int64(n), out)
        self._gpu.run("forward", "forward", values.dtype.name, n * BLOCK_THREADS, arguments)
        return out

    @names_memory
    def transpose(self, indptr: Array, indices: Array, m: int) -> tuple[Array, Array, Array, Array]:
        """Sort the pairs by neuron, stably, so that points stay ascending; the host reads the size of the union."""
        check_offsets("indptr", indptr, "indices", indices)
        xp, nnz = self.xp, len(indices)
        if not nnz:
            return indices, xp.zeros(1, np.int64), indices, indices
        order = xp.argsort(indices, kind="stable")  # (nnz,) int64
        ordered = indices[order]  # (nnz,)
        first = xp.ones(nnz, bool)  # does the entry begin a neuron?
        first[1:] = ordered[1:] != ordered[:-1]
        starts = xp.flatnonzero(first)  # (u,)
        t_indptr = xp.concatenate([starts, xp.full(1, nnz, starts.dtype)]).astype(np.int64)
        compact = self._gpu.empty("positions of the neurons", nnz, np.int32)
        compact[order] = xp.cumsum(first, dtype=np.int32) - np.int32(1)
        return ordered[starts], t_indptr, self._rows_of_entries(indptr, nnz)[order], compact

    def _rows_of_entries(self, indptr: Array, nnz: int) -> Array:
        """Return the row of every entry, (nnz,) int32."""
        rows, n = self._gpu.empty("rows of the pairs", nnz, np.int32), len(indptr) - 1
        if nnz:
            self._gpu.run(
                "rows_of_entries", "rows_of_entries", "float32", -(-nnz // n), (indptr, np.int64(n), rows), rows=n
            )
        return rows

    @names_memory
    def count_pairs(self, indptr: Array, compact: Array, t_indptr: Array, t_points: Array) -> Array:
        """Count common neurons of all pairs of points, in 32-bit integers: a count is at most m."""
        check_offsets("indptr", indptr, "compact", compact)
        check_offsets("t_indptr", t_indptr, "t_points", t_points)
        n = len(indptr) - 1
        counts = self._gpu.zeros("pair counts", (n, n), np.int32)
        width = min(n, COUNTED_COLUMNS)
        if len(compact):
            arguments = (indptr, compact, t_indptr, t_points, np.int32(n), np.int32(width), counts)
            lanes = 8 * -(-len(compact) // n)  # of the average point: 8 for each of its neurons
            shape = {"rows": n, "layers": -(-n // width), "shared_mem": 4 * width}
            self._gpu.run("count_pairs", "count_pairs", "float32", lanes, arguments, **shape)
        return counts.astype(np.float64)

    @names_memory
    def change_pairs(self, counts: Array, before: NeuronLists, after: NeuronLists, limit: int) -> bool:
        """Find each neuron's cost, which the host adds up, then count the changes in 32-bit integers."""
        check_lists("before", before)
        check_lists("after", after)
        check_array("counts", counts, 2, "float64")
        n, items = len(counts), len(before.neurons) + len(after.neurons)
        check_array("counts", counts, 2, "float64", (n, n))
        costs = self._gpu.empty("costs of the flips", items, np.int64)
        lists = (*list_arguments(before), *list_arguments(after))
        self._gpu.run("change_pairs", "flip_costs", "float32", items * GROUP, (*lists, costs))
        if int(costs.sum()) > limit:
            return False
        changed = self.xp.flatnonzero(costs)  # (c,) int64
        if len(changed):
            change = self._gpu.zeros("changes of the pair counts", (n, n), np.int32)
            arguments = (*lists, changed, np.int64(len(changed)), np.int64(n), change)
            self._gpu.run("change_pairs", "change_counts", "float32", len(changed) * WARP, arguments)
            counts += change
        return True
