"""Implicit rows and flips: every operation on every device, and the invariants of whole runs after every step."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear import GaussNewton, ShiftedReluNetwork
from gpu_sublinear.checkpoint import Checkpointing
from gpu_sublinear.devices import Flips, ImplicitRows, NearPairs, get_device
from gpu_sublinear.devices.reference import mask_of_rows, rows_of_mask, unpacked, wide_rows
from gpu_sublinear.errors import OptionError
from gpu_sublinear.flips import FlipIndex
from gpu_sublinear.run import Run
from tests.problems import Problem, make_problem, problems

REFERENCE = get_device("reference")
DEVICES = ("cpu", "reference")  # those that have the operations
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


def check_operations(device, problem: Problem, rng: np.random.Generator, entries: int) -> None:
    (n, _), u, shift = problem.X.shape, len(problem.W), problem.shift
    radius = float(rng.choice([0.0, 0.25, 10.0]))
    arguments = problem.X, problem.W, problem.signs, shift
    bits, totals, near = device.near_mask(*arguments, radius)
    want_bits, want_totals = device.pack_mask(*arguments)
    assert np.array_equal(bits, want_bits) and np.array_equal(totals, want_totals)
    assert np.array_equal(unpacked(near), unpacked(REFERENCE.near_mask(*arguments, radius)[2]))
    assert np.array_equal(device.mask_by_rows(bits, u), rows_of_mask(problem.mask.T))

    implicit = made_implicit(rng, problem, entries)
    got, want = device.implicit_rows(implicit), wide_rows(implicit)
    size = np.abs(want) + np.abs(implicit.total).sum() + np.abs(implicit.coefficients).sum()
    assert got.dtype == problem.W.dtype
    assert np.all(np.abs(got - want) <= (np.finfo(got.dtype).eps + (n + entries) * EPS) * size)

    reach = float(rng.choice([0.0, 0.3, 5.0]))
    values = rng.normal(shift, 1.0, (u, n)).astype(problem.W.dtype)
    looked = np.abs(values.astype(np.float64) - shift) <= reach
    flips, count = device.near_flips(implicit, all_pairs(u, n, values), shift, reach)
    assert count == looked.sum()
    check_flips(flips, implicit, shift, looked)
    check_looks(device, problem, made_implicit(rng, problem, 0, 0.0), radius)

    mask = mask_of_rows(implicit.bits, n)
    neurons, points = np.nonzero(rng.random(mask.shape) < rng.choice([0.0, 0.05, 1.0]))
    flips = Flips(neurons.astype(np.int32), points.astype(np.int32), np.abs(rng.standard_normal(len(points))))
    terms, results = rng.standard_normal(len(points)), []
    for one in (REFERENCE, device):
        state = implicit.bits.copy(), mask.T.astype(np.float64) @ mask, implicit.heads.copy()
        results.append((*state, *one.flip_mask(*state, flips, terms, implicit.total, entries)))
    for k in (0, 1, 2, 4, 5, 6):  # all but the sums
        assert np.array_equal(results[0][k], results[1][k])
    assert np.all(np.abs(results[0][3] - results[1][3]) <= (len(terms) + 1) * EPS * np.abs(terms).sum())


def check_looks(device, problem: Problem, implicit: ImplicitRows, radius: float) -> None:
    """Both looks at all rows, where everything is known to be listed: they find every flip and every near pair."""
    u, n = len(problem.W), len(problem.X)
    everything = rows_of_mask(np.ones((u, n), bool))
    eps = float(np.finfo(problem.W.dtype).eps)
    size = np.abs(problem.P).max() + np.abs(implicit.total).sum() * max(1.0, (problem.X**2).sum(axis=1).max())
    slack = 8 * (n + problem.X.shape[1] + 8) * eps * float(size + abs(problem.shift))
    first = device.first_flips(implicit, everything, problem.shift, radius, np.inf)
    values = (problem.W.astype(np.float64) @ problem.X.T.astype(np.float64)).astype(problem.W.dtype)
    later = device.all_flips(implicit, all_pairs(u, n, values), problem.shift, radius, np.inf, implicit.total, slack)
    for (flips, near, looked), lost in ((first, slack), (later, 2 * slack)):
        P = check_flips(flips, implicit, problem.shift, np.ones((u, n), bool))
        found = listed(near, (u, n))
        assert not np.isnan(found[np.abs(P - problem.shift) <= radius - slack]).any()
        assert np.nanmax(np.abs(found - P), initial=0.0) <= lost and looked <= u * n


@pytest.mark.parametrize("name", DEVICES)
def test_operations_on_small_problems(name):
    @settings(max_examples=60 if name == "cpu" else 15)
    @given(problem=problems(max_points=11, max_neurons=150), seed=st.integers(0, 2**32 - 1))
    def check(problem: Problem, seed: int) -> None:
        rng = np.random.default_rng(seed)
        check_operations(get_device(name), problem, rng, int(rng.choice([0, 3, 40])))

    check()


@pytest.mark.parametrize(("n", "u", "d"), [(70, 1100, 17), (9, 2049, 4), (130, 64, 33)])
def test_operations_on_many_blocks(n, u, d):
    rng = np.random.default_rng(u)
    for dtype in ("float32", "float64"):
        check_operations(get_device("cpu"), make_problem(rng, n, u, d, dtype, False, 0.1), rng, 200)


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
    network, n = index.network, len(index.X)
    P = W @ index.X.T.astype(np.float64)
    mask = mask_of_rows(index.bits, n)
    eps = float(np.finfo(network.dtype).eps)
    unsure = (network.features + 1) * eps * np.linalg.norm(W, axis=1).max()  # of the first look
    wrong = mask != (shift < P)
    assert np.all(np.abs(P - shift)[wrong] <= unsure)
    assert np.array_equal(index.pair_counts, mask.T.astype(np.float64) @ mask)
    assert index.union == mask.any(axis=1).sum()
    # the first look sums numbers of REAL; from then on float64
    totals = (index.network.signs[:, None] * mask * (P - shift)).sum(axis=0)
    assert np.allclose(index.totals, totals, rtol=0, atol=4 * unsure * np.sqrt(mask.sum(axis=0).max()) + 1e-9)
    if isinstance(index.near, NearPairs):
        found = listed(index.near, P.shape)
        assert np.nanmax(np.abs(found - P), initial=0.0) <= index.error
        assert np.abs(P - shift)[np.isnan(found)].min(initial=np.inf) > index.known
    return int(wrong.sum())


CASES = [
    ("cpu", "float64", 0.0, 1200, 60), ("cpu", "float32", 0.0, 3000, 70), ("cpu", "float32", 0.4, 6000, 130),
    ("cpu", "float64", 1.0, 900, 9), ("reference", "float32", 0.0, 1000, 40),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dtype", "shift", "m", "n"), CASES)
def test_a_run_agrees_with_full_recomputation_at_every_step(name, dtype, shift, m, n):
    device = get_device(name)
    X, y = sphere(n, D)
    X = X.astype(dtype)
    network = network_for(device, m, shift, dtype=dtype)
    run = Run.prepare(GaussNewton(mask="flips"), network, X, y)
    index = run.index
    assert isinstance(index, FlipIndex)
    W, kinds, norms = network.rows.astype(np.float64), [], []
    for step in range(7):
        state = run.look()
        check_certificate(index, W, shift)
        kinds.append(index.refreshed)
        norms.append(state.norm)
        J = Problem(X.astype(np.float64), W, network.signs.astype(np.float64), shift)
        mask = mask_of_rows(index.bits, n)
        before, held = index.totals, index.bits.copy()
        attempt = run.move(state, 0.0, step)
        weights = network.signs.astype(np.float64) * network.scale
        W = W - weights[:, None] * (mask @ (attempt.solution.value[:, None] * J.X))
        assert np.array_equal(index.bits, held) and before is not index.totals
        if step % 2:
            run.materialise()
            assert np.allclose(network.rows, W, rtol=np.finfo(dtype).eps, atol=1e-11)  # sums of n terms in float64
    assert norms[-1] < 1e-9 * norms[0]
    assert kinds[1] == len(network.rows) and kinds[-1] == 0  # all rows at first, only the near pairs in the end


@pytest.mark.parametrize("name", DEVICES)
def test_the_same_steps_as_packed_bits(name):
    X, y = sphere(40, D)
    results = [
        GaussNewton(mask=mask, tolerance=1e-9).fit(network_for(get_device(name), 900, 0.1), X, y)
        for mask in ("flips", "bits")
    ]
    flips, bits = results
    assert flips.converged and [r.fired for r in flips.history] == [r.fired for r in bits.history]
    assert [r.union for r in flips.history] == [r.union for r in bits.history]
    # a step amplifies a difference of the rounding of G by its condition
    assert np.allclose([r.mse for r in flips.history], [r.mse for r in bits.history], rtol=1e-8, atol=1e-20)
    assert np.allclose(flips.network.rows, bits.network.rows, atol=1e-10)
    assert np.mean((flips.network.predict(X) - y) ** 2) < 1e-16


def test_coming_back_gives_the_same_bytes():
    X, y = sphere(60, D)
    network = network_for(get_device("cpu"), 800)
    run = Run.prepare(GaussNewton(mask="flips", damping="auto"), network, X, y)
    state = run.look()
    for step in range(4):
        run.move(state, 0.01, step)
        seen = run.look()
        index = run.index
        kept = [a.copy() for a in (index.bits, index.pair_counts, index.totals, index._heads, index._coefficients)]
        run.move(seen, 0.0, step)
        run.look()
        run.materialise()
        run.restore(seen)
        now = (index.bits, index.pair_counts, index.totals, index._heads, index._coefficients)
        assert all(np.array_equal(a, b) for a, b in zip(kept, now, strict=True))
        run.materialise()
        check_certificate(index, wide_rows(index.implicit), 0.0)
        state = seen


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


def test_what_flips_cannot_do_is_refused(monkeypatch, tmp_path):
    with pytest.raises(OptionError, match="batch_size and mask='flips'"):
        GaussNewton(mask="flips", batch_size=8)
    for options in ({"solver": "cg"}, {"margin": 0}, {"jacobian": "csr"}, {"alpha": 0.1}, {"alpha": "auto"}):
        with pytest.raises(OptionError, match="mask='flips' needs"):
            GaussNewton(mask="flips", **options)
    device, trainer = get_device("cpu"), GaussNewton(mask="flips")
    X, y = sphere(20, D)
    with pytest.raises(OptionError, match=r"mask='flips'.*session"):
        trainer.begin(network_for(device, 300), X, y)
    with pytest.raises(OptionError, match=r"mask='flips' has one output.*2 outputs"):
        trainer.fit(network_for(device, 300, outputs=2), X, np.stack([y, -y], axis=1))
    with pytest.raises(OptionError, match="checkpoint and mask='flips'"):
        trainer.fit(network_for(device, 300), X, y, checkpoint=Checkpointing(tmp_path / "run.ckpt"))
    network = network_for(device, 300)
    monkeypatch.setattr("gpu_sublinear.flips.ImplicitDevice", type("Nothing", (), {}))
    with pytest.raises(OptionError, match=r"mask='flips' has no operations on device='cpu'"):
        trainer.fit(network, X, y)
