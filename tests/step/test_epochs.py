"""Steps on batches: the pairs of the batch alone, found exactly, and the small systems converge to the whole fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DeviceMemoryError, OptionError
from gpu_sublinear.index.bits import BitIndex
from gpu_sublinear.index.blocks import dealt, permutation
from gpu_sublinear.index.lazy import LazyIndex
from gpu_sublinear.linear.jacobian import FactoredJacobian
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import CGOptions
from gpu_sublinear.step.epochs import BatchRun
from gpu_sublinear.training import penalty
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.tuning.shared_scan import SharedScan
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import DTYPES, Problem, same_active_set, sphere
from tests.helpers.runs import begun, innermost

D = 5
ENGINES = {"lazy": {"mask": "lists"}, "fixed": {"margin": 0.02}, "trees": {"margin": 0}, "bits": {"mask": "bits"}}


def problem_of(device, n=30, width=2000, shift=1.0, seed=0, dtype="float32", **options):
    X, y = sphere(n, D, seed)
    network = ShiftedReluNetwork.initialize(width, D, shift=shift, seed=seed, dtype=dtype, device=device, **options)
    return network, X.astype(dtype), y


def every_block_is_exact(run: BatchRun) -> bool:
    """Tell whether each block finds exactly the pairs of a full computation."""
    device, network = run.network.device, run.network
    rows, X = device.to_host(network.rows), device.to_host(run.problem.X)
    for number, points in enumerate(run.blocks.points):
        P = Problem(X[device.to_host(points)], rows, rows[:, 0], network.shift).P
        active = run.blocks.visit(number).query(network.shift)
        if isinstance(innermost(run.blocks.indices[number]), BitIndex):
            right = (device.to_host(active.counts) == (P.dtype.type(network.shift) < P).sum(axis=1)).all()
        else:
            right = same_active_set(device, active, P, network.shift)
        if not right:
            return False
    return True


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=3)
@given(
    seed=st.integers(0, 2**32), batch=st.integers(1, 14), sampling=st.sampled_from(["explicit", "virtual"]),
    dtype=st.sampled_from(DTYPES), later=st.integers(0, 5),
)  # fmt: skip
def test_blocks_miss_no_pair(name, engine, seed, batch, sampling, dtype, later):
    """After every epoch, before and after points arrived, each block finds the pairs of a full computation."""
    device = make_device(name)
    network, X, y = problem_of(
        device, 12 + later, 400, 1.0, seed, dtype, paired=sampling == "virtual", sampling=sampling
    )
    trainer = GaussNewton(batch_size=batch, max_steps=1, tolerance=0, damping="none", **ENGINES[engine])
    session = trainer.begin(network, X[:12], y[:12])
    for _ in range(3):
        result = session.train()
        assert every_block_is_exact(session.run)
        if later and len(session.X) == 12:
            session.extend(X[12:], y[12:])
            assert every_block_is_exact(session.run)
    together = np.sort(np.concatenate([device.to_host(points) for points in session.run.blocks.points]))
    assert np.array_equal(together, np.arange(12 + later))
    union = (Problem(X, *(device.to_host(a) for a in (network.rows, network.rows[:, 0])), 1.0).mask).any(axis=0)
    assert result.history[-1].union == union.sum()


@pytest.mark.parametrize("engine", ENGINES)
def test_one_batch_of_all_points_is_the_full_step(device, engine):
    """Same bytes after three steps, in the order of the points that the one block has."""
    options = {"solver": "gram", "max_steps": 3, "tolerance": 0, "damping": "none"} | ENGINES[engine]
    weights = []
    for batch in (None, 30, 100):
        network, X, y = problem_of(device)
        result = GaussNewton(batch_size=batch, **options).fit(network, X, y)
        weights.append((device.to_host(network.rows).tobytes(), [r.residual_norm for r in result.history]))
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.parametrize("margin", [0, "auto"])
def test_an_epoch_is_the_formula(margin):
    """One step on each block, densely in float64, block after block in the order of the epoch."""
    network, X, y = problem_of(get_device("cpu"), dtype="float64")
    W = network.W.copy()
    signs = np.where(np.arange(len(W)) % 2 == 0, 1.0, -1.0)
    run = begun(GaussNewton(batch_size=8, margin=margin, max_steps=2, tolerance=0), network, X, y)
    assert len(run.blocks.points) == 4
    for epoch in range(2):
        for number in run.blocks.order(epoch):
            points = run.blocks.points[number]
            Z = X[points] @ W.T - 1.0
            A = (Z > 0) * signs
            f = (Z * A).sum(axis=1) / np.sqrt(len(W))
            g = np.linalg.solve((X[points] @ X[points].T) * (A @ A.T) / len(W), f - y[points])
            W -= (A.T @ (g[:, None] * X[points])) / np.sqrt(len(W))
    run.options.train(run)
    assert np.allclose(network.W, W, rtol=1e-9, atol=1e-9)  # no pair is within this of the threshold


def test_batches_reach_the_tolerance_and_memory_is_of_the_batch():
    X, y = sphere(120, 12)
    network = ShiftedReluNetwork.initialize(2**13, 12, shift=1.0, device=get_device("cpu"))
    shapes, gram = [], type(network.device).gram

    def spied(self, A):
        shapes.append(len(A))
        return gram(self, A)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network.device), "gram", spied)
        result = GaussNewton(batch_size=25, tolerance=1e-3, max_steps=60).fit(network, X, y)
    assert result.converged and "fell below 0.001" in result.reason
    assert max(shapes) == 24 and len(shapes) >= 5 * (len(result.history) - 1)
    assert np.sqrt(np.mean((network.predict(X) - y) ** 2)) < 2e-3
    first, last = result.history[0], result.history[-1]
    assert first.solver_iterations == 5 and "in 5 of 5 batches" in first.solver_reason
    assert [record.step for record in result.history] == list(range(len(result.history)))
    assert first.mse == pytest.approx(first.residual_norm**2 / 120) and last.moved_neurons == 0


def test_a_step_looks_at_the_batch_alone(monkeypatch):
    """Products made in a visit are those of the block's candidates: about one in ten of all."""
    network, X, y = problem_of(get_device("cpu"), n=100, width=2**12)
    run = begun(GaussNewton(batch_size=10, mask="lists"), network, X, y)
    everything = sum(part.candidates.nnz for part in run.blocks.indices)
    whole = LazyIndex.build(network.device, X, replace(network, rows=network.rows.copy()))
    assert everything == whole.candidates.nnz
    visited = [run.blocks.visit(number).query(1.0).visited for number in range(10)]
    assert sum(visited) == everything and max(visited) < 0.2 * everything


