"""Virtual width draws exactly the neurons that an explicit network of random width would train."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpu_sublinear import GaussNewton, ShiftedReluNetwork
from gpu_sublinear.devices import get_device, philox
from gpu_sublinear.errors import OptionError
from gpu_sublinear.foresight.ntk import bivariate_tail, shifted_ntk
from gpu_sublinear.index.first_look import survey
from gpu_sublinear.index.lazy import LazyIndex
from gpu_sublinear.linear.gram import GramMatrix
from gpu_sublinear.model.shifts import firing_probability
from tests.helpers.problems import DTYPES, Problem, sphere

LEVEL = 1e-3  # of all tests of one property together, after Bonferroni
M, N, D, SHIFT = 2**16, 12, 5, 2.5


def virtual(device, *, width=M, seed=0, dtype="float32", shift=SHIFT, d=D) -> ShiftedReluNetwork:
    options = {"shift": shift, "seed": seed, "dtype": dtype, "paired": True, "sampling": "virtual"}
    return ShiftedReluNetwork.initialize(width, d, device=device, **options)


def drawn(seeds, X, *, width=M) -> list[np.ndarray]:
    """Return the rows (one of each pair) that virtual sampling draws for every seed, (k, d) float64."""
    device, found = get_device("cpu"), []
    for seed in seeds:
        network = virtual(device, width=width, seed=seed, dtype="float64", d=X.shape[1])
        survey(network, X, 0.0)
        found.append(network.rows[::2].copy())
    return found


# ---- exactly, on every device ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 5, 8])
def test_cap_rows_are_the_same_bits_everywhere(device, dtype, d):
    rng = np.random.default_rng(d)
    X = rng.standard_normal((7, d))
    directions = X / np.linalg.norm(X, axis=1, keepdims=True)
    tails = rng.choice([0.5, 1e-2, 1e-9, 6e-16, 1e-300], 7)
    owners, places = rng.integers(0, 7, 50).astype(np.int32), rng.choice([0, 1, 5, 2**31, 2**32 - 1], 50)
    arrays = [device.asarray(part) for part in (directions, tails, owners, places)]
    got = device.to_host(device.cap_rows(2**63 + 1, *arrays, dtype))
    want = philox.cap_rows(2**63 + 1, directions, tails, owners, places).astype(dtype)
    assert got.dtype == dtype and got.tobytes() == want.tobytes()
    depth = (philox.cap_rows(3, directions, tails, owners, places) * directions[owners]).sum(axis=1)
    size = 1 + np.abs(depth)
    assert (depth >= stats.norm.isf(tails[owners]) - 64 * d * np.finfo(float).eps * size).all()


def test_no_rows(device):
    empty = device.asarray(np.zeros(0, np.int32)), device.asarray(np.zeros(0, np.int64))
    rows = device.cap_rows(1, device.asarray(np.eye(3)), device.asarray(np.full(3, 0.1)), *empty, "float32")
    assert rows.shape == (0, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_neuron_fires_and_pairs_are_equal(device, dtype):
    X, _ = sphere(N, D)
    network = virtual(device, dtype=dtype, width=4096, shift=2.0)
    lists = survey(network, device.asarray(X, dtype), 0.2)
    rows = device.to_host(network.rows)
    P = Problem(X.astype(dtype), rows, rows[:, 0], 2.0).P  # (n, u)
    assert len(rows) > 100 and (np.dtype(dtype).type(2.0) < P).any(axis=0).all()
    assert np.array_equal(rows[::2], rows[1::2]) and np.array_equal(network.neurons, np.arange(len(rows)))
    near = np.nextafter(np.dtype(dtype).type(np.dtype(dtype).type(2.0) - 0.2), -np.inf) < P
    assert np.array_equal(device.to_host(lists.points), np.nonzero(near.T)[1])
    assert np.array_equal(device.to_host(lists.neurons), np.arange(len(rows)))
    assert float(network.signs.sum()) == 0 and network.width == 4096


def test_same_bytes_on_every_device_and_for_any_block(device, monkeypatch):
    X, _ = sphere(N, D)
    want = virtual(get_device("reference"), width=20_000)
    survey(want, X.astype("float32"), 0.1)
    for size in (1 << 24, 640):
        monkeypatch.setattr("gpu_sublinear.model.network.BLOCK_BYTES", size)
        got = virtual(device, width=20_000)
        survey(got, device.asarray(X, "float32"), 0.1)
        assert device.to_host(got.rows).tobytes() == want.rows.tobytes()


def test_points_that_come_later_extend_the_network():
    """Drawn in two goes or in one: the same neurons."""
    device, (X, _) = get_device("cpu"), sphere(N, D)
    whole, parts = virtual(device, dtype="float64"), virtual(device, dtype="float64")
    survey(whole, X, 0.0)
    survey(parts, X[:7], 0.0)
    first = parts.rows.copy()
    survey(parts, X, 0.0)
    assert parts.rows.tobytes() == whole.rows.tobytes() and parts.rows[: len(first)].tobytes() == first.tobytes()
    survey(parts, X[3:5], 0.0)  # nothing new
    assert len(parts.rows) == len(whole.rows)


def test_explicit_survey_keeps_exactly_those_that_fire(device, monkeypatch):
    monkeypatch.setattr("gpu_sublinear.model.network.BLOCK_BYTES", 4 * D * 100)  # many blocks
    X, _ = sphere(N, D)
    network = ShiftedReluNetwork.initialize(1000, D, shift=1.5, seed=3, sampling="explicit", device=device)
    W = device.to_host(network.W)
    P = Problem(X.astype("float32"), W, W[:, 0], 1.5).P
    survey(network, device.asarray(X, "float32"), 0.1)
    fires = np.flatnonzero((np.float32(1.5) < P).any(axis=0))
    assert 0 < len(fires) < 1000 and np.array_equal(device.to_host(network.neurons), fires)
    assert device.to_host(network.rows).tobytes() == W[fires].tobytes()
    assert device.to_host(network.W).tobytes() == W.tobytes()  # the rest comes back from the seed


def test_rows_held_before_stay_held_when_silent():
    device, (X, y) = get_device("cpu"), sphere(30, D)
    network = ShiftedReluNetwork.initialize(2000, D, shift=2.5, seed=1, device=device)
    GaussNewton(max_steps=2).fit(network, X[:15], y[:15])
    outputs, held = network.predict(X[:15]), set(network.neurons.tolist())
    survey(network, X[15:].astype("float32"), 0.1)
    assert held < set(network.neurons.tolist())
    assert np.array_equal(network.predict(X[:15]), outputs)


# ---- choosing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "paired", "want"), [(4.0, True, "virtual"), (4.0, False, "explicit"), (1.0, True, "explicit")]
)
def test_auto_draws_virtually_where_few_fire(shift, paired, want):
    X, _ = sphere(20, D)
    network = ShiftedReluNetwork.initialize(100_000, D, shift=shift, paired=paired, device=get_device("cpu"))
    survey(network, X.astype("float32"), 0.0)
    assert network.sampling == want
    if want == "virtual":
        with pytest.raises(OptionError, match="no full-size W"):
            network.W  # noqa: B018


def test_too_many_neurons_are_refused():
    X, _ = sphere(20, D)
    with pytest.raises(OptionError, match="neurons would have to be drawn, more than 2\\^31; raise the shift"):
        survey(virtual(get_device("cpu"), width=10**12, shift=1.0), X.astype("float32"), 0.0)


def test_a_billion_neurons_train_predict_and_travel(tmp_path):
    from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
    from gpu_sublinear.fitted.model import FittedModel

    X, y = sphere(20, 8)
    network = virtual(get_device("cpu"), width=10**9, shift=5.0, d=8)
    result = GaussNewton(tolerance=1e-5).fit(network, X, y)
    assert result.converged and len(network.rows) < 20_000
    # the outputs on the training points are those that training saw, up to rounding
    assert np.abs(network.predict(X) - y).max() < 1e-3
    raw = np.random.default_rng(0).standard_normal((30, 7))
    model = FittedModel(network, Preprocessing.fit(raw), TargetScaling.fit(raw[:, 0]))
    model.save(tmp_path / "m")
    loaded = FittedModel.load(tmp_path / "m", "cpu")
    assert loaded.network.width == 10**9 and loaded.network.sampling == "virtual"
    assert loaded.predict(raw).tobytes() == model.predict(raw).tobytes()
    assert np.array_equal(loaded.network.seen, network.seen)


# ---- in distribution -------------------------------------------------------------------------------------


def rejects(p_values) -> bool:
    """Tell whether the smallest of these p-values is significant after Bonferroni's correction."""
    p_values = np.ravel(p_values)
    return bool(p_values.min() < LEVEL / len(p_values))


