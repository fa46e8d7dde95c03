"""Both layers trained: products against the dense Jacobian, trajectories against dense steps, states, files, faces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import ModelFileError, OptionError
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.linear.layers_gram import gram_of_both
from gpu_sublinear.model.loss import SampleWeights
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.opponents.dense import DenseGaussNewton
from gpu_sublinear.options import CGOptions
from gpu_sublinear.training import penalty
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.tuning.shared_scan import SharedScan
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.models import change_tensors
from tests.helpers.problems import sphere
from tests.helpers.runs import begun, linearised

BOTH = GaussNewton(both_layers=True)
TIGHT = CGOptions(1e-12, 400)


def network_for(device, d=5, m=256, shift=0.7, dtype="float64", **options) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(m, d, shift=shift, seed=3, dtype=dtype, device=device, **options)


def whole_second(network) -> np.ndarray:
    """Return the second layer of all m neurons."""
    a = 1.0 - 2 * (np.arange(network.width) % 2)
    a[network.device.to_host(network.neurons)] = network.device.to_host(network.signs)
    return a


class Dense:
    """Both layers of the whole network in float64, from the definitions."""

    def __init__(self, network, X, weights=None):
        self.W, self.X = network.device.to_host(network.W).astype(np.float64), X
        self.a, self.b = whole_second(network), network.shift
        self.roots = np.ones(len(X)) if weights is None else np.sqrt(weights)

    def f(self, W=None, a=None):
        W, a = self.W if W is None else W, self.a if a is None else a
        return (self.X @ W.T - self.b).clip(0) @ a / np.sqrt(len(W))

    @property
    def J(self):
        """(n, m d + m), rows times the roots of the weights."""
        Z, m = self.X @ self.W.T - self.b, len(self.W)
        first = ((Z > 0) * self.a)[:, :, None] * self.X[:, None, :]  # (n, m, d)
        return self.roots[:, None] * np.hstack([first.reshape(len(Z), -1), Z.clip(0)]) / np.sqrt(m)

    def step(self, y, mu=0.0):
        J, size = self.J, self.W.size
        g = np.linalg.lstsq(J @ J.T + mu * np.eye(len(J)), self.roots * (self.f() - y), rcond=1e-13)[0]
        moved = J.T @ g
        self.W, self.a = self.W - moved[:size].reshape(self.W.shape), self.a - moved[size:]


def test_dense_jacobian_is_that_of_finite_differences():
    X, _ = sphere(6, 4)
    dense, step = Dense(network_for(get_device("reference"), 4, 10), X), 1e-7
    assert (abs(X @ dense.W.T - 0.7) > step).all()  # no kink is crossed
    for k in range(dense.W.size + len(dense.a)):
        change = np.zeros(dense.W.size + len(dense.a))
        change[k] = step
        W, a = change[: dense.W.size].reshape(dense.W.shape), change[dense.W.size :]
        difference = (dense.f(dense.W + W, dense.a + a) - dense.f(dense.W - W, dense.a - a)) / (2 * step)
        assert np.allclose(dense.J[:, k], difference, atol=1e3 * np.finfo(float).eps / step)


@settings(max_examples=25)
@given(st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.5]), st.integers(2, 9), st.booleans())
def test_products_step_and_trace_are_the_dense_ones(seed, shift, n, weighted):
    for name in ("reference", "cpu"):
        check_operators(get_device(name), seed, shift, n, weighted)


@pytest.mark.parametrize("name", DEVICES)
def test_products_on_every_device(name):
    check_operators(make_device(name), 3, 0.7, 12, True)


def check_operators(device, seed, shift, n, weighted):
    X, y = sphere(n, 5, seed)
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.2, 3, n) if weighted else None
    network = network_for(device, m=64, shift=shift)
    weights = SampleWeights.of(device, w, n)
    run = begun(BOTH, network, device.asarray(X), device.asarray(y), weights)
    network.second = device.asarray(rng.uniform(-2, 2, len(network.rows)))  # far from +1 and -1
    state, dense = run.look(), Dense(network, X, w)
    J, g = dense.J, rng.standard_normal(n)
    G, to_host = J @ J.T, device.to_host
    assert np.allclose(to_host(state.residual), dense.roots * (dense.f() - y), atol=1e-12)
    operator = linearised(run, state.active)
    assert np.allclose(to_host(operator.gram(device.asarray(g))), G @ g, atol=1e-11)
    total = n if w is None else w.sum()
    assert run.mean_diagonal(state.active) == pytest.approx(np.trace(G) / total, rel=1e-12)
    v, columns = rng.standard_normal(state.active.union * 6), fired_columns(network, state.active)
    assert np.allclose(to_host(operator.matvec(device.asarray(v))), J[:, columns] @ v, atol=1e-11)
    assert np.allclose(to_host(operator.rmatvec(device.asarray(g))), J[:, columns].T @ g, atol=1e-12)
    before = to_host(network.rows).copy()
    neurons, moved = map(to_host, operator.step(network.rows, device.asarray(g)))
    after, change = Dense(network, X), J.T @ g
    assert np.allclose(after.W, dense.W - change[: dense.W.size].reshape(dense.W.shape), atol=1e-12)
    assert np.allclose(after.a, dense.a - change[dense.W.size :], atol=1e-12)
    assert np.array_equal(neurons, to_host(state.active.neurons))
    assert np.allclose(moved, np.linalg.norm(to_host(network.rows) - before, axis=1)[neurons])
    assert state.second is not network.second  # a state keeps its own


def fired_columns(network, active) -> np.ndarray:
    """Return the columns of the dense J that the operator has: of each fired neuron, its row and then its a_r."""
    numbers = network.device.to_host(network.neurons[active.neurons])
    d = network.features
    rows = numbers[:, None] * d + np.arange(d)  # (u, d)
    return np.hstack([rows, network.width * d + numbers[:, None]]).ravel()


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("damping", ["none", 0.3])
@pytest.mark.parametrize("options", [{}, {"margin": 0}, {"solver": "cg"}], ids=str)
def test_penalised_steps_are_the_dense_ones(name, damping, options):
    """``p <- p - theta (p - p_0) - J^T g`` with both layers in p, weighted, three steps."""
    device, steps = make_device(name), 3
    X, y = sphere(12, 5, 1)
    w = np.random.default_rng(1).uniform(0.2, 3, 12)
    network = network_for(device, m=64)
    trainer = GaussNewton(both_layers=True, alpha=0.4, damping=damping, max_steps=steps, cg=TIGHT, **options)
    dense = Dense(network, X, w)
    size, parameters = dense.W.size, np.concatenate([dense.W.ravel(), dense.a])
    start, unit = parameters, float((dense.J**2).sum()) / w.sum()
    ridge, records = 0.4 * unit, trainer.fit(network, X, y, sample_weight=w).history
    for record in records[:steps]:
        assert not record.rejected
        J, D = dense.J, parameters - start
        kappa = ridge + record.damping * float((J**2).sum()) / w.sum()
        theta = ridge / kappa
        r = dense.roots * (dense.f() - y)
        assert record.objective == pytest.approx(0.5 * (r**2).sum() + 0.5 * ridge * (D**2).sum(), rel=1e-8)
        g = np.linalg.solve(J @ J.T + kappa * np.eye(len(J)), r - theta * J @ D)
        parameters = parameters - theta * D - J.T @ g
        dense.W, dense.a = parameters[:size].reshape(dense.W.shape), parameters[size:]
    now = Dense(network, X)
    assert np.abs(D).max() > 1e-3
    assert np.allclose(now.W, dense.W, atol=1e-9) and np.allclose(now.a, dense.a, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_penalty_is_chosen_with_the_gram_matrix_of_both_layers(weighted, monkeypatch):
    X, y = sphere(20, 5)
    w = np.random.default_rng(0).uniform(0.5, 2, 20) if weighted else None
    seen, chosen = [], penalty.leave_one_out
    monkeypatch.setattr(penalty, "leave_one_out", lambda G, *rest: seen.append(G) or chosen(G, *rest))
    network = network_for(get_device("cpu"))
    want = Dense(network, X, w).J
    result = GaussNewton(both_layers=True, alpha="auto", max_steps=2).fit(network, X, y, sample_weight=w)
    assert result.alpha > 0 and np.allclose(seen[0], want @ want.T, rtol=1e-10, atol=1e-12)


def test_the_penalty_pulls_to_where_this_training_began():
    """A second training starts at its own W_0 and a_0: no penalty, and alpha in units of the Gram matrix there."""
    X, y = sphere(20, 5)
    network = network_for(get_device("cpu"))
    BOTH.fit(network, X, y)
    assert np.abs(np.abs(network.second) - 1).max() > 1e-3
    run = begun(GaussNewton(both_layers=True, alpha=0.2), network, X, -y)
    want = Dense(network, X).J
    assert run.look().penalty == 0.0 and run.ridge == pytest.approx(0.2 * (want**2).sum() / 20)
    start = run.home
    result = run.options.train(run)
    assert run.home is start and result.final.penalty > 0
    found = gram_of_both(network, run.look().active, X, run.gram.K, run.problem.weights)
    assert np.allclose(found, Dense(network, X).J @ Dense(network, X).J.T)


def test_a_penalised_training_settles_and_draws_the_second_layer_back():
    X, y = sphere(40, 5)
    y, distances = y + 0.5 * np.random.default_rng(0).standard_normal(40), []
    for alpha in (0.1, 1.0, 10.0):
        network = network_for(get_device("cpu"), m=2**11)
        result = GaussNewton(both_layers=True, alpha=alpha, max_steps=60).fit(network, X, y)
        assert result.converged and result.final.penalty > 0
        distances.append(float(((network.second - network.initial_signs) ** 2).sum()))
    assert distances[0] > distances[1] > distances[2] > 0


OPTIONS = [{}, {"margin": 0}, {"margin": 0.05}, {"solver": "cg"}, {"solver": "sketch-cg"}, {"solver": "gram"}]


TRAJECTORIES = [
    (name, options, paired)
    for name in DEVICES
    for options in (OPTIONS if name != "emulated" else OPTIONS[:2])  # products by the hundred take minutes there
    for paired in ((False, True) if name != "emulated" else (False,))
]


@pytest.mark.parametrize(("name", "options", "paired"), TRAJECTORIES, ids=str)
def test_trajectory_is_that_of_dense_steps(name, options, paired):
    device = make_device(name)
    X, y = sphere(16, 5)
    network = network_for(device, paired=paired)
    dense, errors = Dense(network, X), []

    def look(record, network):
        errors.append(np.sum((dense.f() - y) ** 2))
        assert record.residual_norm**2 == pytest.approx(errors[-1], rel=1e-6, abs=1e-18)
        dense.step(y)

    trainer = GaussNewton(both_layers=True, damping="none", max_steps=4, tolerance=1e-8, cg=TIGHT, **options)
    result = trainer.fit(network, X, y, [look])
    assert len(errors) > 2 and errors[-1] < errors[0]
    predicted = network.predict(X)
    assert np.allclose(predicted, Dense(network, X).f(), atol=1e-12)
    assert np.mean((predicted - y) ** 2) == pytest.approx(result.history[-1].mse, rel=1e-6, abs=1e-18)
    assert (abs(abs(device.to_host(network.second)) - 1) > 1e-6).any()


def test_damped_steps_are_the_dense_ones():
    X, y = sphere(20, 5)
    y = y + np.random.default_rng(0).standard_normal(20)
    network = network_for(get_device("cpu"))
    dense, checked = Dense(network, X), []

    def look(record, network):
        if not record.rejected and record.moved_neurons:
            J = dense.J
            dense.step(y, record.damping * np.trace(J @ J.T) / len(X))
            now = Dense(network, X)
            assert np.allclose(now.W, dense.W, atol=1e-8) and np.allclose(now.a, dense.a, atol=1e-8)
            checked.append(record.damping)
        dense.W, dense.a = Dense(network, X).W, whole_second(network)

    history = GaussNewton(both_layers=True, damping=0.5, cg=TIGHT, max_steps=6).fit(network, X, y, [look]).history
    assert any(checked) and all(b.loss < a.loss for a, b in zip(history, history[1:], strict=False))


def test_a_step_taken_back_brings_both_layers_back():
    X, y = sphere(16, 5)
    network = network_for(get_device("cpu"))
    run = begun(BOTH, network, X, y)
    state = run.look()
    rows, second = network.rows.tobytes(), network.signs.tobytes()
    run.move(state, 0.0, 0)
    assert (network.rows.tobytes(), network.signs.tobytes()) != (rows, second) and network.second is not None
    run.restore(state)
    assert (network.rows.tobytes(), network.signs.tobytes()) == (rows, second)


def test_early_stopping_gives_both_layers_of_the_best_step():
    X, y = sphere(60, 5)
    y = y + np.random.default_rng(1).standard_normal(60)
    network = network_for(get_device("cpu"))
    trainer = GaussNewton(both_layers=True, max_steps=6, tolerance=0.0, patience=6)
    result = trainer.fit(network, X[:40], y[:40], validation=(X[40:], y[40:]))
    errors = [record.validation_mse for record in result.history]
    assert min(errors) < errors[-1]  # so something had to be put back
    assert np.mean((network.predict(X[40:]) - y[40:]) ** 2) == pytest.approx(min(errors), rel=1e-9)


def test_virtual_width():
    X, y = sphere(12, 5)
    network = network_for(get_device("cpu"), m=10**6, shift=3.5, paired=True, sampling="virtual")
    result = BOTH.fit(network, X, y)
    assert network.sampling == "virtual" and 0 < len(network.rows) < 10**5 and result.converged
    assert np.mean((network.predict(X) - y) ** 2) == pytest.approx(result.history[-1].mse, rel=1e-3, abs=1e-9)


def test_silent_neurons_keep_both_layers():
    X, y = sphere(6, 5)
    network = network_for(get_device("cpu"), shift=1.8, m=1024)
    before = network.W.copy()
    fires = (X @ before.T > 1.8).any(axis=0)
    BOTH.fit(network, X, y)
    assert not fires.all()
    assert np.array_equal(network.W[~fires], before[~fires])
    assert np.array_equal(abs(whole_second(network)[~fires]), np.ones((~fires).sum()))


def test_training_again_starts_from_both_layers():
    X, y = sphere(30, 5)
    network = network_for(get_device("cpu"))
    GaussNewton(both_layers=True, max_steps=1, tolerance=0.0).fit(network, X, y)
    dense = Dense(network, X)
    first = GaussNewton(both_layers=True, max_steps=0).fit(network, X, y).history[0]
    assert first.residual_norm == pytest.approx(np.linalg.norm(dense.f() - y), rel=1e-9)
    more, target = sphere(9, 5, 8)  # other points: rows join, the trained ones keep their a_r
    old = dict(zip(network.neurons.tolist(), network.signs.tolist(), strict=True))
    begun(BOTH, network, more, target)
    joined = [r for r in network.neurons.tolist() if r not in old]
    now = dict(zip(network.neurons.tolist(), network.signs.tolist(), strict=True))
    assert joined and all(now[r] == old[r] for r in old) and all(now[r] == 1 - 2 * (r % 2) for r in joined)


def test_packed_masks_take_the_steps_of_lists():
    X, y = sphere(20, 5)
    weights = []
    for mask in ("bits", "lists"):
        network = network_for(get_device("cpu"), shift=0.1)
        trainer = GaussNewton(both_layers=True, mask=mask, max_steps=4, damping="none", cg=TIGHT)
        trainer.fit(network, X, y)
        weights.append((whole_second(network), network.W))
    assert all(np.allclose(mine, theirs, atol=1e-8) for mine, theirs in zip(*weights, strict=True))


def test_several_outputs_are_predicted_as_they_were_trained():
    X, y = sphere(20, 5)
    Y = np.stack([y, -2 * y[::-1]], axis=1)
    network = network_for(get_device("cpu"), outputs=2)
    result = GaussNewton(both_layers=True, max_steps=8).fit(network, X, Y)
    assert ((network.predict(X) - Y) ** 2).sum() == pytest.approx(2 * result.final.loss, rel=1e-6)


def test_bytes_repeat():
    X, y = sphere(40, 5)
    weights = []
    for _ in range(2):
        network = network_for(get_device("cpu"), dtype="float32")
        BOTH.fit(network, X, y)
        weights.append(network.rows.tobytes() + network.second.tobytes())
    assert weights[0] == weights[1]


def fitted(**options):
    network = network_for(get_device("cpu"), **options)
    GaussNewton(both_layers=True, max_steps=1, tolerance=0.0).fit(network, *sphere(9, 5))
    return network


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: GaussNewton(both_layers=True, jacobian="csr"), "both_layers=True.*jacobian='csr'"),
        (lambda: GaussNewton.faithful(both_layers=True), "both_layers=True.*jacobian='csr'"),
        (lambda: GaussNewton(both_layers=True, batch_size=4), "both_layers=True.*batch_size=4"),
        (lambda: BOTH.fit(network_for(None, activation="max"), *sphere(9, 5)), "activation='max'"),
        (lambda: BOTH.fit(network_for(None, activation="abs"), *sphere(9, 5)), "activation='abs'"),
        (lambda: GaussNewton().fit(fitted(), *sphere(9, 5)), "both_layers=False"),
        (lambda: DenseGaussNewton().fit(fitted(), *sphere(9, 5)), "both_layers=True"),
        (lambda: BOTH.begin(network_for(None), *sphere(9, 5)), "sessions.*both_layers=True"),
        (lambda: SharedScan.build(BOTH, network_for(None), sphere(9, 5)[0]), "shared scans.*both_layers=True"),
    ],
)
def test_refusals(build, words):
    with pytest.raises(OptionError, match=words):
        build()


def test_a_session_refuses_a_trainer_that_comes_later():
    session = GaussNewton().begin(network_for(get_device("cpu")), *sphere(9, 5))
    session.trainer = BOTH
    with pytest.raises(OptionError, match="both_layers=True"):
        session.train()


@pytest.mark.parametrize("paired", [False, True])
def test_files_and_exports_predict_the_same(paired, tmp_path):
    rng = np.random.default_rng(0)
    raw, y = rng.standard_normal((30, 4)) * [1, 5, 0.2, 3], rng.standard_normal(30)
    preprocessing = Preprocessing.fit(raw, "standard")
    network = network_for(get_device("cpu"), paired=paired)
    GaussNewton(both_layers=True, max_steps=2, tolerance=0.0).fit(network, preprocessing.transform(raw), y)
    model = FittedModel(network, preprocessing, TargetScaling(1.0, 2.0))
    want = model.predict(raw)
    model.save(tmp_path / "model.safetensors")
    again = FittedModel.load(tmp_path / "model.safetensors", "reference")
    assert np.array_equal(again.network.second, network.second)
    assert np.allclose(again.predict(raw), want, rtol=1e-12)
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    from gpu_sublinear.fitted.export import to_onnx, to_torch

    with torch.no_grad():
        assert np.allclose(to_torch(model)(torch.tensor(raw)).numpy(), want, rtol=1e-10, atol=1e-10)
    to_onnx(model, tmp_path / "model.onnx")
    got = ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, {"X": raw})[0]
    assert np.allclose(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bad", ["short", "type", "nan"])
def test_damaged_second_layer_is_refused(bad, tmp_path):
    network, path = fitted(), tmp_path / "model.safetensors"
    preprocessing = Preprocessing.fit(np.random.default_rng(0).standard_normal((9, 5)), "unit")
    model = FittedModel(network, preprocessing, TargetScaling(0.0, 1.0))
    model.save(path)
    second = network.second
    changed = {"short": second[:-1], "type": second.astype("f4"), "nan": second * np.nan}[bad]
    change_tensors(path, second=changed)
    with pytest.raises(ModelFileError, match="second layer"):
        FittedModel.load(path)
    network.second = changed
    with pytest.raises(OptionError, match="second layer"):  # nor is such a file written
        model.save(path)


def test_command_line(tmp_path, capsys):
    from gpu_sublinear.app.cli import main

    path = str(tmp_path / "model.safetensors")
    arguments = ["train", "sphere:n=60,d=6", "--width", "512", "--shift", "0.5", "--device", "cpu", "--both-layers"]
    assert main([*arguments, "--out", path, "--max-steps", "3"]) == 0
    assert "both layers" in capsys.readouterr().out
    model = FittedModel.load(path)
    assert model.network.second is not None and model.metadata["settings"]["both_layers"] is True
    assert main([*arguments, "--alpha", "1", "--max-steps", "3"]) == 0
    assert "1.00" in capsys.readouterr().out
    assert main([*arguments, "--jacobian", "csr"]) == 1
    assert "both_layers=True" in capsys.readouterr().err
