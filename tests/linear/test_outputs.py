"""Several outputs: signs, the operator against dense J, the solve, trajectories, devices, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear.devices.clock import PhaseClock
from gpu_sublinear.errors import DataError, OptionError
from gpu_sublinear.linear.outputs import OutputsJacobian
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.model.signs import pattern_count, pattern_signs, patterns_of, sign_matrix
from gpu_sublinear.opponents.dense import DenseGaussNewton
from gpu_sublinear.options import SOLVERS, CGOptions
from gpu_sublinear.step.run import Run
from gpu_sublinear.training.checks import check_training_data
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.memory import plan
from gpu_sublinear.tuning.shared_scan import SharedScan, ridge_path
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.runs import begun, linearised
from tests.helpers.targets import columns

OUTPUTS = (2, 3, 8)
EPS = np.finfo(np.float64).eps


def network_for(device, d=4, m=256, shift=0.5, outputs=3, **options) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(m, d, shift=shift, seed=1, outputs=outputs, device=device, **options)


def run_of(device, outputs=3, n=24, **options) -> tuple[Run, np.ndarray]:
    X, Y = columns(n, outputs=outputs)
    network = network_for(device, outputs=outputs, dtype="float64")
    X, Y = device.asarray(X, "float64"), device.asarray(Y)
    return begun(GaussNewton(**options), network, X, Y), device.to_host(X)


def dense_jacobian(run: Run) -> np.ndarray:
    """Return J (n c, u d) in float64 from the definition, outputs fastest."""
    to_host, network = run.network.device.to_host, run.network
    rows, neurons, X = to_host(network.rows), to_host(network.neurons), to_host(run.problem.X)
    masks = 2 * np.arange(network.outputs) + 1
    common = neurons[:, None] & masks  # (u, c)
    signs = np.array([[(-1.0) ** int(word).bit_count() for word in line] for line in common])
    fires = network.shift < X @ rows.T  # (n, u); float64: no number lies within rounding of the shift
    J = fires[:, None, :, None] * signs.T[None, :, :, None] * X[:, None, None, :]  # (n, c, u, d)
    return J.reshape(len(X) * network.outputs, -1) / np.sqrt(network.width)


# ---- signs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 2, 3, 5, 8, 10])
def test_columns_are_balanced_orthogonal_and_begin_with_those_of_one_output(outputs):
    count = pattern_count(outputs)
    network = network_for(make_device("reference"), m=8 * count, outputs=outputs)
    network.hold_all()
    signs = network.signs.reshape(8 * count, outputs)
    for first in range(0, len(signs), 2 * count):
        block = signs[first : first + 2 * count]
        assert np.array_equal(block.T @ block, 2 * count * np.eye(outputs))
    assert not signs.sum(axis=0).any()
    assert np.array_equal(signs[0::2], -signs[1::2])
    assert np.array_equal(signs[:, 0], 1 - 2 * (np.arange(len(signs)) % 2))
    expected = [[(-1) ** (r & (2 * k + 1)).bit_count() for k in range(outputs)] for r in range(len(signs))]
    assert np.array_equal(signs, expected)


def test_patterns_of_virtual_pairs_are_uniform_random_and_the_same_for_both_neurons():
    network = network_for(make_device("reference"), m=2**20, shift=4.0, outputs=5, paired=True, sampling="virtual")
    pairs = 4000
    patterns = patterns_of(network, np.arange(2 * pairs))
    assert np.array_equal(patterns[0::2], patterns[1::2])
    counts = np.bincount(patterns[0::2], minlength=8)
    chi2 = ((counts - pairs / 8) ** 2 / (pairs / 8)).sum()
    assert chi2 < 24.3  # the 99.9 % quantile of chi-squared with 7 degrees of freedom; the draw is fixed by the seed
    assert (patterns[0::2] != np.arange(pairs) % 8).any()
    assert np.array_equal(patterns_of(network, np.arange(10, 20)), patterns[10:20])  # growth leaves old ones alone
    signs = sign_matrix(network, np.arange(2 * pairs))
    assert np.array_equal(signs[0::2], -signs[1::2]) and np.array_equal(signs[::2, 0], np.ones(pairs))


@pytest.mark.parametrize("sampling", ["explicit", "virtual"])
def test_paired_networks_begin_at_zero_and_predict_what_the_active_set_gives(device, sampling):
    X, Y = columns(8)
    network = network_for(device, m=128, shift=1.0, paired=True, sampling=sampling)
    assert not network.predict(X).any()
    result = GaussNewton(max_steps=1).fit(network, X, Y)
    assert result.history[0].mse == pytest.approx(1.0)  # f_0 = 0 and standard targets
    wrong = network.predict(X) - Y
    assert wrong.shape == (8, 3)
    assert (wrong**2).mean() == pytest.approx(result.history[-1].mse, rel=1e-3)


def test_unpaired_networks_predict_from_all_neurons():
    X, _ = columns(9)
    network = network_for(make_device("cpu"), m=64, outputs=5, dtype="float64")
    W = network.W
    network_all = network_for(make_device("cpu"), m=64, outputs=5, dtype="float64")
    network_all.hold_all()
    dense = np.maximum(X @ W.T - 0.5, 0) @ network_all.signs / 8
    assert np.allclose(network.predict(X), dense, rtol=0, atol=64 * EPS * np.abs(X @ W.T).max())


# ---- operator and solve -----------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_products_are_those_of_the_dense_jacobian(device, outputs):
    run, X = run_of(device, outputs)
    state = run.look()
    jacobian = linearised(run, state.active)
    assert isinstance(jacobian, OutputsJacobian)
    J, rng = dense_jacobian(run), np.random.default_rng(0)
    held = device.to_host(state.active.neurons)
    seen = J.reshape(len(J), -1, X.shape[1])[:, held].reshape(len(J), -1)  # the columns of neurons that fire
    v, g = rng.standard_normal(seen.shape[1]), rng.standard_normal((len(X), outputs))
    bound = 4 * seen.shape[1] * EPS
    Jv = device.to_host(jacobian.matvec(device.asarray(v)))
    JTg = device.to_host(jacobian.rmatvec(device.asarray(g)))
    assert np.allclose(Jv.ravel(), seen @ v, rtol=0, atol=bound * (np.abs(seen) @ np.abs(v)).max())
    assert np.allclose(JTg, seen.T @ g.ravel(), rtol=0, atol=bound * (np.abs(seen).T @ np.abs(g).ravel()).max())
    assert (Jv * g).sum() == pytest.approx(v @ JTg, rel=1e-12)  # <J v, g> = <v, J^T g>
    Gg = device.to_host(jacobian.gram(device.asarray(g)))
    assert np.allclose(Gg.ravel(), J @ (J.T @ g.ravel()), rtol=0, atol=bound * np.abs(Gg).max() * 8)
    before = device.to_host(run.network.rows).copy()
    neurons, moved = map(device.to_host, jacobian.step(run.network.rows, device.asarray(g)))
    change = before - device.to_host(run.network.rows)
    assert np.allclose(change[held].ravel(), JTg, rtol=0, atol=8 * EPS * np.abs(before).max())
    assert np.array_equal(neurons, held) and np.array_equal(np.linalg.norm(change[held], axis=1) > 0, moved > 0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_solution_is_that_of_the_dense_system(solver, kappa):
    device = make_device("cpu")
    run, X = run_of(device, 3, solver=solver, cg=CGOptions(1e-9))
    state = run.look()
    solution = run.solve(state.linear, state.residual, 0, PhaseClock(device), kappa)
    J = dense_jacobian(run)
    G = J @ J.T + kappa * np.eye(len(J))
    exact = np.linalg.solve(G, state.residual.ravel())
    true = np.linalg.norm(G @ solution.value.ravel() - state.residual.ravel()) / np.linalg.norm(state.residual)
    assert solution.value.shape == state.residual.shape
    assert true <= 1e-9 and solution.residual == pytest.approx(true, rel=1e-3, abs=1e-13)
    assert np.linalg.norm(solution.value.ravel() - exact) <= 1e-9 * np.linalg.cond(G) * np.linalg.norm(exact)


def test_shared_block_takes_fewer_products_than_none():
    iterations = {}
    for solver in ("gram", "sketch-cg", "cg"):
        run, _ = run_of(make_device("cpu"), 3, n=48, solver=solver, cg=CGOptions(1e-6))
        state = run.look()
        clock = PhaseClock(run.network.device)
        iterations[solver] = run.solve(state.linear, state.residual, 0, clock).iterations
    assert iterations["gram"] < iterations["cg"] and iterations["sketch-cg"] < iterations["cg"]


# ---- training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [*SOLVERS])
def test_training_fits_all_columns(solver):
    X, Y = columns(48)
    network = network_for(make_device("cpu"), m=4096, shift=1.0, paired=True)
    result = GaussNewton(solver=solver).fit(network, X, Y)
    assert result.converged, result.reason
    assert np.linalg.norm(network.predict(X) - Y) <= 2e-4 * np.linalg.norm(Y)  # tolerance 1e-4, float32 forward
    assert result.history[-1].mse == pytest.approx(result.history[-1].residual_norm ** 2 / Y.size)


def test_one_column_is_one_output_to_the_byte():
    X, Y = columns(24, outputs=1)
    weights = []
    for y in (Y, Y[:, 0]):
        network = network_for(make_device("cpu"), outputs=1, m=512, shift=1.0)
        GaussNewton(max_steps=3).fit(network, X, y)
        weights.append(network.W)
    assert weights[0].tobytes() == weights[1].tobytes()


def test_targets_that_are_equal_follow_one_output_when_the_others_do_not_disturb():
    """With c = C = 2 the system splits into (y_0 +- y_1) / 2: targets (y, y) train one half of the neurons."""
    X, Y = columns(20, outputs=1)
    device = make_device("reference")
    W = np.random.default_rng(0).standard_normal((256, 4))
    even = (np.arange(256) // 2) % 2 == 0  # pattern 0 has the sign vector +-(1, 1)
    both = ShiftedReluNetwork.from_weights(W.copy(), shift=0.0, outputs=2, device=device)
    W[~even] = -9.0 * X.mean(axis=0) / np.linalg.norm(X.mean(axis=0))
    options = {"max_steps": 1, "cg": CGOptions(1e-12), "solver": "cg"}
    start = both.predict(X)
    GaussNewton(**options).fit(both, X, start + Y)  # g is (g, g) up to rounding, so the other pattern stays
    moved = (both.rows != np.random.default_rng(0).standard_normal((256, 4))).any(axis=1)
    still = np.abs(both.rows - np.random.default_rng(0).standard_normal((256, 4)))[~even].max()
    assert moved[even].any() and still <= 1e-9


@pytest.mark.parametrize("options", [{}, {"margin": 0}, {"alpha": 0.1}, {"damping": 0.5}, {"solver": "cg"}], ids=str)
def test_devices_agree(options):
    X, Y = columns(8)
    found = {}
    for name in DEVICES:
        if name == "cuda" or (name == "emulated" and "solver" in options):  # 60 products take long there
            continue
        network = network_for(make_device(name), m=64, dtype="float64")
        result = GaussNewton(max_steps=2, cg=CGOptions(1e-12), **options).fit(network, X, Y)
        found[name] = (
            [(record.mse, record.fired, record.union, record.penalty) for record in result.history],
            make_device(name).to_host(network.W),
        )
    for name in found:
        assert np.allclose(found[name][0], found["reference"][0], rtol=1e-9, atol=1e-12)
        assert np.allclose(found[name][1], found["reference"][1], rtol=0, atol=1e-8)


def test_a_fit_repeats_to_the_byte():
    X, Y = columns(32)
    rows = []
    for _ in range(2):
        network = network_for(make_device("cpu"), m=1024, shift=1.0, paired=True)
        GaussNewton(max_steps=3).fit(network, X, Y)
        rows.append(network.rows.tobytes())
    assert rows[0] == rows[1]


def test_robust_options_work_together():
    X, Y = columns(40)
    Y = np.concatenate([Y, -Y])  # contradicting: the least-squares solution is 0
    X = np.concatenate([X, X])
    network = network_for(make_device("cpu"), m=1024, shift=0.5, paired=True)
    trainer = GaussNewton(alpha=1.0, validation_fraction=0.2, time_budget=60.0, watchdog=2, max_steps=8)
    result = trainer.fit(network, X, Y)
    objectives = [record.objective for record in result.history]
    assert all(record.validation_mse is not None for record in result.history)
    assert all(later < max(objectives[max(0, k - 2) : k + 1]) for k, later in enumerate(objectives[1:]))
    assert np.abs(network.predict(X)).max() < np.abs(Y).max()


def test_damping_goes_on_where_full_steps_fail():
    X, Y = columns(40)
    result = GaussNewton(max_steps=12).fit(
        network_for(make_device("cpu"), m=512, paired=True), np.concatenate([X, X]), np.concatenate([Y, Y + 1])
    )
    assert np.isfinite([record.mse for record in result.history]).all()
    assert min(record.mse for record in result.history) == pytest.approx(0.25, rel=0.05)  # half the gap, squared


def test_paths_and_folds_share_one_scan():
    X, Y = columns(24)
    network = network_for(make_device("cpu"), m=512, shift=1.0, dtype="float64", paired=True, sampling="explicit")
    results = ridge_path(network, X, Y, [1.0, 0.1])
    assert results[1].history[-1].mse < results[0].history[-1].mse
    whole = SharedScan.build(GaussNewton(), network, X).fit(Y[::2], np.arange(0, 24, 2))
    assert whole.network.predict(X).shape == (24, 3)


@pytest.mark.parametrize("sampling", ["explicit", "virtual"])
def test_points_that_arrive_later_train_like_all_at_once(sampling):
    X, Y = columns(24)
    predicted = []
    for pieces in ((slice(0, 24),), (slice(0, 16), slice(16, 24))):
        network = network_for(make_device("cpu"), m=512, shift=1.0, paired=True, sampling=sampling)
        session = GaussNewton(max_steps=2).begin(network, X[pieces[0]], Y[pieces[0]])
        for piece in pieces[1:]:
            session.extend(X[piece], Y[piece])
        session.train()
        predicted.append(network.predict(X))
    assert np.array_equal(*predicted)


def test_a_silent_point_keeps_a_finite_least_norm_step():
    X, Y = columns(24)
    W = np.random.default_rng(0).standard_normal((512, 4))
    W[:, 0] = np.abs(W[:, 0])
    X[0] = [-1.0, 0.0, 0.0, 0.0]
    silent = ShiftedReluNetwork.from_weights(W, shift=0.5, outputs=3, device=make_device("cpu"))
    trial = begun(GaussNewton(), silent, X, Y)
    state = trial.look()
    assert state.active.counts[0] == 0
    attempt = trial.move(state, 0.0, 0)
    assert not attempt.solution.value[0].any() and np.isfinite(attempt.solution.value).all()
    assert trial.look().norm < state.norm


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        (GaussNewton(jacobian="csr"), "jacobian='csr'"),
        (GaussNewton.faithful(), "jacobian='csr'"),
        (GaussNewton(mask="bits"), "mask='bits'"),
    ],
)
def test_what_is_not_supported_is_refused(trainer, words):
    X, Y = columns()
    with pytest.raises(OptionError, match=words):
        trainer.fit(network_for(make_device("reference")), X, Y)


def test_dense_steps_are_refused():
    X, Y = columns()
    with pytest.raises(OptionError, match="dense steps train one output"):
        DenseGaussNewton().fit(network_for(make_device("reference")), X, Y)


def test_many_fired_pairs_keep_lists():
    trainer = GaussNewton()
    assert trainer.packs(0.5) and not trainer.packs(0.5, 3)
    X, Y = columns()
    assert GaussNewton(max_steps=1).fit(network_for(make_device("cpu"), shift=0.0), X, Y).history[0].fired > 64


@pytest.mark.parametrize("outputs", [0, -1, 1.5, 65])
def test_outputs_must_be_a_number_that_the_width_can_hold(outputs):
    with pytest.raises(OptionError, match="outputs"):
        network_for(make_device("reference"), m=128, outputs=outputs)


def test_targets_must_have_one_column_for_each_output():
    X, Y = columns()
    device = make_device("reference")
    for wrong in (Y[:, 0], Y[:, :2], Y[:5]):
        with pytest.raises(DataError, match=r"y must have shape \(24, 3\) for 3 outputs"):
            check_training_data(device, X, wrong, 4, outputs=3)
    twice = np.concatenate([X, X[:1]])
    with pytest.raises(DataError, match="rows 0 and 24"):
        check_training_data(device, twice, np.concatenate([Y, Y[:1] + [[0, 0, 1]]]), 4, outputs=3)


def test_memory_plan_grows_with_the_outputs():
    arguments = (GaussNewton(), make_device("cpu"), 500, 16, 2**16, 2.0, "float32")
    assert sum(plan(*arguments, 10).values()) > sum(plan(*arguments).values())


def test_signs_of_patterns_are_those_of_the_definition():
    signs = pattern_signs(6)
    assert signs.shape == (8, 6)
    assert all(signs[p, k] == (-1) ** (p & k).bit_count() for p in range(8) for k in range(6))
