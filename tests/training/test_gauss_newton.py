"""Whole training runs: convergence, agreement with dense algebra at every step, determinism, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from gpu_sublinear.devices import get_device
from gpu_sublinear.devices.clock import PHASES
from gpu_sublinear.errors import DataError, OptionError, SilentPointsError
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.opponents.dense import DenseGaussNewton
from gpu_sublinear.options import SOLVERS, CGOptions, SketchOptions, TreeOptions
from gpu_sublinear.training.gauss_newton import GaussNewton
from tests.helpers.devices import DEVICES, KERNELS, is_emulated, make_device
from tests.helpers.problems import Problem, sphere

ENGINES = {
    "fast": GaussNewton,
    "fast, csr": partial(GaussNewton, jacobian="csr"),
    "fixed margin": partial(GaussNewton, margin=0.2),
    "faithful": GaussNewton.faithful,
}
TIGHT = CGOptions(tolerance=1e-12, max_iterations=500)


def network_for(device, m=2048, d=8, **options) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(m, d, **{"seed": 1, "device": device, "dtype": "float64", **options})


def masks_along(device, trainer, network, X, y) -> list[np.ndarray]:
    """Return who fires on what after each step, recomputed from the weights by the definition."""
    masks = []

    def look(record, network):
        W = device.to_host(network.W)
        masks.append(Problem(X.astype(W.dtype), W, device.to_host(network.signs), network.shift).mask)

    if isinstance(trainer, DenseGaussNewton):
        trainer.fit(network, X, y, look)
    else:
        trainer.fit(network, X, y, [look])
    return masks


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_reaches_the_tolerance(device, solver, engine):
    n, m = (48, 2048) if not is_emulated(device) else (24, 512)
    X, y = sphere(n, 8)
    result = ENGINES[engine](solver=solver).fit(network_for(device, m), X, y)
    assert result.converged, result.reason
    assert result.history[-1].residual_norm <= 1e-4 * np.linalg.norm(y)
    assert np.mean((result.network.predict(X) - y) ** 2) == pytest.approx(result.history[-1].mse, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_contracts_by_half_on_the_sphere(seed):
    """Acceptance figure of the paper's theorem (1/2 in BPSW), at d >= 32 and m >= 2^12."""
    X, y = sphere(64, 32, seed)
    result = GaussNewton(cg=TIGHT, tolerance=1e-6).fit(network_for(get_device("cpu"), 4096, 32, seed=seed), X, y)
    norms = np.array([record.residual_norm for record in result.history])
    assert np.all(norms[1:] <= 0.5 * norms[:-1])


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_active_sets_are_those_of_dense_gauss_newton_at_every_step(name, solver, engine):
    device, (n, m) = make_device(name), (40, 1024) if name != "emulated" else (20, 512)
    X, y = sphere(n, 6)
    ours = ENGINES[engine](solver=solver, cg=TIGHT, tolerance=1e-9, max_steps=8)
    dense = DenseGaussNewton(tolerance=1e-9, max_steps=8)
    got = masks_along(device, ours, network_for(device, m, 6), X, y)
    want = masks_along(get_device("reference"), dense, network_for(get_device("reference"), m, 6), X, y)
    assert len(got) == len(want) >= 4
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
    assert not np.array_equal(got[0], got[-1])  # the sets did change, so agreeing means something


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("drop_silent", [False, True])
@pytest.mark.parametrize("block", [None, 100, 4096])
def test_dense_baseline_does_not_depend_on_its_settings(block, drop_silent, bits):
    X, y = sphere(30, 6)
    dense = DenseGaussNewton(block, drop_silent, bits)
    records = dense.fit(network_for(get_device("cpu"), 1024, 6, shift=2.2), X, y)
    want = DenseGaussNewton().fit(network_for(get_device("reference"), 1024, 6, shift=2.2), X, y)
    assert [r.mse for r in records] == pytest.approx([r.mse for r in want], rel=1e-6)
    assert records[-1].mse <= 1e-8 and records[-1].seconds == 0.0


