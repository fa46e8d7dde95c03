"""The kernels on lists of points per neuron: emulated in four orders of threads, and on a GPU if there is one.

Expected values come from the reference device; output buffers hold NaN before a kernel sees them.  Lists, counts and
computed numbers are compared bit for bit, sums in float64 with the bound of their length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from gpu_sublinear.devices import NeuronLists, get_device
from gpu_sublinear.devices.cuda import launcher as launcher_module
from gpu_sublinear.devices.cuda import lists as cuda_lists
from gpu_sublinear.devices.cuda import products as cuda_products
from gpu_sublinear.devices.cuda import sketches as cuda_sketches
from gpu_sublinear.devices.cuda.device import CudaDevice
from tests.conftest import machine
from tests.devices.cuda.test_kernels import same_bits
from tests.helpers.kernel_checks import check_refusals
from tests.helpers.problems import Problem, make_problem

REFERENCE = get_device("reference")
EPS = np.finfo(np.float64).eps

# points, neurons, features: one of each, a tile of scan_bits.cu and one more of everything, several stages of features
SHAPES = [(1, 1, 1), (1, 40, 3), (40, 1, 3), (64, 128, 16), (65, 129, 17), (9, 300, 70), (70, 20, 33)]
DENSITIES = [0.0, 0.2, 1.0]


def random_lists(rng: np.random.Generator, m: int, n: int, density: float) -> NeuronLists:
    """Return lists of about two thirds of m neurons, some of them empty."""
    neurons = np.flatnonzero(rng.random(m) < 0.7) if m > 1 else np.arange(m)
    mask = rng.random((len(neurons), n)) < density * rng.random((len(neurons), 1)) * 2
    indptr = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
    return NeuronLists(neurons.astype(np.int32), indptr.astype(np.int64), np.nonzero(mask)[1].astype(np.int32))


def on_gpu(gpu: CudaDevice, lists: NeuronLists) -> NeuronLists:
    return NeuronLists(*map(gpu.asarray, (lists.neurons, lists.indptr, lists.points)))


def same_lists(gpu: CudaDevice, got: NeuronLists, want: NeuronLists) -> None:
    for part in ("neurons", "indptr", "points"):
        same_bits(gpu, getattr(got, part), getattr(want, part))


def mask_of(lists: NeuronLists, n: int) -> np.ndarray:
    mask = np.zeros((len(lists.neurons), n))
    mask[np.repeat(np.arange(len(mask)), np.diff(lists.indptr)), lists.points] = 1
    return mask


def awkward_problem(rng: np.random.Generator, n: int, m: int, d: int, dtype: str) -> Problem:
    """Return a problem with equal points, equal neurons, a row of zeros, and a row of NaN if there are many."""
    problem = make_problem(rng, n, m, d, dtype, bool(rng.integers(2)), 0.0)
    problem.X[n // 2], problem.W[m // 2] = problem.X[0], problem.W[0]
    if m > 20:
        problem.W[7], problem.W[9] = np.nan, 0.0
    return problem


def near(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Return the values, or their neighbours one ulp below or above; no subnormal ones, which GPUs flush to zero."""
    side = rng.integers(-1, 2, values.shape).astype(values.dtype)
    beside = np.nextafter(values, np.copysign(np.inf, side).astype(values.dtype))
    tiny = np.finfo(values.dtype).tiny
    beside = np.where(abs(beside) < tiny, np.copysign(tiny, side), beside).astype(values.dtype)
    return np.where(side == 0, values, beside)


# ---- candidates ---------------------------------------------------------------------------------------------------


