"""Both layers as a sum of blocks: several outputs, other activations, packed bits, against dense algebra in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gpu_sublinear import Activation, GaussNewton, Hinge, ShiftedReluNetwork
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import OptionError
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.model.loss import SampleWeights
from gpu_sublinear.model.problem import Problem
from gpu_sublinear.options import CGOptions
from gpu_sublinear.training.penalty import choose_alpha
from gpu_sublinear.training.prepare import prepare
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import sphere

TIGHT = CGOptions(1e-13, 4000)
LEAN = Activation("lean", (Hinge(gain=0.8), Hinge(-1, -0.5)), slope=0.2)  # a slope, and no constant
CASES = {
    "relu": {},
    "bits": {"mask": "bits"},
    "trees": {"margin": 0},
    "outputs": {"outputs": 3},
    "softshrink": {"activation": "softshrink"},
    "hardshrink": {"activation": "hardshrink"},
    "slope": {"activation": LEAN},
}


def network_for(device, case: dict, m: int = 64, d: int = 5, shift: float = 0.7) -> ShiftedReluNetwork:
    rng = np.random.default_rng(m)
    kinds = {name: case[name] for name in ("outputs", "activation") if name in case}
    return ShiftedReluNetwork.from_weights(rng.standard_normal((m, d)), shift=shift, device=device, **kinds)


def trainer_for(case: dict, **options) -> GaussNewton:
    chosen = {name: value for name, value in case.items() if name not in ("outputs", "activation")}
    return GaussNewton(both_layers=True, cg=TIGHT, **chosen, **options)


def targets(X: np.ndarray, outputs: int) -> np.ndarray:
    columns = [np.sin((k + 1) * X[:, 0] + k) + X[:, 1] for k in range(outputs)]
    return columns[0] if outputs == 1 else np.stack(columns, axis=1)


@dataclass
class Dense:
    """The whole network with all derivatives: outputs are rows of J, one point after the other."""

    network: ShiftedReluNetwork
    X: np.ndarray
    roots: np.ndarray

    def __post_init__(self) -> None:
        network, to_host = self.network, self.network.device.to_host
        self.W = to_host(network.rows).astype(float)  # all are held
        self.a = to_host(network.signs).astype(float).reshape(len(self.W), -1)  # (m, c)

    def f(self, W=None, a=None) -> np.ndarray:
        W, a = self.W if W is None else W, self.a if a is None else a
        return self.network.activation.varying(self.X @ W.T, self.network.shift) @ a / len(W) ** 0.5  # (n, c)

    @property
    def J(self) -> np.ndarray:
        """(n c, m (d + c)): of each neuron its row, then its a_r; weighted."""
        z, (n, c), scale = self.X @ self.W.T, (len(self.X), self.a.shape[1]), len(self.W) ** -0.5
        h = self.network.activation.derivative(z, self.network.shift) + 0.0 * z
        phi = self.network.activation.varying(z, self.network.shift)
        first = h[:, None, :, None] * self.a.T[None, :, :, None] * self.X[:, None, None, :]  # (n, c, m, d)
        second = phi[:, None, :, None] * np.eye(c)[None, :, None, :]  # (n, c, m, c)
        J = np.concatenate([first, second], axis=3).reshape(n * c, -1) * scale
        return J * np.repeat(self.roots, c)[:, None]

    def moved(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both layers, less a vector with the numbers of all neurons."""
        parts = v.reshape(len(self.W), -1)
        return self.W - parts[:, : self.W.shape[1]], self.a - parts[:, self.W.shape[1] :]


def prepared(device, case: dict, weighted: bool, n: int = 11):
    """Return a run whose second layer is far from +1 and -1, its state, and the same densely."""
    X, _ = sphere(n, 5, 3)
    rng = np.random.default_rng(n)
    network, y = network_for(device, case), targets(X, case.get("outputs", 1))
    w = rng.uniform(0.2, 3, n) if weighted else None
    problem = Problem(device.asarray(X), device.asarray(y), SampleWeights.of(device, w, n))
    network.hold_all()
    run = prepare(trainer_for(case), network, problem)
    signs = device.to_host(network.signs)
    network.second = device.asarray(rng.uniform(0.3, 2, signs.shape) * signs, "float64")
    return run, run.look(), Dense(network, X, np.sqrt(w) if weighted else np.ones(n)), y


