"""The specification: every operation in the shortest NumPy that is obviously right.

Speed is no aim here; memory neither.  The other devices are tested against this file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse

from . import philox
from .formats import CSR, Array, Flips, ImplicitRows, NearPairs, NeuronLists, TreeLayout
from .host import HostDevice, one_blas_thread, sums_before


def computed_numbers(X: Array, rows: Array) -> Array:
    """Return ``<x_i, w_r>`` (n, u), each product and sum rounded, feature by feature."""
    total = X[:, :1] * rows[None, :, 0]
    for j in range(1, X.shape[1]):
        total = total + X[:, j, None] * rows[None, :, j]
    return total


def mask_of(lists: NeuronLists, n: int) -> np.ndarray:
    """Return the lists as a 0/1 matrix (u, n) float64."""
    mask = np.zeros((len(lists.neurons), n))
    mask[np.repeat(np.arange(len(lists.neurons)), np.diff(lists.indptr)), lists.points] = 1.0
    return mask


def unpacked(bits: Array) -> np.ndarray:
    """Return packed masks (words, n) as a mask (64 words, n)."""
    shifts = np.arange(64, dtype=np.uint64)[None, :, None]
    return (bits[:, None, :] >> shifts & np.uint64(1)).astype(bool).reshape(-1, bits.shape[1])


def mask_of_rows(bits: Array, n: int) -> np.ndarray:
    """Return words of points (u, words) as a mask (u, n)."""
    return np.unpackbits(bits.view(np.uint8), axis=1, count=n, bitorder="little").astype(bool)


def rows_of_mask(mask: Array) -> np.ndarray:
    """Return a mask (u, n) as words of points (u, ceil(n / 64))."""
    padded = np.zeros((len(mask), -(-mask.shape[1] // 64) * 64), bool)
    padded[:, : mask.shape[1]] = mask
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def words_of_neurons(mask: Array) -> np.ndarray:
    """Return a mask (u, n) as words of neurons (ceil(u / 64), n)."""
    return np.ascontiguousarray(rows_of_mask(mask.T).T)


def wide_rows(implicit: ImplicitRows) -> np.ndarray:
    """Return implicit rows in float64."""
    X = implicit.X.astype(np.float64)
    sums = mask_of_rows(implicit.bits, len(X)) @ (implicit.total[:, None] * X)  # (u, d)
    for r, head in enumerate(implicit.heads):
        entry = int(head)
        while entry >= 0:
            sums[r] += implicit.coefficients[entry] * X[implicit.points[entry]]
            entry = int(implicit.before[entry])
    return implicit.W - implicit.weights[:, None] * sums


def near_pairs(P: Array, chosen: Array, dtype: np.dtype) -> NearPairs:
    """Return the chosen pairs of P (u, n)."""
    ends = np.cumsum(chosen.sum(axis=1), dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    return NearPairs(starts, ends, np.nonzero(chosen)[1].astype(np.int32), P[chosen].astype(dtype))


def wrong(implicit: ImplicitRows, P: Array, shift: float, looked: Array) -> Flips:
    """Return the pairs ``looked`` (u, n) at whose bit is not ``P > shift``."""
    neurons, points = np.nonzero(looked & ((shift < P) != mask_of_rows(implicit.bits, len(implicit.X))))
    return Flips(neurons.astype(np.int32), points.astype(np.int32), abs(P[neurons, points] - shift))


class ReferenceDevice(HostDevice):
    """NumPy, one thread, nothing clever."""

    name = "reference"

    def normal_rows(self, seed: int, start: int, stop: int, d: int, dtype: str, paired: bool = False) -> Array:
        """Return counter-based standard normals."""
        return philox.normal_rows(seed, start, stop, d, paired).astype(dtype)

    def cap_rows(self, seed: int, directions: Array, tails: Array, owners: Array, places: Array, dtype: str) -> Array:
        """Return counter-based normals conditioned on a cap."""
        return philox.cap_rows(seed, directions, tails, owners, places).astype(dtype)

    def update_rows(self, W: Array, neurons: Array, delta: Array) -> None:
        """Subtract ``delta`` from the rows ``neurons``."""
        W[neurons] -= delta

    def fill_leaves(self, nodes: Array, X: Array, W: Array, neurons: Array | None = None) -> None:
        """Write the computed numbers: one rounded product and one rounded sum per feature, in order."""
        columns = np.arange(len(W)) if neurons is None else neurons
        nodes[:, columns] = computed_numbers(X, W[columns])

    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write the maximum of each parent's children."""
        below, here = layout.offsets[level - 1], layout.offsets[level]
        chosen = range(layout.sizes[level]) if parents is None else parents
        for parent in chosen:
            first = int(parent) * layout.arity
            last = min(first + layout.arity, layout.sizes[level - 1])
            nodes[:, here + parent] = nodes[:, below + first : below + last].max(axis=1)

    def query_tree(self, nodes: Array, layout: TreeLayout, threshold: float) -> tuple[Array, Array, Array, int]:
        """Walk the levels from the top; the children of a maximum above the threshold are looked at next."""
        bound = nodes.dtype.type(threshold)
        candidates = np.ones((len(nodes), layout.sizes[-1]), bool)
        visited = 0
        for level in reversed(range(len(layout.sizes))):
            offset, size = layout.offsets[level], layout.sizes[level]
            visited += int(candidates.sum())
            above = candidates & (nodes[:, offset : offset + size] > bound)
            if level:
                candidates = np.repeat(above, layout.arity, axis=1)[:, : layout.sizes[level - 1]]
        points, neurons = np.nonzero(above)
        indptr = sums_before(above.sum(axis=1))
        return indptr, neurons.astype(np.int32), nodes[points, neurons], visited

    def forward(self, indptr: Array, indices: Array, values: Array, signs: Array, shift: float) -> Array:
        """Sum ``a_r (P_ir - b)`` over the fired neurons of each point."""
        terms = signs[indices].astype(np.float64) * (values.astype(np.float64) - shift)
        return np.array([terms[start:stop].sum() for start, stop in zip(indptr, indptr[1:], strict=False)])

    def transpose(self, indptr: Array, indices: Array, m: int) -> tuple[Array, Array, Array, Array]:
        """Sort the (neuron, point) pairs by neuron."""
        points = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        order = np.argsort(indices, kind="stable")
        neurons, compact, counts = np.unique(indices, return_inverse=True, return_counts=True)
        t_indptr = sums_before(counts)
        return neurons.astype(np.int32), t_indptr, points[order].astype(np.int32), compact.astype(np.int32)

    def count_pairs(self, indptr: Array, compact: Array, t_indptr: Array, t_points: Array) -> Array:
        """Multiply the mask with its transpose."""
        shape = (len(indptr) - 1, len(t_indptr) - 1)
        mask = scipy.sparse.csr_array((np.ones(len(compact)), compact, indptr), shape=shape)
        return (mask @ mask.T).toarray()

    def scan(self, X: Array, W: Array, neurons: Array, thresholds: Array) -> tuple[Array, Array]:
        """Compute all pairs and compare."""
        above = thresholds[:, None] < computed_numbers(X, W[neurons]).T  # (u, n)
        indptr = sums_before(above.sum(axis=1))
        return indptr, np.nonzero(above)[1].astype(np.int32)

    def evaluate(
        self, X: Array, W: Array, lists: NeuronLists, shift: float
    ) -> tuple[NeuronLists, Array, Array, Array, Array]:
        """Compute all pairs of the listed neurons; keep listed pairs that fire."""
        P = computed_numbers(X, W[lists.neurons]).T  # (c, n)
        fires = (mask_of(lists, len(X)) > 0) & (P.dtype.type(shift) < P)
        places = np.flatnonzero(fires.any(axis=1))
        fires, P = fires[places], P[places]
        t_indptr = sums_before(fires.sum(axis=1))
        fired = NeuronLists(lists.neurons[places], t_indptr, np.nonzero(fires)[1].astype(np.int32))
        indptr = sums_before(fires.sum(axis=0))
        points, compact = np.nonzero(fires.T)
        return fired, places, indptr, compact.astype(np.int32), P[compact, points]

    def rescan(self, X: Array, W: Array, lists: NeuronLists, thresholds: Array) -> NeuronLists:
        """Compute all pairs of the listed neurons; keep listed pairs above the threshold."""
        numbers = computed_numbers(X, W[lists.neurons]).T  # (c, n)
        kept = (mask_of(lists, len(X)) > 0) & (thresholds[:, None] < numbers)
        indptr = sums_before(kept.sum(axis=1))
        return NeuronLists(lists.neurons, indptr, np.nonzero(kept)[1].astype(np.int32))

    def splice(self, lists: NeuronLists, places: Array, indptr: Array, points: Array) -> NeuronLists:
        """Cut all lists apart and join them again."""
        pieces = [lists.points[start:stop] for start, stop in zip(lists.indptr, lists.indptr[1:], strict=False)]
        for place, start, stop in zip(places, indptr, indptr[1:], strict=False):
            pieces[place] = points[start:stop]
        joined = sums_before([len(piece) for piece in pieces])
        return NeuronLists(lists.neurons, joined, np.concatenate([*pieces, lists.points[:0]]))

    def change_pairs(self, counts: Array, before: NeuronLists, after: NeuronLists, limit: int) -> bool:
        """Add ``delta 1_new^T + 1_old delta^T`` of every neuron, delta = 1_new - 1_old."""
        everyone = np.union1d(before.neurons, after.neurons)
        old, new = np.zeros((2, len(everyone), len(counts)))
        old[np.searchsorted(everyone, before.neurons)] = mask_of(before, len(counts))
        new[np.searchsorted(everyone, after.neurons)] = mask_of(after, len(counts))
        delta = new - old
        if (abs(delta).sum(axis=1) * (old + new).sum(axis=1)).sum() > limit:
            return False
        counts += delta.T @ new + old.T @ delta
        return True

    def pack_mask(self, X: Array, W: Array, signs: Array, shift: float) -> tuple[Array, Array]:
        """Compare all computed numbers."""
        P = computed_numbers(X, W)  # (n, u)
        mask = X.dtype.type(shift) < P
        above = np.where(mask, P.astype(np.float64) - shift, 0.0)
        return words_of_neurons(mask.T), above @ signs.astype(np.float64)

    def mask_sizes(self, bits: Array) -> tuple[Array, int]:
        """Count bits."""
        mask = unpacked(bits)
        return mask.sum(axis=0), int(mask.any(axis=1).sum())

    def count_mask(self, bits: Array, before: Array | None = None, counts: Array | None = None) -> Array:
        """Multiply the 0/1 mask, always anew."""
        mask = unpacked(bits).astype(np.float64)
        return mask.T @ mask

    def move_mask(self, W: Array, X: Array, bits: Array, weights: Array, g: Array) -> Array:
        """Multiply the 0/1 mask with the weighted points, subtract, measure."""
        before = W.astype(np.float64)
        change = weights[:, None] * (unpacked(bits)[: len(W)].astype(np.float64) @ (g[:, None] * X))
        W[:] = before - change
        return np.linalg.norm(W.astype(np.float64) - before, axis=1)

    def mask_product(self, X: Array, bits: Array, weights: Array, V: Array) -> Array:
        """Multiply the 0/1 mask with all rows, then with the points."""
        mask = unpacked(bits)[: len(V)].astype(np.float64)
        return ((mask.T @ (weights[:, None] * V)) * X).sum(axis=1)

    def near_mask(self, X: Array, W: Array, signs: Array, shift: float, radius: float) -> tuple[Array, Array, Array]:
        """Compare all computed numbers twice."""
        P = computed_numbers(X, W).T  # (u, n)
        chosen = abs(P - P.dtype.type(shift)) <= P.dtype.type(radius)
        return *self.pack_mask(X, W, signs, shift), words_of_neurons(chosen)

    def mask_by_rows(self, bits: Array, rows: int) -> Array:
        """Unpack and pack."""
        return rows_of_mask(unpacked(bits)[:rows])

    def implicit_rows(self, implicit: ImplicitRows) -> Array:
        """Sum and round."""
        return wide_rows(implicit).astype(implicit.W.dtype)

    def near_flips(self, implicit: ImplicitRows, near: NearPairs, shift: float, reach: float) -> tuple[Flips, int]:
        """Compute all pairs; keep listed ones within reach."""
        looked = np.zeros((len(implicit.W), len(implicit.X)), bool)
        for r, (start, stop) in enumerate(zip(near.starts, near.stops, strict=True)):
            inside = abs(near.values[start:stop].astype(np.float64) - shift) <= reach
            looked[r, near.points[start:stop][inside]] = True
        P = wide_rows(implicit) @ implicit.X.T.astype(np.float64)  # (u, n)
        return wrong(implicit, P, shift, looked), int(looked.sum())

    def first_flips(
        self, implicit: ImplicitRows, near: Array, shift: float, radius: float, known: float
    ) -> tuple[Flips, NearPairs, int]:
        """Compute all pairs, skip none."""
        P = wide_rows(implicit) @ implicit.X.T.astype(np.float64)  # (u, n)
        flips = wrong(implicit, P, shift, np.ones(P.shape, bool))
        return flips, near_pairs(P, abs(P - shift) <= radius, implicit.W.dtype), P.size

    def all_flips(
        self,
        implicit: ImplicitRows,
        near: NearPairs,
        shift: float,
        radius: float,
        known: float,
        g: Array,
        logged: Array,
        slack: float,
        afresh: bool = False,
    ) -> tuple[Flips, NearPairs, int]:
        """Compute all pairs, skip none."""
        return self.first_flips(implicit, implicit.bits, shift, radius, known)

    def flip_mask(
        self, bits: Array, counts: Array, heads: Array, flips: Flips, terms: Array, total: Array, size: int
    ) -> tuple[Array, int, Array, Array]:
        """Unpack, turn over, multiply; log flip by flip."""
        old = mask_of_rows(bits, len(counts))
        new = old.copy()
        new[flips.neurons, flips.points] ^= True
        bits[...] = rows_of_mask(new)
        counts[...] = new.T.astype(np.float64) @ new
        sums = np.zeros(len(counts))
        np.add.at(sums, flips.points, terms)
        before = np.empty(len(flips), np.int32)
        for e, r in enumerate(flips.neurons):
            before[e], heads[r] = heads[r], size + e
        coefficients = np.where(new[flips.neurons, flips.points], -1.0, 1.0) * total[flips.points]
        return sums, int(new.any(axis=1).sum()) - int(old.any(axis=1).sum()), before, coefficients

    def factored_gram(self, X: Array, fired: NeuronLists, g: Array) -> Array:
        """Multiply with the mask twice."""
        mask, wide = mask_of(fired, len(X)), X.astype(np.float64)
        return ((mask @ (g[:, None] * wide)) @ wide.T * mask).sum(axis=0)

    def factored_product(self, X: Array, fired: NeuronLists, weights: Array, V: Array) -> Array:
        """Multiply densely."""
        return ((V * weights[:, None]) @ X.T.astype(np.float64) * mask_of(fired, len(X))).sum(axis=0)

    def factored_transposed(self, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Multiply densely."""
        return weights[:, None] * (mask_of(fired, len(X)) @ (g[:, None] * X.astype(np.float64)))

    def move_rows(self, W: Array, X: Array, fired: NeuronLists, weights: Array, g: Array) -> Array:
        """Subtract, and measure the difference of the stored rows."""
        before = W[fired.neurons].astype(np.float64)
        W[fired.neurons] = before - self.factored_transposed(X, fired, weights, g)
        return np.linalg.norm(W[fired.neurons] - before, axis=1)

    def pull_rows(self, W: Array, initial: Array, neurons: Array, change: Array, theta: float) -> tuple[Array, Array]:
        """Compute the movements, round, and measure."""
        before, home = W.astype(np.float64), initial.astype(np.float64)
        after = home + (1 - theta) * (before - home)  # (rows, d)
        after[neurons] -= change
        after = after.astype(W.dtype)
        return after, np.linalg.norm(after - before, axis=1)

    def sketch_neurons(
        self, indptr: Array, compact: Array, neurons: Array, signs: Array, buckets: int, seed: int, draw: int
    ) -> Array:
        """Multiply the signed mask with the sketch."""
        last = int(neurons[-1]) + 1 if len(neurons) else 0
        bucket, sign = philox.sketch_entries(last, buckets, philox.NEURONS, seed, draw)
        out = np.zeros((len(indptr) - 1, buckets))
        points = np.repeat(np.arange(len(out)), np.diff(indptr))
        fired = neurons[compact]
        np.add.at(out, (points, bucket[fired]), sign[fired] * signs[fired])
        return out

    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Write one block of d entries for every fired pair, point by point."""
        d = X.shape[1]
        points = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        weights = X.dtype.type(scale) * signs[neurons[compact]]  # (nnz,)
        data = (weights[:, None] * X[points]).reshape(-1)
        columns = (compact[:, None] * d + np.arange(d, dtype=np.int32)).reshape(-1)
        return CSR(data, columns.astype(np.int32), indptr * d, (len(indptr) - 1, len(neurons) * d))

    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Transpose, neuron by neuron: d rows that share their points."""
        n, d = X.shape
        weights = X.dtype.type(scale) * signs[neurons]  # (u,)
        data, columns, lengths = [np.empty(0, X.dtype)], [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for weight, start, stop in zip(weights, t_indptr, t_indptr[1:], strict=False):
            points = t_points[start:stop]
            data.append((weight * X[points]).T.reshape(-1))
            columns.append(np.tile(points, d))
            lengths.append(np.full(d, stop - start))
        indptr = np.cumsum(np.concatenate(lengths))
        return CSR(np.concatenate(data), np.concatenate(columns), indptr, (len(neurons) * d, n))

    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Multiply with SciPy in float64."""
        product = scipy.sparse.csr_array(
            (matrix.data.astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        return lambda x: product @ x

    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Build S entry by entry and multiply."""
        columns = matrix.shape[1]
        sketch = scipy.sparse.csr_array((columns, rows))
        for nonzero in range(nonzeros):
            bucket, sign = philox.sketch_entries(columns, rows, philox.SKETCH + nonzero, seed, draw)
            entries = (sign / np.sqrt(nonzeros), (np.arange(columns), bucket))
            sketch = sketch + scipy.sparse.csr_array(entries, shape=(columns, rows))
        wide = scipy.sparse.csr_array(
            (matrix.data.astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        return (wide @ sketch).toarray()

    def matmul(self, A: Array, B: Array) -> Array:
        """Multiply on one BLAS thread."""
        with one_blas_thread():
            return A @ B

    def gram(self, A: Array) -> Array:
        """Multiply and copy the lower triangle to the upper."""
        lower = np.tril(self.matmul(A, A.T))
        return lower + np.tril(lower, -1).T
