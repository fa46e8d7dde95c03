"""The penalty by cross-validation from one scan: errors on unseen points, weights, the end of the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from gpu_sublinear import GaussNewton, ShiftedReluNetwork
from gpu_sublinear.devices import Device
from gpu_sublinear.errors import DataError, DeviceMemoryError, OptionError, SilentPointsError
from gpu_sublinear.training.memory import plan
from gpu_sublinear.tuning.cross_validation import ALPHAS as ALPHAS_BY_DEFAULT
from gpu_sublinear.tuning.cross_validation import CrossValidation, Rise, cross_validate
from gpu_sublinear.tuning.shared_scan import SharedScan
from tests.helpers.devices import DEVICES, is_emulated, make_device
from tests.helpers.problems import sphere

TRAINER = GaussNewton(max_steps=30, tolerance=1e-5, mask="lists")
ALPHAS = [30.0, 3.0, 0.3]
FOLDS = [(np.setdiff1d(np.arange(40), np.arange(k, 40, 4)), np.arange(k, 40, 4)) for k in range(4)]
WAYS = [
    {"mask": "lists"},
    {"mask": "lists", "margin": 0.05},
    {"mask": "bits"},
    {"mask": "flips"},
    {"margin": 0, "jacobian": "csr"},
]


def fresh(device: Device, outputs: int = 1, shift: float = 0.1) -> ShiftedReluNetwork:
    options = {"shift": shift, "seed": 0, "dtype": "float64", "device": device, "paired": True}
    return ShiftedReluNetwork.initialize(200 if is_emulated(device) else 900, 8, outputs=outputs, **options)


def noisy() -> tuple[np.ndarray, np.ndarray]:
    X, y = sphere(40, 8)
    return X, y + np.random.default_rng(0).standard_normal(40)


def search(device: Device, trainer: GaussNewton, y: np.ndarray, outputs: int = 1, folds=FOLDS) -> CrossValidation:
    scan = SharedScan.build(replace(trainer, alpha=min(ALPHAS)), fresh(device, outputs), noisy()[0])
    return cross_validate(scan, y, ALPHAS, folds)


# ---- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
@pytest.mark.parametrize("name", DEVICES)
def test_errors_are_those_of_whole_networks_on_the_points_left_out(name, way):
    device, (X, y), trainer = make_device(name), noisy(), replace(TRAINER, max_steps=6, **way)
    found = search(device, trainer, y, folds=FOLDS[:2])
    for number, (train, test) in enumerate(FOLDS[:2]):
        scan = SharedScan.build(replace(trainer, alpha=min(ALPHAS)), fresh(device), X)
        for k, result in enumerate(scan.path(y[train], ALPHAS, train)):
            predicted = device.to_host(result.network.predict(device.asarray(X[test])))  # from all neurons
            assert found.errors[k, number] == pytest.approx(((predicted - y[test]) ** 2).mean(), rel=1e-8)
            assert found.steps[k, number] == len(result.history) - 1
    assert found.steps.max() > 3  # so that rows moved again and again


def test_several_targets_share_the_penalty_and_the_mean_error():
    device, (X, y) = make_device("cpu"), noisy()
    Y = np.stack([y, 3 * y[::-1]], axis=1)
    found = search(device, TRAINER, Y, outputs=2)
    train, test = FOLDS[0]
    scan = SharedScan.build(replace(TRAINER, alpha=min(ALPHAS)), fresh(device, 2), X)
    for k, result in enumerate(scan.path(Y[train], ALPHAS, train)):
        expected = ((result.network.predict(X[test]) - Y[test]) ** 2).mean()
        assert found.errors[k, 0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("mask", ["lists", "bits", "flips"])
def test_weights_count_points_as_often(mask):
    """A point of weight 2 is that point twice, in training, in errors and in sums over folds."""
    device, (X, y), trainer = make_device("cpu"), noisy(), replace(TRAINER, mask=mask, alpha=0.3, tolerance=1e-9)
    w = np.random.default_rng(1).integers(1, 4, 40)
    copies = np.repeat(np.arange(40), w)  # (sum w,) the point that each copy is of
    weighted = cross_validate(SharedScan.build(trainer, fresh(device), X), y, ALPHAS[:2], FOLDS, w)
    folds = [tuple(np.flatnonzero(np.isin(copies, part)) for part in fold) for fold in FOLDS]
    repeated = cross_validate(SharedScan.build(trainer, fresh(device), X[copies]), y[copies], ALPHAS[:2], folds)
    assert np.array_equal(weighted.sizes, repeated.sizes)
    np.testing.assert_allclose(weighted.errors, repeated.errors, rtol=1e-4)  # both end near the minimum
    assert not np.allclose(weighted.errors, cross_validate(
        SharedScan.build(trainer, fresh(device), X), y, ALPHAS[:2], FOLDS).errors, rtol=1e-3)  # fmt: skip


# ---- the search -----------------------------------------------------------------------------------------


def made_up(errors: list[list[float]], sizes: list[float]) -> CrossValidation:
    found = np.array(errors)
    return CrossValidation(np.geomspace(100, 1, len(found)), found, np.array(sizes), np.ones(found.shape, int))


def test_what_is_read_from_the_errors():
    found = made_up([[4, 1], [2, 2], [2, 2], [9, np.nan]], [1, 3])
    np.testing.assert_allclose(found.mean, [1.75, 2, 2, np.nan])
    assert (found.best, found.alpha, found.complete) == (0, 100.0, 3)
    np.testing.assert_allclose(found.standard_error, [1.5, 0, 0, np.nan])  # |4 - 1| / 2
    assert made_up([[3, 3], [2, 2], [2, 2]], [1, 1]).best == 1  # of equal ones the largest penalty


def tried(errors, alphas, untrained: float = 1.0, patience: int | None = 3) -> int:
    """Return how many of these penalties a search tries."""
    rise = Rise(untrained, patience)
    ends = [k for k, (alpha, error) in enumerate(zip(alphas, errors, strict=True)) if rise.ends(alpha, error)]
    return ends[0] + 1 if ends else len(errors)


def test_the_search_ends_where_errors_have_risen():
    halves, fine = np.logspace(3, -4, 15), np.geomspace(1000, 0.1, 81)  # 2 and 20 penalties to a decade
    late = np.concatenate([np.full(60, 1.0), np.linspace(0.98, 0.6, 21)])
    assert tried(late, fine) == 81  # a long stretch of penalties that leave the network as it was drawn is no end
    assert tried(np.maximum(0.5, 1 / (1 + 10 / fine)), fine) == 81  # nor is one at the least error

    def bowl(alphas):  # with its least at 10
        return 0.5 + 0.1 * np.log10(alphas / 10) ** 2

    assert tried(bowl(halves), halves) == 5 + 3  # 1000 to 10, and three more
    assert tried(bowl(fine), fine) == 41 + 4 + 20  # 1000 to 10, four within 1 % of the least, and a decade
    assert tried(0.99 - 0.001 * np.arange(81), fine) == 81
    rising = [1, 0.98, 1.02, 1.05, 1.1, 1.2]
    assert tried(rising, np.logspace(2, -3, 6)) == 5
    assert tried(rising, np.logspace(2, -3, 6), patience=1) == 3
    assert tried(rising, np.logspace(2, -3, 6), patience=None) == 6
    assert tried([1, 1, 1.02, 1.05, 1.08, 1.05, 0.9, 0.7], np.logspace(2, -5, 8)) == 8  # rising before it falls
    assert tried([np.nan, 0.9, np.nan, 0.5, 0.3, 0.2], np.logspace(2, -3, 6)) == 6


@given(
    st.lists(st.floats(0.3, 1.1), min_size=1, max_size=40),
    st.floats(0.05, 2.0),
    st.integers(1, 4),
)
def test_every_error_of_the_last_decade_is_clearly_above_the_least(errors, step, patience):
    """Whatever the errors and the grid, a search that ends has risen for patience penalties and a decade."""
    alphas = 10.0 ** (3 - step * np.arange(len(errors)))
    count = tried(errors, alphas, patience=patience)
    if count == len(errors):
        return
    least = min(errors[:count])
    assert least < 0.99
    assert min(errors[count - patience : count]) >= 1.01 * least
    assert (
        min(error for error, alpha in zip(errors[:count], alphas, strict=False) if alpha < 9.99 * alphas[count - 1])
        >= 1.01 * least
    )


def few_points(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, X @ rng.standard_normal(d)


def waves() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    return X, np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(60)


def sorted_targets() -> tuple[np.ndarray, np.ndarray]:
    X, y = few_points(90, 10, 0)
    return X[np.argsort(y)], np.sort(y)


def line_and_wave() -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(65).uniform(-2, 2, (200, 1))
    return X, 0.5 * X[:, 0] + np.sin(6.5 * X[:, 0])


@pytest.mark.parametrize(
    ("data", "alphas", "shuffle"),
    [
        (waves(), np.logspace(-6, 6, 13), True),  # begins where weights hardly move
        (waves(), np.logspace(-3, 5, 30), True),
        (waves(), np.geomspace(1000, 0.1, 81), True),
        *((few_points(60, 50, seed), ALPHAS_BY_DEFAULT, True) for seed in range(6)),  # errors rise before they fall
        (sorted_targets(), ALPHAS_BY_DEFAULT, False),  # folds of other means, likewise
        (line_and_wave(), ALPHAS_BY_DEFAULT, True),  # a line, then for long nothing, then a wave
    ],
    ids=["coarse", "fine", "finer", *(f"linear {seed}" for seed in range(6)), "sorted", "wave"],
)
def test_the_early_end_loses_next_to_nothing(data, alphas, shuffle):
    """On grids and data that tempt to end early the model is as good as after trying all."""
    X, y = data
    X = np.hstack([X, np.full((len(X), 1), 2.0)])
    X, y = X / np.linalg.norm(X, axis=1, keepdims=True), (y - y.mean()) / y.std()
    options = {"shift": 0.5, "seed": 0, "dtype": "float64", "device": make_device("cpu"), "paired": True}
    folds = list(KFold(3, shuffle=shuffle, random_state=0 if shuffle else None).split(X))

    def found(patience: int | None) -> CrossValidation:
        network = ShiftedReluNetwork.initialize(512, X.shape[1], **options)
        trainer = replace(TRAINER, alpha=float(min(alphas)), tolerance=1e-3)
        return cross_validate(SharedScan.build(trainer, network, X), y, alphas, folds, patience=patience)

    ended, whole = found(3), found(None)
    assert np.nanmin(ended.mean) <= 1.01 * whole.mean.min() < 0.95


def test_the_search_ends_and_tells_what_it_tried():
    device, (X, y) = make_device("cpu"), noisy()
    scan = SharedScan.build(replace(TRAINER, alpha=1e-3), fresh(device), X)
    alphas = [0.1, 1e3, 0.01, 1e2, 1e-3, 1.0, 10.0]  # in any order
    every = cross_validate(scan, y, alphas, FOLDS, patience=None)
    assert every.alphas.tolist() == [1e3, 1e2, 10.0, 1.0, 0.1, 0.01, 1e-3]
    assert every.complete == 7
    for patience in (1, 2):
        found = cross_validate(scan, y, alphas, FOLDS, patience=patience)
        count = tried(every.mean, every.alphas, (y**2).mean(), patience)
        assert found.complete == count < 7
        np.testing.assert_array_equal(found.errors[:count], every.errors[:count])
        assert np.isnan(found.errors[count:]).all() and not found.steps[count:].any()


def test_points_may_fall_silent_on_the_way():
    """Networks drawn without pairs, so narrow that a penalty silences points: the next trains on, as sessions do."""
    silenced = 0
    for seed in range(12):
        X, y = sphere(16, 4, seed=seed)
        options = {"shift": 1.2, "seed": seed, "dtype": "float64", "device": make_device("cpu")}
        network = ShiftedReluNetwork.initialize(40, 4, **options)
        try:
            scan = SharedScan.build(replace(TRAINER, alpha=1e-3), network, X)
            scan.fit(y, alpha=1e3)
        except SilentPointsError:
            continue  # from the start on
        results = list(scan.path(5 * y, [1e3, 1.0, 1e-2, 1e-3, 1e-4]))
        assert len(results) == 5
        silenced += any((X @ result.network.W.T <= 1.2).all(axis=1).any() for result in results[:-1])
    assert silenced


def test_errors_that_are_no_numbers_are_never_chosen():
    found = made_up([[np.nan, 1], [3, 3], [2, 2], [np.nan, np.nan]], [1, 1])
    assert (found.best, found.complete) == (2, 2)
    with pytest.raises(DataError, match="no numbers; give larger alphas"):
        made_up([[np.nan, 1], [3, np.nan]], [1, 1]).checked()


def test_the_training_that_follows_is_one_with_its_own_scan():
    device, (X, y) = make_device("cpu"), noisy()
    w = np.random.default_rng(1).random(40) + 0.1
    scan = SharedScan.build(replace(TRAINER, alpha=0.3), fresh(device), X)
    cross_validate(scan, y, ALPHAS, FOLDS, w)
    mine = scan.fit(y, alpha=3.0, sample_weight=w)
    alone = replace(TRAINER, alpha=3.0).fit(fresh(device), X, y, sample_weight=w)
    assert [r.objective for r in mine.history] == [r.objective for r in alone.history]
    assert mine.alpha == 3.0
    assert np.array_equal(mine.network.rows, alone.network.rows)


def test_memory_is_planned_for_all_folds():
    device, X = make_device("cpu"), noisy()[0]
    size = sum(plan(replace(TRAINER, alpha=0.3), device, 40, 8, 900, 0.1, "float64").values())
    trainer = replace(TRAINER, alpha=0.3, memory_limit=size + 4096)
    SharedScan.build(trainer, fresh(device), X)
    with pytest.raises(DeviceMemoryError, match="more than the memory limit"):
        SharedScan.build(trainer, fresh(device), X, trainings=4)


@pytest.mark.parametrize(
    ("folds", "alphas", "words"),
    [
        ([], ALPHAS, "at least two folds; got 0"),
        (FOLDS[:1], ALPHAS, "at least two folds; got 1"),
        ([([1, 2], [2, 3]), FOLDS[0]], ALPHAS, "point 2 of a fold is in both"),
        ([([1, 2], []), FOLDS[0]], ALPHAS, "one of its parts is empty"),
        ([([1, 40], [3]), FOLDS[0]], ALPHAS, "numbers from 0 to 39; got 1 to 40"),
        ([([1.0, 2.0], [3.0]), FOLDS[0]], ALPHAS, r"whole numbers; got shape \(2,\) of float64"),
        ([(np.arange(40) > 9, np.arange(40) <= 9), FOLDS[0]], ALPHAS, "of bool .numpy.flatnonzero makes"),
        ([([1, 2], [3, 3]), FOLDS[0]], ALPHAS, "ascending and without repetition"),
        ([(3, [4]), FOLDS[0]], ALPHAS, r"whole numbers; got shape \(\)"),
        ([([1], [2], [3]), FOLDS[0]], ALPHAS, "a fold is a pair"),
        ([7, FOLDS[0]], ALPHAS, "a fold is a pair"),
        (FOLDS, [], "at least one alpha"),
        (FOLDS, [1e200, 1.0], "at most 1e.100; got 1e.200"),
        (FOLDS, [1.0, 0.0], "above 0 and at most 1e.100; got 0"),
        (FOLDS, [1.0, np.nan], "at most 1e.100; got nan"),
        (FOLDS, 3.0, "a sequence of numbers above 0; got 3.0"),
        (FOLDS, "auto", "a sequence of numbers above 0; got 'auto'"),
    ],
)
def test_what_cannot_be_searched(folds, alphas, words):
    X, y = noisy()
    scan = SharedScan.build(TRAINER, fresh(make_device("cpu")), X)
    with pytest.raises(OptionError, match=words):
        cross_validate(scan, y, alphas, folds)


def test_weights_of_zero_are_left_out_before():
    X, y = noisy()
    scan = SharedScan.build(TRAINER, fresh(make_device("cpu")), X)
    with pytest.raises(OptionError, match="weights above 0"):
        scan.fit(y, sample_weight=np.arange(40))


@pytest.mark.parametrize("w", [np.ones(41), np.ones(39), np.full(40, np.nan), -np.ones(40), np.ones((40, 1))])
def test_weights_are_checked_before_any_training(w, monkeypatch):
    X, y = noisy()
    scan = SharedScan.build(TRAINER, fresh(make_device("cpu")), X)
    monkeypatch.setattr(SharedScan, "run", None)
    with pytest.raises(DataError, match="sample_weight must"):
        cross_validate(scan, y, ALPHAS, FOLDS, w)


def test_no_weight_is_zero(monkeypatch):
    X, y = noisy()
    scan = SharedScan.build(TRAINER, fresh(make_device("cpu")), X)
    monkeypatch.setattr(SharedScan, "run", None)
    with pytest.raises(OptionError, match="leave the points of weight 0 out"):
        cross_validate(scan, y, ALPHAS, FOLDS, np.arange(40))