def check_scan(gpu: CudaDevice, problem: Problem, neurons: np.ndarray, thresholds: np.ndarray) -> None:
    arguments = problem.X, problem.W, neurons, thresholds
    want = REFERENCE.scan(*arguments)
    for ours, theirs in zip(gpu.scan(*map(gpu.asarray, arguments)), want, strict=True):
        same_bits(gpu, ours, theirs)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_scan(gpu, dtype, n, m, d):
    rng = np.random.default_rng(n + m)
    problem = awkward_problem(rng, n, m, d, dtype)
    everyone = np.arange(m, dtype=np.int32)
    for bound in (-np.inf, np.inf, 0.0):  # everybody, nobody, half
        check_scan(gpu, problem, everyone, np.full(m, bound, dtype))
    some = rng.permutation(m)[: -(-2 * m // 3)].astype(np.int32)
    check_scan(gpu, problem, some, near(rng, problem.P[rng.integers(0, n, len(some)), some]))


def test_scan_of_nothing(gpu, dtype):
    problem = make_problem(np.random.default_rng(0), 3, 4, 2, dtype, False, 0.0)
    check_scan(gpu, problem, np.zeros(0, np.int32), np.zeros(0, dtype))


def test_scan_in_chunks(gpu, dtype, monkeypatch):
    monkeypatch.setattr(cuda_lists, "SCAN_BYTES", 1)
    rng = np.random.default_rng(5)
    problem = awkward_problem(rng, 70, 300, 5, dtype)
    check_scan(gpu, problem, rng.permutation(300).astype(np.int32), rng.standard_normal(300).astype(dtype))


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_evaluate(gpu, dtype, n, m, d, density):
    rng = np.random.default_rng(n + m)
    problem, lists = awkward_problem(rng, n, m, d, dtype), random_lists(rng, m, n, density)
    for shift in (-np.inf, np.inf, *near(rng, problem.P[rng.integers(0, n, 3), 0])):
        got = gpu.evaluate(gpu.asarray(problem.X), gpu.asarray(problem.W), on_gpu(gpu, lists), float(shift))
        want = REFERENCE.evaluate(problem.X, problem.W, lists, float(shift))
        same_lists(gpu, got[0], want[0])
        for ours, theirs in zip(got[1:], want[1:], strict=True):
            same_bits(gpu, ours, theirs)


def test_the_shift_is_rounded_to_real(gpu):
    X, W = np.ones((1, 1), np.float32), np.array([[0.1], [np.nextafter(np.float32(0.1), np.float32(1))]], np.float32)
    lists = NeuronLists(np.arange(2, dtype=np.int32), np.arange(3), np.zeros(2, np.int32))
    fired = gpu.evaluate(gpu.asarray(X), gpu.asarray(W), on_gpu(gpu, lists), 0.1)[0]  # 0.1 is below float32(0.1)
    assert gpu.to_host(fired.neurons).tolist() == [1]


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_rescan(gpu, dtype, n, m, d, density):
    rng = np.random.default_rng(n * m)
    problem, lists = awkward_problem(rng, n, m, d, dtype), random_lists(rng, m, n, density)
    thresholds = near(rng, problem.P[rng.integers(0, n, len(lists.neurons)), lists.neurons])
    thresholds[::5], thresholds[1::5] = -np.inf, np.inf
    got = gpu.rescan(*map(gpu.asarray, (problem.X, problem.W)), on_gpu(gpu, lists), gpu.asarray(thresholds))
    same_lists(gpu, got, REFERENCE.rescan(problem.X, problem.W, lists, thresholds))


@pytest.mark.parametrize("chosen", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("n", "m", "density"), [(1, 1, 1.0), (5, 9, 0.0), (30, 40, 0.5), (3, 900, 0.3)])
def test_splice(gpu, n, m, density, chosen):
    rng = np.random.default_rng(m)
    lists = random_lists(rng, m, n, density)
    places = np.flatnonzero(rng.random(len(lists.neurons)) < chosen)
    new = random_lists(rng, max(2, 2 * len(places)), n, 1 - density / 2)
    indptr = new.indptr[np.arange(len(places) + 1).clip(None, len(new.neurons))]
    arguments = places, indptr, new.points[: indptr[-1]]
    got = gpu.splice(on_gpu(gpu, lists), *map(gpu.asarray, arguments))
    same_lists(gpu, got, REFERENCE.splice(lists, *arguments))


PAIRS = [(1, 1, 1, 1), (5, 30, 0, 0.4), (5, 30, 0.4, 0), (40, 60, 0.3, 0.3), (70, 9, 1, 0.9), (4, 500, 0.2, 0.2)]


@pytest.mark.parametrize("kept", [0.0, 0.9, 1.0])
@pytest.mark.parametrize(("n", "m", "old", "new"), PAIRS)
def test_change_pairs(gpu, n, m, old, new, kept):
    rng = np.random.default_rng(n * m)
    before, other = np.zeros((2, m, n))
    for mask, density in ((before, old), (other, new)):
        lists = random_lists(rng, m, n, density)
        mask[lists.neurons] = mask_of(lists, n)
    after = np.where(rng.random((m, 1)) < kept, before, other)
    delta = after - before
    cost = int((abs(delta).sum(axis=1) * (before + after).sum(axis=1)).sum())
    ours = [on_gpu(gpu, listed(mask)) for mask in (before, after)]
    counts = gpu.asarray(before.T @ before)
    if cost:
        assert not gpu.change_pairs(counts, *ours, cost - 1)
        same_bits(gpu, counts, before.T @ before)
    assert gpu.change_pairs(counts, *ours, cost)
    same_bits(gpu, counts, after.T @ after)


def listed(mask: np.ndarray) -> NeuronLists:
    """Return the lists of the neurons with points."""
    neurons = np.flatnonzero(mask.any(axis=1)).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(mask[neurons].sum(axis=1))]).astype(np.int64)
    return NeuronLists(neurons, indptr, np.nonzero(mask[neurons])[1].astype(np.int32))