@pytest.mark.parametrize("arity", [2, 16])
@pytest.mark.parametrize("rebuild_fraction", [0.0, 1.0])
def test_leaves_after_training_are_those_of_the_weights(device, arity, rebuild_fraction, monkeypatch):
    X, y = sphere(20, 6)
    trees = []
    from gpu_sublinear.index import tree

    build = tree.ThresholdTree.build
    monkeypatch.setattr(tree.ThresholdTree, "build", lambda *a: trees.append(build(*a)) or trees[-1])
    options = TreeOptions(arity=arity, rebuild_fraction=rebuild_fraction)
    trainer = GaussNewton.faithful(tree=options)
    result = trainer.fit(network_for(device, 512, 6, dtype="float32"), X, y)
    W = device.to_host(result.network.rows)
    P = Problem(X.astype("float32"), W, W[:, 0], 0.0).P
    assert np.array_equal(device.to_host(trees[0].leaves), P)
    assert np.array_equal(device.to_host(trees[0].tops), P.max(axis=1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_records_say_what_happened(device, dtype, engine):
    X, y = sphere(30, 6)
    seen = []
    result = ENGINES[engine]().fit(network_for(device, 1024, 6, dtype=dtype), X, y, [lambda r, n: seen.append(r)])
    assert seen == result.history
    first, last = result.history[0], result.history[-1]
    assert set(first.phases) == set(PHASES) and first.seconds == pytest.approx(sum(first.phases.values()))
    assert first.loss == pytest.approx(0.5 * first.residual_norm**2) == pytest.approx(15 * first.mse)
    assert 0 < first.fired <= first.union == first.moved_neurons <= 1024
    assert first.solver_iterations > 0 and 0 < first.solver_residual <= 1e-2
    assert first.tree_nodes_visited >= 30 * first.fired and first.peak_bytes > 0
    assert last.solver_iterations == last.moved_neurons == 0
    assert result.seconds == pytest.approx(result.build_seconds + sum(r.seconds for r in result.history))
    assert "after" in result.reason and "step" in result.reason


def test_only_firing_neurons_move(device):
    X, y = sphere(5, 6)
    network = network_for(device, 1024, 6, shift=2.0)
    before = device.to_host(network.W).copy()
    result = GaussNewton(max_steps=1).fit(network, X, y)
    moved = (device.to_host(network.W) != before).any(axis=1)
    assert moved.sum() == result.history[0].moved_neurons == result.history[0].union < 1024


def test_callback_stops(device):
    X, y = sphere(20, 6)
    result = GaussNewton(tolerance=0.0).fit(network_for(device), *_first(X, y), [lambda record, _: record.step == 1])
    assert len(result.history) == 2 and not result.converged
    assert result.reason == "a callback stopped the run after 2 steps"


def _first(X, y):
    return np.hstack([X, np.zeros((len(X), 2))]), y


def test_max_steps_zero_only_evaluates():
    X, y = sphere(20, 8)
    result = GaussNewton(max_steps=0).fit(network_for(get_device("reference")), X, y)
    assert [record.step for record in result.history] == [0]
    assert result.reason == "max_steps ended the run after 0 steps"


def test_one_point(device):
    X, y = sphere(4, 8)
    result = GaussNewton().fit(network_for(device), X[:1], y[:1])
    assert result.converged


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_point_that_falls_silent_in_training_costs_no_nan(device, solver, monkeypatch, caplog):
    """Without the check at the start: least norm leaves silent points alone until a neighbour's step wakes them."""
    monkeypatch.setattr("gpu_sublinear.training.loop.check_every_point_fires", lambda counts, X, network: None)
    X, y = sphere(60, 8)
    result = GaussNewton(solver=solver, max_steps=6).fit(network_for(device, 512, shift=2.6), X, y)
    assert "step 0: 4 of 60 points fire no neuron" in caplog.text
    assert all(record.solver_residual <= 1e-2 for record in result.history)
    assert result.history[-1].mse < 0.1 * result.history[0].mse


@pytest.mark.parametrize("options", [{}, {"alpha": 0.1}], ids=str)
def test_silent_points_are_named_with_a_shift_that_works(device, options):
    X, y = sphere(40, 8)
    with pytest.raises(SilentPointsError, match=r"shift 6 is too large for width 2048: 40 of 40 points fire no") as e:
        GaussNewton(**options).fit(network_for(device, shift=6.0), X, y)
    shift = float(str(e.value).split("use a shift of ")[1].split()[0])
    assert GaussNewton().fit(network_for(device, shift=shift), X, y).history[-1].mse < 1e-3


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((0, 8)), np.ones(0), "X has no rows"),
        (np.ones((3, 7)), np.ones(3), r"X must have shape \(n, 8\); got \(3, 7\)"),
        (np.ones(8), np.ones(8), r"X must have shape \(n, 8\); got \(8,\)"),
        (np.ones((3, 8)), np.ones(3), "rows of X must have unit Euclidean norm; row 0 has 2.82843"),
        (sphere(6, 8)[0], np.ones((6, 2)), r"y must have shape \(6,\) like X; got \(6, 2\)"),
        (sphere(6, 8)[0], np.ones(5), r"y must have shape \(6,\)"),
        (sphere(6, 8)[0] * np.nan, np.ones(6), "X holds NaN or infinite values"),
        (sphere(6, 8)[0], np.array([1, 2, np.inf, 4, 5, 6]), "y holds NaN or infinite values"),
        (
            np.eye(8)[[0, 1, 2, 0]],
            np.array([1.0, 2.0, 3.0, 4.0]),
            "the first being rows 0 and 3 .*average or drop them",
        ),
    ],
)
def test_bad_data(device, X, y, message):
    with pytest.raises(DataError, match=message):
        GaussNewton(damping="none").fit(network_for(device), X, y)


