"""Packed masks: every operation on every device, and whole runs against lists, dense algebra and recomputation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear.devices import get_device
from gpu_sublinear.devices.clock import PhaseClock
from gpu_sublinear.devices.reference import unpacked
from gpu_sublinear.errors import OptionError
from gpu_sublinear.index.bits import BitIndex, BitMask
from gpu_sublinear.index.first_look import hold_firing
from gpu_sublinear.index.lazy import LazyIndex
from gpu_sublinear.linear.gram import GramMatrix
from gpu_sublinear.linear.system import Place
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.tuning.shared_scan import SharedScan, ridge_path
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import Problem, make_problem, problems, sphere
from tests.helpers.runs import begun, innermost, linearised

REFERENCE = get_device("reference")
EPS = np.finfo(np.float64).eps


def check_pack(device, problem: Problem) -> np.ndarray:
    """Compare with the definition; return the bits."""
    n, u = len(problem.X), len(problem.W)
    arrays = (device.asarray(part) for part in (problem.X, problem.W, problem.signs))
    bits, totals = (device.to_host(part) for part in device.pack_mask(*arrays, problem.shift))
    assert bits.dtype == np.uint64 and bits.shape == (-(-u // 64), n) and totals.dtype == np.float64
    mask = unpacked(bits)
    assert np.array_equal(mask[:u], problem.mask.T) and not mask[u:].any()
    above = np.where(problem.mask, problem.P.astype(np.float64) - problem.shift, 0.0)  # (n, u)
    assert np.all(np.abs(totals - above @ problem.signs) <= 2 * (u + 2) * EPS * np.abs(above).sum(axis=1))
    return bits


def check_sizes(device, bits: np.ndarray) -> None:
    mask = unpacked(bits)
    counts, union = device.mask_sizes(device.asarray(bits))
    assert np.array_equal(device.to_host(counts), mask.sum(axis=0)) and union == mask.any(axis=1).sum()


def check_counts(device, bits: np.ndarray, other: np.ndarray) -> None:
    want, wanted = (REFERENCE.count_mask(part) for part in (bits, other))
    counts = device.count_mask(device.asarray(bits))
    assert np.array_equal(device.to_host(counts), want)
    changed = device.count_mask(device.asarray(other), device.asarray(bits), counts)
    assert np.array_equal(device.to_host(changed), wanted)
    assert np.array_equal(device.to_host(counts), want)  # left as it was


def check_move(device, problem: Problem, bits: np.ndarray, rng: np.random.Generator) -> None:
    g, weights = rng.standard_normal(len(problem.X)), rng.standard_normal(len(problem.W))
    W = device.asarray(problem.W.copy())
    moved = device.to_host(device.move_mask(W, *map(device.asarray, (problem.X, bits, weights, g))))
    got = device.to_host(W).astype(np.float64)
    mask = unpacked(bits)[: len(weights)].astype(np.float64)
    change = weights[:, None] * (mask @ (g[:, None] * problem.X))
    size = np.abs(weights)[:, None] * (mask @ np.abs(g[:, None] * problem.X)) + np.abs(problem.W)
    rounding = np.finfo(problem.W.dtype).eps * (np.abs(problem.W) + np.abs(change))
    assert np.all(np.abs(got - (problem.W - change)) <= rounding + (len(g) + 4) * EPS * size)
    want = np.linalg.norm(got - problem.W.astype(np.float64), axis=1)
    assert np.allclose(moved, want, rtol=1e-12, atol=0)


def check_product(device, problem: Problem, bits: np.ndarray, rng: np.random.Generator) -> None:
    V, weights = rng.standard_normal(problem.W.shape), rng.standard_normal(len(problem.W))
    got = device.to_host(device.mask_product(*map(device.asarray, (problem.X, bits, weights, V))))
    terms = unpacked(bits)[: len(weights)] * weights[:, None] * (V @ problem.X.T.astype(np.float64))  # (u, n)
    size = unpacked(bits)[: len(weights)] * abs(weights[:, None]) * (abs(V) @ abs(problem.X.T.astype(np.float64)))
    assert got.dtype == np.float64 and got.shape == (len(problem.X),)
    assert np.all(np.abs(got - terms.sum(axis=0)) <= 2 * (len(weights) + V.shape[1]) * EPS * size.sum(axis=0))


@pytest.mark.parametrize("name", DEVICES)
def test_operations_on_small_problems(name):
    device = make_device(name)

    @settings(max_examples=100 if name == "cpu" else 25)
    @given(problem=problems(max_points=11, max_neurons=150), seed=st.integers(0, 2**32 - 1))
    def check(problem: Problem, seed: int) -> None:
        rng = np.random.default_rng(seed)
        bits = check_pack(device, problem)
        check_sizes(device, bits)
        flips = (rng.random(bits.shape) < rng.choice([0.0, 0.1, 1.0])) * rng.integers(0, 2**63, bits.shape, np.uint64)
        check_counts(device, bits, bits ^ flips.astype(np.uint64))
        check_move(device, problem, bits, rng)
        check_product(device, problem, bits, rng)

    check()


def check_large(device, n: int, u: int, d: int, dtype: str) -> None:
    rng = np.random.default_rng(u)
    problem = make_problem(rng, n, u, d, dtype, False, 0.1)
    bits = check_pack(device, problem)
    check_sizes(device, bits)
    other = bits.copy()
    other[0, 0] ^= np.uint64(5)
    other[-1, -1] ^= np.uint64(1)  # few words changed: through the flips
    check_counts(device, bits, other)
    check_counts(device, bits, ~bits)
    check_move(device, problem, bits, rng)
    check_product(device, problem, bits, rng)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(("n", "u", "d"), [(70, 1100, 17), (9, 2049, 4), (130, 64, 3)])
def test_operations_on_many_blocks(name, n, u, d):
    check_large(make_device(name), n, u, d, "float32")


def test_kernels_in_every_order(gpu, dtype):
    check_large(gpu, 67, 200, 18, dtype)


def test_nan_does_not_fire(device):
    X, W = np.ones((2, 1), np.float32), np.array([[np.nan], [1.0]], np.float32)
    bits, totals = device.pack_mask(device.asarray(X), device.asarray(W), device.asarray(X[:, 0]), 0.25)
    assert device.to_host(bits).tolist() == [[2, 2]] and device.to_host(totals).tolist() == [0.75, 0.75]


def network_for(device, m=1024, d=6, **options) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(m, d, **{"seed": 1, "device": device, "dtype": "float64", **options})


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_same_trajectory_as_lists_from_a_true_state_at_every_step(device, shift):
    """After every step bits, counts and outputs equal full recomputation from the weights."""
    X, y = sphere(40, 6)
    runs = {}
    for mask in ("bits", "lists"):
        seen = runs[mask] = []

        def look(record, network, seen=seen):
            problem = Problem(X, device.to_host(network.W), np.where(np.arange(1024) % 2 == 0, 1.0, -1.0), shift)
            seen.append((problem.mask, record))

        trainer = GaussNewton(solver="gram", mask=mask, tolerance=1e-11, max_steps=12)
        assert trainer.fit(network_for(device, shift=shift), X, y, [look]).converged
    assert len(runs["bits"]) == len(runs["lists"]) >= 4
    for (mine, record), (theirs, want) in zip(runs["bits"], runs["lists"], strict=True):
        assert np.array_equal(mine, theirs)
        assert (record.fired, record.union, record.moved_neurons) == (want.fired, want.union, want.moved_neurons)
        assert record.residual_norm == pytest.approx(want.residual_norm, rel=1e-6, abs=1e-10)
    assert not np.array_equal(runs["bits"][0][0], runs["bits"][-1][0])  # pairs flipped, so agreeing means something


@pytest.mark.parametrize("batch_size", [None, 9])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_penalised_steps_are_those_of_lists(device, shift, batch_size):
    """Weights, penalties and objectives of six steps, damped ones among them."""
    X, y = sphere(40, 6)
    y, runs = y + np.random.default_rng(0).standard_normal(40), []
    for mask in ("bits", "lists"):
        network = network_for(device, shift=shift, m=256)
        trainer = GaussNewton(solver="gram", mask=mask, alpha=0.01, max_steps=6, batch_size=batch_size)
        result = trainer.fit(network, X, y)
        rows = dict(zip(device.to_host(network.neurons).tolist(), device.to_host(network.rows), strict=True))
        runs.append((rows, [(r.loss, r.penalty, r.rejected, r.damping) for r in result.history]))
    (mine, history), (theirs, want) = runs
    assert np.allclose(history, want, rtol=1e-7, atol=1e-12) and history[-1][1] > 0
    assert batch_size or any(damping > 0 for *_, damping in history)
    for r, row in theirs.items():
        assert np.allclose(mine[r], row, atol=1e-9)  # sums in another order


def test_a_shared_scan_and_a_path_on_bits_are_separate_trainings():
    device = get_device("cpu")
    X, y = sphere(40, 6)
    y = y + np.random.default_rng(0).standard_normal(40)
    trainer, alphas = GaussNewton(mask="bits", max_steps=60), [10.0, 3.0]
    path = ridge_path(network_for(device, shift=0.0), X, y, alphas, trainer)
    for alpha, found in zip(alphas, path, strict=True):
        alone = replace(trainer, alpha=alpha).fit(network_for(device, shift=0.0), X, y)
        assert alone.converged and found.converged
        assert found.final.objective == pytest.approx(alone.final.objective, rel=5e-3)  # both within 0.1 % a step
    fold = np.arange(0, 40, 2)
    scan = SharedScan.build(replace(trainer, alpha=3.0), network_for(device, shift=0.0), X)
    part = scan.fit(y[fold], fold)
    alone = replace(trainer, alpha=3.0).fit(network_for(device, shift=0.0), X[fold], y[fold])
    assert part.network.rows.tobytes() == alone.network.rows.tobytes()


def test_gram_matrix_and_outputs_are_those_of_recomputation_at_every_step(device):
    X, y = sphere(30, 6)
    network = network_for(device, 512, shift=0.0)
    X, y = device.asarray(X), device.asarray(y)
    run = begun(GaussNewton(mask="bits"), network, X, y)
    gram = GramMatrix(device, X, network.width)
    norms = []
    for _ in range(5):
        active = run.index.query(network.shift)
        problem = Problem(*(device.to_host(a).copy() for a in (X, network.rows, network.signs)), network.shift)
        J = problem.jacobian
        assert np.allclose(device.to_host(gram(active)), J @ J.T, rtol=1e-12, atol=1e-14)
        outputs = problem.P.clip(0) @ problem.signs / np.sqrt(512)
        assert np.allclose(device.to_host(active.totals) * network.scale, outputs, rtol=1e-12, atol=1e-12)
        norms.append(np.linalg.norm(outputs - device.to_host(y)))
        g = run.solve(Place(active), active.totals * network.scale - y, 0, PhaseClock(device)).value
        moved = linearised(run, active).step(network.rows, g)
        assert np.allclose(
            device.to_host(network.rows) - problem.W, -(J.T @ device.to_host(g)).reshape(512, 6), atol=1e-12
        )
        run.index.update(network.rows, *moved)
    assert norms[-1] < 1e-4 * norms[0]


@pytest.mark.parametrize(("shift", "kind"), [(0.0, BitIndex), (3.0, LazyIndex)])
def test_auto_takes_bits_where_many_pairs_fire(shift, kind):
    device = get_device("cpu")
    X, y = sphere(20, 6)
    assert isinstance(innermost(begun(GaussNewton(), network_for(device, shift=shift), X, y).index), kind)
    other = GaussNewton(solver="cg") if shift == 0 else GaussNewton(mask="lists")
    assert isinstance(innermost(begun(other, network_for(device, shift=shift), X, y).index), LazyIndex)


def test_auto_changes_over_when_many_pairs_have_come_to_fire(device):
    X, y = sphere(40, 6)
    results = []
    for mask in ("auto", "lists", "bits"):
        network = network_for(device, 10**6, shift="fired:30", paired=True, sampling="virtual")
        results.append(GaussNewton(solver="gram", mask=mask, tolerance=1e-8).fit(network, X, y))
    first, last = results[0].history[0], results[0].history[-1]
    assert first.tree_nodes_visited < last.tree_nodes_visited == 40 * len(results[0].network.rows)
    assert [r.fired for r in results[0].history] == [r.fired for r in results[1].history]
    assert [r.fired for r in results[0].history] == [r.fired for r in results[2].history]
    assert results[0].converged


def test_one_neuron_that_fires_nowhere_does_not_move(device):
    X, y = sphere(3, 6)
    network = network_for(device, 64, shift=0.0)
    before = device.to_host(network.W).copy()
    record = GaussNewton(mask="bits", max_steps=1).fit(network, X, y).history[0]
    moved = (device.to_host(network.W) != before).any(axis=1)
    assert moved.sum() == record.union == record.moved_neurons < 64


@pytest.mark.parametrize("options", [{"solver": "cg"}, {"margin": 0}, {"jacobian": "csr"}])
def test_bits_need_the_exact_gram_matrix(options):
    with pytest.raises(OptionError, match="mask='bits' needs"):
        GaussNewton(mask="bits", **options)
    with pytest.raises(OptionError, match="mask must be one of"):
        GaussNewton(mask="dense")


def test_same_bytes_for_any_number_of_threads():
    import numba

    device, runs = get_device("cpu"), []
    X, y = sphere(70, 6)
    threads = numba.get_num_threads()
    for count in {1, threads}:
        numba.set_num_threads(count)
        network = network_for(device, 4096, shift=0.0, dtype="float32")
        GaussNewton(mask="bits").fit(network, X, y)
        runs.append(device.to_host(network.rows).tobytes())
    numba.set_num_threads(threads)
    assert runs[0] == runs[-1]


def test_mask_knows_its_sizes(device):
    X, _ = sphere(12, 6)
    network = network_for(device, 200, shift=0.5)
    hold_firing(network, device.asarray(X))
    active = BitIndex(device, device.asarray(X), network).query(0.5)
    assert isinstance(active, BitMask)
    mask = Problem(X, device.to_host(network.rows), np.ones(200), 0.5).mask
    assert active.nnz == mask.sum() and active.union == mask.any(axis=0).sum() and active.visited == mask.size


def test_all_rows_are_held_where_most_fire_and_only_those_that_do_where_few():
    device = get_device("cpu")
    X, _ = sphere(60, 6)
    for shift, everyone in ((1.0, True), (2.9, False)):
        network = network_for(device, 4096, shift=shift, sampling="explicit")
        fires = (shift < X @ network.W.T).any(axis=0)
        share = float(fires.mean())
        assert 0 < share < 1 and (share > 0.8) is everyone
        hold_firing(network, X)
        assert len(network.rows) == (4096 if everyone else fires.sum())
