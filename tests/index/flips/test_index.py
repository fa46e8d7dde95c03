"""Implicit rows and flips: every operation on every device, and the invariants of whole runs after every step."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear import GaussNewton, ShiftedReluNetwork
from gpu_sublinear.devices import NearPairs, get_device
from gpu_sublinear.devices.reference import mask_of_rows, wide_rows
from gpu_sublinear.errors import OptionError
from gpu_sublinear.index.flips.index import FlipIndex
from gpu_sublinear.model.loss import SampleWeights
from gpu_sublinear.training.memory import plan
from tests.helpers.devices import DEVICES, FAST, KERNELS, make_device
from tests.helpers.flips import (
    REFERENCE,
    check_operations,
    listed,
    moved,
)
from tests.helpers.problems import DTYPES, Problem, make_problem, problems
from tests.helpers.runs import begun

D = 16


@pytest.mark.parametrize("name", DEVICES)
def test_operations_on_small_problems(name):
    device = make_device(name)

    @settings(max_examples=60 if name == "cpu" else 15)
    @given(problem=problems(max_points=11, max_neurons=150), seed=st.integers(0, 2**32 - 1))
    def check(problem: Problem, seed: int) -> None:
        rng = np.random.default_rng(seed)
        check_operations(device, problem, rng, int(rng.choice([0, 3, 40])))

    check()


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize(("n", "u", "d"), [(70, 1100, 17), (9, 2049, 4), (130, 64, 33)])
def test_operations_on_many_blocks(name, n, u, d):
    rng = np.random.default_rng(u)
    for dtype in DTYPES[: 1 if name == "emulated" and n * u > 2**16 else 2]:
        check_operations(make_device(name), make_problem(rng, n, u, d, dtype, False, 0.1), rng, 200)


# ---- runs -----------------------------------------------------------------------------------------------


def sphere(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True), rng.standard_normal(n)


def network_for(
    device, m: int, shift: float = 0.0, d: int = D, dtype: str = "float64", **options
) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(m, d, shift=shift, dtype=dtype, seed=3, device=device, **options)


def check_certificate(index: FlipIndex, W: np.ndarray, shift: float) -> int:
    """Check every invariant of the module docstring against rows W (u, d) float64 that were moved explicitly.

    Returns the number of pairs that do not agree with W, all of them within rounding of the shift.
    """
    network, here = index.network, index.device.to_host
    P = W @ here(index.X).T.astype(np.float64)
    mask = mask_of_rows(here(index.bits), P.shape[1])
    eps = float(np.finfo(network.dtype).eps)
    unsure = (network.features + 1) * eps * np.linalg.norm(W, axis=1).max()  # of the first look
    wrong = mask != (shift < P)
    assert np.all(np.abs(P - shift)[wrong] <= unsure)
    assert np.array_equal(here(index.pair_counts), mask.T.astype(np.float64) @ mask)
    assert index.union == mask.any(axis=1).sum()
    # the first look sums numbers of REAL; from then on float64
    totals = (here(network.signs)[:, None] * mask * (P - shift)).sum(axis=0)
    assert np.allclose(here(index.totals), totals, rtol=0, atol=4 * unsure * np.sqrt(mask.sum(axis=0).max()) + 1e-9)
    if isinstance(index.near, NearPairs):
        found = listed(moved(here, index.near), P.shape)
        assert np.nanmax(np.abs(found - P), initial=0.0) <= index.error
        assert np.abs(P - shift)[np.isnan(found)].min(initial=np.inf) > index.known
    return int(wrong.sum())


CASES = [
    ("cpu", "float64", 0.0, 1200, 60), ("cpu", "float32", 0.0, 3000, 70), ("cpu", "float32", 0.4, 6000, 130),
    ("cpu", "float64", 1.0, 900, 9), ("reference", "float32", 0.0, 1000, 40), ("emulated", "float64", 0.0, 500, 40),
    ("emulated", "float32", 0.4, 900, 70), ("emulated", "float64", 1.0, 900, 9), ("cuda", "float64", 0.0, 1200, 60),
    ("cuda", "float32", 0.4, 6000, 130),
]  # fmt: skip
CASES = [case for case in CASES if case[0] in DEVICES]


@pytest.mark.parametrize(("name", "dtype", "shift", "m", "n"), CASES)
def test_a_run_agrees_with_full_recomputation_at_every_step(name, dtype, shift, m, n):
    device = make_device(name)
    here = device.to_host
    X, y = sphere(n, D)
    X = X.astype(dtype)
    network = network_for(device, m, shift, dtype=dtype)
    run = begun(GaussNewton(mask="flips"), network, *map(device.asarray, (X, y)))
    index = run.index
    assert isinstance(index, FlipIndex)
    W, signs, kinds, norms = here(network.rows).astype(np.float64), here(network.signs).astype(np.float64), [], []
    for step in range(7):
        state = run.look()
        check_certificate(index, W, shift)
        kinds.append(index.refreshed)
        norms.append(state.norm)
        held = here(index.bits)
        mask, before = mask_of_rows(held, n), index.totals
        attempt = run.move(state, 0.0, step)
        weights = signs * network.scale
        W = W - weights[:, None] * (mask @ (here(attempt.solution.value)[:, None] * X.astype(np.float64)))
        assert np.array_equal(here(index.bits), held) and before is not index.totals
        if step % 2:
            run.materialise()
            assert np.allclose(here(network.rows), W, rtol=np.finfo(dtype).eps, atol=1e-11)  # n terms in float64
    assert norms[-1] < 1e-9 * norms[0]
    assert kinds[1] == len(network.rows) and kinds[-1] == 0  # all rows at first, only the near pairs in the end


def steps(device, mask: str, **options: Any) -> tuple[list[tuple[int, int, float]], np.ndarray]:
    """Return fired pairs, union and error of each step of a whole run, and the rows it ends with."""
    X, y = sphere(40, D)
    result = GaussNewton(mask=mask, tolerance=1e-9, **options).fit(network_for(device, 900, 0.1), X, y)
    assert result.converged and np.mean((device.to_host(result.network.predict(X)) - y) ** 2) < 1e-16
    return [(r.fired, r.union, r.mse) for r in result.history], device.to_host(result.network.rows)


@pytest.mark.parametrize("options", [{}, {"damping": "auto"}], ids=str)
@pytest.mark.parametrize("name", DEVICES)
def test_the_same_steps_as_packed_bits_and_as_the_reference(name, options):
    device = make_device(name)
    history, rows = steps(device, "flips", **options)
    for other, mask in ((device, "bits"), (REFERENCE, "flips")):
        wanted, want = steps(other, mask, **options)
        assert [step[:2] for step in history] == [step[:2] for step in wanted]
        # a step amplifies a difference of the rounding of G by its condition
        assert np.allclose([step[2] for step in history], [step[2] for step in wanted], rtol=1e-8, atol=1e-20)
        assert np.allclose(rows, want, atol=1e-10)


@pytest.mark.parametrize("name", FAST)
def test_the_steps_of_the_reference_where_one_is_rejected(name):
    X, y = sphere(60, D)
    X[1::2] = X[::2] + 1e-3 * X[1::2]  # each point twice, nearly, with another target
    results = []
    for device in (make_device(name), REFERENCE):
        network = network_for(device, 100, 0.1)
        history = GaussNewton(mask="flips", damping="auto", max_steps=5).fit(network, X, y).history
        results.append((history, device.to_host(network.rows)))
    (history, rows), (wanted, want) = results
    assert sum(record.rejected for record in wanted) == 1
    for ours, theirs in zip(history, wanted, strict=True):
        assert (ours.fired, ours.union, ours.rejected) == (theirs.fired, theirs.union, theirs.rejected)
        assert ours.mse == pytest.approx(theirs.mse, rel=1e-8)
    assert np.allclose(rows, want, atol=1e-8)  # G is nearly singular, as far as damping lets it


@pytest.mark.parametrize(("name", "dtype", "shift", "m", "n"), CASES)
def test_a_run_with_a_penalty_agrees_with_full_recomputation_at_every_step(name, dtype, shift, m, n):
    device = make_device(name)
    here = device.to_host
    X, y = sphere(n, D)
    X, w = X.astype(dtype), np.linspace(0.5, 1.5, n)
    network = network_for(device, m, shift, dtype=dtype)
    where, weights = map(device.asarray, (X, y)), SampleWeights.of(device, w, n)
    run = begun(GaussNewton(mask="flips", alpha=0.02), network, *where, weights)
    index, roots = run.index, np.sqrt(w)
    assert isinstance(index, FlipIndex)
    W0, signs, kinds, flipped = here(network.rows).astype(np.float64), here(network.signs).astype(np.float64), [], []
    W, wide, scaled = W0.copy(), X.astype(np.float64), signs * network.scale
    for step, damping in enumerate((0.0, 0.3, 0.0, 2.0, 2.0, 0.5, 0.0, 1e4)):
        state = run.look()
        check_certificate(index, W, shift)
        kinds.append(index.refreshed)
        mask = mask_of_rows(here(index.bits), n)
        along = roots * ((scaled[:, None] * mask) * ((W - W0) @ wide.T)).sum(axis=0)  # S J (W - W_0)
        attempt = run.move(state, damping, step)
        # h takes P_0 in float64 where a pair flips and as it was summed in REAL where none does
        assert np.allclose(here(state.linear.pulled), along, rtol=0, atol=1e-9 if dtype == "float64" else 1e-4)
        assert attempt.theta == pytest.approx(1 / (1 + damping * run.mean_diagonal(state.active) / run.ridge))
        change = scaled[:, None] * (mask @ ((roots * here(attempt.solution.value))[:, None] * wide))
        W = W0 + (1 - attempt.theta) * (W - W0) - change
        assert run.square == pytest.approx(((W - W0) ** 2).sum(), rel=1e-4 if dtype == "float32" else 1e-9)
        flipped.append(len(index.log.segments))
    run.look()
    check_certificate(index, W, shift)
    run.materialise()
    assert np.allclose(here(network.rows), W, rtol=np.finfo(dtype).eps, atol=1e-10)
    assert kinds[1] == len(network.rows) and 0 in (*kinds[2:], index.refreshed) and flipped[-1] > 2  # both ways


@pytest.mark.parametrize("name", DEVICES)
def test_a_penalty_takes_the_same_steps_as_with_packed_bits(name):
    device = make_device(name)
    X, y = sphere(40, D)
    runs = []
    for mask in ("flips", "bits"):
        result = GaussNewton(mask=mask, alpha=0.3, tolerance=1e-5, max_steps=40).fit(
            network_for(device, 900, 0.1), X, y
        )
        assert result.converged
        runs.append((result.history, device.to_host(result.network.rows)))
    (history, rows), (wanted, want) = runs
    assert len(history) > 4 and any(record.damping for record in wanted)
    for ours, theirs in zip(history, wanted, strict=True):
        assert (ours.fired, ours.union, ours.rejected) == (theirs.fired, theirs.union, theirs.rejected)
        assert ours.objective == pytest.approx(theirs.objective, rel=1e-9)
        assert ours.penalty == pytest.approx(theirs.penalty, rel=1e-9)
    assert np.allclose(rows, want, atol=1e-10)


@pytest.mark.parametrize("most", [2000, 30])
@pytest.mark.parametrize("name", DEVICES)
def test_the_chosen_penalty_is_that_of_packed_bits(name, most, monkeypatch):
    monkeypatch.setattr("gpu_sublinear.training.penalty.MOST_POINTS", most)
    device = make_device(name)
    X, y = sphere(40, D)
    y = y + np.random.default_rng(0).standard_normal(40)
    results = {}
    for mask in ("flips", "bits"):
        trainer = GaussNewton(mask=mask, alpha="auto", max_steps=6)
        results[mask] = trainer.fit(network_for(device, 900, 0.1), X, y)
    ours, theirs = results["flips"], results["bits"]
    assert ours.alpha == pytest.approx(theirs.alpha, rel=1e-9) and ours.alpha > 0
    assert ours.final.objective == pytest.approx(theirs.final.objective, rel=1e-9)
    assert any(record.moved_neurons for record in ours.history)


def test_the_memory_of_flips_is_that_of_their_log_and_not_of_rows_of_earlier_steps():
    size = (make_device("cpu"), 100, 8, 2**14, 0.0, "float32")
    plans = {
        (mask, alpha): plan(GaussNewton(mask=mask, alpha=alpha), *size)
        for mask in ("flips", "bits")
        for alpha in (0.0, 1.0)
    }
    assert plans["flips", 1.0] == plans["flips", 0.0] | {
        "pairs near the shift": 3 * plans["flips", 0.0]["pairs near the shift"]  # now, before a step, and of the best
    }
    assert plans["flips", 1.0]["log of flips"] > 0 and "log of flips" not in plans["bits", 1.0]
    assert set(plans["bits", 1.0]) - set(plans["bits", 0.0]) == {
        "rows at the start, before a step, and of the best",
        "movement of the rows, and products with it",
    }


@pytest.mark.parametrize("name", DEVICES)
def test_errors_of_many_small_steps_end_with_a_look_at_all_rows(name, monkeypatch):
    """On a path of penalties small steps follow larger ones; the certificate holds where its error was reset."""
    device, (X, y) = make_device(name), sphere(60, D)
    run = begun(GaussNewton(mask="flips", alpha=1.0), network_for(device, 800), *map(device.asarray, (X, y)))
    index, unit, real, asked = run.index, run.ridge, type(device).all_flips, []

    def noted(self, *arguments):
        asked.append((arguments[-1], arguments[-2]))  # afresh, slack
        return real(self, *arguments)

    monkeypatch.setattr(type(device), "all_flips", noted)
    errors = []
    for step, alpha in enumerate((1e3, 300.0, 100.0, 50.0, 30.0, 20.0, 10.0, 3.0, 1.0, 0.5)):
        run.ridge = alpha * unit
        run.here = None
        run.move(run.look(), 0.0, step)
        run.look()
        errors.append(index.error)
        check_certificate(index, wide_rows(moved(device.to_host, index.implicit)), 0.0)
    afresh = [slack for again, slack in asked if again]
    assert afresh and max(afresh) > 1e3 * errors[-1]  # float64: what is left is rounding


@pytest.mark.parametrize("alpha", [0.0, 0.02])
@pytest.mark.parametrize("name", DEVICES)
def test_coming_back_gives_the_same_bytes(name, alpha):
    device = make_device(name)
    X, y = sphere(60, D)
    network = network_for(device, 800)
    trainer = GaussNewton(mask="flips", damping="auto", alpha=alpha)
    run = begun(trainer, network, *map(device.asarray, (X, y)))
    index, state = run.index, run.look()

    def kept() -> tuple[Any, ...]:
        log = index.log.heads, index.log.before, index.log.neurons, index.log.points, index.log.coefficients
        return moved(device.to_host, (index.bits, index.pair_counts, index.totals, index.home, *log, run.square))

    for step in range(4):
        run.move(state, 0.01, step)
        seen, before = run.look(), kept()
        run.move(seen, 0.0, step)
        run.look()
        run.materialise()
        run.restore(seen)
        assert all(np.array_equal(a, b) for a, b in zip(before, kept(), strict=True))
        run.materialise()
        check_certificate(index, wide_rows(moved(device.to_host, index.implicit)), 0.0)
        state = seen


@pytest.mark.parametrize("name", KERNELS)
def test_same_bytes_twice(name):
    X, y = sphere(50, D)
    runs = []
    for _ in range(2):
        network = network_for(make_device(name), 700, dtype="float32")
        result = GaussNewton(mask="flips").fit(network, X, y)
        runs.append((make_device(name).to_host(network.rows).tobytes(), [record.loss for record in result.history]))
    assert runs[0] == runs[1]


def test_damping_validation_weights_and_callbacks_see_the_rows():
    X, y = sphere(80, D)
    y = y + 0.1 * np.arange(80) % 3
    w = np.linspace(0.2, 3, 80)

    def outcome(mask: str) -> list[np.ndarray]:
        network, seen = network_for(get_device("cpu"), 900), []
        GaussNewton(mask=mask, damping="auto", max_steps=4).fit(
            network, X, y, [lambda record, network: seen.append(network.rows.copy()) and None], sample_weight=w
        )
        other = network_for(get_device("cpu"), 900)
        GaussNewton(mask=mask, validation_fraction=0.25, max_steps=6).fit(other, X, y, sample_weight=w)
        return [*seen, network.rows, other.rows]

    for flips, bits in zip(outcome("flips"), outcome("bits"), strict=True):
        assert np.allclose(flips, bits, atol=1e-9)


def test_same_bytes_for_any_number_of_threads():
    X, y = sphere(70, D)
    threads, runs = numba.get_num_threads(), []
    for count in (1, threads):
        numba.set_num_threads(count)
        network = network_for(get_device("cpu"), 4096, dtype="float32")
        result = GaussNewton(mask="flips").fit(network, X, y)
        runs.append((network.rows.tobytes(), [record.loss for record in result.history]))
    numba.set_num_threads(threads)
    assert runs[0] == runs[-1]


def test_what_flips_cannot_do_is_refused(monkeypatch):
    with pytest.raises(OptionError, match="batch_size and mask='flips'"):
        GaussNewton(mask="flips", batch_size=8)
    for options in ({"solver": "cg"}, {"margin": 0}, {"jacobian": "csr"}):
        with pytest.raises(OptionError, match="mask='flips' needs"):
            GaussNewton(mask="flips", **options)
    device, trainer = get_device("cpu"), GaussNewton(mask="flips")
    X, y = sphere(20, D)
    with pytest.raises(OptionError, match=r"mask='flips'.*session"):
        trainer.begin(network_for(device, 300), X, y)
    with pytest.raises(OptionError, match=r"mask='flips' has one output.*2 outputs"):
        trainer.fit(network_for(device, 300, outputs=2), X, np.stack([y, -y], axis=1))
    network = network_for(device, 300)
    monkeypatch.setattr(device, "follows_flips", False)
    with pytest.raises(OptionError, match=r"mask='flips' has no operations on device='cpu'"):
        trainer.fit(network, X, y)