def test_contradicting_targets_turn_damping_on_and_the_best_weights_come_back():
    network, X, y = problem_of(get_device("cpu"), n=40, width=2**11)
    X, y = np.concatenate([X, X[:20]]), np.concatenate([y, -y[:20]])
    result = GaussNewton(batch_size=10, max_steps=25).fit(network, X, y)
    losses = [record.loss for record in result.history]
    assert any(record.damping > 0 for record in result.history) and not result.converged
    now = 0.5 * float(((network.predict(X) - y) ** 2).sum())
    assert now == pytest.approx(min(losses), rel=1e-3)  # float32 weights


def test_repetition_gives_the_same_bytes_and_devices_agree():
    weights = []
    for name in ("cpu", "cpu", "reference"):
        network, X, y = problem_of(get_device(name), dtype="float64", width=400)
        GaussNewton(batch_size=7, max_steps=3, tolerance=0).fit(network, X, y)
        weights.append(network.W)
    assert weights[0].tobytes() == weights[1].tobytes()
    assert np.allclose(weights[0], weights[2], rtol=1e-9, atol=1e-9)  # sums in another order, solves of 7 x 7


def test_blocks_are_dealt_once_and_visited_in_new_orders():
    blocks = dealt(103, 10, seed=5, draw=0)
    assert sorted(map(len, blocks)) == [9] * 7 + [10] * 4 and all((np.diff(block) > 0).all() for block in blocks)
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(103))
    orders = {tuple(permutation(11, 5, 0, epoch)) for epoch in range(20)}
    assert len(orders) == 20 and all(sorted(order) == list(range(11)) for order in orders)
    assert np.array_equal(permutation(50, 5, 0, 3), permutation(50, 5, 0, 3))
    first = np.array([permutation(8, seed, 0, 0)[0] for seed in range(4000)])
    counts = np.bincount(first, minlength=8)
    assert abs(counts - 500).max() < 5 * np.sqrt(500 * 7 / 8)  # five standard deviations of a fair draw


def test_options_that_exclude_each_other():
    for size in (0, -3, 2.5, True, "all"):
        with pytest.raises(OptionError, match="batch_size must be .*whole number"):
            GaussNewton(batch_size=size)
    network, X, y = problem_of(get_device("cpu"))
    with pytest.raises(OptionError, match="shared scan and batch_size exclude each other"):
        SharedScan.build(GaussNewton(batch_size=10), network, X)
    with pytest.raises(DeviceMemoryError, match="memory limit"):
        GaussNewton(batch_size=10, memory_limit=10**6).fit(network, X, y)