def test_duplicated_rows_with_equal_targets_are_fitted(device):
    X, y = sphere(20, 8)
    X, y = np.vstack([X, X[:3]]), np.concatenate([y, y[:3]])
    assert GaussNewton().fit(network_for(device), X, y).converged


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "lu"},
        {"tolerance": -1.0},
        {"tolerance": 1.0},
        {"max_steps": -1},
        {"jacobian": "dense"},
        {"margin": -1.0},
        {"margin": "wide"},
        {"solver": "sketch-cg", "sketch": SketchOptions("rows")},
    ],
)
def test_bad_options(options):
    with pytest.raises(OptionError):
        GaussNewton(**options)


DIGEST = """
import hashlib, sys
import numpy as np
from gpu_sublinear.devices import get_device
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.model.network import ShiftedReluNetwork
from tests.helpers.problems import sphere
X, y = sphere(300, 12)
for trainer in (GaussNewton(), GaussNewton(solver="sketch-cg"), GaussNewton.faithful()):
    network = ShiftedReluNetwork.initialize(6000, 12, seed=5, device=get_device("cpu"))
    result = trainer.fit(network, X, y)
    state = network.W.tobytes() + np.array([r.loss for r in result.history]).tobytes() + network.predict(X).tobytes()
    print(hashlib.sha256(state).hexdigest())
"""


def digest(threads: str, blas: str) -> str:
    environment = {**os.environ, "NUMBA_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": blas, "MKL_NUM_THREADS": blas}
    done = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_same_bytes_for_any_number_of_threads():
    assert digest("1", "1") == digest("2", "2") == digest("2", "1")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KERNELS)
def test_same_bytes_twice(name, engine):
    device = make_device(name)
    X, y = sphere(40, 6)
    runs = []
    for _ in range(2):
        network = network_for(device, 512, 6, dtype="float32")
        runs.append(device.to_host(ENGINES[engine]().fit(network, X, y).network.W))
    assert runs[0].tobytes() == runs[1].tobytes()
