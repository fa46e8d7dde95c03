"""The kernels on packed masks: emulated in four orders of threads, and on a GPU if there is one.

Expected values come from the reference device; output buffers hold NaN before a kernel sees them.  Bits and counts are
compared bit for bit, sums in float64 with the bound of their length.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from gpu_sublinear.devices import get_device
from gpu_sublinear.devices.cuda import bits as cuda_bits
from gpu_sublinear.devices.cuda.device import CudaDevice
from gpu_sublinear.devices.reference import words_of_neurons
from tests.conftest import machine
from tests.devices.cuda.test_kernels import same_bits
from tests.devices.cuda.test_list_kernels import EPS, awkward_problem, close
from tests.helpers.kernel_checks import check_refusals

REFERENCE = get_device("reference")

# points, neurons, features: one of each, a tile and one more of everything, several passes of features
SHAPES = [(1, 1, 1), (1, 40, 3), (64, 128, 16), (65, 129, 17), (9, 300, 70), (70, 20, 33)]
MASKS = [(1, 1), (31, 64), (33, 65), (70, 2100), (5, 64 * 600)]  # points, neurons; the last has more words than parts


def random_bits(rng: np.random.Generator, n: int, u: int, density: float) -> np.ndarray:
    """Return the packed mask (ceil(u / 64), n) of some of the pairs."""
    return words_of_neurons(rng.random((u, n)) < density)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_pack_mask(gpu, dtype, n, m, d):
    problem = awkward_problem(np.random.default_rng(n + m), n, m, d, dtype)
    arguments = problem.X, problem.W, problem.signs
    for shift in (0.0, float(problem.P[0, 0]), -100.0):  # half, a tie, everybody that is a number
        bits, totals = gpu.pack_mask(*map(gpu.asarray, arguments), shift)
        want_bits, want = REFERENCE.pack_mask(*arguments, shift)
        same_bits(gpu, bits, want_bits)
        above = np.where(replace(problem, shift=shift).mask, problem.P.astype(np.float64) - shift, 0.0)
        close(gpu, totals, want, abs(above).sum(axis=1), m)


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("n", "u"), MASKS)
def test_counts(gpu, n, u, density):
    bits = random_bits(np.random.default_rng(n), n, u, density)
    counts, union = gpu.mask_sizes(gpu.asarray(bits))
    want_counts, want_union = REFERENCE.mask_sizes(bits)
    same_bits(gpu, counts, want_counts)
    assert union == want_union
    same_bits(gpu, gpu.count_mask(gpu.asarray(bits)), REFERENCE.count_mask(bits))


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("n", "u", "d"), SHAPES)
def test_move_mask(gpu, dtype, n, u, d, density):
    rng = np.random.default_rng(u)
    before, X = (rng.standard_normal((rows, d)).astype(dtype) for rows in (u, n))
    bits, weights, g = random_bits(rng, n, u, density), rng.choice([-0.5, 0.25], u), rng.standard_normal(n)
    W, ours = gpu.asarray(before.copy()), map(gpu.asarray, (X, bits, weights, g))
    moved, exact, absolute = gpu.move_mask(W, *ours), before.astype(np.float64), abs(before).astype(np.float64)
    REFERENCE.move_mask(exact, X.astype(np.float64), bits, weights, g)
    REFERENCE.move_mask(absolute, abs(X).astype(np.float64), bits, -abs(weights), abs(g))
    after = gpu.to_host(W)
    assert after.dtype == before.dtype
    assert np.all(abs(after - exact) <= np.finfo(dtype).eps * abs(exact) + 2 * (n + 2) * EPS * absolute)
    distance = np.linalg.norm(after.astype(np.float64) - before, axis=1)
    close(gpu, moved, distance, distance, d)


@pytest.mark.parametrize("chunk", [1 << 25, 1])
def test_mask_product(gpu, dtype, chunk, monkeypatch):
    monkeypatch.setattr(cuda_bits, "UNPACKED_BITS", chunk)
    rng = np.random.default_rng(0)
    n, u, d = 9, 150, 5
    X, bits = rng.standard_normal((n, d)).astype(dtype), random_bits(rng, n, u, 0.4)
    weights, V = rng.choice([-0.5, 0.25], u), rng.standard_normal((u, d))
    got = gpu.mask_product(*map(gpu.asarray, (X, bits, weights, V)))
    want = REFERENCE.mask_product(X, bits, weights, V)
    close(gpu, got, want, REFERENCE.mask_product(abs(X), bits, abs(weights), abs(V)), u + d)


def test_the_grid_does_not_change_a_bit(dtype):
    rng = np.random.default_rng(1)
    problem = awkward_problem(rng, 70, 600, 9, dtype)
    results = []
    for multiprocessors in (1, 9):
        gpu, W = machine("emulated", multiprocessors), problem.W.copy()
        bits, totals = gpu.pack_mask(problem.X, W, problem.signs, 0.1)
        moved = gpu.move_mask(W, problem.X, bits, problem.signs.astype(np.float64), np.ones(70))
        results.append([array.tobytes() for array in (bits, totals, moved, W, gpu.count_mask(bits))])
    assert results[0] == results[1]


# ---- arguments ----------------------------------------------------------------------------------------------------


GOOD = {
    "X": np.zeros((3, 4), np.float32), "W": np.zeros((10, 4), np.float32), "signs": np.ones(10, np.float32),
    "bits": np.zeros((1, 3), np.uint64), "weights": np.ones(10), "g": np.ones(3), "V": np.ones((10, 4)),
}  # fmt: skip


def run(gpu: CudaDevice, operation: str, **changes: Any) -> Any:
    """Call with arguments that every operation takes gladly, with changes."""
    a: dict[str, Any] = {name: array.copy() for name, array in GOOD.items()} | changes
    return getattr(gpu, operation)(*(a[name] for name in USES[operation].split()), *MORE.get(operation, ()))


USES = {
    "pack_mask": "X W signs", "mask_sizes": "bits", "count_mask": "bits", "move_mask": "W X bits weights g",
    "mask_product": "X bits weights V",
}  # fmt: skip
MORE = {"pack_mask": (0.0,)}


@pytest.mark.parametrize("operation", USES)
def test_arguments_are_checked(operation):
    used = {name: GOOD[name] for name in USES[operation].split()}
    check_refusals(partial(run, machine("emulated"), operation), used, r"dimensions|shape")


@pytest.mark.parametrize(
    ("operation", "changes", "message"),
    [
        ("pack_mask", {"W": np.zeros((10, 5), np.float32)}, "W must have shape"),
        ("pack_mask", {"signs": np.ones(10)}, "signs must be an array of float32"),
        ("move_mask", {"bits": np.zeros((2, 3), np.uint64)}, "bits must have shape"),
        ("move_mask", {"g": np.ones(4)}, "g must have shape"),
        ("mask_product", {"V": np.zeros((10, 5))}, "V must have shape"),
    ],
)
def test_arguments_that_do_not_fit_each_other(operation, changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(machine("emulated"), operation, **changes)


# ---- all together -------------------------------------------------------------------------------------------------


def test_small_step_through_every_kernel(gpu, dtype):
    """Small enough for sanitizers; together the calls reach every kernel."""
    for shape in ((9, 30, 5), (65, 130, 3)):
        test_pack_mask(gpu, dtype, *shape)
        test_move_mask(gpu, dtype, *shape, 0.4)
    for size in ((31, 64), (70, 130)):
        test_counts(gpu, *size, 0.4)
