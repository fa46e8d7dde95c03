"""Implicit rows and flips: every operation on every device, and the invariants of whole runs after every step."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear import GaussNewton, ShiftedReluNetwork
from gpu_sublinear.devices import Flips, ImplicitRows, NearPairs, get_device
from gpu_sublinear.devices.reference import mask_of_rows, rows_of_mask, unpacked, wide_rows
from gpu_sublinear.errors import OptionError
from gpu_sublinear.index.flips.index import FlipIndex
from gpu_sublinear.model.loss import SampleWeights
from gpu_sublinear.training.memory import plan
from gpu_sublinear.training.prepare import prepare
from tests.conftest import DEVICES, make_device
from tests.helpers.problems import Problem, make_problem, problems

REFERENCE = get_device("reference")
EPS = np.finfo(np.float64).eps
D = 16


def made_implicit(rng: np.random.Generator, problem: Problem, entries: int, wrong: float = 0.1) -> ImplicitRows:
    """Return rows that moved, with a share of bits that were wrong before, and a log of some length."""
    n, u = len(problem.X), len(problem.W)
    P = problem.W.astype(np.float64) @ problem.X.T.astype(np.float64)
    bits = (problem.shift < P) ^ (rng.random((u, n)) < wrong)
    heads, before = np.full(u, -1, np.int32), np.full(entries, -1, np.int32)
    for entry, r in enumerate(rng.integers(0, u, entries)):
        before[entry], heads[r] = heads[r], entry
    points = rng.integers(0, n, entries).astype(np.int32)
    weights = rng.choice([-1.0, 1.0], u) / np.sqrt(u)
    total, coefficients = rng.standard_normal(n) / n, rng.standard_normal(entries) / n
    words = rows_of_mask(bits)
    return ImplicitRows(problem.W, problem.X, words, weights, total, heads, before, points, coefficients)


def all_pairs(u: int, n: int, values: np.ndarray) -> NearPairs:
    """Return every pair as a near pair, one unused entry after each neuron's."""
    starts = np.arange(u, dtype=np.int64) * (n + 1)
    points, padded = np.zeros((u, n + 1), np.int32), np.zeros((u, n + 1), values.dtype)
    points[:, :n], padded[:, :n] = np.arange(n), values
    return NearPairs(starts, starts + n, points.ravel(), padded.ravel())


def listed(near: NearPairs, shape: tuple[int, int]) -> np.ndarray:
    """Return the values of near pairs (u, n), NaN elsewhere; points of a neuron ascend."""
    found = np.full(shape, np.nan)
    for r, (start, stop) in enumerate(zip(near.starts, near.stops, strict=True)):
        assert np.all(np.diff(near.points[start:stop]) > 0)
        found[r, near.points[start:stop]] = near.values[start:stop]
    return found


def check_flips(flips: Flips, implicit: ImplicitRows, shift: float, looked: np.ndarray) -> np.ndarray:
    """Compare with the definition; pairs within rounding of the shift may be on either side.  Returns P (u, n)."""
    P = wide_rows(implicit) @ implicit.X.T.astype(np.float64)
    (n, d), size = implicit.X.shape, np.abs(implicit.total).sum() + np.abs(implicit.coefficients).sum()
    lengths = np.linalg.norm(implicit.X, axis=1).max(), np.abs(implicit.W).max() * np.sqrt(d)
    unsure = 4 * (n + d + len(implicit.before)) * EPS * lengths[0] * (lengths[1] + size * lengths[0])
    want = looked & ((shift < P) != mask_of_rows(implicit.bits, n))
    got = np.zeros(P.shape, bool)
    got[flips.neurons, flips.points] = True
    assert got.sum() == len(flips)
    assert np.all((got == want) | (looked & (np.abs(P - shift) <= unsure)))
    assert np.all(np.diff(flips.neurons.astype(np.int64) * n + flips.points) > 0)
    assert np.all(np.abs(flips.above - np.abs(P[got] - shift)) <= unsure)
    return P


