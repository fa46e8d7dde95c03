"""What a device must do with sketches: hash neurons or columns by counter-based random words, and add up."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..formats import CSR, Array


class SketchOps(ABC):
    """Products with random sparse matrices."""

    @abstractmethod
    def sketch_neurons(
        self, indptr: Array, compact: Array, neurons: Array, signs: Array, buckets: int, seed: int, draw: int
    ) -> Array:
        """Return ``(S A)^T`` times ``sqrt(m)``, (n, buckets) float64, whole numbers, with A = M o a.

        Column r of the CountSketch S has one entry, placed by a word of Philox4x32-10 with key = seed and counter =
        (r // 4, 0, draw, NEURONS), word r % 4: bucket ``(word >> 1) buckets >> 31``, sign by the lowest bit.
        """

    @abstractmethod
    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Return ``matrix S^T``, (matrix rows, ``rows``) float64, with S a sparse-sign matrix.

        Column c of S (rows, columns of ``matrix``) has ``nonzeros`` entries +-nonzeros^{-1/2}.  Entry t is placed
        by one word of Philox4x32-10 with key = seed and counter = (c // 4 low, high, draw, SKETCH + t), word c % 4: row
        ``(word >> 1) rows >> 31``, sign by the lowest bit.  Two entries that meet in one row add up.
        """