def test_several_outputs_train_on_batches():
    device = get_device("cpu")
    X, y = sphere(60, 12)
    Y = np.stack([y, np.sign(y)], axis=1)
    network = ShiftedReluNetwork.initialize(2**12, 12, shift=1.0, outputs=2, device=device)
    session = GaussNewton(batch_size=20, tolerance=1e-2, max_steps=40).begin(network, X[:50], Y[:50])
    assert session.train().converged and session.partial_fit(X[50:], Y[50:]).converged
    assert np.sqrt(np.mean((network.predict(X) - Y) ** 2)) < 2e-2 * np.sqrt(np.mean(Y**2))


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_of_a_batch_are_those_of_its_points(engine):
    """One block is the weighted full step byte for byte; weight 0 leaves a point out of every block."""
    weights = np.random.default_rng(3).integers(0, 4, 30)
    options = {"solver": "gram", "max_steps": 2, "tolerance": 0, "damping": "none"} | ENGINES[engine]
    found = []
    for batch in (None, 30):
        network, X, y = problem_of(get_device("cpu"))
        GaussNewton(batch_size=batch, **options).fit(network, X, y, sample_weight=weights)
        found.append(network.rows.tobytes())
    assert found[0] == found[1]
    kept, pair = weights > 0, []
    for data in ((X, y, weights), (X[kept], y[kept], weights[kept])):
        network, _, _ = problem_of(get_device("cpu"))
        GaussNewton(batch_size=8, **options).fit(network, *data[:2], sample_weight=data[2])
        pair.append(network.predict(X))
    assert np.array_equal(*pair)


def test_a_row_that_moves_a_little_after_a_long_way_is_heard_of(device):
    network, X, y = problem_of(device, dtype="float64", n=12, width=200)
    blocks = GaussNewton(batch_size=4, margin=0).begin(network, X, y).run.blocks
    rows = device.asarray(np.arange(3), "int64")
    blocks.update(network.rows, rows, device.asarray(np.array([100.0, 100.0, 100.0]), np.float64))
    blocks.visit(0)
    network.rows[1, 0] = np.nextafter(float(network.rows[1, 0]), np.inf)
    blocks.update(network.rows, rows, device.asarray(np.array([0.0, 1e-17, 0.0]), np.float64))
    before = device.to_host(blocks.visited[0])
    blocks.visit(0)
    assert np.flatnonzero(device.to_host(blocks.visited[0]) > before).tolist() == [1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_blocks_are_exact_again_after_rows_overflowed(device, engine, lost):
    network, X, y = problem_of(device, n=12, width=400)
    run = GaussNewton(batch_size=4, **ENGINES[engine]).begin(network, X, y).run
    state = run.look()
    network.rows[2:5] = lost
    run.blocks.update(network.rows, device.xp.arange(2, 5), device.xp.full(3, lost))
    run.blocks.visit(1)
    run.restore(state)
    run.move(run.look(), 0.0, 1)
    assert np.isfinite(device.to_host(network.rows)).all()
    assert every_block_is_exact(run)


# ---- with a ridge penalty -------------------------------------------------------------------------------


def dense_epochs(X, y, W, order, lam, epochs):
    """Give every block its share of the weights anew, densely in float64; return W after each epoch."""
    W, signs, shares = W.copy(), np.where(np.arange(len(W)) % 2 == 0, 1.0, -1.0), {}
    after = []
    for epoch in range(epochs):
        for number, points in order(epoch):
            Z, D = X[points] @ W.T - 1.0, shares.get(number, np.zeros_like(W))
            A = (Z > 0) * signs / np.sqrt(len(W))
            f, JD = (Z * A).sum(axis=1), ((X[points] @ D.T) * A).sum(axis=1)
            G = (X[points] @ X[points].T) * (A @ A.T)
            u = np.linalg.solve(G + lam * np.eye(len(points)), f - y[points] - JD)
            shares[number] = -A.T @ (u[:, None] * X[points])
            W += shares[number] - D
        after.append(W.copy())
    return after


@pytest.mark.parametrize("options", [{}, {"margin": 0}, {"jacobian": "csr"}])
def test_an_epoch_with_a_penalty_is_the_formula(device, options):
    network, X, y = problem_of(device, dtype="float64", width=600)
    trainer = GaussNewton(batch_size=8, alpha=0.5, max_steps=3, damping="none", solver="gram", **options)
    run = begun(trainer, network, device.asarray(X, "float64"), device.asarray(y, "float64"))
    blocks = run.blocks

    def order(epoch):
        return [(int(number), device.to_host(blocks.points[int(number)])) for number in blocks.order(epoch)]

    start = device.to_host(network.W).copy()
    want = dense_epochs(X, y, start, order, run.ridge, 3)
    result = trainer.train(run)
    assert np.allclose(device.to_host(network.W), want[-1], rtol=1e-9, atol=1e-9)  # no pair is this near the threshold
    moved = float(((want[-1] - want[0]) ** 2).sum())
    assert moved > 1e-6  # the epochs after the first did something
    penalty = 0.5 * run.ridge * float(((want[-1] - start) ** 2).sum())
    assert result.final.penalty == pytest.approx(penalty, rel=1e-9)


@pytest.mark.parametrize(("outputs", "weighted"), [(1, False), (1, True), (3, False)])
def test_batches_settle_at_the_minimum_of_the_penalised_loss(outputs, weighted):
    """``W - W_0 = -J^T (f - y) / lambda`` with the Jacobian there, and the objective is that of full steps."""
    network, X, y = problem_of(get_device("cpu"), n=40, width=2**12, dtype="float64", outputs=outputs)
    y = np.stack([y * (1 + k) for k in range(outputs)], axis=1).squeeze()
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 40) if weighted else None
    full = replace(network, rows=network.rows.copy())
    trainer = GaussNewton(alpha=3.0, tolerance=1e-6, max_steps=200, cg=CGOptions(tolerance=1e-12))
    whole = trainer.fit(full, X, y, sample_weight=weight)
    result = replace(trainer, batch_size=9).fit(network, X, y, sample_weight=weight)
    assert whole.converged and result.converged and "settled" in result.reason
    assert result.final.objective == pytest.approx(whole.final.objective, rel=5e-3)  # runs end within 0.1 % a step


