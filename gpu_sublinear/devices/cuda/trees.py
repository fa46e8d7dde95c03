"""Threshold trees on the GPU: leaves by tiles, levels by threads, queries by a frontier that is expanded in order."""

from __future__ import annotations

import numpy as np

from ..formats import Array, TreeLayout
from ..ops.trees import TreeOps
from .checks import check_array
from .launcher import BLOCK_THREADS, NUMBERS_TILE, WARP, GpuOps, names_memory


class CudaTreeOps(GpuOps, TreeOps):
    """All trees at once, level by level."""

    def fill_leaves(self, nodes: Array, X: Array, W: Array, neurons: Array | None = None) -> None:
        """Write the computed numbers to the leaves."""
        check_array("nodes", nodes, 2, "REAL")
        (n, total), m, real = nodes.shape, len(W), nodes.dtype.name
        check_array("X", X, 2, real, (n, None))
        check_array("W", W, 2, real, (None, X.shape[1]))
        if total < m:
            raise ValueError(f"nodes has {total} columns, W has {m} neurons")
        chosen, gather, count = self._selection("neurons", neurons, m)
        arguments = (
            nodes, np.int64(total), X, np.int64(n), W, chosen, gather, np.int64(count), np.int32(X.shape[1]),
        )  # fmt: skip
        tiles = -(-n // NUMBERS_TILE[0]) * -(-count // NUMBERS_TILE[1])
        self._gpu.run("fill_leaves", "fill_leaves", real, tiles * BLOCK_THREADS, arguments)

    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write maxima of children."""
        _check_nodes(nodes, layout)
        if not 1 <= level < len(layout.sizes):
            raise ValueError(f"level must be in 1 .. {len(layout.sizes) - 1}; got {level}")
        chosen, gather, count = self._selection("parents", parents, layout.sizes[level])
        n, total = nodes.shape
        below, size, here = layout.offsets[level - 1], layout.sizes[level - 1], layout.offsets[level]
        arguments = (
            nodes, np.int64(total), np.int64(n), np.int64(below), np.int64(size), np.int64(here),
            np.int32(layout.arity), chosen, gather, np.int64(count),
        )  # fmt: skip
        self._gpu.run("reduce_level", "reduce_level", nodes.dtype.name, count, arguments, rows=n)

    @names_memory
    def query_tree(self, nodes: Array, layout: TreeLayout, threshold: float) -> tuple[Array, Array, Array, int]:
        """Expand the frontier of (point, node) pairs level by level, in order."""
        _check_nodes(nodes, layout)
        n = len(nodes)
        visited = self.xp.zeros(1, np.uint64)
        points = self.xp.arange(n, dtype=np.int32)  # the root of every tree, above the top level
        parents = self.xp.zeros(n, np.int32)
        for level in reversed(range(len(layout.sizes))):
            points, parents, values = self._expand(nodes, layout, level, points, parents, threshold, visited)
        indptr = self.xp.searchsorted(points, self.xp.arange(n + 1, dtype=np.int32)).astype(np.int64)
        return indptr, parents, values, int(visited[0])

    def _expand(
        self,
        nodes: Array,
        layout: TreeLayout,
        level: int,
        points: Array,
        parents: Array,
        threshold: float,
        visited: Array,
    ) -> tuple[Array, Array, Array]:
        """Return points (found,), nodes (found,) and, on level 0, values (found,) of the next frontier."""
        real, leaves = nodes.dtype.name, level == 0
        slots = len(points) * layout.arity
        frontier = (
            nodes, np.int64(nodes.shape[1]), np.int64(layout.offsets[level]), np.int64(layout.sizes[level]),
            np.int32(layout.arity), points, parents, np.int64(len(points)), nodes.dtype.type(threshold),
        )  # fmt: skip
        if not slots:
            return points, parents, self._gpu.empty("values of the fired pairs", 0, real)
        groups = self._gpu.empty("votes of the frontier", -(-slots // WARP), np.int32)
        self._gpu.run("expand_frontier", "count_children", real, slots, (*frontier, groups, visited))
        ends = self.xp.cumsum(groups, dtype=np.int64)  # (groups,)
        found = int(ends[-1])  # the one wait of a level: the host allocates what comes next
        out_points = self._gpu.empty("points of the frontier", found, np.int32)
        out_nodes = self._gpu.empty("nodes of the frontier", found, np.int32)
        values = self._gpu.empty("values of the fired pairs", found if leaves else 1, real)
        if found:
            arguments = (*frontier, ends, out_points, out_nodes, values, np.int32(leaves))
            self._gpu.run("expand_frontier", "fill_children", real, slots, arguments)
        return out_points, out_nodes, values

    def _selection(self, name: str, chosen: Array | None, everything: int) -> tuple[Array, np.int32, int]:
        """Return (indices, 1, how many), or a stand-in, 0 and ``everything`` where nothing was chosen."""
        if chosen is None:
            return self.xp.zeros(1, np.int32), np.int32(0), everything
        check_array(name, chosen, 1, "int32")
        return chosen, np.int32(1), len(chosen)


def _check_nodes(nodes: Array, layout: TreeLayout) -> None:
    check_array("nodes", nodes, 2, "REAL", (None, layout.total))
