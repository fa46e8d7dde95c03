"""The sparse Jacobian against the dense formula, finite differences and the Gram identity."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DeviceMemoryError
from gpu_sublinear.index.tree import ThresholdTree
from gpu_sublinear.linear.gram import GramMatrix
from gpu_sublinear.linear.jacobian import FactoredJacobian, SparseJacobian
from gpu_sublinear.model.network import ShiftedReluNetwork
from tests.helpers.problems import dot_bound, make_problem, sphere

KINDS = (SparseJacobian, FactoredJacobian)


def build(device, problem, kind=SparseJacobian):
    X, signs = device.asarray(problem.X), device.asarray(problem.signs)
    tree = ThresholdTree.build(device, X, device.asarray(problem.W))
    active = tree.query(problem.shift)
    return active, kind.build(device, active, X, signs, len(signs))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [-10.0, 0.0, 0.8, 10.0])
def test_matches_the_dense_formula(device, dtype, shift, kind):
    problem = make_problem(np.random.default_rng(0), 6, 30, 4, dtype, False, shift)
    active, jacobian = build(device, problem, kind)
    dense = problem.jacobian
    columns = (device.to_host(active.fired.neurons)[:, None] * 4 + np.arange(4)).ravel()
    kept = dense[:, columns]
    assert np.count_nonzero(dense) == np.count_nonzero(kept)
    eps, rng = np.finfo(dtype).eps, np.random.default_rng(1)
    if kind is SparseJacobian and device.xp is np:
        wide = jacobian.to_scipy()
        assert wide.shape == dense.shape
        assert np.all(np.abs(wide.toarray() - dense) <= 2 * eps * np.abs(dense))
    v, g = rng.standard_normal(len(columns)), rng.standard_normal(6)
    terms = dense.shape[1]
    Jv = device.to_host(jacobian.matvec(device.asarray(v)))
    JTg = device.to_host(jacobian.rmatvec(device.asarray(g)))
    assert np.all(np.abs(Jv - kept @ v) <= dot_bound(kept, v, terms, dtype))
    assert np.all(np.abs(JTg - kept.T @ g) <= dot_bound(kept.T, g, terms, dtype))
    both = device.to_host(jacobian.gram(device.asarray(g)))
    assert np.all(np.abs(both - kept @ (kept.T @ g)) <= dot_bound(np.abs(kept) @ np.abs(kept.T), g, 2 * terms, dtype))
    # adjoints of each other: <J v, g> = <v, J^T g>
    assert abs(Jv @ g - v @ JTg) <= 2 * float(dot_bound(np.abs(g)[None] @ np.abs(kept), v, terms, dtype)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_moves_the_rows_and_says_how_far(device, dtype, kind):
    problem = make_problem(np.random.default_rng(3), 6, 30, 4, dtype, False, 0.5)
    active, jacobian = build(device, problem, kind)
    g = np.random.default_rng(4).standard_normal(6)
    W = device.asarray(problem.W.copy())
    neurons, moved = map(device.to_host, jacobian.step(W, device.asarray(g)))
    fired, after = device.to_host(active.fired.neurons), device.to_host(W)
    change = (problem.jacobian.T @ g).reshape(30, 4)
    tolerance = 20 * np.finfo(dtype).eps * (np.abs(problem.W).max() + np.abs(g).sum())
    assert np.abs(after - (problem.W - change)).max() <= tolerance
    assert np.array_equal(neurons, fired)
    distance = np.linalg.norm(after[fired].astype(np.float64) - problem.W[fired], axis=1)
    assert np.all(np.abs(moved - distance) <= 4 * np.finfo(float).eps * distance)
    assert np.array_equal(np.delete(after, fired, axis=0), np.delete(problem.W, fired, axis=0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_gram_identity(device, shift, kind):
    X, _ = sphere(20, 5)
    network = ShiftedReluNetwork.initialize(400, 5, shift=shift, dtype="float64", device=device)
    network.hold_all()
    X = device.asarray(X)
    active = ThresholdTree.build(device, X, network.W).query(network.shift)
    jacobian = kind.build(device, active, X, network.signs, network.width)
    G = device.to_host(GramMatrix(device, X, network.width)(active))
    columns = [device.to_host(jacobian.gram(device.asarray(e))) for e in np.eye(20)]
    terms = active.nnz * 5
    assert np.allclose(np.array(columns).T, G, rtol=0, atol=terms * np.finfo(float).eps * np.abs(G).max())


def test_finite_differences_away_from_kinks():
    device = get_device("reference")
    problem = make_problem(np.random.default_rng(2), 4, 12, 3, "float64", False, 0.3)
    h = 1e-6
    assert np.abs(problem.P - problem.shift).min() > 10 * h  # no pair so near its kink that a step crosses it

    def outputs(W):
        P = problem.X @ W.reshape(12, 3).T
        return np.maximum(P - problem.shift, 0) @ problem.signs / np.sqrt(12)

    _, jacobian = build(device, problem)
    W = problem.W.ravel()
    numeric = np.stack([(outputs(W + h * e) - outputs(W - h * e)) / (2 * h) for e in np.eye(36)], axis=1)
    # piecewise linear: the quotient's only error is the rounding of two outputs of order 1, over 2 h
    assert np.all(np.abs(jacobian.to_scipy().toarray() - numeric) <= 20 * np.finfo(float).eps / h)


def test_too_large_a_jacobian_says_so(monkeypatch):
    device = get_device("reference")
    problem = make_problem(np.random.default_rng(0), 6, 30, 4, "float32", False, -10.0)
    active, _ = build(device, problem)
    monkeypatch.setattr(device, "total_bytes", lambda: 1000)
    with pytest.raises(DeviceMemoryError, match=r"Jacobian and its transpose take .* \(180 fired pairs x 4 features\)"):
        SparseJacobian.build(device, active, problem.X, problem.signs, len(problem.signs))
