"""Other activations: their formulas, the dense Jacobian of each, trajectories against dense steps, files and faces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DeviceMemoryError, OptionError, SilentPointsError
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.model.activation import NAMED, SHIFTED_RELU, Activation, Hinge, activation_of
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.opponents.dense import DenseGaussNewton
from gpu_sublinear.options import CGOptions, SketchOptions
from gpu_sublinear.training import penalty
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.memory import plan
from gpu_sublinear.tuning.shared_scan import SharedScan
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import sphere
from tests.helpers.runs import begun, innermost, linearised

DEAD_ZONE = Activation("dead-zone", (Hinge(), Hinge(-1)))
MIRRORED = Activation("mirrored", (Hinge(-1, 2.0, 0.5),), slope=0.3, constant=-1.0)
CASES = [activation_of(name) for name in (*NAMED, "leaky:-0.5")] + [DEAD_ZONE, MIRRORED]
SLOPED = [activation for activation in CASES if activation.slope]
FLAT = [activation for activation in CASES if not activation.slope]
TEXTBOOK = {
    "relu": lambda z, b: max(z - b, 0),
    "max": max,
    "leaky:0.1": lambda z, b: z - b if z > b else 0.1 * (z - b),
    "abs": lambda z, b: abs(z - b),
    "softshrink": lambda z, b: z - b if z > b else z + b if z < -b else 0.0,
    "hardshrink": lambda z, b: z if abs(z) > b else 0.0,
    "leaky:-0.5": lambda z, b: z - b if z > b else -0.5 * (z - b),
    "dead-zone": lambda z, b: max(abs(z) - b, 0),
    "mirrored": lambda z, b: -b + 0.3 * z + (2 * (-z - b + 0.5 * b) if -z > b else 0.0),
}
named = pytest.mark.parametrize("activation", CASES, ids=lambda activation: activation.name)


def network_for(device, activation, d=5, m=256, shift=0.7, dtype="float64", **options) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(
        m, d, shift=shift, seed=3, dtype=dtype, device=device, activation=activation, **options
    )


class Dense:
    """The network with every neuron, and its derivatives, from the definitions, in float64."""

    def __init__(self, network, X):
        self.W, self.X = network.device.to_host(network.W).astype(np.float64), X
        self.a = 1.0 - 2 * (np.arange(len(self.W)) % 2)
        self.phi, self.b = network.activation, network.shift

    def f(self, W=None):
        W = self.W if W is None else W
        return self.phi(self.X @ W.T, self.b) @ self.a / np.sqrt(len(W))

    @property
    def J(self):
        h = self.phi.derivative(self.X @ self.W.T, self.b) * self.a / np.sqrt(len(self.W))  # (n, m)
        return (h[:, :, None] * self.X[:, None, :]).reshape(len(self.X), -1)

    def step(self, y):
        J = self.J
        g = np.linalg.lstsq(J @ J.T, self.f() - y, rcond=1e-13)[0]
        self.W = self.W - (J.T @ g).reshape(self.W.shape)


@named
@pytest.mark.parametrize("b", [0.0, 0.7])
def test_values_are_those_of_the_textbook(activation, b):
    z = np.random.default_rng(0).standard_normal(200) * 2
    want = [TEXTBOOK[activation.name](x, b) for x in z]
    assert np.allclose(activation(z, b), want, rtol=0, atol=8 * np.finfo(float).eps * (abs(z).max() + b))
    for real in (np.float32, np.float64):
        assert activation(z.astype(real), b).dtype == activation.varying(z.astype(real), b).dtype == real


@named
def test_derivative_is_that_of_finite_differences(activation):
    z, step = np.random.default_rng(1).standard_normal(200) * 2, 1e-6
    z = z[abs(abs(z) - 0.7) > 2 * step]  # away from the kinks the function is a line: differences are exact to rounding
    slope = (activation(z + step, 0.7) - activation(z - step, 0.7)) / (2 * step)
    assert np.allclose(activation.derivative(z, 0.7), slope, atol=8 * np.finfo(float).eps * 10 / step)


@named
def test_dense_jacobian_is_that_of_finite_differences(activation):
    X, _ = sphere(6, 4)
    dense, step = Dense(network_for(get_device("reference"), activation, 4, 10), X), 1e-7
    differences = np.empty((6, dense.W.size))
    for k in range(dense.W.size):
        change = np.zeros(dense.W.size)
        change[k] = step
        change = change.reshape(dense.W.shape)
        differences[:, k] = (dense.f(dense.W + change) - dense.f(dense.W - change)) / (2 * step)
    assert (abs(abs(X @ dense.W.T) - 0.7) > step).all()
    assert np.allclose(dense.J, differences, atol=1e3 * np.finfo(float).eps / step)


@named
@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("jacobian", ["factored", "csr"])
def test_forward_jacobian_gram_and_step_are_the_dense_ones(activation, name, jacobian):
    check_operators(make_device(name), activation, jacobian, 3, 0.7, 12)


def check_operators(device, activation, jacobian, seed, shift, n):
    X, y = sphere(n, 5, seed)
    network = network_for(device, activation, m=64, shift=shift)
    run = begun(GaussNewton(jacobian=jacobian, mask="lists"), network, device.asarray(X), device.asarray(y))
    state, dense = run.look(), Dense(network, X)
    assert np.allclose(device.to_host(state.residual), dense.f() - y, atol=1e-12)
    J, G = dense.J, dense.J @ dense.J.T
    rng = np.random.default_rng(0)
    g, D = rng.standard_normal(n), rng.standard_normal((len(network.rows), 5))
    held = np.zeros_like(dense.W)
    held[device.to_host(network.neurons)] = D
    got = device.to_host(run.gram(state.active))
    assert np.allclose(got, G, atol=1e-12) and np.array_equal(got, got.T)
    assert run.mean_diagonal(state.active) == pytest.approx(np.diag(G).mean(), rel=1e-12)
    J_run = linearised(run, state.active)
    assert np.allclose(device.to_host(J_run.gram(device.asarray(g))), G @ g, atol=1e-11)
    got = device.to_host(J_run.along(device.asarray(D), device.asarray(0 * D)))
    assert np.allclose(got, J @ held.ravel(), atol=1e-11)
    rows = device.to_host(network.rows).copy()
    neurons, moved = map(device.to_host, J_run.step(network.rows, device.asarray(g)))
    after = Dense(network, X).W
    assert np.allclose(after, dense.W - (J.T @ g).reshape(dense.W.shape), atol=1e-12)
    distances = np.linalg.norm(device.to_host(network.rows) - rows, axis=1)
    assert np.allclose(moved, distances[neurons])
    assert np.array_equal(np.flatnonzero(distances), neurons[moved > 0])


@settings(max_examples=15)
@given(st.sampled_from(CASES), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.5]), st.integers(2, 9))
def test_operators_on_drawn_problems(activation, seed, shift, n):
    for name in ("reference", "cpu"):
        check_operators(get_device(name), activation, "factored", seed, shift, n)


OPTIONS = [
    {},
    {"margin": 0},
    {"margin": 0.05},
    {"jacobian": "csr", "solver": "cg"},
    {"solver": "sketch-cg"},
    {"solver": "sketch-cg", "margin": 0, "jacobian": "csr", "sketch": SketchOptions("rows")},
]


def trajectories() -> list:
    """Return the cases; how weights are drawn and how the system is solved have nothing to do with each other."""
    cases = [(activation, name, options, False) for activation in CASES for name in DEVICES for options in OPTIONS]
    cases = [
        (activation, name, options, paired)
        for activation, name, options, paired in cases
        if not (activation.slope and options.get("solver") == "sketch-cg")  # refused, see test_refusals
        and not (name == "emulated" and ("solver" in options or options.get("margin") == 0.05))  # minutes of products
    ]
    return cases + [(activation, name, {}, True) for activation in CASES for name in DEVICES if name != "emulated"]


@pytest.mark.parametrize(("activation", "name", "options", "paired"), trajectories(), ids=str)
def test_trajectory_is_that_of_dense_steps(activation, name, options, paired):
    device = make_device(name)
    X, y = sphere(16, 5)
    network = network_for(device, activation, paired=paired)
    dense = Dense(network, X)
    errors = []

    def look(record, network):
        errors.append(np.sum((dense.f() - y) ** 2))
        assert record.residual_norm**2 == pytest.approx(errors[-1], rel=1e-6, abs=1e-18)
        dense.step(y)

    trainer = GaussNewton(damping="none", max_steps=4, tolerance=1e-8, cg=CGOptions(1e-12), **options)
    result = trainer.fit(network, X, y, [look])
    assert len(errors) > 2 and errors[-1] < errors[0]
    predicted = network.predict(X)
    assert np.mean((predicted - y) ** 2) == pytest.approx(result.history[-1].mse, rel=1e-6, abs=1e-18)
    assert np.allclose(predicted, Dense(network, X).f(), atol=1e-12)


@pytest.mark.parametrize("activation", SLOPED, ids=lambda activation: activation.name)
@pytest.mark.parametrize("margin", ["auto", 0.02, 0])
def test_everyone_moves_and_silent_neurons_wake_up(activation, margin):
    X, y = sphere(8, 5)
    network = network_for(get_device("cpu"), activation, m=256, shift=2.5)
    before = network.W.copy()
    fired = []

    def look(record, network):
        side = network.activation.hinges[0].direction
        mask = side * X @ network.W.T > 2.5
        if fired:  # the record speaks of the network before its step
            assert record.fired == fired[-1].sum() / len(X)
        fired.append(mask)

    result = GaussNewton(margin=margin, damping="none", max_steps=5, tolerance=0.0).fit(network, X, y, [look])
    assert (before != network.W).any(axis=1).all() and len(network.rows) == 256
    assert result.history[0].moved_neurons == 256
    assert (np.any(fired, axis=(0, 1)) & ~fired[0].any(axis=0)).any()


@named
@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"alpha": 0.3, "damping": 0.5}, {"damping": 0.5}], ids=str)
def test_ridge_and_damped_steps_are_the_dense_ones(activation, options):
    X, y = sphere(20, 5)
    y = y + np.random.default_rng(0).standard_normal(20)
    network = network_for(get_device("cpu"), activation)
    dense = Dense(network, X)
    W0, unit = dense.W.copy(), np.diag(dense.J @ dense.J.T).mean()
    ridge = unit * options.get("alpha", 0.0)
    checked = []

    def look(record, network):
        if not record.rejected and record.moved_neurons:
            held, n = Dense(network, X), len(X)
            J, D = dense.J, (dense.W - W0).ravel()
            mu = record.damping * np.trace(J @ J.T) / n
            theta = ridge / (ridge + mu)
            g = np.linalg.solve(J @ J.T + (ridge + mu) * np.eye(n), dense.f() - y - theta * J @ D)
            step, taken = -theta * D - J.T @ g, held.W.ravel() - dense.W.ravel()
            assert np.allclose(taken, step, atol=1e-9)
            checked.append(record.damping)
        dense.W = Dense(network, X).W

    result = GaussNewton(max_steps=8, **options).fit(network, X, y, [look])
    objectives = [record.objective for record in result.history]
    assert checked and all(b < max(objectives[max(0, k - 2) : k + 1]) for k, b in enumerate(objectives[1:]))
    held = Dense(network, X)
    final = 0.5 * np.sum((held.f() - y) ** 2) + 0.5 * ridge * np.sum((held.W - W0) ** 2)
    assert result.final.objective == min(objectives) == pytest.approx(final, rel=1e-8)


@pytest.mark.parametrize("activation", FLAT, ids=lambda activation: activation.name)
def test_virtual_width(activation):
    X, y = sphere(12, 5)
    network = network_for(get_device("cpu"), activation, m=10**6, shift=3.5, paired=True, sampling="virtual")
    result = GaussNewton(mask="lists").fit(network, X, y)
    assert network.sampling == "virtual" and 0 < len(network.rows) < 10**5
    assert result.converged or any(hinge.jump for hinge in activation.hinges)  # every flip of a jump is an error of b
    assert np.mean((network.predict(X) - y) ** 2) == pytest.approx(result.final.mse, rel=1e-3, abs=1e-9)


def test_plain_networks_train_as_before():
    X, y = sphere(30, 5)
    weights = []
    for activation in ("relu", "max", SHIFTED_RELU, Activation("mine")):
        network = network_for(get_device("cpu"), activation, dtype="float32")
        GaussNewton().fit(network, X, y)
        weights.append(network.W.tobytes())
        assert innermost(begun(GaussNewton(), network, X.astype("f4"), y).index).kind in ("lists", "bits")
    assert len(set(weights)) == 1


def test_early_stopping_sees_the_activation():
    X, y = sphere(60, 5)
    network = network_for(get_device("cpu"), "softshrink")
    result = GaussNewton(max_steps=4, tolerance=0.0).fit(network, X[:40], y[:40], validation=(X[40:], y[40:]))
    best = min(record.validation_mse for record in result.history)
    assert np.mean((network.predict(X[40:]) - y[40:]) ** 2) == pytest.approx(best, rel=1e-9)


def test_silent_points_are_named_with_a_shift_that_works():
    X, y = sphere(20, 5)
    with pytest.raises(SilentPointsError) as error:
        GaussNewton().fit(network_for(get_device("cpu"), "softshrink", m=1024, shift=4.2), X, y)
    works = float(str(error.value).split("a shift of ")[1].split()[0])
    assert GaussNewton(max_steps=0).fit(network_for(get_device("cpu"), "softshrink", m=1024, shift=works), X, y).history
    leaky = network_for(get_device("cpu"), "leaky", m=16, shift=9.0)  # a line fires nobody and is seen by everybody
    assert GaussNewton(max_steps=2).fit(leaky, X, y).history[-1].mse < np.mean(y**2)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: activation_of("tanh"), "leaky:SLOPE"),
        (lambda: activation_of("leaky:1"), "leaky:SLOPE"),
        (lambda: activation_of("leaky:nan"), "leaky:SLOPE"),
        (lambda: Activation("none", ()), "hinges"),
        (lambda: Activation("twice", (Hinge(), Hinge())), "hinges"),
        (lambda: Activation("far", (Hinge(2),)), "hinges"),
        (lambda: Activation("zero", (Hinge(gain=0.0),)), "gains not 0"),
        (lambda: network_for(None, "leaky", paired=True, sampling="virtual"), "virtual"),
        (lambda: fit(GaussNewton(mask="bits"), "softshrink"), "mask='bits'"),
        (lambda: fit(GaussNewton(batch_size=4), "softshrink"), "batch_size=4.*softshrink"),
        (lambda: network_for(None, "abs", outputs=2), "outputs=2.*abs"),
        (lambda: DenseGaussNewton().fit(network_for(None, "abs"), *sphere(9, 5)), "dense steps.*abs"),
        (lambda: GaussNewton().begin(network_for(None, "abs"), *sphere(9, 5)), "sessions.*abs"),
        (lambda: fit(GaussNewton(solver="sketch-cg"), "leaky"), "sketch-cg"),
        (lambda: SharedScan.build(GaussNewton(), network_for(None, "abs"), sphere(9, 5)[0]), "one by one"),
    ],
)
def test_refusals(build, words):
    with pytest.raises(OptionError, match=words):
        build()


def fit(trainer, activation):
    return trainer.fit(network_for(get_device("cpu"), activation), *sphere(9, 5))


def fit_auto_alpha(n):
    network = network_for(get_device("cpu"), "softshrink", dtype="float32")
    return GaussNewton(alpha="auto", max_steps=1).fit(network, *sphere(n, 5))


@pytest.mark.parametrize("activation", ["softshrink", "abs", MIRRORED], ids=str)
def test_sample_weights_count_points_as_often(activation):
    X, y = sphere(20, 5)
    y = y + np.random.default_rng(0).standard_normal(20)
    times = np.arange(20) % 3  # 0, 1, 2
    trainer = GaussNewton(alpha=1.0, max_steps=3, tolerance=0.0)
    weighted, repeated = (network_for(get_device("cpu"), activation) for _ in range(2))
    first = trainer.fit(weighted, X, y, sample_weight=times).history
    second = trainer.fit(repeated, np.repeat(X, times, axis=0), np.repeat(y, times)).history
    assert [record.loss for record in first] == pytest.approx([record.loss for record in second], rel=1e-9)
    assert np.allclose(weighted.W, repeated.W, atol=1e-9)


def test_alpha_is_chosen_for_any_activation(monkeypatch):
    assert fit_auto_alpha(40).alpha > 0
    monkeypatch.setattr(penalty, "MOST_POINTS", 39)  # more points are chosen from by a look at some
    assert fit_auto_alpha(40).alpha > 0


def trained(activation) -> tuple[FittedModel, np.ndarray]:
    rng = np.random.default_rng(0)
    raw, y = rng.standard_normal((30, 4)) * [1, 5, 0.2, 3], rng.standard_normal(30)
    preprocessing = Preprocessing.fit(raw, "standard")
    network = network_for(get_device("cpu"), activation)
    GaussNewton(max_steps=2, tolerance=0.0).fit(network, preprocessing.transform(raw), y)
    return FittedModel(network, preprocessing, TargetScaling(1.0, 2.0)), raw


@named
def test_files_and_exports_predict_the_same(activation, tmp_path):
    model, raw = trained(activation)
    want = model.predict(raw)
    model.save(tmp_path / "model.safetensors")
    again = FittedModel.load(tmp_path / "model.safetensors", "reference")
    assert again.network.activation == activation and again.network.activation.name == activation.name
    assert np.allclose(again.predict(raw), want, rtol=1e-12)
    torch = pytest.importorskip("torch")
    from gpu_sublinear.fitted.export import to_onnx, to_torch, to_torchscript

    with torch.no_grad():
        assert np.allclose(to_torch(model)(torch.tensor(raw)).numpy(), want, rtol=1e-10, atol=1e-10)
        to_torchscript(model, tmp_path / "model.pt")
        assert np.allclose(torch.jit.load(str(tmp_path / "model.pt"))(torch.tensor(raw)).numpy(), want, atol=1e-10)
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    to_onnx(model, tmp_path / "model.onnx")
    got = ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, {"X": raw})[0]
    assert np.allclose(got, want, rtol=1e-6, atol=1e-6)  # Gemm's alpha is a float32 attribute: 0.1 is off by 1e-9


@pytest.mark.parametrize("name", ["leaky:0.25", "hardshrink"])
def test_command_line(name, tmp_path, capsys):
    from gpu_sublinear.app.cli import main

    path = str(tmp_path / "model.safetensors")
    arguments = ["sphere:n=60,d=6", "--width", "256", "--shift", "0.5", "--device", "cpu", "--activation", name]
    assert main(["train", *arguments, "--out", path, "--max-steps", "3"]) == 0
    assert name in capsys.readouterr().out
    model = FittedModel.load(path)
    assert model.network.activation == activation_of(name) and model.metadata["settings"]["activation"] == name
    with pytest.raises(SystemExit):
        main(["train", *arguments[:-1], "cubic"])
    assert "leaky:SLOPE" in capsys.readouterr().err


def test_memory_of_a_slope_is_that_of_all_rows():
    trainer, device = GaussNewton(), get_device("cpu")
    size = (20, 5, 10**6, 3.5, "float32", 1)
    few, everyone = plan(trainer, device, *size), plan(trainer, device, *size, everyone=True)
    weights = "weights of the neurons that take part"
    assert everyone[weights] >= 2 * 10**6 * 5 * 4 > few[weights] and everyone["rows before a step"] == 10**6 * 5 * 4
    with pytest.raises(DeviceMemoryError, match="memory limit"):
        network = network_for(device, "abs", m=10**6, shift=3.5, dtype="float32")
        GaussNewton(memory_limit=sum(few.values())).fit(network, *sphere(20, 5))