# ---- factored Jacobian --------------------------------------------------------------------------------------------


def factors(rng: np.random.Generator, n: int, m: int, d: int, dtype: str, density: float) -> dict[str, Any]:
    fired = random_lists(rng, m, n, density)
    u = len(fired.neurons)
    return {
        "X": rng.standard_normal((n, d)).astype(dtype),
        "fired": fired,
        "weights": rng.choice([-0.5, 0.25], u),
        "g": rng.standard_normal(n),
        "V": rng.standard_normal((u, d)),
    }


def close(gpu: CudaDevice, got: Any, want: np.ndarray, absolute: np.ndarray, terms: int) -> None:
    """Sums of ``terms`` float64 products in another order: 2 (terms + 2) eps times the sum of their absolute values."""
    got = gpu.to_host(got)
    assert (got.dtype, got.shape) == (np.float64, want.shape)
    assert np.all(np.abs(got - want) <= 2 * (terms + 2) * EPS * absolute)


FACTORED = {"factored_gram": "g", "factored_product": "weights V", "factored_transposed": "weights g"}


def check_factored(gpu: CudaDevice, operation: str, given: dict[str, Any]) -> np.ndarray:
    names = FACTORED[operation].split()
    ours = getattr(gpu, operation)(
        gpu.asarray(given["X"]), on_gpu(gpu, given["fired"]), *(gpu.asarray(given[name]) for name in names)
    )
    reference: Callable[..., np.ndarray] = getattr(REFERENCE, operation)
    want = reference(given["X"], given["fired"], *(given[name] for name in names))
    absolute = reference(abs(given["X"]), given["fired"], *(abs(given[name]) for name in names))
    (n, d), u = given["X"].shape, len(given["fired"].neurons)
    close(gpu, ours, want, absolute, n + d + u)
    return gpu.to_host(ours)


@pytest.mark.parametrize("operation", FACTORED)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_factored(gpu, dtype, operation, n, m, d, density):
    check_factored(gpu, operation, factors(np.random.default_rng(m), n, m, d, dtype, density))


@pytest.mark.parametrize("operation", FACTORED)
def test_parts_of_many_neurons(gpu, dtype, operation, monkeypatch):
    monkeypatch.setattr(cuda_products, "FEWEST_PARTS", 2)
    monkeypatch.setattr(cuda_products, "MOST_PARTS", 3)
    check_factored(gpu, operation, factors(np.random.default_rng(1), 40, 50, 9, dtype, 0.3))


