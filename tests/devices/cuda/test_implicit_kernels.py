"""The kernels on implicit rows and flips: emulated in four orders of threads, and on a GPU if there is one.

Expected values come from the definitions in ``tests/index/flips/test_index.py``; output buffers hold NaN before a
kernel sees them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from gpu_sublinear.devices import Flips, ImplicitRows, NearPairs, get_device
from gpu_sublinear.devices.cuda import implicit as cuda_implicit
from gpu_sublinear.devices.cuda import launcher as launcher_module
from gpu_sublinear.devices.cuda.device import CudaDevice
from tests.conftest import machine
from tests.devices.cuda.test_list_kernels import awkward_problem
from tests.helpers.flips import all_pairs, call, check_mask_flips, check_operations, made_implicit, moved
from tests.helpers.kernel_checks import check_refusals
from tests.helpers.problems import make_problem

REFERENCE = get_device("reference")

# points, neurons, features: one of each, a word and one more of everything, several passes of features
SHAPES = [(1, 1, 1), (1, 40, 3), (64, 64, 16), (65, 129, 17), (9, 150, 70), (130, 20, 33)]


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_every_operation(gpu, dtype, n, m, d):
    rng = np.random.default_rng(n + m)
    check_operations(gpu, make_problem(rng, n, m, d, dtype, bool(d % 2), 0.1), rng, 40)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_near_mask_of_awkward_rows(gpu, dtype, n, m, d):
    rng = np.random.default_rng(m)
    problem = awkward_problem(rng, n, m, d, dtype)
    shift = float(problem.P[0, 0])
    for radius in (0.0, abs(float(problem.P[-1, -1]) - shift), 100.0):
        arguments = problem.X, problem.W, problem.signs, shift, radius
        got, want = call(gpu, "near_mask", *arguments), REFERENCE.near_mask(*arguments)
        assert np.array_equal(got[0], want[0]) and np.array_equal(got[2], want[2])


def test_a_neuron_at_a_time(gpu, dtype, monkeypatch):
    monkeypatch.setattr(cuda_implicit, "LOOK_BYTES", 1)
    test_every_operation(gpu, dtype, 9, 30, 5)


def test_points_beyond_the_grid_are_reached(gpu, monkeypatch):
    monkeypatch.setattr(launcher_module, "MAX_GRID_Y", 40)
    rng = np.random.default_rng(3)
    check_mask_flips(gpu, made_implicit(rng, make_problem(rng, 300, 20, 4, "float32", False, 0.1), 9), rng)


def outcome(gpu: CudaDevice, dtype: str) -> list[Any]:
    """Return what every operation makes of one problem."""
    rng = np.random.default_rng(4)
    problem = make_problem(rng, 70, 300, 9, dtype, False, 0.1)
    implicit, still = (made_implicit(rng, problem, entries) for entries in (50, 0))
    values = problem.P.T.copy()
    pairs, step = all_pairs(300, 70, values), rng.standard_normal(70) / 70
    flips, near, looked = call(gpu, "first_flips", still, still.bits, 0.1, 0.2, 0.4)
    state = moved(gpu.asarray, (implicit.bits.copy(), np.zeros((70, 70)), implicit.heads.copy()))
    turned = gpu.flip_mask(*state, *moved(gpu.asarray, (flips, flips.above, implicit.total)), 50)
    return [
        flips, near, looked,
        call(gpu, "near_mask", problem.X, problem.W, problem.signs, 0.1, 0.2),
        call(gpu, "implicit_rows", implicit),
        call(gpu, "near_flips", implicit, pairs, 0.1, 0.3),
        call(gpu, "all_flips", implicit, pairs, 0.1, 0.2, 0.6, step, step[:50], 1e-4),
        moved(gpu.to_host, (*state, *turned)),
    ]  # fmt: skip


def test_the_grid_does_not_change_a_bit(dtype):
    small, large = (repr(moved(np.ndarray.tobytes, tuple(outcome(machine("emulated", m), dtype)))) for m in (1, 9))
    assert small == large


# ---- arguments ----------------------------------------------------------------------------------------------------


GOOD = {
    "X": np.ones((3, 4), np.float32), "W": np.ones((10, 4), np.float32), "signs": np.ones(10, np.float32),
    "words": np.zeros((1, 3), np.uint64), "bits": np.zeros((10, 1), np.uint64), "weights": np.ones(10),
    "total": np.ones(3), "heads": np.full(10, -1, np.int32), "before": np.full(2, -1, np.int32),
    "log": np.zeros(2, np.int32), "coefficients": np.ones(2), "starts": np.zeros(10, np.int64),
    "stops": np.full(10, 2), "points": np.array([0, 2], np.int32), "values": np.ones(2, np.float32),
    "mask": np.zeros((10, 1), np.uint64), "g": np.ones(3), "logged": np.ones(2), "counts": np.zeros((3, 3)),
    "neurons": np.array([0, 2], np.int32), "flipped": np.array([1, 2], np.int32), "terms": np.ones(2),
}  # fmt: skip


ROWS = "W X bits weights total heads before log coefficients"
NEAR = "starts stops points values"


def run(gpu: CudaDevice, operation: str, **changes: Any) -> Any:
    """Call with arguments that every operation takes gladly, with changes."""
    a: dict[str, Any] = {name: array.copy() for name, array in GOOD.items()} | changes
    implicit = ImplicitRows(*(a[name] for name in ROWS.split()))
    near = NearPairs(a["starts"], a["stops"], a["points"], a["values"])
    flips = Flips(a["neurons"], a["flipped"], a["terms"])
    return {
        "near_mask": lambda: gpu.near_mask(a["X"], a["W"], a["signs"], 0.0, 0.1),
        "mask_by_rows": lambda: gpu.mask_by_rows(a["words"], 10),
        "implicit_rows": lambda: gpu.implicit_rows(implicit),
        "near_flips": lambda: gpu.near_flips(implicit, near, 0.0, 1.0),
        "first_flips": lambda: gpu.first_flips(implicit, a["mask"], 0.0, 0.1, 1.0),
        "all_flips": lambda: gpu.all_flips(implicit, near, 0.0, 0.1, 1.0, a["g"], a["logged"], 0.0),
        "flip_mask": lambda: gpu.flip_mask(a["bits"], a["counts"], a["heads"], flips, a["terms"], a["total"], 0),
    }[operation]()


USES = {
    "near_mask": "X W signs", "mask_by_rows": "words", "implicit_rows": ROWS, "near_flips": f"{ROWS} {NEAR}",
    "first_flips": f"{ROWS} mask", "all_flips": f"{ROWS} {NEAR} g logged",
    "flip_mask": "bits counts heads neurons flipped terms total",
}  # fmt: skip


@pytest.mark.parametrize("operation", USES)
def test_arguments_are_checked(operation):
    used = {name: GOOD[name] for name in USES[operation].split()}
    check_refusals(partial(run, machine("emulated"), operation), used, r"dimensions|shape")


@pytest.mark.parametrize(
    ("operation", "changes", "message"),
    [
        ("near_mask", {"W": np.zeros((10, 5), np.float32)}, "W must have shape"),
        ("mask_by_rows", {"words": np.zeros((2, 3), np.uint64)}, "bits must have shape"),
        ("implicit_rows", {"bits": np.zeros((9, 1), np.uint64)}, "bits must have shape"),
        ("implicit_rows", {"W": np.zeros((10, 4))}, "W must be an array of float32"),
        ("near_flips", {"stops": np.ones(9, np.int64)}, "stops must have shape"),
        ("first_flips", {"mask": np.zeros((10, 2), np.uint64)}, "near must have shape"),
        ("all_flips", {"g": np.ones(4)}, "g must have shape"),
        ("all_flips", {"logged": np.ones(3)}, "logged must have shape"),
        ("flip_mask", {"counts": np.zeros((3, 4))}, "counts must have shape"),
        ("flip_mask", {"heads": np.zeros(9, np.int32)}, "heads must have shape"),
    ],
)
def test_arguments_that_do_not_fit_each_other(operation, changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(machine("emulated"), operation, **changes)


# ---- all together -------------------------------------------------------------------------------------------------


def test_small_step_through_every_kernel(gpu, dtype):
    """Small enough for sanitizers; together the calls reach every kernel."""
    for shape in ((9, 30, 5), (65, 66, 3)):
        test_every_operation(gpu, dtype, *shape)
