"""What a device must do with threshold trees: fill the leaves, make the levels above, ask who is above a threshold."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..formats import Array, TreeLayout


class TreeOps(ABC):
    """Max-trees over the pre-activations of each point."""

    @abstractmethod
    def fill_leaves(self, nodes: Array, X: Array, W: Array, neurons: Array | None = None) -> None:
        """Write the computed number ``<x_i, w_r>`` to ``nodes[i, r]`` for all i and the r in ``neurons`` (or all).

        nodes (n, total), X (n, d), W (m, d), all REAL; neurons (u,) int32 distinct.
        """

    @abstractmethod
    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write the maxima of their children to the nodes of ``level`` >= 1, in all n trees.

        ``parents`` (p,) int32 restricts the work to these nodes of the level.
        """

    @abstractmethod
    def query_tree(self, nodes: Array, layout: TreeLayout, threshold: float) -> tuple[Array, Array, Array, int]:
        """Return the leaves above ``threshold`` of every tree, found from the top, pruning maxima <= threshold.

        The comparison is strict and made in REAL: ``P[i, r] > REAL(threshold)``.

        Returns
        -------
        indptr : Array
            (n + 1,) int64: point i owns entries indptr[i] .. indptr[i + 1].
        indices : Array
            (nnz,) int32 neurons, ascending for each point.
        values : Array
            (nnz,) REAL, the leaf values read.
        visited : int
            Number of node values compared with the threshold, over all trees.
        """
