"""Shared scans with ``mask="flips"``: one look at the pairs for many trainings, on all points or some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpu_sublinear import GaussNewton, ShiftedReluNetwork, TrainingResult
from gpu_sublinear.devices import Array, Device
from gpu_sublinear.errors import DataError, DeviceMemoryError, OptionError
from gpu_sublinear.step.run import Run
from gpu_sublinear.training.memory import plan
from gpu_sublinear.tuning.shared_scan import SharedScan, ridge_path
from tests.helpers.devices import DEVICES, is_emulated, make_device
from tests.helpers.problems import sphere
from tests.helpers.runs import linearised

TRAINER = GaussNewton(mask="flips", max_steps=30, tolerance=1e-5)
EVEN = np.arange(0, 40, 2)


def fresh(device: Device) -> ShiftedReluNetwork:
    width = 400 if is_emulated(device) else 900
    return ShiftedReluNetwork.initialize(width, 8, shift=0.1, seed=0, dtype="float64", device=device, paired=True)


def noisy() -> tuple[np.ndarray, np.ndarray]:
    X, y = sphere(40, 8)
    return X, y + np.random.default_rng(0).standard_normal(40)


def check_same(device: Device, ours: TrainingResult, theirs: TrainingResult, rtol: float) -> None:
    assert len(ours.history) == len(theirs.history) > 2
    for mine, want in zip(ours.history, theirs.history, strict=True):
        assert (mine.fired, mine.rejected) == (want.fired, want.rejected)
        assert mine.objective == pytest.approx(want.objective, rel=rtol)
    assert np.allclose(device.to_host(ours.network.rows), device.to_host(theirs.network.rows), rtol=0, atol=rtol)


@pytest.mark.parametrize("alpha", [0.3, 0.0])
@pytest.mark.parametrize("name", DEVICES)
def test_trainings_from_one_look_are_those_of_their_own(name, alpha):
    device, (X, y) = make_device(name), noisy()
    trainer = replace(TRAINER, alpha=alpha)
    scan = SharedScan.build(trainer, fresh(device), X)
    start = device.to_host(scan.network.rows).copy()
    for points in (None, EVEN, None):  # a training leaves nothing behind
        mine = scan.fit(y if points is None else y[points], points)
        own = (X, y) if points is None else (X[points], y[points])
        check_same(device, mine, trainer.fit(fresh(device), *own), rtol=1e-8)  # sums in another order, some steps
    assert np.array_equal(device.to_host(scan.network.rows), start)


@pytest.mark.parametrize("name", DEVICES)
def test_a_path_settles_where_separate_trainings_do(name):
    device, (X, y), alphas = make_device(name), noisy(), [1.0, 30.0, 5.0]
    path = ridge_path(fresh(device), X, y, alphas, TRAINER)
    for alpha, found in zip(alphas, path, strict=True):
        alone = replace(TRAINER, alpha=alpha).fit(fresh(device), X, y)
        assert found.converged and alone.converged and found.alpha == alpha
        assert found.final.objective == pytest.approx(alone.final.objective, rel=5e-3)  # both near the minimum
        residual = found.network.predict(device.asarray(X)) - y  # of rows written out
        assert 0.5 * float((residual**2).sum()) == pytest.approx(found.final.loss, rel=1e-9)
    first, second = ridge_path(fresh(device), X, y, [1e8, 1e7], TRAINER)  # neither takes a step
    assert [len(result.history) for result in (first, second)] == [1, 1]
    assert first.network.rows is not second.network.rows


@pytest.mark.parametrize("name", DEVICES)
def test_the_mask_of_some_points_is_that_of_their_rows_at_every_step(name):
    device, (X, y) = make_device(name), noisy()
    scan = SharedScan.build(replace(TRAINER, alpha=0.3), fresh(device), X, y)
    run = scan.run(y[EVEN], EVEN)
    run.penalise(0.3, run.network.rows)
    base, seen = device.to_host(run.network.rows).copy(), set()
    for step in range(5):
        state = run.look()
        run.materialise()
        rows = device.to_host(run.network.rows)
        fired = rows @ X[EVEN].T > run.network.shift
        G = (X[EVEN] @ X[EVEN].T) * (fired.T.astype(float) @ fired) / run.network.width
        assert np.array_equal(device.to_host(state.active.counts), fired.sum(axis=0))
        assert np.allclose(device.to_host(run.gram(state.active)), G, rtol=1e-12, atol=0)
        assert run.square == pytest.approx(((rows - base) ** 2).sum(), rel=1e-8, abs=1e-14)
        assert np.allclose(_along(run, state.active), _exact_along(run, fired, rows - base, X[EVEN]), atol=1e-10)
        seen.add(int(fired.sum()))
        run.move(state, 0.0, step)
    assert len(seen) > 2  # pairs flipped


def _along(run: Run, active) -> Array:
    return run.network.device.to_host(linearised(run, active).along(run.network.rows, run.initial))


def _exact_along(run: Run, fired: np.ndarray, moved: np.ndarray, X: np.ndarray) -> np.ndarray:
    signs = run.network.device.to_host(run.network.signs)
    return ((moved @ X.T) * fired * signs[:, None]).sum(axis=0) / np.sqrt(run.network.width)


@pytest.mark.parametrize("mask", ["flips", "bits", "lists"])
def test_equal_points_with_targets_that_differ(mask):
    (X, y), device = noisy(), make_device("cpu")
    X[1] = X[0]
    trainer = replace(TRAINER, mask=mask, alpha=0.3)
    for given in (None, y):
        result = SharedScan.build(trainer, fresh(device), X, given).fit(y)
        assert result.converged and result.final.objective < result.history[0].objective
    with pytest.raises(DataError, match="different targets"):
        SharedScan.build(replace(trainer, alpha=0.0, damping="none"), fresh(device), X).fit(y)


@pytest.mark.parametrize("mask", ["flips", "lists"])
def test_what_is_no_fold_and_no_path(mask):
    (X, y), trainer, device = noisy(), replace(TRAINER, mask=mask), make_device("cpu")
    scan = SharedScan.build(trainer, fresh(device), X)
    with pytest.raises(OptionError, match="ascending and without repetition"):
        scan.fit(y[[3, 1]], [3, 1])
    for points in ([-40, 0], [5, 40]):
        with pytest.raises(OptionError, match=f"numbers from 0 to 39; got {points[0]} to {points[1]}"):
            scan.fit(y[points[:1] * 2], points)
    with pytest.raises(OptionError, match="at least one alpha"):
        ridge_path(fresh(device), X, y, [], trainer)


@pytest.mark.parametrize("mask", ["flips", "bits", "lists"])
def test_a_shared_scan_plans_the_memory_of_its_trainings(mask):
    X, device = noisy()[0], make_device("cpu")
    needs = {}
    for alpha in (0.0, 0.3):
        plans = plan(GaussNewton(mask=mask, alpha=alpha), device, 40, 8, 900, 0.1, "float64")
        needs[alpha] = sum(plans.values())
    assert needs[0.3] > needs[0.0]
    trainer = replace(TRAINER, mask=mask, memory_limit=(needs[0.0] + needs[0.3]) // 2)
    SharedScan.build(trainer, fresh(device), X)
    for alpha in (0.3, "auto"):
        with pytest.raises(DeviceMemoryError):
            SharedScan.build(replace(trainer, alpha=alpha), fresh(device), X)