def moved(move: Any, value: Any) -> Any:
    """Return arrays, alone or in dataclasses and tuples, moved by a device's ``asarray`` or ``to_host``."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(moved(move, getattr(value, one.name)) for one in fields(value)))
    if isinstance(value, tuple):
        return tuple(moved(move, part) for part in value)
    return value if isinstance(value, int | float) else move(value)


def call(device, operation: str, *arguments: Any) -> Any:
    """Run an operation of a device on arrays of the host; what comes back lies there, too."""
    return moved(device.to_host, getattr(device, operation)(*moved(device.asarray, arguments)))


def check_operations(device, problem: Problem, rng: np.random.Generator, entries: int) -> None:
    (n, _), u, shift = problem.X.shape, len(problem.W), problem.shift
    radius = float(rng.choice([0.0, 0.25, 10.0]))
    arguments = problem.X, problem.W, problem.signs, shift
    bits, totals, near = call(device, "near_mask", *arguments, radius)
    want_bits, want_totals = call(device, "pack_mask", *arguments)
    assert np.array_equal(bits, want_bits) and np.array_equal(totals, want_totals)
    assert np.array_equal(unpacked(near), unpacked(REFERENCE.near_mask(*arguments, radius)[2]))
    assert np.array_equal(call(device, "mask_by_rows", bits, u), rows_of_mask(problem.mask.T))

    implicit = made_implicit(rng, problem, entries)
    got, want = call(device, "implicit_rows", implicit), wide_rows(implicit)
    size = np.abs(want) + np.abs(implicit.total).sum() + np.abs(implicit.coefficients).sum()
    assert got.dtype == problem.W.dtype
    assert np.all(np.abs(got - want) <= (np.finfo(got.dtype).eps + (n + entries) * EPS) * size)

    reach = float(rng.choice([0.0, 0.3, 5.0]))
    values = rng.normal(shift, 1.0, (u, n)).astype(problem.W.dtype)
    looked = np.abs(values.astype(np.float64) - shift) <= reach
    flips, count = call(device, "near_flips", implicit, all_pairs(u, n, values), shift, reach)
    assert count == looked.sum()
    check_flips(flips, implicit, shift, looked)
    unlogged, logged = (made_implicit(rng, problem, size, 0.0) for size in (0, entries))
    check_looks(device, problem, unlogged, logged, radius)
    check_mask_flips(device, implicit, rng)


def check_mask_flips(device, implicit: ImplicitRows, rng: np.random.Generator) -> None:
    """Turning bits over: everything but the sums of terms equals the reference to the bit."""
    entries, mask = len(implicit.before), mask_of_rows(implicit.bits, len(implicit.X))
    neurons, points = np.nonzero(rng.random(mask.shape) < rng.choice([0.0, 0.05, 1.0]))
    flips = Flips(neurons.astype(np.int32), points.astype(np.int32), np.abs(rng.standard_normal(len(points))))
    terms, results = rng.standard_normal(len(points)), []
    for one in (REFERENCE, device):
        state = implicit.bits.copy(), mask.T.astype(np.float64) @ mask, implicit.heads.copy()
        state, arguments = moved(one.asarray, state), moved(one.asarray, (flips, terms, implicit.total))
        results.append(moved(one.to_host, (*state, *one.flip_mask(*state, *arguments, entries))))
    for k in (0, 1, 2, 4, 5, 6):  # all but the sums
        assert np.array_equal(results[0][k], results[1][k])
    assert np.all(np.abs(results[0][3] - results[1][3]) <= (len(terms) + 1) * EPS * np.abs(terms).sum())


def check_looks(device, problem: Problem, implicit: ImplicitRows, logged: ImplicitRows, radius: float) -> None:
    """Both looks at all rows, where everything is listed: they find every flip and every near pair.

    Where less is known than rows may have moved, all points are looked at, whatever is listed.
    """
    u, n = len(problem.W), len(problem.X)
    everything, nothing = (rows_of_mask(np.full((u, n), value)) for value in (True, False))
    eps = float(np.finfo(problem.W.dtype).eps)
    moving = max(np.abs(each.total).sum() + np.abs(each.coefficients).sum() for each in (implicit, logged))
    size = np.abs(problem.P).max() + moving * max(1.0, (problem.X**2).sum(axis=1).max())
    slack = 8 * (n + problem.X.shape[1] + 8 + len(logged.before)) * eps * float(size + abs(problem.shift))
    values = (problem.W.astype(np.float64) @ problem.X.T.astype(np.float64)).astype(problem.W.dtype)
    pairs = all_pairs(u, n, values)
    none = NearPairs(np.zeros(u, np.int64), np.zeros(u, np.int64), pairs.points[:0], values[0, :0])
    where = problem.shift, radius
    for mask, known, lost in ((everything, np.inf, slack), (nothing, -1.0, slack)):
        found = call(device, "first_flips", implicit, mask, *where, known)
        check_look(found, implicit, *where, slack, lost)
    for near, known, lost in ((pairs, np.inf, 2 * slack), (none, -1.0, slack)):
        for moved_rows in (implicit, logged):  # the rows moved by their sums, and by sums and log
            step = moved_rows.total, moved_rows.coefficients, slack
            found = call(device, "all_flips", moved_rows, near, *where, known, *step)
            check_look(found, moved_rows, *where, slack, lost)
    off = all_pairs(u, n, values + values.dtype.type(slack))  # values that earlier steps have left as far off
    for moved_rows in (implicit, logged):
        found = call(
            device,
            "all_flips",
            moved_rows,
            off,
            *where,
            np.inf,
            moved_rows.total,
            moved_rows.coefficients,
            3 * slack,
            True,
        )
        wide = (n + problem.X.shape[1] + 8 + len(logged.before)) * EPS * size  # what float64 sums may lose
        check_look(found, moved_rows, *where, slack, eps * size + wide)


def check_look(found: Any, implicit: ImplicitRows, shift: float, radius: float, slack: float, lost: float) -> None:
    (flips, near, looked), shape = found, (len(implicit.W), len(implicit.X))
    P = check_flips(flips, implicit, shift, np.ones(shape, bool))
    values = listed(near, shape)
    assert not np.isnan(values[np.abs(P - shift) <= radius - slack]).any()
    assert np.nanmax(np.abs(values - P), initial=0.0) <= lost and looked <= P.size


@pytest.mark.parametrize("name", DEVICES)
def test_operations_on_small_problems(name):
    device = make_device(name)

    @settings(max_examples=60 if name == "cpu" else 15)
    @given(problem=problems(max_points=11, max_neurons=150), seed=st.integers(0, 2**32 - 1))
    def check(problem: Problem, seed: int) -> None:
        rng = np.random.default_rng(seed)
        check_operations(device, problem, rng, int(rng.choice([0, 3, 40])))

    check()


@pytest.mark.parametrize("name", ["cpu", "emulated", "cuda"])
@pytest.mark.parametrize(("n", "u", "d"), [(70, 1100, 17), (9, 2049, 4), (130, 64, 33)])
def test_operations_on_many_blocks(name, n, u, d):
    rng = np.random.default_rng(u)
    for dtype in ("float32", "float64"):
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


@pytest.mark.parametrize(("name", "dtype", "shift", "m", "n"), CASES)
def test_a_run_agrees_with_full_recomputation_at_every_step(name, dtype, shift, m, n):
    device = make_device(name)
    here = device.to_host
    X, y = sphere(n, D)
    X = X.astype(dtype)
    network = network_for(device, m, shift, dtype=dtype)
    run = prepare(GaussNewton(mask="flips"), network, *map(device.asarray, (X, y)))
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


@pytest.mark.parametrize("name", [name for name in DEVICES if name != "reference"])
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
    run = prepare(GaussNewton(mask="flips", alpha=0.02), network, *where, weights)
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
        assert np.allclose(here(state.pulled), along, rtol=0, atol=1e-9 if dtype == "float64" else 1e-4)
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
    run = prepare(GaussNewton(mask="flips", alpha=1.0), network_for(device, 800), *map(device.asarray, (X, y)))
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
    run = prepare(trainer, network, *map(device.asarray, (X, y)))
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


@pytest.mark.parametrize("name", ["emulated", "cuda"])
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
