"""Every kernel, through the cuda device's own Python: emulated in four orders of threads, and on a GPU if there is one.

Expected values come from the reference device or from plain NumPy; output buffers hold NaN before a kernel sees them.
The emulated GPU is tiny, so the loops over what a grid does not cover run too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpu_sublinear.devices import CSR, TreeLayout, get_device, philox
from gpu_sublinear.devices.cuda import launcher as launcher_module
from gpu_sublinear.devices.cuda import pairs as cuda_pairs
from gpu_sublinear.devices.cuda import sources as kernels
from gpu_sublinear.devices.cuda.device import CudaDevice
from tests.helpers.problems import make_problem

REFERENCE = get_device("reference")


def same_bits(gpu: CudaDevice, got: Any, want: np.ndarray) -> None:
    """Equal type, shape and bytes: signs of zeros and payloads of NaN count."""
    got = gpu.to_host(got)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    different = got.view(f"u{got.itemsize}") != np.ascontiguousarray(want).view(f"u{got.itemsize}")
    assert not different.any(), (np.argwhere(different)[:5], got[different][:5], want[different][:5])


def lists(rng: np.random.Generator, n: int, m: int, density: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (indptr, indices) of random ascending lists; density 0 and 1 make none and all."""
    mask = rng.random((n, m)) < density
    return np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int64), np.nonzero(mask)[1].astype(np.int32)


LISTS = [
    (1, 1, 1.0),
    (1, 1, 0.0),
    (3, 40, 0.0),
    (3, 40, 1.0),
    (5, 300, 0.2),
    (1, 3000, 0.9),
    (40, 9, 0.5),
    (20, 600, 0.5),
]


# ---- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "start", "count", "d", "paired"),
    [
        (0, 0, 1, 1, False), (7, 3, 50, 5, False), (2**64 - 1, 2**33 + 5, 8, 2, False),
        (9, 5, 33, 4, True), (1, 0, 700, 8, False),
    ],
)  # fmt: skip
def test_normal_rows(gpu, dtype, seed, start, count, d, paired):
    got = gpu.normal_rows(seed, start, start + count, d, dtype, paired)
    same_bits(gpu, got, philox.normal_rows(seed, start, start + count, d, paired).astype(dtype))


def test_no_rows(gpu, dtype):
    assert gpu.normal_rows(1, 5, 5, 3, dtype).shape == (0, 3)


