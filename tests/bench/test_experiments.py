"""Every experiment runs at its tiny size on the cpu device, and its words, tables and figure survive JSON."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from bench.baselines import BASELINES, OURS, tensor_core, torch_methods
from bench.baselines.common import NotInstalledError, attempt, need
from bench.experiments import ALL
from bench.experiments.common import gram_of, mask_of
from bench.experiments.micro import Clock, bandwidth
from bench.harness.figures import draw
from bench.harness.problems import clustered, make
from bench.harness.records import plain
from gpu_sublinear import get_device

TORCH = importlib.util.find_spec("torch") is not None
EXACT = [name for name in BASELINES if name.startswith(("fast", "faithful", "dense"))]


@pytest.fixture
def no_extras(monkeypatch):
    """Leave out torch and jax: their start costs seconds, and the suite must live without them."""
    real = importlib.util.find_spec
    hidden = ("torch", "jax", "optimistix", "lineax")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else real(name, *rest))


@pytest.mark.parametrize("experiment", ALL, ids=lambda experiment: experiment.name)
def test_tiny(experiment, tmp_path, no_extras):
    measured = experiment.measure(device="cpu", **experiment.sizes["tiny"])
    content = json.loads(json.dumps(plain(measured), allow_nan=False))
    assert experiment.answer(content).endswith(".")
    tables = experiment.tables(content)
    assert tables and all(len(row) == len(table.header) for table in tables for row in table.rows)
    assert "None" not in experiment.answer(content) and "nan" not in experiment.answer(content)
    picture = draw(experiment.panels(content), tmp_path / "figure.png")
    assert picture is not None and picture.stat().st_size > 1000


def test_what_is_not_installed_is_said(no_extras):
    with pytest.raises(NotInstalledError, match="torch"):
        need("torch")
    row = attempt(BASELINES["torch Adam"], make("sphere:n=20,d=4", 64, 0.5), 1e-3, 0.1)
    assert row["note"] == "not installed: torch" and row["time"] is None


@pytest.mark.parametrize("name", EXACT)
def test_second_order_opponents_reach_the_goal_and_say_so_truly(name):
    problem = make("sphere:n=40,d=8", 512, 0.5)
    fit = BASELINES[name](problem, 1e-6, 20.0)
    outputs = fit.predict(problem.X)
    assert fit.time_to(1e-6) is not None
    assert np.mean((outputs - problem.y) ** 2) == pytest.approx(fit.trajectory[-1][1], rel=1e-2, abs=1e-9)
    moments = [moment for moment, _ in fit.trajectory]
    assert moments == sorted(moments)


@pytest.mark.skipif(not TORCH, reason="needs torch")
@pytest.mark.parametrize("name", [name for name in BASELINES if name.startswith("torch")])
def test_torch_opponents_start_where_we_start_and_descend(name):
    problem = make("sphere:n=40,d=8", 256, 0.5)
    fit = BASELINES[name](problem, 1e-2, 1.0)
    ours = BASELINES[OURS](problem, 1e-2, 1.0)
    assert fit.trajectory[0][1] == pytest.approx(ours.trajectory[0][1], rel=1e-3)
    assert fit.best < fit.trajectory[0][1]


def test_torch_sgd_rates_are_at_the_edge_of_stability():
    assert max(torch_methods.SGD_RATES) < 2 * (1 + 0.9)  # heavy ball's bound


def test_the_clustered_set_is_badly_conditioned():
    X, y = clustered("clustered:n=100,d=16")
    assert np.allclose(np.linalg.norm(X, axis=1), 1) and y.shape == (100,)
    values = np.linalg.eigvalsh(gram_of(make("clustered:n=100,d=16", 4096, 0.0)))
    assert values[-1] >= 1e3 * values[0]


def test_gram_and_mask_agree_with_the_formula():
    problem = make("sphere:n=20,d=4", 100, 0.5)
    network = problem.network()
    mask = (problem.X @ network.W.astype(float).T) > 0.5  # (n, m)
    expected = (problem.X @ problem.X.T) * (mask.astype(float) @ mask.T) / 100
    np.testing.assert_allclose(gram_of(problem), expected, atol=1e-12)
    assert (np.unpackbits(mask_of(network, problem.X), axis=1)[:, :100] == mask).all()


def test_bandwidth_is_positive():
    assert bandwidth(Clock(get_device("cpu")), 1 << 20, 2) > 0


def test_the_tensor_core_opponent_follows_the_dense_trajectory():
    problem = make("sphere:n=40,d=8", 512, 0.5)
    found, expected = (fit(problem, 1e-6, 20.0) for fit in (tensor_core.fit, BASELINES["dense GN"]))
    np.testing.assert_allclose(
        [e for _, e in found.trajectory], [e for _, e in expected.trajectory], rtol=1e-3, atol=1e-9
    )
    np.testing.assert_allclose(found.predict(problem.X), expected.predict(problem.X), atol=1e-4)
