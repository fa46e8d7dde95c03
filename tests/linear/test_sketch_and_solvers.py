"""The sketched preconditioner and the three solvers, against dense algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gpu_sublinear.devices import Device
from gpu_sublinear.errors import OptionError
from gpu_sublinear.index.active_set import ActiveSet
from gpu_sublinear.index.tree import ThresholdTree
from gpu_sublinear.linear.gram import GramMatrix
from gpu_sublinear.linear.jacobian import SparseJacobian
from gpu_sublinear.linear.sketch import preconditioner_of_neurons, preconditioner_of_rows
from gpu_sublinear.linear.solvers import conjugate_gradient, gram_cholesky, sketched_cg
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import CGOptions, SketchOptions
from tests.helpers.problems import sphere

EPS = np.finfo(float).eps


@dataclass(frozen=True)
class Small:
    """A small problem with everything that a solver may want."""

    device: Device
    network: ShiftedReluNetwork
    active: ActiveSet
    jacobian: SparseJacobian
    K: Any
    G: Any
    y: Any

    @classmethod
    def of(cls, device, X, y, m, shift) -> Small:
        network = ShiftedReluNetwork.initialize(m, X.shape[1], shift=shift, dtype="float64", device=device)
        network.hold_all()
        X = device.asarray(X)
        active = ThresholdTree.build(device, X, network.W).query(network.shift)
        jacobian = SparseJacobian.build(device, active, X, network.signs, network.width)
        gram = GramMatrix(device, X, m)
        return cls(device, network, active, jacobian, gram.K, gram(active), device.asarray(y))

    def precondition(self, kind="rows", rows_per_point=None, nonzeros=1, step=0):
        options = SketchOptions(kind, rows_per_point, nonzeros)
        if kind == "rows":
            return preconditioner_of_rows(self.device, self.jacobian, options, 3, step)
        signs, width = self.network.signs, self.network.width
        return preconditioner_of_neurons(self.device, self.active, signs, width, self.K, options, 3, step)


def problem(device, n=40, m=1200, d=6, shift=1.0, duplicate=False) -> Small:
    X, y = sphere(n, d)
    if duplicate:
        X[1] = X[0]
    return Small.of(device, X, y, m, shift)


@pytest.mark.parametrize("kind", ["rows", "neurons"])
def test_sketch_is_unbiased(reference, kind):
    """The mean over draws approaches G at the Monte-Carlo rate, and not faster or slower."""
    small = problem(reference, n=12, m=200)
    draws, rows = 400, 96
    samples = []
    for draw in range(draws):
        if kind == "rows":
            Y = reference.sketch_rows(small.jacobian.csr, rows, 1, 7, draw)
            samples.append(Y @ Y.T)
        else:
            arguments = small.active.indptr, small.active.compact, small.active.fired.neurons, small.network.signs
            C = reference.sketch_neurons(*arguments, rows, 7, draw)
            samples.append(C @ C.T * small.K / 200)
    error, spread = np.mean(samples, axis=0) - small.G, np.std(samples, axis=0) / np.sqrt(draws)
    off = ~np.eye(12, dtype=bool)
    z = error[off] / spread[off]
    assert np.abs(z).max() < 5 and 0.5 < np.sqrt(np.mean(z**2)) < 2


def test_sketched_gram_of_neurons_is_positive_semidefinite(reference):
    small = problem(reference, n=30, m=200)
    arguments = small.active.indptr, small.active.compact, small.active.fired.neurons, small.network.signs
    for draw in range(20):
        C = reference.sketch_neurons(*arguments, 30, 7, draw)
        eigenvalues = np.linalg.eigvalsh(C @ C.T * small.K)
        assert eigenvalues[0] >= -30 * EPS * eigenvalues[-1]


@pytest.mark.parametrize("nonzeros", [1, 4])
@pytest.mark.parametrize("rows_per_point", [4.0, 8.0, 16.0])
def test_preconditioned_spectrum_is_marchenko_pastur(reference, rows_per_point, nonzeros):
    small = problem(reference, n=100, m=4000)
    lower = small.precondition("rows", rows_per_point, nonzeros).lower
    half = reference.solve_triangular(lower, small.G)
    eigenvalues = np.linalg.eigvalsh(reference.solve_triangular(lower, half.T))
    low, high = (1 + rows_per_point**-0.5) ** -2, (1 - rows_per_point**-0.5) ** -2
    # the edges move by O(n^{-2/3}) = 5 % at n = 100; 25 % leaves room for ten standard deviations
    assert low * 0.75 < eigenvalues[0] and eigenvalues[-1] < high * 1.25


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_neuron_sketch_needs_fewer_steps_than_the_row_sketch(reference, shift):
    """algorithm.md: 13-14 steps to 1e-10 with 2 n buckets against 21-23 with 8 n rows (n = 512); here n = 128."""
    small = problem(reference, n=128, m=8192, d=16, shift=shift)
    options = CGOptions(tolerance=1e-10)
    steps = {
        kind: conjugate_gradient(reference, small.jacobian.gram, small.y, options, small.precondition(kind)).iterations
        for kind in ("neurons", "rows")
    }
    assert steps["neurons"] <= 16 < steps["rows"] <= 26


def test_draws_differ_by_step_and_repeat_by_seed(device):
    small = problem(device)
    arguments = small.active.indptr, small.active.compact, small.active.fired.neurons, small.network.signs
    for sketch in (
        lambda draw: device.sketch_rows(small.jacobian.csr, 100, 1, 5, draw),
        lambda draw: device.sketch_neurons(*arguments, 100, 5, draw),
    ):
        first, again, other = (device.to_host(sketch(draw)) for draw in (0, 0, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-10])
def test_solvers_agree_with_dense_algebra(device, tolerance):
    small = problem(device)
    jacobian, G, y = small.jacobian, small.G, small.y
    exact = np.linalg.solve(device.to_host(G), device.to_host(y))
    options = CGOptions(tolerance=tolerance)
    condition = np.linalg.cond(device.to_host(G))
    for solution in (
        conjugate_gradient(device, jacobian.gram, y, options),
        sketched_cg(device, jacobian.gram, y, options, small.precondition("rows")),
        sketched_cg(device, jacobian.gram, y, options, small.precondition("neurons")),
        gram_cholesky(device, G, y),
    ):
        error = np.linalg.norm(device.to_host(solution.value) - exact) / np.linalg.norm(exact)
        assert solution.residual <= tolerance, solution.reason
        assert error <= condition * max(tolerance, 100 * EPS)
        true = device.to_host(y - jacobian.gram(solution.value))
        assert np.linalg.norm(true) / np.linalg.norm(device.to_host(y)) == pytest.approx(solution.residual, abs=1e-12)


def test_preconditioner_saves_steps_on_ill_conditioned_data(device):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 8)) * 0.1 + 1.0  # points huddle together
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    small = Small.of(device, X, rng.standard_normal(150), 3000, 0.5)
    options = CGOptions(tolerance=1e-6, max_iterations=2000)
    plain = conjugate_gradient(device, small.jacobian.gram, small.y, options)
    assert plain.residual <= 1e-6
    for kind in ("rows", "neurons"):
        sketched = sketched_cg(device, small.jacobian.gram, small.y, options, small.precondition(kind))
        assert sketched.residual <= 1e-6 and 2 * sketched.iterations < plain.iterations


def test_bad_preconditioner_costs_steps_not_correctness(device):
    small = problem(device)
    jacobian, y = small.jacobian, small.y
    rng = np.random.default_rng(0)
    weights = device.asarray(10.0 ** rng.uniform(-8, 8, 40))
    solution = sketched_cg(device, jacobian.gram, y, CGOptions(tolerance=1e-6), lambda v: weights * v)
    assert solution.residual <= 1e-6, solution.reason


def test_no_preconditioner_is_reported(device):
    small = problem(device)
    jacobian, y = small.jacobian, small.y
    solution = sketched_cg(device, jacobian.gram, y, CGOptions(), None)
    assert solution.residual <= 1e-2
    assert "plain CG, because the sketch is singular" in solution.reason


def test_singular_gram_gives_a_finite_answer(device):
    """Equal points with equal targets: consistent, so the residual vanishes; different ones: least squares."""
    small = problem(device, duplicate=True)
    jacobian, G, y = small.jacobian, small.G, small.y
    y[1] = y[0]
    options = CGOptions(tolerance=1e-8)
    precondition = small.precondition("rows")
    for solution in (sketched_cg(device, jacobian.gram, y, options, precondition), gram_cholesky(device, G, y)):
        assert solution.residual <= 1e-8, solution.reason
    y[1] += 1.0
    floor = np.sqrt(0.5) / np.linalg.norm(device.to_host(y))  # half the difference stays at each of the two
    for solution in (sketched_cg(device, jacobian.gram, y, options, precondition), gram_cholesky(device, G, y)):
        assert np.isfinite(device.to_host(solution.value)).all()
        assert floor * (1 - 1e-9) <= solution.residual <= 1.0
    assert gram_cholesky(device, G, y).residual == pytest.approx(floor, rel=1e-6)


def test_zero_right_hand_side(device):
    small = problem(device)
    jacobian, y = small.jacobian, small.y
    solution = conjugate_gradient(device, jacobian.gram, y * 0, CGOptions())
    assert solution.iterations == 0 and not device.to_host(solution.value).any()


def test_iteration_cap_is_kept_and_said(device):
    small = problem(device)
    jacobian, y = small.jacobian, small.y
    solution = conjugate_gradient(device, jacobian.gram, y, CGOptions(tolerance=1e-14, max_iterations=3))
    assert solution.iterations <= 4 and solution.residual > 1e-14
    assert "3 iterations are used up" in solution.reason or "no longer falls" in solution.reason


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": 2.0}, {"max_iterations": 0}])
def test_bad_cg_options(options):
    with pytest.raises(OptionError):
        CGOptions(**options)


@pytest.mark.parametrize(
    "options", [{"kind": "points"}, {"rows_per_point": 0.5}, {"rows_per_point": np.nan}, {"nonzeros": 0}]
)
def test_bad_sketch_options(options):
    with pytest.raises(OptionError):
        SketchOptions(**options)