@pytest.mark.parametrize(("n", "d", "count"), [(1, 1, 1), (3, 5, 40), (7, 8, 300), (2, 3, 0)])
def test_cap_rows(gpu, dtype, n, d, count):
    rng = np.random.default_rng(count)
    directions = rng.standard_normal((n, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    owners, places = rng.integers(0, n, count).astype(np.int32), rng.integers(0, 2**32, count)
    arguments = directions, rng.random(n) / 2 + 1e-9, owners, places
    got = gpu.cap_rows(2**63 + 1, *map(gpu.asarray, arguments), dtype)
    same_bits(gpu, got, philox.cap_rows(2**63 + 1, *arguments).astype(dtype))


QUANTILES = """
extern "C" __global__ void quantiles(const unsigned* high, const unsigned* low, int count, double* out) {
  for (int k = blockIdx.x * blockDim.x + threadIdx.x; k < count; k += gridDim.x * blockDim.x)
    out[k] = normal_quantile(uniform(high[k], low[k]));
}
"""


def test_quantile_in_the_tails_that_no_draw_reaches(gpu):
    ends = np.concatenate([np.arange(70), 2 ** np.arange(6, 32), 2**32 - 1 - np.arange(70)]).astype(np.uint32)
    high, low = (part.ravel() for part in np.meshgrid(ends, ends[::7]))
    kernel = gpu.toolkit.module(kernels.source("normal_rows", "float64") + QUANTILES, kernels.OPTIONS)
    out = gpu.asarray(np.full(len(high), np.nan))
    kernel.get_function("quantiles")((2,), (256,), (gpu.asarray(high), gpu.asarray(low), np.int32(len(high)), out))
    want = philox.normal_quantile(philox.uniform(high.astype(np.uint64), low.astype(np.uint64)))
    assert want.min() < -8 and want.max() > 8
    same_bits(gpu, out, want)


@pytest.mark.parametrize(("m", "d", "count"), [(1, 1, 1), (9, 3, 4), (900, 7, 800), (5, 2, 0)])
def test_update_rows(gpu, dtype, m, d, count):
    rng = np.random.default_rng(m)
    W, delta = rng.standard_normal((m, d)).astype(dtype), rng.standard_normal((count, d)).astype(dtype)
    neurons = rng.permutation(m)[:count].astype(np.int32)
    ours = gpu.asarray(W.copy())
    gpu.update_rows(ours, gpu.asarray(neurons), gpu.asarray(delta))
    W[neurons] -= delta
    same_bits(gpu, ours, W)


# ---- trees --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 1, 1), (64, 128, 16), (65, 129, 17), (3, 300, 5), (70, 40, 33), (300, 400, 2)]
)
def test_fill_leaves(gpu, dtype, n, m, d):
    problem = make_problem(np.random.default_rng(m), n, m, d, dtype, False, 0.0)
    problem.X[0], problem.W[:, 0] = 0.0, -np.abs(problem.W[:, 0])  # a row of zeros: leaves of both signs of zero
    layout = TreeLayout(m, 8)
    nodes = gpu.asarray(np.full((n, layout.total), np.nan, dtype))
    gpu.fill_leaves(nodes, gpu.asarray(problem.X), gpu.asarray(problem.W))
    same_bits(gpu, nodes[:, :m].copy(), problem.P)
    assert np.isnan(gpu.to_host(nodes[:, m:])).all()


@pytest.mark.parametrize("count", [0, 1, 5, 150])
def test_fill_some_leaves(gpu, dtype, count):
    n, m, d = 5, 150, 19
    rng = np.random.default_rng(count)
    problem = make_problem(rng, n, m, d, dtype, False, 0.0)
    chosen = rng.permutation(m)[:count].astype(np.int32)
    nodes = gpu.asarray(np.full((n, TreeLayout(m, 2).total), 7.0, dtype))
    gpu.fill_leaves(nodes, gpu.asarray(problem.X), gpu.asarray(problem.W), gpu.asarray(chosen))
    want = np.full(nodes.shape, 7.0, dtype)
    want[:, chosen] = problem.P[:, chosen]
    same_bits(gpu, nodes, want)


def random_nodes(rng: np.random.Generator, n: int, layout: TreeLayout, dtype: str) -> np.ndarray:
    """Return trees with random leaves and everything else large: a kernel that strays beyond a level shows."""
    nodes = np.full((n, layout.total), 1e30, dtype)
    nodes[:, : layout.m] = rng.standard_normal((n, layout.m))
    return nodes


@pytest.mark.parametrize("arity", [2, 3, 8, 16])
@pytest.mark.parametrize(("n", "m"), [(1, 17), (5, 1), (7, 300), (1, 5000)])
def test_reduce_level_and_its_parts(gpu, dtype, n, m, arity):
    rng = np.random.default_rng(m)
    layout = TreeLayout(m, arity)
    want = random_nodes(rng, n, layout, dtype)
    nodes = gpu.asarray(want.copy())
    for level in range(1, len(layout.sizes)):
        gpu.reduce_level(nodes, layout, level)
        REFERENCE.reduce_level(want, layout, level)
    same_bits(gpu, nodes, want)

    moved = rng.permutation(m)[: m // 3].astype(np.int32)
    want[:, moved] += 1
    nodes[:, gpu.asarray(moved)] = gpu.asarray(want[:, moved])
    for level in range(1, len(layout.sizes)):
        moved = np.unique(moved // arity).astype(np.int32)
        gpu.reduce_level(nodes, layout, level, gpu.asarray(moved))
        REFERENCE.reduce_level(want, layout, level, moved)
    same_bits(gpu, nodes, want)


@pytest.mark.parametrize("threshold", [-9.0, 0.0, 1.5, 9.0])
@pytest.mark.parametrize(("n", "m", "arity"), [(1, 1, 2), (4, 33, 2), (3, 200, 3), (2, 700, 8), (9, 260, 16)])
def test_query(gpu, dtype, n, m, arity, threshold):
    layout = TreeLayout(m, arity)
    nodes = random_nodes(np.random.default_rng(n), n, layout, dtype)
    nodes[0, : m // 2] = threshold  # strictly above, not at
    for level in range(1, len(layout.sizes)):
        REFERENCE.reduce_level(nodes, layout, level)
    want = REFERENCE.query_tree(nodes, layout, threshold)
    got = gpu.query_tree(gpu.asarray(nodes), layout, threshold)
    for ours, theirs in zip(got[:3], want[:3], strict=True):
        same_bits(gpu, ours, theirs)
    assert got[3] == want[3]
    assert threshold != -9.0 or len(want[1]) == n * m - m // 2


def test_the_threshold_is_rounded_to_real(gpu):
    layout = TreeLayout(3, 2)
    nodes = np.zeros((1, layout.total), np.float32)
    nodes[0, :3] = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1)), np.nextafter(np.float32(0.1), 0)
    REFERENCE.reduce_level(nodes, layout, 1)
    found = gpu.query_tree(gpu.asarray(nodes), layout, 0.1)  # as a double, 0.1 is below float32(0.1)
    assert gpu.to_host(found[1]).tolist() == [1]


# ---- active set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "density"), LISTS)
def test_forward(gpu, dtype, n, m, density):
    rng = np.random.default_rng(m)
    indptr, indices = lists(rng, n, m, density)
    values, signs = rng.standard_normal(len(indices)).astype(dtype), rng.choice([-1.0, 1.0], m).astype(dtype)
    got = gpu.to_host(gpu.forward(*map(gpu.asarray, (indptr, indices, values, signs)), 0.3))
    want = REFERENCE.forward(indptr, indices, values, signs, 0.3)
    terms = REFERENCE.forward(indptr, indices, np.abs(values), np.abs(signs), -0.3)
    assert got.dtype == np.float64
    assert np.all(np.abs(got - want) <= (m + 2) * np.finfo(float).eps * terms)


@pytest.mark.parametrize(("n", "m", "density"), LISTS)
def test_transpose(gpu, n, m, density):
    indptr, indices = lists(np.random.default_rng(n), n, m, density)
    got = gpu.transpose(gpu.asarray(indptr), gpu.asarray(indices), m)
    for ours, theirs in zip(got, REFERENCE.transpose(indptr, indices, m), strict=True):
        same_bits(gpu, ours, theirs)


@pytest.mark.parametrize("columns", [8192, 7])
@pytest.mark.parametrize(("n", "m", "density"), [*LISTS, (30, 60, 0.9)])
def test_count_pairs(gpu, monkeypatch, n, m, density, columns):
    monkeypatch.setattr(cuda_pairs, "COUNTED_COLUMNS", columns)
    indptr, indices = lists(np.random.default_rng(n), n, m, density)
    _, t_indptr, t_points, compact = REFERENCE.transpose(indptr, indices, m)
    got = gpu.count_pairs(*map(gpu.asarray, (indptr, compact, t_indptr, t_points)))
    same_bits(gpu, got, REFERENCE.count_pairs(indptr, compact, t_indptr, t_points))


# ---- sparse Jacobian ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize(("n", "m", "density"), LISTS)
def test_jacobian(gpu, dtype, n, m, density, d):
    rng = np.random.default_rng(m)
    indptr, indices = lists(rng, n, m, density)
    neurons, t_indptr, t_points, compact = REFERENCE.transpose(indptr, indices, m)
    signs, X = rng.choice([-1.0, 1.0], m).astype(dtype), rng.standard_normal((n, d)).astype(dtype)
    for fill, first in (("fill_jacobian", (indptr, compact)), ("fill_jacobian_t", (t_indptr, t_points))):
        arguments = (*first, neurons, signs, X)
        got = getattr(gpu, fill)(*map(gpu.asarray, arguments), 0.3)
        want = getattr(REFERENCE, fill)(*arguments, 0.3)
        assert got.shape == want.shape
        for part in ("data", "indices", "indptr"):
            same_bits(gpu, getattr(got, part), getattr(want, part))


def random_matrix(rng: np.random.Generator, rows: int, columns: int, density: float, dtype: str) -> CSR:
    indptr, indices = lists(rng, rows, columns, density)
    return CSR(rng.standard_normal(len(indices)).astype(dtype), indices, indptr, (rows, columns))


def on_gpu(gpu: CudaDevice, matrix: CSR) -> CSR:
    return CSR(*map(gpu.asarray, (matrix.data, matrix.indices, matrix.indptr)), matrix.shape)


@pytest.mark.parametrize("nonzeros", [1, 4])
@pytest.mark.parametrize(("n", "m", "density"), LISTS)
def test_sketch_is_exact_in_fixed_point(gpu, dtype, n, m, density, nonzeros):
    matrix = random_matrix(np.random.default_rng(m), n, m, density, dtype)
    rows, seed, draw = 13, 2**63 + 1, 3
    got = gpu.to_host(gpu.sketch_rows(on_gpu(gpu, matrix), rows, nonzeros, seed, draw))
    exponent = gpu._fixed_point_exponent(on_gpu(gpu, matrix), nonzeros)
    points = np.repeat(np.arange(n), np.diff(matrix.indptr))
    scaled = np.rint(matrix.data.astype(np.float64) * 2.0**exponent).astype(np.int64)
    sums = np.zeros((n, rows), np.int64)
    for t in range(nonzeros):
        bucket, sign = philox.sketch_entries(m, rows, philox.SKETCH + t, seed, draw)
        np.add.at(sums, (points, bucket[matrix.indices]), scaled * sign[matrix.indices].astype(np.int64))
    same_bits(gpu, gpu.asarray(got), sums * (2.0**-exponent / np.sqrt(nonzeros)))
    exact = REFERENCE.sketch_rows(matrix, rows, nonzeros, seed, draw)
    longest, largest = np.diff(matrix.indptr).max(initial=0), np.abs(matrix.data).max(initial=0.0)
    rounding = longest * nonzeros * (2.0 * nonzeros * longest * largest * 2.0**-61)  # as sketch_rows.cu says
    assert np.all(np.abs(got - exact) <= rounding + 1e-15 * np.sqrt(nonzeros) * longest * largest)


@pytest.mark.parametrize("scale", [2.0**-80, 1.0, 2.0**80])
def test_sketch_of_tiny_and_huge_data_does_not_overflow(gpu, scale):
    matrix = random_matrix(np.random.default_rng(0), 3, 50, 1.0, "float64")
    data = np.abs(matrix.data) + 1  # all of one sign, in one bucket: the largest sums there can be
    plain, scaled = (CSR(data * s, matrix.indices, matrix.indptr, matrix.shape) for s in (1.0, scale))
    got = gpu.to_host(gpu.sketch_rows(on_gpu(gpu, scaled), 1, 2, 5, 0))
    want = gpu.to_host(gpu.sketch_rows(on_gpu(gpu, plain), 1, 2, 5, 0))
    assert np.array_equal(got, want * scale)
    assert np.allclose(want, REFERENCE.sketch_rows(plain, 1, 2, 5, 0), rtol=1e-12, atol=1e-12 * data.sum())


def test_sketch_of_data_that_is_not_finite_is_nan(gpu):
    for value in (np.nan, np.inf):
        matrix = CSR(np.array([1.0, value]), np.array([0, 1], np.int32), np.array([0, 2]), (1, 2))
        assert np.isnan(gpu.to_host(gpu.sketch_rows(on_gpu(gpu, matrix), 3, 1, 5, 0))).all()


@pytest.mark.parametrize(("n", "m", "density"), LISTS)
def test_spmv(gpu, dtype, n, m, density):
    matrix = random_matrix(np.random.default_rng(n), n, m, density, dtype)
    x = np.random.default_rng(1).standard_normal(m)
    product = gpu.spmv(on_gpu(gpu, matrix))
    got = gpu.to_host(product(gpu.asarray(x)))
    want = REFERENCE.spmv(matrix)(x)
    absolute = CSR(np.abs(matrix.data), matrix.indices, matrix.indptr, matrix.shape)
    assert got.dtype == np.float64 and got.shape == (n,)
    assert np.all(np.abs(got - want) <= (m + 2) * np.finfo(dtype).eps * REFERENCE.spmv(absolute)(np.abs(x)))
    same_bits(gpu, product(gpu.asarray(x)), got)  # the same bytes again


# ---- probe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100])
def test_probe(gpu, dtype, count):
    out = gpu.asarray(np.full(count, np.nan, dtype))
    gpu.loader.get("probe", "probe", dtype)((1,), (32,), (out, np.int64(count)))
    same_bits(gpu, out, (np.arange(count) / 2 + np.arange(count) % 32 // 2).astype(dtype))


# ---- all together -------------------------------------------------------------------------------------------------


def test_rows_beyond_the_grid_are_reached(gpu, monkeypatch):
    monkeypatch.setattr(launcher_module, "MAX_GRID_Y", 2)
    for n, m, density in ((5, 300, 0.2), (40, 9, 0.5)):
        test_count_pairs(gpu, monkeypatch, n, m, density, 3)
        test_jacobian(gpu, "float32", n, m, density, 2)
        test_transpose(gpu, n, m, density)
        test_sketch_is_exact_in_fixed_point(gpu, "float32", n, m, density, 2)
        test_reduce_level_and_its_parts(gpu, "float32", n, m, 3)


def test_small_step_through_every_kernel(gpu, dtype, monkeypatch):
    """Small enough for sanitizers; together the calls reach every kernel."""
    test_normal_rows(gpu, dtype, 7, 3, 20, 5, False)
    test_cap_rows(gpu, dtype, 3, 5, 20)
    test_update_rows(gpu, dtype, 9, 3, 4)
    test_fill_leaves(gpu, dtype, 65, 129, 17)
    test_fill_some_leaves(gpu, dtype, 5)
    test_reduce_level_and_its_parts(gpu, dtype, 3, 70, 3)
    test_query(gpu, dtype, 4, 33, 2, 0.0)
    test_count_pairs(gpu, monkeypatch, 10, 30, 0.5, 7)
    test_forward(gpu, dtype, 20, 60, 0.5)  # more points than blocks
    for shape in ((5, 60, 0.2), (3, 40, 1.0)):
        test_forward(gpu, dtype, *shape)
        test_transpose(gpu, *shape)
        test_jacobian(gpu, dtype, *shape, 3)
        test_sketch_is_exact_in_fixed_point(gpu, dtype, *shape, 2)
    test_probe(gpu, dtype, 100)
