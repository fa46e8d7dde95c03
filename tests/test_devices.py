"""One op list, several devices: equal signatures, and equal results on shared inputs."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear.devices import CSR, Device, TreeLayout, get_device
from gpu_sublinear.devices.cpu import CpuDevice
from gpu_sublinear.devices.cuda import CudaDevice
from gpu_sublinear.devices.reference import ReferenceDevice
from gpu_sublinear.errors import OptionError
from tests.conftest import DEVICES, make_device
from tests.problems import ARITIES, DTYPES, Problem, active_arrays, dot_bound, make_problem, problems

OPERATIONS = sorted(name for name in Device.__abstractmethods__)
FAST = [name for name in DEVICES if name != "reference"]
EXAMPLES = {"cpu": 200, "emulated": 40, "cuda": 100}


@pytest.mark.parametrize("kind", [ReferenceDevice, CpuDevice, CudaDevice])
@pytest.mark.parametrize("name", OPERATIONS)
def test_signatures_are_the_specification(kind, name):
    assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(Device, name))


def test_unknown_device():
    with pytest.raises(OptionError, match="device must be one of auto, cuda, cpu, reference; got 'gpu'"):
        get_device("gpu")


@pytest.mark.parametrize(("m", "arity"), [(1, 2), (2, 2), (3, 2), (16, 2), (17, 8), (1000, 8), (65, 64)])
def test_layout(m, arity):
    layout = TreeLayout(m, arity)
    assert layout.sizes[0] == m and layout.sizes[-1] <= arity
    assert all(-(-below // arity) == here for below, here in zip(layout.sizes, layout.sizes[1:], strict=False))
    ends = [offset + size for offset, size in zip(layout.offsets, layout.sizes, strict=True)]
    assert all(end <= start for end, start in zip(ends, [*layout.offsets[1:], layout.total], strict=True))


def same(device, got, want) -> None:
    got = device.to_host(got)
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.array_equal(got, want)


@pytest.mark.parametrize("name", FAST)
def test_every_operation_agrees_with_the_reference(name):
    device, reference = make_device(name), get_device("reference")

    @settings(max_examples=EXAMPLES[name])
    @given(problem=problems(), arity=st.sampled_from(ARITIES))
    def check(problem: Problem, arity: int) -> None:
        _, nodes, found, lists = active_arrays(device, problem, arity)
        _, want_nodes, want_found, want_lists = active_arrays(reference, problem, arity)
        same(device, nodes[:, : len(problem.W)], want_nodes[:, : len(problem.W)])
        for got, want in zip((*found[:3], *lists), (*want_found[:3], *want_lists), strict=True):
            same(device, got, want)
        assert found[3] == want_found[3]
        check_forward(device, problem, found)
        check_products(device, reference, problem, lists, want_lists, found, want_found)

    check()


def check_forward(device, problem, found) -> None:
    got = device.to_host(device.forward(*found[:3], device.asarray(problem.signs), problem.shift))
    terms = np.where(problem.mask, problem.P.astype(np.float64) - problem.shift, 0.0)
    bound = dot_bound(terms, problem.signs.astype(np.float64), len(problem.W), "float64")
    assert np.all(np.abs(got - terms @ problem.signs) <= bound)


def check_products(device, reference, problem, lists, want_lists, found, want_found) -> None:
    neurons, t_indptr, t_points, compact = lists
    signs, X = device.asarray(problem.signs), device.asarray(problem.X)
    csr = device.fill_jacobian(found[0], compact, neurons, signs, X, 0.3)
    csr_t = device.fill_jacobian_t(t_indptr, t_points, neurons, signs, X, 0.3)
    want = reference.fill_jacobian(want_found[0], want_lists[3], want_lists[0], problem.signs, problem.X, 0.3)
    want_t = reference.fill_jacobian_t(want_lists[1], want_lists[2], want_lists[0], problem.signs, problem.X, 0.3)
    for got_matrix, want_matrix in ((csr, want), (csr_t, want_t)):
        assert got_matrix.shape == want_matrix.shape
        for part in ("data", "indices", "indptr"):
            same(device, getattr(got_matrix, part), getattr(want_matrix, part))
    pairs = device.count_pairs(found[0], compact, t_indptr, t_points)
    same(device, pairs, problem.mask.astype(np.float64) @ problem.mask.T.astype(np.float64))
    check_spmv(device, csr, problem)
    check_spmv(device, csr_t, problem)
    check_sketch(device, reference, csr, want, problem)


def dense(device, csr: CSR) -> np.ndarray:
    out = np.zeros(csr.shape)
    indptr, indices, data = (device.to_host(part) for part in (csr.indptr, csr.indices, csr.data))
    for row in range(csr.shape[0]):
        out[row, indices[indptr[row] : indptr[row + 1]]] = data[indptr[row] : indptr[row + 1]]
    return out


def check_spmv(device, csr, problem) -> None:
    x = np.random.default_rng(0).standard_normal(csr.shape[1])
    got = device.to_host(device.spmv(csr)(device.asarray(x)))
    matrix = dense(device, csr)
    precision = "float64" if device.name != "cuda" else str(problem.X.dtype)  # cuSPARSE multiplies in REAL
    assert np.all(np.abs(got - matrix @ x) <= dot_bound(matrix, x, csr.shape[1], precision))


def check_sketch(device, reference, csr, want, problem) -> None:
    for nonzeros in (1, 3):
        got = device.to_host(device.sketch_rows(csr, 11, nonzeros, 5, 2))
        exact = reference.sketch_rows(want, 11, nonzeros, 5, 2)
        weight = np.abs(dense(device, csr)).sum(axis=1, keepdims=True) * nonzeros
        # every device rounds entries to at most 2^-30 of the largest; the sums themselves are of float64
        assert np.all(np.abs(got - exact) <= 2.0**-30 * weight + 1e-300)


@pytest.mark.parametrize("dtype", DTYPES)
def test_update_rows(device, dtype):
    rng = np.random.default_rng(1)
    W, delta = rng.standard_normal((9, 3)).astype(dtype), rng.standard_normal((4, 3)).astype(dtype)
    neurons = np.array([0, 3, 4, 8], np.int32)
    ours = device.asarray(W.copy())
    device.update_rows(ours, device.asarray(neurons), device.asarray(delta))
    W[neurons] -= delta
    same(device, ours, W)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chosen", [[0], [2, 5, 6], list(range(20))])
def test_leaves_of_some_neurons_leave_the_others_alone(device, dtype, chosen):
    problem = make_problem(np.random.default_rng(2), 5, 20, 7, dtype, False, 0.0)
    layout = TreeLayout(20, 4)
    nodes = device.asarray(np.full((5, layout.total), -7.0, dtype))
    device.fill_leaves(nodes, device.asarray(problem.X), device.asarray(problem.W), device.asarray(chosen, np.int32))
    want = np.full((5, layout.total), -7.0, dtype)
    want[:, chosen] = problem.P[:, chosen]
    same(device, nodes, want)


def test_dense_algebra(device):
    rng = np.random.default_rng(3)
    A = rng.standard_normal((150, 40))
    G = device.to_host(device.gram(device.asarray(A)))
    assert np.array_equal(G, G.T)
    assert np.all(np.abs(G - A @ A.T) <= 42 * np.finfo(float).eps * np.abs(A) @ np.abs(A.T))
    definite = A.T @ A + np.eye(40)
    lower = device.cholesky(device.asarray(definite))
    b = rng.standard_normal(40)
    half = device.solve_triangular(lower, device.asarray(b))
    x = device.to_host(device.solve_triangular(lower, half, transposed=True))
    assert np.linalg.norm(definite @ x - b) <= 40 * np.finfo(float).eps * np.linalg.cond(definite) * np.linalg.norm(b)
    assert device.cholesky(device.asarray(-definite)) is None
    values, vectors = (device.to_host(part) for part in device.eigh(device.asarray(definite)))
    assert np.allclose(vectors * values @ vectors.T, definite, rtol=0, atol=1e3 * np.finfo(float).eps * values[-1])
    product = device.to_host(device.matmul(device.asarray(A), device.asarray(A.T @ A)))
    assert np.allclose(product, A @ (A.T @ A), rtol=1e-12)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_host_report(name):
    device = get_device(name)
    assert device.describe()["device"] == name
    assert 0 < device.peak_bytes() < device.total_bytes()
