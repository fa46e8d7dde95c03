"""The ridge penalty: the exact step, an independent minimiser, rows that go home and may come back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import optimize

from gpu_sublinear.data.preprocessing import Preprocessing
from gpu_sublinear.data.sources import load
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import CGOptions
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.tuning.shared_scan import SharedScan, ridge_path
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import Problem, clusters, sphere
from tests.helpers.runs import begun


def network_for(device, d, m=256, shift=0.5) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(m, d, shift=shift, seed=1, dtype="float64", device=device)


def noisy(n=20, d=4) -> tuple[np.ndarray, np.ndarray]:
    X, y = sphere(n, d)
    return X, y + np.random.default_rng(1).standard_normal(n)


def dense_objective(W0, signs, X, y, shift, penalty):
    """Return the objective and its gradient as a function of the flat weights, from the definition."""

    def value(w):
        W = w.reshape(W0.shape)
        P = X @ W.T - shift
        r = np.maximum(P, 0) @ signs / np.sqrt(len(W)) - y
        slope = ((P > 0) * signs * r[:, None]).T @ X / np.sqrt(len(W)) + penalty * (W - W0)
        return 0.5 * r @ r + 0.5 * penalty * ((W - W0) ** 2).sum(), slope.ravel()

    return value


def penalty_of(W0, X, shift, alpha) -> float:
    return alpha * ((shift < X @ W0.T).sum(axis=1) * (X**2).sum(axis=1)).mean() / len(W0)


@lru_cache
def independent_minimum(weights: bytes):
    """Return the penalised loss as a function of weights, and its minimum by another method, from initial weights."""
    X, y = noisy()
    W0 = np.frombuffer(weights).reshape(256, 4)
    function = dense_objective(W0, 1 - 2 * (np.arange(256) % 2), X, y, 0.5, penalty_of(W0, X, 0.5, 2.0))
    options = {"maxiter": 2000, "ftol": 1e-14}
    return function, optimize.minimize(function, W0.ravel(), jac=True, method="L-BFGS-B", options=options).fun


@pytest.mark.parametrize("name", [name for name in DEVICES if name != "emulated"])  # CG to 1e-10 takes minutes there
@pytest.mark.parametrize("options", [{}, {"margin": 0}, {"solver": "cg"}, {"solver": "sketch-cg", "jacobian": "csr"}])
def test_minimum_is_that_of_an_independent_minimiser(name, options):
    device = make_device(name)
    X, y = noisy()
    network = network_for(device, 4)
    function, want = independent_minimum(device.to_host(network.W).tobytes())
    trainer = GaussNewton(alpha=2.0, tolerance=1e-6, max_steps=60, cg=CGOptions(1e-10), **options)
    result = trainer.fit(network, X, y)
    assert result.converged, result.reason
    reached = function(device.to_host(network.W).ravel())[0]
    assert reached == pytest.approx(want, rel=5e-3)  # two falls of less than 0.1 % end the run
    assert result.final.objective == pytest.approx(reached, rel=1e-8)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("margin", ["auto", 0.05, 0])
def test_rows_that_go_home_are_found_again(name, margin):
    """Active sets, step by step, are those of the weights; nobody outside U_0 moves; the objective falls in the end."""
    device = make_device(name)
    X, y = noisy(16, 5)
    network = network_for(device, 5, 512, 1.8)
    W0 = device.to_host(network.W).copy()
    expected: list[np.ndarray] = []
    union = []

    def look(record, network):
        if expected:
            assert record.union == expected[-1].any(axis=0).sum()
            assert record.fired == pytest.approx(expected[-1].sum() / len(X))
        W = device.to_host(network.W)
        expected.append(Problem(X, W, W[:, 0], 1.8).mask)
        union.append(record.union)

    trainer = GaussNewton(alpha=0.05, margin=margin, watchdog=1, max_steps=12)
    result = trainer.fit(network, X, 3 * y, [look])
    still = ~Problem(X, W0, W0[:, 0], 1.8).mask.any(axis=0)
    assert still.any() and np.array_equal(device.to_host(network.W)[still], W0[still])
    objective = np.array([record.objective for record in result.history])
    assert len(objective) > 3 and all(
        later < objective[max(0, k - 2) : k + 1].max() for k, later in enumerate(objective[1:])
    )


def test_the_full_step_is_exact(device):
    """After one undamped step ``W - W_0 = -J^T g`` with ``(G + lambda I) g = r`` of dense algebra."""
    X, y = noisy()
    network = network_for(device, 4)
    W0 = device.to_host(network.W).copy()
    GaussNewton(alpha=1.0, max_steps=1, damping="none", solver="gram").fit(network, X, y)
    problem = Problem(X, W0, np.where(np.arange(256) % 2, -1.0, 1.0), 0.5)
    J = problem.jacobian
    r = np.maximum(problem.P - 0.5, 0) @ problem.signs / 16 - y
    g = np.linalg.solve(J @ J.T + penalty_of(W0, X, 0.5, 1.0) * np.eye(20), r)
    assert np.allclose(device.to_host(network.W), W0 - (J.T @ g).reshape(W0.shape), atol=1e-10)


def test_diabetes_settles():
    raw = load("diabetes")
    X = Preprocessing.fit(raw.X, raw.preprocessing).transform(raw.X)
    y = (raw.y - raw.y.mean()) / raw.y.std()
    network = ShiftedReluNetwork.initialize(2**12, X.shape[1], shift=2.0, seed=1, device=make_device("cpu"))
    result = GaussNewton(alpha=10.0, max_steps=40).fit(network, X, y)
    assert result.converged and 0.2 < result.final.mse < 0.8


@pytest.mark.parametrize("alpha", [0.03, 1.0])
def test_a_settled_loss_is_near_that_of_a_stricter_tolerance(alpha):
    X, y = clusters(0.3, False, 96)
    reached = {}
    for tolerance in (1e-4, 1e-7):
        network = network_for(make_device("cpu"), 8, 2**10, 1.0)
        result = GaussNewton(tolerance=tolerance, alpha=alpha, max_steps=600).fit(network, X, y)
        assert result.converged and "penalised loss" in result.reason
        reached[tolerance] = min(record.objective for record in result.history)
    assert reached[1e-4] <= reached[1e-7] * 1.005


# ---- one scan, many trainings ---------------------------------------------------------------------------


def test_path_agrees_with_separate_fits(device):
    X, y = noisy()
    alphas = [1.0, 100.0, 10.0]
    path = ridge_path(network_for(device, 4), X, y, alphas, GaussNewton(max_steps=40))
    for alpha, result in zip(alphas, path, strict=True):
        alone = GaussNewton(alpha=alpha, max_steps=40).fit(network_for(device, 4), X, y)
        assert result.converged and alone.converged
        assert result.final.objective == pytest.approx(alone.final.objective, rel=5e-3)
        assert np.mean((result.network.predict(X) - y) ** 2) == pytest.approx(result.final.mse, rel=1e-8)


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_promise_of_a_step_is_that_of_dense_algebra(outputs):
    """What a whole step makes of fit and penalty where the network is linear, with and without damping."""
    device, (X, y) = make_device("cpu"), noisy()
    options = {"shift": 0.5, "seed": 1, "dtype": "float64", "device": device, "outputs": outputs}
    network = ShiftedReluNetwork.initialize(256, 4, **options)
    target = y if outputs == 1 else np.stack([y, -2 * y[::-1]], axis=1)
    trainer = GaussNewton(alpha=0.1, cg=CGOptions(1e-12), mask="lists")  # bits have no product with any vector
    run = begun(trainer, network, X, target)
    run.move(run.look(), 0.0, 0)
    state = run.look()
    D = device.to_host(network.rows - run.initial)
    assert state.penalty == pytest.approx(0.5 * run.ridge * (D**2).sum())
    for damping in (0.0, 0.3):
        attempt = run.move(state, damping, 1)
        s = device.to_host(network.rows - state.rows)  # the step, all rows
        J_s = device.to_host(state.linear.jacobian.matvec(s[state.active.neurons].ravel()))
        fit = 0.5 * ((device.to_host(state.residual) + J_s) ** 2).sum()
        assert attempt.promise == pytest.approx(fit + 0.5 * run.ridge * ((D + s) ** 2).sum(), rel=1e-6)
        assert attempt.promise <= state.objective
        assert attempt.square == pytest.approx((s**2).sum() * run.mean_diagonal(state.active), rel=1e-6)
        run.restore(state)


def test_a_path_of_several_outputs():
    X, y = noisy()
    targets = np.stack([y, -2 * y[::-1]], axis=1)
    options = {"shift": 0.5, "seed": 1, "dtype": "float64", "device": make_device("cpu"), "outputs": 2}
    alphas = [100.0, 30.0, 10.0]
    path = ridge_path(ShiftedReluNetwork.initialize(256, 4, **options), X, targets, alphas, GaussNewton(max_steps=40))
    for alpha, result in zip(alphas, path, strict=True):
        network = ShiftedReluNetwork.initialize(256, 4, **options)
        alone = GaussNewton(alpha=alpha, max_steps=40).fit(network, X, targets)
        assert result.converged and alone.converged
        assert result.final.objective == pytest.approx(alone.final.objective, rel=5e-3)


def test_a_path_with_equal_penalties_and_one():
    X, y = noisy()
    twice = ridge_path(network_for(make_device("cpu"), 4), X, y, [10.0, 10.0, 5.0, 1.0])
    assert twice[1].final.objective <= twice[0].final.objective
    assert len(ridge_path(network_for(make_device("cpu"), 4), X, y, [10.0])) == 1


@pytest.mark.parametrize("margin", ["auto", 0])
def test_targets_and_folds_share_a_scan(device, margin):
    """Trainings from the shared scan are, byte for byte, those that scan by themselves."""
    X, y = sphere(30, 6)
    trainer = GaussNewton(margin=margin, mask="lists")  # the shared scan keeps lists
    scan = SharedScan.build(trainer, network_for(device, 6, 512), X)
    for target in (y, -2 * y[::-1]):
        alone = trainer.fit(network_for(device, 6, 512), X, target)
        assert [r.mse for r in scan.fit(target).history] == [r.mse for r in alone.history]
    fold = np.arange(0, 30, 2)
    alone = trainer.fit(network_for(device, 6, 512), X[fold], y[fold])
    assert [r.mse for r in scan.fit(y[fold], fold).history] == [r.mse for r in alone.history]