@pytest.mark.parametrize("name", CASES)
def test_the_dense_jacobian_is_that_of_finite_differences(name):
    _, _, dense, _ = prepared(get_device("reference"), CASES[name], False, 5)
    step, columns = 1e-7, dense.J.shape[1]
    for k in range(0, columns, 7):
        change = np.eye(1, columns, k)[0] * step
        difference = (dense.f(*dense.moved(-change)) - dense.f(*dense.moved(change))) / (2 * step)
        assert np.allclose(dense.J[:, k], difference.ravel(), atol=1e3 * np.finfo(float).eps / step)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_operators_are_the_dense_ones(name, weighted, device):
    """Products, step and trace; sums of some hundred terms of order 1 agree to 1e-11 in float64."""
    device = make_device(device)
    run, state, dense, y = prepared(device, CASES[name], weighted)
    to_host, network, J = device.to_host, run.network, dense.J
    n, c, d = len(dense.X), dense.a.shape[1], network.features
    shape = state.residual.shape
    assert np.allclose(to_host(state.residual).ravel(), np.repeat(dense.roots, c) * (dense.f().ravel() - y.ravel()))
    operator, rng = run.linearised(state.linear), np.random.default_rng(0)
    g = rng.standard_normal(n * c)
    got = to_host(operator.gram(device.asarray(g.reshape(shape)))).ravel()
    assert np.allclose(got, J @ (J.T @ g), atol=1e-11)
    assert run.mean_diagonal(state.active) == pytest.approx((J**2).sum() / c / (dense.roots**2).sum(), rel=1e-11)
    places = to_host(operator.points.neurons)
    columns = (places[:, None] * (d + c) + np.arange(d + c)).ravel()
    v = rng.standard_normal(len(columns))
    assert np.allclose(to_host(operator.matvec(device.asarray(v))).ravel(), J[:, columns] @ v, atol=1e-11)
    got = to_host(operator.rmatvec(device.asarray(g.reshape(shape))))
    assert np.allclose(got, (J.T @ g)[columns], atol=1e-11)
    rest = np.delete(J.T @ g, columns)
    assert not rest.any()  # neurons without a derivative stay
    before, (W, a) = to_host(network.rows).copy(), dense.moved(J.T @ g)
    neurons, moved = operator.step(network.rows, device.asarray(g.reshape(shape)))
    assert np.allclose(to_host(network.rows), W, atol=1e-11)
    assert np.allclose(to_host(network.signs).reshape(a.shape), a, atol=1e-11)
    assert np.allclose(to_host(moved), np.linalg.norm(to_host(network.rows) - before, axis=1)[to_host(neurons)])


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", CASES)
def test_trajectories_are_those_of_dense_steps(name, penalty):
    """``p <- p - theta (p - p_0) - J^T g``, both layers in p, as solved to 1e-13."""
    case, device = CASES[name], get_device("cpu")
    X, _ = sphere(10, 5, 1)
    y = targets(X, case.get("outputs", 1))
    steps = 1 if name == "hardshrink" else 3  # jumps that no step foresees raise the loss, and the best weights return
    network = network_for(device, case, 96)
    dense = Dense(network, X, np.ones(len(X)))
    c = dense.a.shape[1]
    start = np.hstack([dense.W, dense.a]).ravel()
    p, unit = start, (dense.J**2).sum() / c / len(X)
    trainer = trainer_for(case, alpha=penalty, damping=0.2, max_steps=steps, tolerance=0.0)
    for record in trainer.fit(network, X, y).history[:steps]:
        J, r = dense.J, (dense.f() - y.reshape(len(X), -1)).ravel()
        assert not record.rejected and record.residual_norm == pytest.approx(np.linalg.norm(r), rel=1e-8)
        ridge = penalty * unit
        kappa = ridge + record.damping * (J**2).sum() / c / len(X)
        theta = ridge / kappa
        g = np.linalg.solve(J @ J.T + kappa * np.eye(len(J)), r - theta * J @ (p - start))
        p = p - theta * (p - start) - J.T @ g
        dense.W, dense.a = np.hsplit(p.reshape(len(dense.W), -1), [dense.W.shape[1]])
    got = np.hstack([device.to_host(network.rows), device.to_host(network.signs).reshape(dense.a.shape)])
    held = device.to_host(network.neurons)
    assert np.allclose(got, p.reshape(len(dense.W), -1)[held], atol=1e-8)


@pytest.mark.parametrize("name", ["bits", "outputs", "softshrink", "slope"])
def test_the_penalty_is_chosen_from_both_layers(name, monkeypatch):
    """The matrix that leave-one-out looks at is that of one output, with the mean of a_r^2."""
    seen, device = [], get_device("cpu")
    run, _, dense, _ = prepared(device, CASES[name], True)
    from gpu_sublinear.training import penalty

    chosen = penalty.leave_one_out
    monkeypatch.setattr(penalty, "leave_one_out", lambda G, *rest: seen.append(G) or chosen(G, *rest))
    choose_alpha(run)
    c, J = dense.a.shape[1], dense.J.reshape(len(dense.X), dense.a.shape[1], -1)
    want = sum(J[:, k] @ J[:, k].T for k in range(c)) / c
    assert np.allclose(seen[0], want, atol=1e-10)


def test_three_outputs_are_saved_and_come_back(tmp_path):
    rng = np.random.default_rng(0)
    raw, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 3))
    preprocessing = Preprocessing.fit(raw, "standard")
    network = network_for(get_device("cpu"), {"outputs": 3}, 64, 5)
    result = trainer_for({}, max_steps=5).fit(network, preprocessing.transform(raw), 0.1 * y)
    assert result.final.loss < result.history[0].loss
    model = FittedModel(network, preprocessing, TargetScaling(np.zeros(3), np.ones(3)))
    model.save(tmp_path / "model.safetensors")
    again = FittedModel.load(tmp_path / "model.safetensors", "reference")
    assert again.network.second.shape == (len(network.rows), 3)
    assert np.array_equal(again.network.second, network.second)
    assert np.allclose(again.predict(raw), model.predict(raw), rtol=1e-12)


@pytest.mark.parametrize("name", ["max", "leaky", "abs"])
def test_a_constant_is_refused(name):
    network = ShiftedReluNetwork.initialize(64, 5, shift=0.5, device=get_device("cpu"), activation=name)
    with pytest.raises(OptionError, match="both_layers=True.*constant"):
        GaussNewton(both_layers=True).fit(network, *sphere(9, 5))
