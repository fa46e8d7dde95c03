"""The device of an NVIDIA GPU: checks, allocates, launches the kernels of ``kernels/*.cu``, calls NVIDIA's libraries.

:class:`CudaDevice` gets arrays, compiler and libraries from a toolkit, so the same lines run in CI on NumPy arrays with
emulated kernels; :func:`connect` makes the real one from CuPy.  Importing this module does nothing on the GPU.

Matrix products run in the data type of their arguments: CuPy leaves TF32 off unless ``CUPY_TF32=1`` is set.
All work goes to CuPy's current stream; what waits for the GPU says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import CupyMissingError, GpuSublinearError, KernelCompileError, NoCudaDeviceError
from ..base import CSR, Array, TreeLayout
from .checks import check_array
from .cusparse import check_index_range
from .implicit import ImplicitOperations
from .launcher import BLOCK, Launcher, names_memory
from .toolkit import Toolkit, cupy_toolkit

WARP = 32
FILL_TILE = (64, 128)  # points x neurons of a block of kernels/fill_leaves.cu
COUNTED_COLUMNS = 8192  # of count_pairs at a time: 32 KiB of shared memory
SKETCH_BITS = 61  # see kernels/sketch_rows.cu


class CudaDevice(ImplicitOperations):
    """The op list on one GPU.

    Parameters
    ----------
    toolkit : Toolkit
        Arrays, compiler, libraries and facts of the GPU.

    Attributes
    ----------
    loader : KernelLoader
        The compiled kernels.
    """

    name = "cuda"
    check_every = 5  # a look at the residual stops the stream
    sort_bytes = 24  # order, sorted points, positions and values by neuron

    def __init__(self, toolkit: Toolkit):
        self.toolkit = toolkit
        self.xp = toolkit.xp
        self._gpu = Launcher(toolkit)
        self.loader = self._gpu.loader

    # ---- the machine ------------------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        """Return GPU, driver, runtime and CuPy version."""
        return {"device": self.name} | self.toolkit.describe()

    @names_memory
    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """Return ``array`` as a C-contiguous array on the GPU."""
        return self.xp.ascontiguousarray(self.xp.asarray(array, dtype=dtype))

    def to_host(self, array: Array) -> np.ndarray:
        """Return a copy on the host; waits for the GPU."""
        return self.toolkit.to_host(array)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.toolkit.synchronize()

    def peak_bytes(self) -> int:
        """Return what the memory pool has taken from the GPU."""
        return self.toolkit.peak_bytes()

    def total_bytes(self) -> int:
        """Return the GPU's memory."""
        return self.toolkit.total_bytes()

    # ---- weights ----------------------------------------------------------------------------------------

    @names_memory
    def normal_rows(self, seed: int, start: int, stop: int, d: int, dtype: str, paired: bool = False) -> Array:
        """Return counter-based standard normals."""
        count = stop - start
        out = self._gpu.empty("weights", (count, d), dtype)
        arguments = (out, np.int64(start), np.int64(count), np.int32(d), np.int32(paired), _key(seed))
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
        arguments = (out, directions, tails, owners, places, np.int64(count), np.int32(d), _key(seed))
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

    # ---- threshold trees --------------------------------------------------------------------------------

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
        tiles = -(-n // FILL_TILE[0]) * -(-count // FILL_TILE[1])
        self._gpu.run("fill_leaves", "fill_leaves", real, tiles * BLOCK, arguments)

    def reduce_level(self, nodes: Array, layout: TreeLayout, level: int, parents: Array | None = None) -> None:
        """Write maxima of children."""
        self._check_nodes(nodes, layout)
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
        self._check_nodes(nodes, layout)
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

    # ---- active set -------------------------------------------------------------------------------------

    @names_memory
    def forward(self, indptr: Array, indices: Array, values: Array, signs: Array, shift: float) -> Array:
        """Sum over the fired neurons of each point."""
        self._check_lists("indptr", indptr, "indices", indices)
        check_array("values", values, 1, "REAL", (len(indices),))
        check_array("signs", signs, 1, values.dtype.name)
        n = len(indptr) - 1
        out = self._gpu.empty("outputs", n, np.float64)
        arguments = (indptr, indices, values, signs, np.float64(shift), np.int64(n), out)
        self._gpu.run("forward", "forward", values.dtype.name, n * BLOCK, arguments)
        return out

    @names_memory
    def transpose(self, indptr: Array, indices: Array, m: int) -> tuple[Array, Array, Array, Array]:
        """Sort the pairs by neuron, stably, so that points stay ascending; the host reads the size of the union."""
        self._check_lists("indptr", indptr, "indices", indices)
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
            self._gpu.run("rows_of_entries", "rows_of_entries", "float32", -(-nnz // n), (indptr, np.int64(n), rows), rows=n)
        return rows

    @names_memory
    def count_pairs(self, indptr: Array, compact: Array, t_indptr: Array, t_points: Array) -> Array:
        """Count common neurons of all pairs of points, in 32-bit integers: a count is at most m."""
        self._check_lists("indptr", indptr, "compact", compact)
        self._check_lists("t_indptr", t_indptr, "t_points", t_points)
        n = len(indptr) - 1
        counts = self._gpu.zeros("pair counts", (n, n), np.int32)
        width = min(n, COUNTED_COLUMNS)
        if len(compact):
            arguments = (indptr, compact, t_indptr, t_points, np.int32(n), np.int32(width), counts)
            lanes = 8 * -(-len(compact) // n)  # of the average point: 8 for each of its neurons
            shape = {"rows": n, "layers": -(-n // width), "shared_mem": 4 * width}
            self._gpu.run("count_pairs", "count_pairs", "float32", lanes, arguments, **shape)
        return counts.astype(np.float64)

    # ---- sparse Jacobian --------------------------------------------------------------------------------

    @names_memory
    def fill_jacobian(self, indptr: Array, compact: Array, neurons: Array, signs: Array, X: Array, scale: float) -> CSR:
        """Fill J by rows of points."""
        self._check_lists("indptr", indptr, "compact", compact)
        data, columns = self._jacobian_arrays(compact, neurons, signs, X, "J")
        n, d = X.shape
        arguments = (
            indptr, compact, neurons, signs, X, X.dtype.type(scale), np.int64(n), np.int32(d), data, columns,
        )  # fmt: skip
        if data.size:
            work = -(-data.size // n)
            self._gpu.run("fill_jacobian", "fill_jacobian", X.dtype.name, work, arguments, rows=n)
        return CSR(data, columns, indptr * d, (n, len(neurons) * d))

    @names_memory
    def fill_jacobian_t(
        self, t_indptr: Array, t_points: Array, neurons: Array, signs: Array, X: Array, scale: float
    ) -> CSR:
        """Fill J^T by rows of weights."""
        self._check_lists("t_indptr", t_indptr, "t_points", t_points)
        data, columns = self._jacobian_arrays(t_points, neurons, signs, X, "J^T")
        n, d = X.shape
        u = len(neurons)
        indptr = self._gpu.zeros("row offsets of J^T", u * d + 1, np.int64)
        arguments = (
            t_indptr, t_points, neurons, signs, X, X.dtype.type(scale), np.int64(u), np.int32(d),
            data, columns, indptr[1:],
        )  # fmt: skip
        self._gpu.run("fill_jacobian", "fill_jacobian_t", X.dtype.name, u * WARP, arguments)
        return CSR(data, columns, indptr, (u * d, n))

    def _jacobian_arrays(self, pairs: Array, neurons: Array, signs: Array, X: Array, name: str) -> tuple[Array, Array]:
        """Check what both fills take, and allocate data and columns, (nnz d,) each."""
        check_array("X", X, 2, "REAL")
        check_array("signs", signs, 1, X.dtype.name)
        check_array("neurons", neurons, 1, "int32")
        size = len(pairs) * X.shape[1]
        check_index_range(size, (len(X), len(neurons) * X.shape[1]))
        data = self._gpu.empty(f"values of {name}", size, X.dtype)
        return data, self._gpu.empty(f"columns of {name}", size, np.int32)

    @names_memory
    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Set up cuSPARSE's deterministic algorithm."""
        check_array("data", matrix.data, 1, "REAL")
        self._check_lists("indptr", matrix.indptr, "indices", matrix.indices)
        check_index_range(matrix.nnz, matrix.shape)
        return self.toolkit.spmv(matrix)

    @names_memory
    def sketch_rows(self, matrix: CSR, rows: int, nonzeros: int, seed: int, draw: int) -> Array:
        """Hash the columns on the fly and sum in fixed point; the host reads the scale."""
        check_array("data", matrix.data, 1, "REAL")
        self._check_lists("indptr", matrix.indptr, "indices", matrix.indices)
        count = matrix.shape[0]
        exponent = self._fixed_point_exponent(matrix, nonzeros)
        if exponent is None:  # not finite: so is the result, and the caller notices
            return self.xp.full((count, rows), np.nan)
        sums = self._gpu.zeros("sketch sums", (count, rows), np.uint64)
        arguments = (
            matrix.data, matrix.indices, matrix.indptr, np.int64(count), sums, np.int32(rows),
            np.int32(nonzeros), _key(seed), np.uint32(draw & 0xFFFFFFFF), np.float64(2.0**exponent),
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
        highest, lowest, longest = (float(fact) for fact in self.to_host(facts))
        bound = nonzeros * longest * max(highest, lowest)
        if not np.isfinite(bound):
            return None
        return min(SKETCH_BITS - int(np.ceil(np.log2(bound))), 1000) if bound else 0

    # ---- dense algebra ----------------------------------------------------------------------------------

    @names_memory
    def matmul(self, A: Array, B: Array) -> Array:
        """Multiply by cuBLAS: one stream and one work space, so repeated calls give the same bytes."""
        return self.xp.matmul(A, B)

    @names_memory
    def gram(self, A: Array) -> Array:
        """Multiply by cuBLAS, keep the lower triangle and mirror it."""
        lower = self.xp.tril(self.xp.matmul(A, A.T))
        return lower + self.xp.tril(lower, -1).T

    @names_memory
    def cholesky(self, A: Array) -> Array | None:
        """Factor by cuSOLVER; waits for the GPU to learn whether it succeeded."""
        return self.toolkit.cholesky(A)

    @names_memory
    def solve_triangular(self, L: Array, b: Array, transposed: bool = False) -> Array:
        """Solve by cuBLAS."""
        return self.toolkit.solve_triangular(L, b, transposed)

    @names_memory
    def eigh(self, A: Array) -> tuple[Array, Array]:
        """Return eigenvalues and eigenvectors by cuSOLVER."""
        values, vectors = self.xp.linalg.eigh(A)
        return values, vectors

    # ---- checking ---------------------------------------------------------------------------------------

    def _selection(self, name: str, chosen: Array | None, everything: int) -> tuple[Array, np.int32, int]:
        """Return (indices, 1, how many), or a stand-in, 0 and ``everything`` where nothing was chosen."""
        if chosen is None:
            return self.xp.zeros(1, np.int32), np.int32(0), everything
        check_array(name, chosen, 1, "int32")
        return chosen, np.int32(1), len(chosen)

    @staticmethod
    def _check_nodes(nodes: Array, layout: TreeLayout) -> None:
        check_array("nodes", nodes, 2, "REAL", (None, layout.total))

    @staticmethod
    def _check_lists(offsets_name: str, offsets: Array, name: str, entries: Array) -> None:
        check_array(offsets_name, offsets, 1, "int64")
        check_array(name, entries, 1, "int32")


def _key(seed: int) -> np.uint64:
    return np.uint64(seed & 0xFFFFFFFFFFFFFFFF)


# ---- the real device ------------------------------------------------------------------------------------

_outcome: CudaDevice | GpuSublinearError | None = None


def connect() -> CudaDevice:
    """Return the device of the current GPU, after compiling and running a tiny kernel on it.

    Returns
    -------
    CudaDevice
        The same object at each call.

    Raises
    ------
    CupyMissingError
        If CuPy cannot be imported.
    NoCudaDeviceError
        If there is no usable GPU or driver, or the kernel gives wrong numbers.
    KernelCompileError
        If the kernel does not compile.
    """
    global _outcome
    if _outcome is None:
        try:
            _outcome = _probe(cupy_toolkit())
        except (CupyMissingError, NoCudaDeviceError, KernelCompileError) as reason:
            _outcome = reason
    if isinstance(_outcome, GpuSublinearError):
        raise _outcome
    return _outcome


def _probe(toolkit: Toolkit) -> CudaDevice:
    """Return a device whose compiler, driver and GPU agree."""
    device = CudaDevice(toolkit)
    count = 100
    kernel = device.loader.get("probe", "probe", "float32")
    try:
        out = device.xp.zeros(count, np.float32)
        kernel((1,), (WARP,), (out, np.int64(count)))
        found = device.to_host(out)
    except Exception as cause:  # launch failures have many classes
        raise NoCudaDeviceError(f"a kernel compiled but did not run on the GPU: {cause}; see nvidia-smi") from cause
    expected = np.arange(count) / 2 + np.arange(count) % 32 // 2
    if not np.array_equal(found, expected):
        raise NoCudaDeviceError("the GPU computes wrong numbers in a test kernel; check it with nvidia-smi -q")
    return device
