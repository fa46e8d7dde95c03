"""The penalty by cross-validation from one scan: errors on unseen points, weights, the end of the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpu_sublinear import GaussNewton, ShiftedReluNetwork
from gpu_sublinear.cross_validation import CrossValidation, cross_validate
from gpu_sublinear.devices import Device
from gpu_sublinear.errors import DeviceMemoryError, OptionError
from gpu_sublinear.memory import plan
from gpu_sublinear.path import SharedScan
from tests.conftest import DEVICES, make_device
from tests.problems import sphere

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
    return ShiftedReluNetwork.initialize(900, 8, outputs=outputs, **options)


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


def test_the_search_ends_where_errors_rise():
    device, y = make_device("cpu"), np.random.default_rng(0).standard_normal(40)  # nothing to learn
    scan = SharedScan.build(replace(TRAINER, alpha=0.1), fresh(device), noisy()[0])
    alphas = [0.1, 1e3, 1e2, 1.0, 10.0]  # in any order
    for patience, tried in ((2, 3), (3, 4), (None, 5)):
        found = cross_validate(scan, y, alphas, FOLDS, patience=patience)
        assert found.alphas.tolist() == [1e3, 1e2, 10.0, 1.0, 0.1]
        assert (found.best, found.complete) == (0, tried)
        assert np.isnan(found.errors[tried:]).all() and not found.steps[tried:].any()


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
        (FOLDS, [], "at least one alpha"),
        (FOLDS, [1.0, 0.0], "above 0; got 0"),
        (FOLDS, [1.0, np.nan], "above 0; got nan"),
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
