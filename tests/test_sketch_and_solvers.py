"""The sketched preconditioner and the three solvers, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear.errors import OptionError
from gpu_sublinear.gauss_newton import gram_matrix
from gpu_sublinear.jacobian import SparseJacobian
from gpu_sublinear.network import ShiftedReluNetwork
from gpu_sublinear.sketch import SketchOptions, sketched_preconditioner
from gpu_sublinear.solvers import CGOptions, conjugate_gradient, gram_cholesky, sketched_cg
from gpu_sublinear.tree import ThresholdTree
from tests.problems import sphere

EPS = np.finfo(float).eps


def problem(device, n=40, m=1200, d=6, shift=1.0, duplicate=False):
    X, y = sphere(n, d)
    if duplicate:
        X[1] = X[0]
    network = ShiftedReluNetwork.initialize(m, d, shift=shift, dtype="float64", device=device)
    X = device.asarray(X)
    active = ThresholdTree.build(device, X, network.W).query(network.shift)
    jacobian = SparseJacobian.build(device, active, X, network.signs)
    return jacobian, gram_matrix(device, active, X, m), device.asarray(y)


def test_sketch_is_unbiased(reference):
    """The mean of Y^T Y over draws approaches G at the Monte-Carlo rate, and not faster or slower."""
    jacobian, G, _ = problem(reference, n=12, m=200)
    draws, rows = 400, 96
    samples = []
    for draw in range(draws):
        Y = reference.sketch_rows(jacobian.csr, rows, 1, 7, draw)
        samples.append(Y @ Y.T)
    error, spread = np.mean(samples, axis=0) - G, np.std(samples, axis=0) / np.sqrt(draws)
    off = ~np.eye(12, dtype=bool)
    z = error[off] / spread[off]
    assert np.abs(z).max() < 5 and 0.5 < np.sqrt(np.mean(z**2)) < 2


@pytest.mark.parametrize("nonzeros", [1, 4])
@pytest.mark.parametrize("rows_per_point", [4.0, 8.0, 16.0])
def test_preconditioned_spectrum_is_marchenko_pastur(reference, rows_per_point, nonzeros):
    jacobian, G, _ = problem(reference, n=100, m=4000)
    options = SketchOptions(rows_per_point, nonzeros)
    lower = sketched_preconditioner(reference, jacobian, options, 3, 0).lower
    half = reference.solve_triangular(lower, G)
    eigenvalues = np.linalg.eigvalsh(reference.solve_triangular(lower, half.T))
    low, high = (1 + rows_per_point**-0.5) ** -2, (1 - rows_per_point**-0.5) ** -2
    # the edges move by O(n^{-2/3}) = 5 % at n = 100; 25 % leaves room for ten standard deviations
    assert low * 0.75 < eigenvalues[0] and eigenvalues[-1] < high * 1.25


def test_draws_differ_by_step_and_repeat_by_seed(device):
    jacobian, _, _ = problem(device)
    first, again, other = (device.to_host(device.sketch_rows(jacobian.csr, 100, 1, 5, draw)) for draw in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-10])
def test_solvers_agree_with_dense_algebra(device, tolerance):
    jacobian, G, y = problem(device)
    exact = np.linalg.solve(device.to_host(G), device.to_host(y))
    options = CGOptions(tolerance=tolerance)
    precondition = sketched_preconditioner(device, jacobian, SketchOptions(), 1, 0)
    condition = np.linalg.cond(device.to_host(G))
    for solution in (
        conjugate_gradient(device, jacobian.gram, y, options),
        sketched_cg(device, jacobian.gram, y, options, precondition),
        gram_cholesky(device, G, y),
    ):
        error = np.linalg.norm(device.to_host(solution.value) - exact) / np.linalg.norm(exact)
        assert solution.residual <= tolerance, solution.reason
        assert error <= condition * max(tolerance, 100 * EPS)
        true = device.to_host(y - jacobian.gram(solution.value))
        assert np.linalg.norm(true) / np.linalg.norm(device.to_host(y)) == pytest.approx(solution.residual, abs=1e-12)


def test_preconditioner_saves_steps_on_ill_conditioned_data(device):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 8)) * 0.2 + 1.0  # points huddle together: condition about 1e4
    X = device.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))
    y = device.asarray(rng.standard_normal(60))
    network = ShiftedReluNetwork.initialize(3000, 8, shift=0.5, dtype="float64", device=device)
    active = ThresholdTree.build(device, X, network.W).query(network.shift)
    jacobian = SparseJacobian.build(device, active, X, network.signs)
    options = CGOptions(tolerance=1e-8, max_iterations=2000)
    precondition = sketched_preconditioner(device, jacobian, SketchOptions(), 1, 0)
    plain = conjugate_gradient(device, jacobian.gram, y, options)
    sketched = sketched_cg(device, jacobian.gram, y, options, precondition)
    assert sketched.residual <= 1e-8 and plain.residual <= 1e-8
    assert sketched.iterations <= 30 < plain.iterations


def test_bad_preconditioner_costs_steps_not_correctness(device):
    jacobian, _, y = problem(device)
    rng = np.random.default_rng(0)
    weights = device.asarray(10.0 ** rng.uniform(-8, 8, 40))
    solution = sketched_cg(device, jacobian.gram, y, CGOptions(tolerance=1e-6), lambda v: weights * v)
    assert solution.residual <= 1e-6, solution.reason


def test_no_preconditioner_is_reported(device):
    jacobian, _, y = problem(device)
    solution = sketched_cg(device, jacobian.gram, y, CGOptions(), None)
    assert solution.residual <= 1e-2
    assert "plain CG, because the sketch is singular" in solution.reason


def test_singular_gram_gives_a_finite_answer(device):
    """Equal points with equal targets: consistent, so the residual vanishes; different ones: least squares."""
    jacobian, G, y = problem(device, duplicate=True)
    y[1] = y[0]
    options = CGOptions(tolerance=1e-8)
    precondition = sketched_preconditioner(device, jacobian, SketchOptions(), 1, 0)
    for solution in (sketched_cg(device, jacobian.gram, y, options, precondition), gram_cholesky(device, G, y)):
        assert solution.residual <= 1e-8, solution.reason
    y[1] += 1.0
    floor = np.sqrt(0.5) / np.linalg.norm(device.to_host(y))  # half the difference stays at each of the two
    for solution in (sketched_cg(device, jacobian.gram, y, options, precondition), gram_cholesky(device, G, y)):
        assert np.isfinite(device.to_host(solution.value)).all()
        assert floor * (1 - 1e-9) <= solution.residual <= 1.0
    assert gram_cholesky(device, G, y).residual == pytest.approx(floor, rel=1e-6)


def test_zero_right_hand_side(device):
    jacobian, _, y = problem(device)
    solution = conjugate_gradient(device, jacobian.gram, y * 0, CGOptions())
    assert solution.iterations == 0 and not device.to_host(solution.value).any()


def test_iteration_cap_is_kept_and_said(device):
    jacobian, _, y = problem(device)
    solution = conjugate_gradient(device, jacobian.gram, y, CGOptions(tolerance=1e-14, max_iterations=3))
    assert solution.iterations <= 4 and solution.residual > 1e-14
    assert "3 iterations are used up" in solution.reason or "no longer falls" in solution.reason


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": 2.0}, {"max_iterations": 0}])
def test_bad_cg_options(options):
    with pytest.raises(OptionError):
        CGOptions(**options)


@pytest.mark.parametrize("options", [{"rows_per_point": 0.5}, {"rows_per_point": np.nan}, {"nonzeros": 0}])
def test_bad_sketch_options(options):
    with pytest.raises(OptionError):
        SketchOptions(**options)