@pytest.mark.parametrize("operation", FACTORED)
def test_the_grid_does_not_change_a_bit(operation):
    given = factors(np.random.default_rng(2), 6, 400, 5, "float32", 0.3)
    small, large = (check_factored(machine("emulated", count), operation, given) for count in (1, 9))
    assert small.tobytes() == large.tobytes()


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_move_rows(gpu, dtype, n, m, d, density):
    rng = np.random.default_rng(m)
    given = factors(rng, n, m, d, dtype, density)
    fired, before = given["fired"], rng.standard_normal((m, d)).astype(dtype)
    W, arrays = gpu.asarray(before.copy()), [given[name] for name in ("weights", "g")]
    moved = gpu.move_rows(W, gpu.asarray(given["X"]), on_gpu(gpu, fired), *map(gpu.asarray, arrays))
    change = REFERENCE.factored_transposed(given["X"], fired, *arrays)
    absolute = REFERENCE.factored_transposed(abs(given["X"]), fired, *map(abs, arrays))
    after = gpu.to_host(W)
    exact = before[fired.neurons] - change
    rounding = np.finfo(dtype).eps * abs(exact) + 2 * (n + 2) * EPS * (absolute + abs(before[fired.neurons]))
    assert after.dtype == before.dtype and np.all(abs(after[fired.neurons] - exact) <= rounding)
    distance = after[fired.neurons].astype(np.float64) - before[fired.neurons]
    close(gpu, moved, np.linalg.norm(distance, axis=1), np.linalg.norm(distance, axis=1), d)
    others = np.setdiff1d(np.arange(m), fired.neurons)
    assert np.array_equal(after[others], before[others])


SKETCHES = [(1, 1, 1, 1.0), (3, 40, 13, 0.0), (9, 600, 20, 0.4), (40, 9, 5, 1.0)]


@pytest.mark.parametrize("window", [8192, 7])
@pytest.mark.parametrize(("n", "m", "buckets", "density"), SKETCHES)
def test_sketch_neurons(gpu, dtype, monkeypatch, n, m, buckets, density, window):
    monkeypatch.setattr(cuda_sketches, "SKETCHED_BUCKETS", window)
    rng = np.random.default_rng(m)
    mask = rng.random((n, m)) < density
    neurons = np.flatnonzero(mask.any(axis=0)).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
    compact = np.searchsorted(neurons, np.nonzero(mask)[1]).astype(np.int32)
    arguments = indptr, compact, neurons, rng.choice([-1.0, 1.0], m).astype(dtype)
    got = gpu.sketch_neurons(*map(gpu.asarray, arguments), buckets, 2**63 + 1, 3)
    same_bits(gpu, got, REFERENCE.sketch_neurons(*arguments, buckets, 2**63 + 1, 3))


# ---- arguments ----------------------------------------------------------------------------------------------------


GOOD = {
    "X": np.zeros((3, 4), np.float32), "W": np.zeros((10, 4), np.float32), "neurons": np.array([0, 2], np.int32),
    "thresholds": np.ones(2, np.float32), "indptr": np.array([0, 1, 3]), "points": np.array([0, 1, 2], np.int32),
    "places": np.array([0, 1]), "counts": np.zeros((3, 3)), "weights": np.ones(2), "g": np.ones(3),
    "V": np.ones((2, 4)), "initial": np.ones((10, 4), np.float32), "change": np.ones((2, 4)),
    "signs": np.ones(10, np.float32), "compact": np.array([0, 0, 1], np.int32),
}  # fmt: skip


