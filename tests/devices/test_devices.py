"""One op list, several devices: equal signatures, and equal results on shared inputs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from abc import ABC

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear.devices import CSR, Device, NeuronLists, TreeLayout, get_device
from gpu_sublinear.devices.cpu.device import CpuDevice
from gpu_sublinear.devices.cuda.device import CudaDevice
from gpu_sublinear.devices.reference import ReferenceDevice
from gpu_sublinear.errors import OptionError
from tests.conftest import DEVICES, make_device
from tests.helpers.problems import ARITIES, DTYPES, Problem, active_arrays, dot_bound, lists_of, make_problem, problems

KINDS = [ReferenceDevice, CpuDevice, CudaDevice]
FAST = [name for name in DEVICES if name != "reference"]
EXAMPLES = {"cpu": 200, "emulated": 40, "cuda": 100}


def operations(kind: type[Device]) -> dict[str, inspect.Signature]:
    """Return the signatures of the public operations of a kind of device: names, defaults, annotations."""
    members = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(function) for name, function in members if not name.startswith("_")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", operations(Device))
def test_signatures_are_the_specification(kind, name):
    assert operations(kind)[name] == operations(Device)[name]


@pytest.mark.parametrize("kind", KINDS)
def test_no_device_has_operations_or_lacks_facts_of_its_own(kind):
    assert set(operations(kind)) == set(operations(Device))
    assert not inspect.isabstract(kind)
    assert kind.follows_flips and kind.check_every >= 1 and kind.sort_bytes >= 0 and kind.name


def families(package: str) -> dict[str, set[str]]:
    """Return the public operations of every file of a package that defines some, by file."""
    found: dict[str, set[str]] = {}
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{entry.name}")
        for _, kind in inspect.getmembers(module, lambda member: inspect.isclass(member) and issubclass(member, ABC)):
            if kind.__module__ == module.__name__:
                names = {name for name, part in vars(kind).items() if inspect.isfunction(part)}
                found.setdefault(entry.name, set()).update(name for name in names if not name.startswith("_"))
    return found


@pytest.mark.parametrize("side", ["cpu", "cuda"])
def test_a_family_of_operations_has_one_file_name_on_every_side(side):
    specified, here = families("gpu_sublinear.devices.ops"), families(f"gpu_sublinear.devices.{side}")
    del here["device"]
    assert set(here) == set(specified) and len(specified) > 5
    assert all(here[file] <= specified[file] for file in specified)


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


def same_lists(device, got: NeuronLists, want: NeuronLists) -> None:
    for part in ("neurons", "indptr", "points"):
        same(device, getattr(got, part), getattr(want, part))


@pytest.mark.parametrize("name", FAST)
def test_list_operations_agree_with_the_reference(name):
    device, reference = make_device(name), get_device("reference")

    @settings(max_examples=EXAMPLES[name])
    @given(problem=problems(max_points=9), seed=st.integers(0, 2**32 - 1))
    def check(problem: Problem, seed: int) -> None:
        rng = np.random.default_rng(seed)
        check_scan(device, reference, problem, rng)
        chosen = rng.random((len(problem.W), len(problem.X))) < rng.choice([0.0, 0.3, 1.0])
        check_evaluate(device, reference, problem, lists_of(reference, chosen))
        check_change(device, reference, problem, chosen, rng)
        check_factored(device, reference, problem, chosen, rng)

    check()


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 5, 16, 17, 33])
def test_many_pairs_agree_with_the_reference(name, dtype, d):
    device, reference, rng = make_device(name), get_device("reference"), np.random.default_rng(d)
    problem = make_problem(rng, 40, 400, d, dtype, False, 0.5)  # the cpu works on sixteen pairs of a block at once
    chosen = rng.random((400, 40)) < rng.choice([0.0, 0.1, 0.9], size=(400, 1))
    check_factored(device, reference, problem, chosen, rng)
    problem.W[7::50], problem.W[11::50] = np.nan, np.inf  # a row that is no number must not reach its neighbours
    check_evaluate(device, reference, problem, lists_of(reference, chosen))
    ends = np.cumsum(chosen.sum(axis=1))
    lists = NeuronLists(np.arange(400, dtype=np.int32), np.append(0, ends), np.nonzero(chosen)[1].astype(np.int32))
    assert (np.diff(lists.indptr) == 0).any()  # a penalty keeps lists that are empty
    check_evaluate(device, reference, problem, lists)


def check_scan(device, reference, problem, rng) -> None:
    neurons = np.flatnonzero(rng.random(len(problem.W)) < 0.7).astype(np.int32)
    own = problem.P[rng.integers(len(problem.X), size=len(neurons)), neurons]  # ties: a number of the neuron itself
    thresholds = np.where(rng.random(len(neurons)) < 0.5, own, problem.shift).astype(problem.X.dtype)
    want = reference.scan(problem.X, problem.W, neurons, thresholds)
    X, W = device.asarray(problem.X), device.asarray(problem.W)
    got = device.scan(X, W, device.asarray(neurons), device.asarray(thresholds))
    for mine, theirs in zip(got, want, strict=True):
        same(device, mine, theirs)


def check_evaluate(device, reference, problem, lists: NeuronLists) -> None:
    X, W = device.asarray(problem.X), device.asarray(problem.W)
    ours = NeuronLists(*map(device.asarray, (lists.neurons, lists.indptr, lists.points)))
    got = device.evaluate(X, W, ours, problem.shift)
    want = reference.evaluate(problem.X, problem.W, lists, problem.shift)
    same_lists(device, got[0], want[0])
    for mine, theirs in zip(got[1:], want[1:], strict=True):
        same(device, mine, theirs)
    limits = np.where(lists.neurons % 3 == 0, -np.inf, problem.shift).astype(problem.X.dtype)
    mine = device.rescan(X, W, ours, device.asarray(limits))
    same_lists(device, mine, reference.rescan(problem.X, problem.W, lists, limits))


def check_change(device, reference, problem, chosen, rng) -> None:
    other = chosen ^ (rng.random(chosen.shape) < rng.choice([0.0, 0.1, 1.0]))
    before, after = lists_of(reference, chosen), lists_of(reference, other)
    exact = chosen.T.astype(np.float64) @ chosen
    counts = device.asarray(exact.copy())
    limit = int(rng.choice([0, 10, 10**9]))
    changed = device.change_pairs(counts, lists_of(device, chosen), lists_of(device, other), limit)
    assert changed == reference.change_pairs(exact, before, after, limit)
    same(device, counts, exact)
    if changed:
        assert np.array_equal(exact, other.T.astype(np.float64) @ other)
    places = np.flatnonzero(rng.random(len(before.neurons)) < 0.5)
    fresh = (rng.random((len(places), chosen.shape[1])) < 0.4) if len(places) else np.zeros((0, chosen.shape[1]), bool)
    indptr = np.concatenate([[0], np.cumsum(fresh.sum(axis=1))]).astype(np.int64)
    points = np.nonzero(fresh)[1].astype(np.int32)
    ours = device.splice(lists_of(device, chosen), *(device.asarray(part) for part in (places, indptr, points)))
    same_lists(device, ours, reference.splice(before, places, indptr, points))


def check_factored(device, reference, problem, chosen, rng) -> None:
    fired, want = lists_of(device, chosen), lists_of(reference, chosen)
    u, (n, d) = len(want.neurons), problem.X.shape
    g, weights, V = rng.standard_normal(n), rng.standard_normal(u), rng.standard_normal((u, d))
    X, ours = device.asarray(problem.X), [device.asarray(part) for part in (g, weights, V)]
    mask = chosen[want.neurons].astype(np.float64)
    wide = np.abs(problem.X.astype(np.float64))
    eps = (u + n + d + 4) * np.finfo(np.float64).eps  # float64 sums of that many terms at most
    for got, exact, size in (
        (
            device.factored_gram(X, fired, ours[0]),
            reference.factored_gram(problem.X, want, g),
            ((mask @ (np.abs(g)[:, None] * wide)) @ wide.T * mask).sum(axis=0),
        ),
        (
            device.factored_product(X, fired, ours[1], ours[2]),
            reference.factored_product(problem.X, want, weights, V),
            ((np.abs(V) * np.abs(weights)[:, None]) @ wide.T * mask).sum(axis=0),
        ),
        (
            device.factored_transposed(X, fired, ours[1], ours[0]),
            reference.factored_transposed(problem.X, want, weights, g),
            np.abs(weights)[:, None] * (mask @ (np.abs(g)[:, None] * wide)),
        ),
    ):
        assert np.all(np.abs(device.to_host(got) - exact) <= eps * size)
    check_move(device, reference, problem, fired, want, weights, g)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("theta", [1.0, 0.3, 0.0, -0.5])
def test_pulled_rows_agree_with_the_reference(name, dtype, theta):
    device, reference, rng = make_device(name), get_device("reference"), np.random.default_rng(0)
    for rows, d, chosen in ((5000, 3, range(0, 5000, 3)), (50, 7, [0, 49]), (3, 1, []), (0, 4, []), (2, 130, [0, 1])):
        W, home = (rng.standard_normal((rows, d)).astype(dtype) for _ in range(2))
        home[::2] = W[::2]  # rows that never moved
        neurons, change = np.array(chosen, np.int32), rng.standard_normal((len(chosen), d))
        want = reference.pull_rows(W, home, neurons, change, theta)
        given = [device.asarray(part) for part in (W.copy(), home.copy(), neurons, change)]
        after, moved = (device.to_host(part) for part in device.pull_rows(*given, theta))
        assert np.array_equal(device.to_host(given[0]), W) and after.dtype == W.dtype
        # one rounding of float64 sums of three terms
        assert np.all(abs(after - want[0]) <= np.finfo(dtype).eps * abs(want[0]) + 8 * np.finfo(float).eps * 10)
        others = np.setdiff1d(np.arange(rows), neurons)
        still = others if theta == 1 else others[others % 2 == 0]
        assert np.array_equal(after[still], home[still])
        slack = (d + 4) * np.finfo(float).eps  # sums of d squares, a root
        np.testing.assert_allclose(moved, np.linalg.norm(after.astype(float) - W, axis=1), rtol=slack)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pulling_by_lists_gives_the_bytes_of_pulling_by_changes(name, dtype):
    device, rng = make_device(name), np.random.default_rng(0)
    for n, m, d in ((5, 70, 7), (3, 2, 1), (9, 3000, 17), (9, 300, 33), (2, 0, 4)):
        problem = make_problem(rng, n, m, d, dtype, False, 0.5)
        X, W, home = (device.asarray(A) for A in (problem.X, problem.W, problem.W[::-1].copy()))
        fired = lists_of(device, problem.mask.T)
        weights, g = device.asarray(rng.standard_normal(len(fired.neurons))), device.asarray(rng.standard_normal(n))
        for theta in (1.0, 0.3, 0.0):
            change = device.factored_transposed(X, fired, weights, g)
            want = device.pull_rows(W, home, fired.neurons, change, theta)
            got = device.pull_lists(W, home, X, fired, weights, g, theta)
            assert [device.to_host(a).tobytes() for a in got] == [device.to_host(a).tobytes() for a in want]


def check_move(device, reference, problem, fired, want, weights, g) -> None:
    W, exact = device.asarray(problem.W.copy()), problem.W.copy()
    moved = device.to_host(
        device.move_rows(W, device.asarray(problem.X), fired, device.asarray(weights), device.asarray(g))
    )
    reference.move_rows(exact, problem.X, want, weights, g)
    after = device.to_host(W)
    assert np.allclose(after, exact, rtol=4 * np.finfo(W.dtype).eps, atol=1e-13)  # one rounding of nearly equal sums
    distance = np.linalg.norm(after[want.neurons].astype(np.float64) - problem.W[want.neurons], axis=1)
    assert np.all(np.abs(moved - distance) <= (len(problem.X[0]) + 2) * np.finfo(float).eps * distance)
    untouched = np.delete(np.arange(len(exact)), want.neurons)
    assert np.array_equal(after[untouched], problem.W[untouched])


@pytest.mark.parametrize("name", FAST)
def test_neuron_sketch_agrees_with_the_reference(name):
    device, reference = make_device(name), get_device("reference")
    problem = make_problem(np.random.default_rng(0), 9, 300, 4, "float32", False, 0.5)
    _, _, found, lists = active_arrays(reference, problem)
    want = reference.sketch_neurons(found[0], lists[3], lists[0], problem.signs, 7, 2**63 + 1, 3)
    arrays = [device.asarray(part) for part in (found[0], lists[3], lists[0], problem.signs)]
    same(device, device.sketch_neurons(*arrays, 7, 2**63 + 1, 3), want)


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
    assert pairs.flags.c_contiguous
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


def test_peak_is_that_of_the_process_and_not_of_its_parent():
    ballast = np.ones(1 << 26)  # 512 MiB that a child does not have
    code = "from gpu_sublinear.devices import get_device; print(get_device('reference').peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < ballast.nbytes < get_device("reference").peak_bytes()