def test_a_standstill_on_batches_is_the_condition_of_the_minimum():
    """``lambda (W - W_0) = -J^T (f - y)``; targets so small that the mask can stand still."""
    network, X, y = problem_of(get_device("cpu"), n=40, width=2**12, dtype="float64", paired=True)
    run = begun(GaussNewton(batch_size=9, alpha=0.1), network, X, 1e-6 * y)
    start, state = run.initial.copy(), run.look()
    for step in range(60):
        run.move(state, 0.0, step)
        state = run.look()
    active = LazyIndex.build(network.device, X, replace(network, rows=network.rows.copy())).query(1.0)
    gradient = FactoredJacobian.build(network.device, active, X, network.signs, network.width).rmatvec(state.residual)
    D, gradient = network.rows - start, gradient.reshape(-1, X.shape[1])
    assert np.abs(run.ridge * D[active.neurons] + gradient).max() < 1e-6 * np.abs(gradient).max()
    assert np.allclose(sum(run.shares), D, atol=1e-15)


def test_points_that_arrive_later_get_shares_of_their_own():
    network, X, y = problem_of(get_device("cpu"), n=40, width=2**12, dtype="float64")
    trainer = GaussNewton(batch_size=9, alpha=3.0, max_steps=100, mask="lists")
    whole = trainer.fit(replace(network, rows=network.rows.copy()), X, y)
    session = trainer.begin(network, X[:30], y[:30])
    session.train()
    held = len(network.rows)
    later = session.partial_fit(X[30:], y[30:])
    run = session.run
    assert later.converged and len(network.rows) > held and len(run.shares) == len(run.blocks.indices)
    assert np.allclose(sum(run.shares), network.rows - run.initial, atol=1e-12)
    assert later.final.objective == pytest.approx(whole.final.objective, rel=0.05)  # lambda is tr(G)/n of fewer points


@pytest.mark.parametrize("most", [2000, 25])
def test_alpha_is_chosen_as_on_all_points_at_once(most, monkeypatch):
    monkeypatch.setattr(penalty, "MOST_POINTS", most)
    chosen = []
    for batch_size in (None, 7):
        network, X, y = problem_of(get_device("cpu"), n=40, width=2**12)
        noisy = y + 0.5 * np.random.default_rng(0).standard_normal(40)
        chosen.append(GaussNewton(alpha="auto", batch_size=batch_size, max_steps=2).fit(network, X, noisy).alpha)
    assert chosen[0] == chosen[1] > 0


def test_small_penalties_settle_near_the_minimum_with_many_blocks():
    """Not before: a damped epoch gains little, so six of them must."""
    network, X, y = problem_of(get_device("cpu"), n=40, width=2**12, dtype="float64")
    y = y + np.random.default_rng(0).standard_normal(40)
    trainer = GaussNewton(alpha=0.01, max_steps=400)
    whole = trainer.fit(replace(network, rows=network.rows.copy()), X, y)
    result = replace(trainer, batch_size=5).fit(network, X, y)
    assert whole.converged and result.converged
    assert result.final.objective < 1.2 * whole.final.objective  # trials: 1.0 to 1.1


def test_shares_add_up_after_going_back_to_the_best_weights():
    network, X, y = problem_of(get_device("cpu"), n=40, width=2**12, dtype="float64")
    y = y + np.random.default_rng(0).standard_normal(40)
    session = GaussNewton(batch_size=9, alpha=0.01, max_steps=30, mask="lists").begin(network, X[:30], y[:30])
    result = session.train(validation=(X[30:], y[30:]))
    run = session.run
    assert result.best_step is not None and result.best_step < len(result.history) - 1
    assert np.allclose(sum(run.shares), network.rows - run.initial, atol=1e-12)
    assert every_block_is_exact(run)