def two_sided(cdf, sf):
    """Return two-sided p-values of a discrete statistic from P(T <= t) and P(T >= t)."""
    return np.minimum(1, 2 * np.minimum(cdf, sf))


def fired_counts(samples, X) -> np.ndarray:
    return np.array([(rows @ X.T > SHIFT).sum(axis=0) for rows in samples])  # (seeds, n)


def poisson_p(counts, mean) -> np.ndarray:
    total, means = counts.sum(axis=0), len(counts) * mean
    return two_sided(stats.poisson.cdf(total, means), stats.poisson.sf(total - 1, means))


def joint_counts(samples, X) -> np.ndarray:
    masks = [(rows @ X.T > SHIFT).astype(float) for rows in samples]
    return sum(mask.T @ mask for mask in masks)  # (n, n)


SEEDS = range(40)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    X, _ = sphere(N, D)
    X[1] = X[0] + 0.3 * X[1]  # near neighbours share many neurons
    X[2] = X[0] + 0.1 * X[2]
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def samples(points) -> list[np.ndarray]:
    return drawn(SEEDS, points)


def test_fired_per_point_is_poisson(samples, points):
    mean = M / 2 * firing_probability(SHIFT)
    counts = fired_counts(samples, points)
    assert not rejects(poisson_p(counts, mean))
    dispersion = ((counts - mean) ** 2).sum(axis=0) / mean  # chi-squared with one degree for each seed
    assert not rejects(two_sided(stats.chi2.cdf(dispersion, len(counts)), stats.chi2.sf(dispersion, len(counts))))
    fixed = np.random.default_rng(0).binomial(round(2 * mean), 0.5, counts.shape)  # half of the variance
    wrong = ((fixed - mean) ** 2).sum(axis=0) / mean
    assert rejects(stats.chi2.cdf(wrong, len(counts)))


