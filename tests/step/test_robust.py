"""Damping, the watchdog, stops and early stopping: cases on which full steps fail, and steps that are taken back."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear.data.preprocessing import Preprocessing
from gpu_sublinear.data.sources import load
from gpu_sublinear.errors import DataError, OptionError
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import SOLVERS
from gpu_sublinear.training.gauss_newton import GaussNewton
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import Problem, clusters, sphere


def network_for(device, d, m=2**12, shift=2.0, **options) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(
        m, d, **{"shift": shift, "seed": 1, "device": device, "paired": True, "sampling": "explicit", **options}
    )


def flipped_digits() -> tuple[np.ndarray, np.ndarray]:
    raw = load("digits")
    X = Preprocessing.fit(raw.X, raw.preprocessing).transform(raw.X)[:200]
    y = (raw.y - raw.y.mean()) / raw.y.std()
    y = y[:200].copy()
    y[:20] *= -1
    return X, y


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("spread", [0.3, 0.03])
def test_clusters_descend_and_end_at_their_best(spread, smooth):
    X, y = clusters(spread, smooth)
    network = network_for(make_device("cpu"), 8, 2**14)
    result = GaussNewton(max_steps=60).fit(network, X, y)
    best = min(record.mse for record in result.history)
    assert np.isfinite([record.mse for record in result.history]).all() and result.reason
    assert best < (0.9 if spread == 0.03 and not smooth else 0.1)
    assert np.mean((network.predict(X) - y) ** 2) == pytest.approx(best, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("spread", [0.3, 0.03])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.1}], ids=["auto", "alpha"])
def test_clusters_converge(spread, smooth, options):
    """Except near-duplicates with random labels without a penalty, which only descend."""
    X, y = clusters(spread, smooth, 64)
    result = GaussNewton(max_steps=60, **options).fit(network_for(make_device("cpu"), 8, 2**13, 1.0), X, y)
    if options or smooth or spread == 0.3:
        assert result.converged, result.reason
    else:
        assert min(record.mse for record in result.history) < 0.7
    objective = np.array([record.objective for record in result.history])
    assert not options or all(later < objective[max(0, k - 2) : k + 1].max() for k, later in enumerate(objective[1:]))


def test_damping_beats_full_steps_on_random_labels():
    """Full steps swing for good here; damping in proportion to the error keeps descending."""
    X, y = clusters(0.3, False)
    last = {}
    for damping in ("none", "auto"):
        result = GaussNewton(damping=damping, max_steps=40).fit(network_for(make_device("cpu"), 8, 2**12), X, y)
        last[damping] = result.history[-1].loss
    assert last["auto"] < 0.5 * last["none"]


def test_digits_with_flipped_labels_are_fitted():
    X, y = flipped_digits()
    assert GaussNewton().fit(network_for(make_device("cpu"), X.shape[1], 2**14, 1.0), X, y).converged


@pytest.mark.parametrize("margin", ["auto", 0])
@pytest.mark.parametrize(
    ("name", "solver"),  # hundreds of emulated or NumPy products with G would take minutes
    [(name, solver) for name in DEVICES for solver in SOLVERS if name in ("cpu", "cuda") or "cg" not in solver],
)
def test_contradicting_duplicates_reach_the_least_squares_solution(name, solver, margin):
    device = make_device(name)
    X, y = sphere(24, 8)
    X, y = np.vstack([X, X[:4]]), np.concatenate([y, y[:4] + 1.0])
    network = network_for(device, 8, shift=1.0, dtype="float64")
    result = GaussNewton(solver=solver, margin=margin).fit(network, X, y)
    predicted = network.predict(X)
    assert not result.converged and "no progress" in result.reason
    assert np.allclose(predicted[:4], y[:4] + 0.5, atol=0.02) and np.allclose(predicted[4:24], y[4:24], atol=0.02)
    assert pytest.approx(result.history[-1].loss, rel=1e-2) == 0.5 * 4 * 0.5  # 4 pairs, each off by 1/2 twice


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, options)
        for name in DEVICES
        for options in ({}, {"margin": 0}, {"margin": 0.1}, {"jacobian": "csr"}, {"solver": "sketch-cg"})
        if name != "emulated" or "solver" not in options  # emulated CG takes a quarter of a minute
    ],
)
def test_active_sets_after_rejections_are_those_of_the_weights(name, options):
    device = make_device(name)
    X, y = clusters(0.03, False, 48)
    before: list = []
    checked = []

    def look(record, network):
        if before:
            assert record.fired == pytest.approx(before[-1])
        W = device.to_host(network.W)
        before.append(Problem(X.astype(W.dtype), W, W[:, 0], network.shift).mask.sum() / len(X))
        checked.append(record.rejected)

    trainer = GaussNewton(max_steps=12, watchdog=1, **options)
    result = trainer.fit(network_for(device, 8, 2**10, 1.5, dtype="float64"), X, y, [look])
    objective = [record.objective for record in result.history]
    assert sum(checked) > 0 and len(checked) > 6
    assert all(later < max(objective[max(0, k - 2) : k + 1]) for k, later in enumerate(objective[1:]))


@pytest.mark.parametrize("watchdog", [3, 12])
def test_full_steps_that_do_not_help_end_in_damping(watchdog):
    X, y = clusters(0.03, False, 64)
    network = network_for(make_device("cpu"), 8, 2**13, 1.0)
    result = GaussNewton(max_steps=40, watchdog=watchdog).fit(network, X, y)
    assert any(record.damping for record in result.history), result.reason
    assert result.final.loss < 0.9 * result.history[0].loss


def test_full_steps_are_taken_again_where_damped_ones_stall():
    X, y = clusters(0.03, False, 96)
    network = network_for(make_device("cpu"), 8, 2**10, 1.0, dtype="float64")
    result = GaussNewton(tolerance=1e-3, max_steps=2000).fit(network, X, y)
    history, damped = result.history, [record.step for record in result.history if record.damping]
    first, last = damped[0], damped[-1]
    assert len(damped) > 0.9 * (last - first)
    # where it arrives depends on the last bits; that it sets out once, and what it ends with, does not
    stalled = min(record.loss for record in history[: last + 2])
    assert len(history) > last + 3 and result.final.loss <= stalled
    assert max(record.loss for record in history[last + 2 :]) > 1.2 * stalled  # nobody judged these steps
    assert result.converged or "damped steps stalled, full ones" in result.reason
    assert result.converged or len(history) - 1 >= 3.9 * (last + 1)
    assert 0.5 * np.sum((network.predict(X) - y) ** 2) == pytest.approx(result.final.loss, rel=1e-6)


@pytest.mark.parametrize("options", [{"damping": 1e-3}, {"alpha": 1e-6}, {"batch_size": 48}], ids=str)
def test_no_other_run_sets_out_again(options):
    X, y = clusters(0.03, False, 96)
    result = GaussNewton(tolerance=1e-3, max_steps=400, **options).fit(network_for(make_device("cpu"), 8, 2**10), X, y)
    assert "full ones after them" not in result.reason
    loss = [record.objective for record in result.history]
    assert max(loss[len(loss) // 2 :]) <= 1.5 * loss[0]


def test_damping_changes_nothing_where_every_full_step_helps(device):
    X, y = sphere(40, 8)
    weights = []
    for damping in ("auto", "none"):
        network = network_for(device, 8, shift=1.0)
        result = GaussNewton(damping=damping).fit(network, X, y)
        weights.append(device.to_host(network.W).tobytes())
        assert result.converged and all(record.damping == 0 for record in result.history)
    assert weights[0] == weights[1]


def test_damping_from_the_first_step_is_adapted():
    X, y = sphere(40, 8)
    result = GaussNewton(damping=0.5).fit(network_for(make_device("cpu"), 8, shift=1.0), X, y)
    assert result.converged and result.history[0].damping == 0.5
    assert result.history[1].damping < 0.5


def test_time_budget():
    X, y = sphere(40, 8)
    result = GaussNewton(tolerance=0.0, time_budget=1e-9).fit(network_for(make_device("cpu"), 8), X, y)
    assert len(result.history) == 2 and "time budget of 1e-09 s was used up after 1 step" in result.reason


@pytest.mark.parametrize("paired", [True, False])
def test_early_stopping_returns_to_the_best_weights(device, paired):
    X, y = sphere(90, 6)
    y = y + np.random.default_rng(0).standard_normal(90)
    network = network_for(device, 6, 2**10, 1.0, paired=paired, dtype="float64")
    trainer = GaussNewton(patience=2, tolerance=1e-8)
    result = trainer.fit(network, X[:60], y[:60], validation=(X[60:], y[60:]))
    errors = [record.validation_mse for record in result.history]
    assert "validation error did not fall for 2 steps" in result.reason
    assert result.best_step == int(np.argmin(errors)) < len(errors) - 1
    assert np.mean((network.predict(X[60:]) - y[60:]) ** 2) == pytest.approx(min(errors), rel=1e-9)


def test_a_validation_fraction_is_held_out():
    X, y = sphere(50, 6)
    result = GaussNewton(validation_fraction=0.2).fit(network_for(make_device("cpu"), 6, shift=1.0), X, y)
    first = result.history[0]
    assert first.loss == pytest.approx(20 * first.mse) and first.validation_mse is not None  # 40 of 50 points


@pytest.mark.parametrize(
    "options",
    [
        {"damping": "some"},
        {"damping": 0.0},
        {"alpha": -1.0},
        {"watchdog": 0},
        {"time_budget": 0.0},
        {"patience": 0},
        {"validation_fraction": 1.0},
    ],
)
def test_bad_options(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        GaussNewton(**options)


# ---- what cannot be judged or scaled -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("validation", "error", "words"),
    [
        (3, OptionError, "validation must be a pair"),
        ((np.eye(4),), OptionError, "validation must be a pair"),
        ((np.eye(4)[:2], np.ones(3)), DataError, r"validation: y must have shape \(2,\)"),
        ((np.eye(4)[:0], np.ones(0)), DataError, "validation: X has no rows"),
        ((5 * np.eye(4), np.ones(4)), DataError, "validation: rows of X must have unit"),
    ],
)
def test_validation_points_are_checked(validation, error, words):
    X, y = sphere(20, 4)
    network = ShiftedReluNetwork.initialize(256, 4, shift=0.5, device=make_device("cpu"))
    with pytest.raises(error, match=words):
        GaussNewton(max_steps=2).fit(network, X, y, validation=validation)
    session = GaussNewton(max_steps=2).begin(network, X, y)
    with pytest.raises(error, match=words):
        session.partial_fit(X[:3], y[:3], validation=validation)
    assert len(session.X) == 20  # nothing was added


def test_a_column_of_validation_targets_is_one_target():
    X, y = sphere(40, 4)
    errors = []
    for target in (y[30:], y[30:, None]):
        network = ShiftedReluNetwork.initialize(512, 4, shift=0.5, device=make_device("cpu"))
        result = GaussNewton(max_steps=3).fit(network, X[:30], y[:30], validation=(X[30:], target))
        errors.append([record.validation_mse for record in result.history])
    assert errors[0] == errors[1]


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_fractions_that_keep_nothing_or_everything(fraction):
    X, y = sphere(20, 4)
    network = ShiftedReluNetwork.initialize(256, 4, shift=0.5, device=make_device("cpu"))
    with pytest.raises(
        OptionError, match="of 20 points for early stopping and leaves .* take one between 0.05 and 0.95"
    ):
        GaussNewton(validation_fraction=fraction).fit(network, X, y)


@pytest.mark.filterwarnings("error")
def test_scales_are_numbers_of_any_kind():
    for number in (1, 0.5, np.float16(1), np.float32(1), np.int64(2)):
        GaussNewton(alpha=number, damping=number)
    GaussNewton(batch_size=np.int64(30))
    for bad in (None, "much", -1.0, np.float32("inf"), float("nan"), 1e101, [1.0]):
        with pytest.raises(OptionError, match="alpha must be a number from 0 to 1e.100"):
            GaussNewton(alpha=bad)
        with pytest.raises(OptionError, match="damping must be .* positive number up to 1e.100"):
            GaussNewton(damping=bad)
