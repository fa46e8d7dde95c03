"""What a device must do with lists of candidates: find them, compute them anew, thin them out, replace some."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..formats import Array, NeuronLists


class ListOps(ABC):
    """Lists of candidate points, one for each neuron."""

    @abstractmethod
    def scan(self, X: Array, W: Array, neurons: Array, thresholds: Array) -> tuple[Array, Array]:
        """Return the pairs whose computed number exceeds their neuron's threshold; no number is kept.

        X (n, d) and W (m, d) REAL, neurons (u,) int32 distinct, thresholds (u,) REAL.

        Returns
        -------
        indptr : Array
            (u + 1,) int64.
        points : Array
            (nnz,) int32, ascending for each neuron.
        """

    @abstractmethod
    def evaluate(
        self, X: Array, W: Array, lists: NeuronLists, shift: float
    ) -> tuple[NeuronLists, Array, Array, Array, Array]:
        """Compute the candidate pairs anew and keep those that fire, ``P[i, r] > REAL(shift)``, in both orders.

        Returns
        -------
        fired : NeuronLists
            The neurons that fire on some point, with their points.
        places : Array
            (u,) int64: position in ``lists.neurons`` of each neuron of ``fired``.
        indptr : Array
            (n + 1,) int64: the same pairs by point.
        compact : Array
            (nnz,) int32: position in ``fired.neurons``, ascending for each point.
        values : Array
            (nnz,) REAL computed numbers, in the order of ``compact``.
        """

    @abstractmethod
    def rescan(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> NeuronLists:
        """Return ``lists`` without the pairs whose computed number is not above the threshold of their neuron.

        thresholds (u,) REAL, one for each of ``lists.neurons``; minus infinity keeps a list as it is.
        """

    @abstractmethod
    def splice(self, lists: NeuronLists, places: Array, indptr: Array, points: Array) -> NeuronLists:
        """Return ``lists`` with those at the ascending positions ``places`` (p,) int64 replaced by (indptr, points)."""
