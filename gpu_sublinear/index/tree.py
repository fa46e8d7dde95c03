"""Threshold trees: find the neurons above a threshold without looking at the others.

For each of the n points one complete max-tree over the m neurons: leaf r holds ``<w_r, x_i>``, an inner node the
maximum of its children.  A query walks down from the top and prunes every subtree whose maximum is not above the
threshold.  When neuron r moves, leaf r changes in all n trees at once, so the set of changed nodes is the same for
every tree and is found once per level.

Follows the "threshold search" structure of Deng, Hu, Song, Weinstein, Zhuo (arXiv 2208.04508), which is nearly
identical to the correlation tree of Alman, Liang, Song, Zhang, Zhuo (NeurIPS 2023, arXiv 2211.14227), to whom the
idea is due.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..devices import Array, Device, TreeLayout
from ..errors import DeviceMemoryError
from ..model.network import ShiftedReluNetwork
from ..options import TreeOptions
from .active_set import ActiveSet
from .newcomers import Newcomers
from .protocol import PlainIndex


@dataclass
class ThresholdTree(PlainIndex):
    """n max-trees over the same m neurons.

    Attributes
    ----------
    nodes : Array
        (n, layout.total): all trees, one per row; see :class:`TreeLayout`.
    X : Array
        (n, d) points.
    layout : TreeLayout
        Where the levels lie.
    options : TreeOptions
        Arity and update policy.
    device : Device
        Owner of the arrays.
    """

    kind = "trees"

    nodes: Array
    X: Array
    layout: TreeLayout
    options: TreeOptions
    device: Device

    @classmethod
    def build(cls, device: Device, X: Array, W: Array, options: TreeOptions | None = None) -> ThresholdTree:
        """Compute all pre-activations and their maxima: O(n m d) operations, n m (1 + 1/(arity - 1)) numbers.

        Parameters
        ----------
        device : Device
            Where to build; X (n, d) and W (m, d) live there.
        X, W : Array
            Points and weights of one dtype.
        options : TreeOptions, optional
            Arity and update policy.

        Returns
        -------
        ThresholdTree
            Ready for queries.

        Raises
        ------
        DeviceMemoryError
            If the trees are larger than the device's memory.
        """
        options = options or TreeOptions()
        layout = TreeLayout(len(W), options.arity)
        tree = cls(_nodes(device, len(X), layout, W.dtype), X, layout, options, device)
        device.fill_leaves(tree.nodes, X, W)
        tree._rebuild()
        return tree

    def extend(self, network: ShiftedReluNetwork, X: Array, newcomers: Newcomers | None = None) -> ThresholdTree:
        """Return the trees of this forest followed by one for each new point.

        Where no row joins, the old trees are kept as they are, node by node.  Else their leaves are kept, the leaves of
        the rows that joined are put in between, and the maxima are formed again: O(n u) instead of O(n u d).

        Parameters
        ----------
        network : ShiftedReluNetwork
            The rows that the leaves belong to; gets those that fire on the new points alone.
        X : Array
            (k, d) new points.
        newcomers : Newcomers, optional
            What the look at the new points found, where another index has looked already.

        Returns
        -------
        ThresholdTree
            Ready for queries.
        """
        came, device, n = newcomers or Newcomers.welcome(network, X), self.device, len(self.X)
        layout = TreeLayout(came.rows, self.options.arity)
        if not len(X) and layout == self.layout:
            return self
        nodes = _nodes(device, n + len(X), layout, self.nodes.dtype)
        tree = replace(self, nodes=nodes, X=device.xp.concatenate([self.X, X]), layout=layout)
        new = replace(tree, nodes=nodes[n:], X=X)
        device.fill_leaves(new.nodes, X, network.rows)
        if layout == self.layout:
            nodes[:n] = self.nodes
            new._rebuild()
            return tree
        nodes[:n, came.places] = self.leaves
        device.fill_leaves(nodes[:n], self.X, network.rows, came.joined(device))
        tree._rebuild()
        return tree

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> ThresholdTree:
        """Return trees of their own for a network with the same rows, over X (k, d)."""
        return ThresholdTree.build(self.device, X, network.rows, self.options)

    @property
    def leaves(self) -> Array:
        """(n, m) view of the pre-activations."""
        return self.nodes[:, : self.layout.m]

    @property
    def tops(self) -> Array:
        """(n,) the largest pre-activation of every point."""
        first = self.layout.offsets[-1]
        return self.nodes[:, first : first + self.layout.sizes[-1]].max(axis=1)

    def query(self, threshold: float) -> ActiveSet:
        """Return all pairs with ``P_ir > threshold`` (strict), exactly those a full scan would find."""
        found = self.device.query_tree(self.nodes, self.layout, threshold)
        return ActiveSet.of(self.device, found, self.layout.m)

    def update(self, W: Array, neurons: Array, moved: Array | None = None) -> None:
        """Recompute the leaves of the moved ``neurons`` (u,) int32 from W (m, d), and the maxima above them."""
        if not len(neurons):
            return
        self.device.fill_leaves(self.nodes, self.X, W, neurons)
        if len(neurons) > self.options.rebuild_fraction * self.layout.m:
            self._rebuild()
        else:
            self._refresh_ancestors(neurons)

    def restore(self, mark: None, W: Array, changed: Array) -> None:
        """Recompute the leaves of the rows (k,) that were moved back: they follow from the weights, bit for bit."""
        self.update(W, changed)

    def _rebuild(self) -> None:
        for level in range(1, len(self.layout.sizes)):
            self.device.reduce_level(self.nodes, self.layout, level)

    def _refresh_ancestors(self, neurons: Array) -> None:
        parents = neurons
        for level in range(1, len(self.layout.sizes)):
            parents = self.device.xp.unique(parents // self.layout.arity)  # shared by all n trees
            self.device.reduce_level(self.nodes, self.layout, level, parents)


def _nodes(device: Device, n: int, layout: TreeLayout, dtype: Any) -> Array:
    """Return room for n trees, (n, layout.total)."""
    nbytes = n * layout.total * np.dtype(dtype).itemsize
    if nbytes > device.total_bytes():
        raise DeviceMemoryError(
            f"the threshold trees of {n} points over {layout.m} neurons take {nbytes:,} bytes, the device "
            f"has {device.total_bytes():,}; lower the width or the number of points, or use float32"
        )
    return device.xp.empty((n, layout.total), dtype)