def test_pairs_of_points_fire_jointly_as_they_should(samples, points):
    upper = np.triu_indices(N, 1)
    means = len(samples) * M / 2 * bivariate_tail(SHIFT, (points @ points.T)[upper])
    total = joint_counts(samples, points)[upper]
    p = two_sided(stats.poisson.cdf(total, means), stats.poisson.sf(total - 1, means))
    assert not rejects(p)


def test_projections_are_truncated_normals(samples, points):
    """Along its cap's direction a weight is normal beyond b; across, it is normal given that no earlier cap has it."""
    tail = firing_probability(SHIFT)
    along = [(rows @ points[0])[rows @ points[0] > SHIFT] for rows in samples]
    depth = np.concatenate(along)
    p = [stats.kstest(stats.norm.sf(depth) / tail, "uniform").pvalue]
    inside = np.concatenate([rows[rows @ points[0] > SHIFT] for rows in samples])  # the first cap is whole
    basis = np.linalg.svd(points[:1])[2][1:]  # across x_0
    p += [stats.kstest(inside @ direction, "norm").pvalue for direction in basis]
    assert not rejects(p)
    assert rejects(stats.kstest(stats.norm.sf(depth + 0.05) / tail, "uniform").pvalue)  # the cap pushed out
    assert rejects([stats.kstest(1.1 * (inside @ basis[0]), "norm").pvalue])  # across, 10 % too wide


def test_forgetting_earlier_caps_is_noticed(points, monkeypatch):
    """A sampler that keeps what earlier caps hold counts shared neurons twice; the tests above must see it."""
    from gpu_sublinear.model import caps as module

    # a private name: no capability of the device decides alone which cap a row belongs to
    monkeypatch.setattr(module, "_owned", lambda network, points, W, owners: np.arange(len(W)))
    wrong = drawn(SEEDS, points)
    mean = M / 2 * firing_probability(SHIFT)
    assert rejects(poisson_p(fired_counts(wrong, points), mean))


@pytest.mark.parametrize(("error", "name"), [(1.05, "five per cent too many"), (0.95, "five per cent too few")])
def test_a_wrong_intensity_is_noticed(points, error, name, monkeypatch):
    wrong = drawn(SEEDS, points, width=int(M * error) // 2 * 2)
    assert rejects(poisson_p(fired_counts(wrong, points), M / 2 * firing_probability(SHIFT))), name


def test_gram_matrix_is_the_shifted_ntk_on_average(points):
    device = get_device("cpu")
    total = np.zeros((N, N))
    for seed in SEEDS:
        network = virtual(device, seed=seed, dtype="float64")
        active = LazyIndex.build(device, points, network).query(SHIFT)
        total += GramMatrix(device, points, network.width)(active)
    K, mean = points @ points.T, shifted_ntk(points, points, SHIFT)
    joint = mean / K
    deviation = np.abs(K) * np.sqrt(2 * joint / (M * len(SEEDS)))  # of the mean: pairs of neurons count twice
    upper = np.triu_indices(N)
    z = ((total / len(SEEDS) - mean) / deviation)[upper]
    assert not rejects(2 * stats.norm.sf(np.abs(z)))
    assert rejects(2 * stats.norm.sf(np.abs(z + (0.05 * mean / deviation)[upper])))  # five per cent off


def trajectories(sampling, seeds, X, y) -> np.ndarray:
    """Return log mse at the first three steps for each seed, (seeds, 3)."""
    device, found = get_device("cpu"), []
    for seed in seeds:
        network = ShiftedReluNetwork.initialize(
            2**14, D, shift=2.0, seed=seed, paired=True, sampling=sampling, device=device
        )
        history = GaussNewton(tolerance=0.0, max_steps=3).fit(network, X, y).history
        found.append([np.log(record.mse) for record in history[1:]])
    return np.array(found)


def test_loss_trajectories_of_virtual_and_explicit_runs_agree():
    X, y = sphere(N, D)
    virtual_runs, explicit_runs = (
        trajectories(kind, seeds, X, y) for kind, seeds in (("virtual", range(200)), ("explicit", range(1000, 1200)))
    )
    assert not rejects([stats.ks_2samp(virtual_runs[:, t], explicit_runs[:, t]).pvalue for t in range(3)])
    assert rejects([stats.ks_2samp(virtual_runs[:, t] + 1.0, explicit_runs[:, t]).pvalue for t in range(3)])