def call(gpu: CudaDevice, operation: str, **changes: Any) -> Any:
    """Call with arguments that every operation takes gladly, with changes."""
    a: dict[str, Any] = {name: array.copy() for name, array in GOOD.items()} | changes
    lists = NeuronLists(a["neurons"], a["indptr"], a["points"])
    return {
        "scan": lambda: gpu.scan(a["X"], a["W"], a["neurons"], a["thresholds"]),
        "evaluate": lambda: gpu.evaluate(a["X"], a["W"], lists, 1.0),
        "rescan": lambda: gpu.rescan(a["X"], a["W"], lists, a["thresholds"]),
        "splice": lambda: gpu.splice(lists, a["places"], a["indptr"], a["points"]),
        "change_pairs": lambda: gpu.change_pairs(a["counts"], lists, lists, 0),
        "factored_gram": lambda: gpu.factored_gram(a["X"], lists, a["g"]),
        "factored_product": lambda: gpu.factored_product(a["X"], lists, a["weights"], a["V"]),
        "factored_transposed": lambda: gpu.factored_transposed(a["X"], lists, a["weights"], a["g"]),
        "move_rows": lambda: gpu.move_rows(a["W"], a["X"], lists, a["weights"], a["g"]),
        "pull_rows": lambda: gpu.pull_rows(a["W"], a["initial"], a["neurons"], a["change"], 0.5),
        "sketch_neurons": lambda: gpu.sketch_neurons(a["indptr"], a["compact"], a["neurons"], a["signs"], 5, 0, 0),
    }[operation]()


LISTS = "neurons indptr points"
USES = {
    "scan": "X W neurons thresholds", "evaluate": f"X W {LISTS}", "rescan": f"X W thresholds {LISTS}",
    "splice": f"places {LISTS}", "change_pairs": f"counts {LISTS}", "factored_gram": f"X g {LISTS}",
    "factored_product": f"X weights V {LISTS}", "factored_transposed": f"X weights g {LISTS}",
    "move_rows": f"W X weights g {LISTS}", "pull_rows": "W initial neurons change",
    "sketch_neurons": "indptr compact neurons signs",
}  # fmt: skip


@pytest.mark.parametrize("operation", USES)
def test_arguments_are_checked(operation):
    used = {name: GOOD[name] for name in USES[operation].split()}
    check_refusals(partial(call, machine("emulated"), operation), used)


@pytest.mark.parametrize(
    ("operation", "changes", "message"),
    [
        ("scan", {"W": np.zeros((10, 5), np.float32)}, "W must have shape"),
        ("scan", {"W": np.zeros((10, 4))}, "W must be an array of float32"),
        ("rescan", {"thresholds": np.ones(3, np.float32)}, "thresholds must have shape"),
        ("evaluate", {"indptr": np.array([0, 3])}, "lists.indptr must have shape"),
        ("splice", {"places": np.array([0])}, "indptr must have shape"),
        ("change_pairs", {"counts": np.zeros((3, 4))}, "counts must have shape"),
        ("factored_product", {"V": np.zeros((2, 5))}, "V must have shape"),
        ("move_rows", {"g": np.ones(4)}, "g must have shape"),
        ("pull_rows", {"initial": np.zeros((9, 4), np.float32)}, "initial must have shape"),
        ("pull_rows", {"change": np.zeros((3, 4))}, "change must have shape"),
    ],
)
def test_arguments_that_do_not_fit_each_other(operation, changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(machine("emulated"), operation, **changes)


# ---- all together -------------------------------------------------------------------------------------------------


def test_rows_beyond_the_grid_are_reached(gpu, monkeypatch):
    monkeypatch.setattr(launcher_module, "MAX_GRID_Y", 2)
    test_sketch_neurons(gpu, "float32", monkeypatch, 9, 60, 20, 0.4, 7)


def test_small_step_through_every_kernel(gpu, dtype, monkeypatch):
    """Small enough for sanitizers; together the calls reach every kernel."""
    test_scan(gpu, dtype, 65, 129, 17)
    test_splice(gpu, 30, 40, 0.5, 0.3)
    test_change_pairs(gpu, 40, 20, 0.3, 0.3, 0.5)
    test_sketch_neurons(gpu, dtype, monkeypatch, 9, 60, 20, 0.4, 7)
    for density in DENSITIES:
        test_evaluate(gpu, dtype, 9, 30, 35, density)
        test_rescan(gpu, dtype, 9, 30, 35, density)
        test_move_rows(gpu, dtype, 9, 30, 70, density)
        for operation in FACTORED:
            test_factored(gpu, dtype, operation, 9, 30, 70, density)
