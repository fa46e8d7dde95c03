"""What ``inspect`` says of a problem, and that its advice holds in training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpu_sublinear import GaussNewton, ShiftedReluNetwork, get_device
from gpu_sublinear.app.cli import main
from gpu_sublinear.errors import DataError, DeviceMemoryError
from gpu_sublinear.foresight import inspection, trial
from gpu_sublinear.foresight.advice import steps_advice
from gpu_sublinear.foresight.inspection import Inspection, inspect
from gpu_sublinear.foresight.wide_limit import Forecast
from gpu_sublinear.model.shifts import firing_probability
from gpu_sublinear.views.inspection_figure import draw_inspection
from gpu_sublinear.views.inspection_text import COLUMNS, inspection_text
from tests.helpers.problems import sphere

X, Y = sphere(80, 10)
HOST = get_device("cpu")


@pytest.fixture(scope="module")
def found() -> Inspection:
    return inspect(X, Y, width=4096, shift=1.5, dtype="float64", device=HOST)


def drawn(width: int, shift: float) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(width, 10, shift=shift, seed=0, dtype="float64", device=HOST)


def test_counts_union_and_gram_are_those_of_the_drawn_network(found):
    M = (drawn(4096, 1.5).W @ X.T > 1.5).astype(float)  # (m, n)
    assert found.trial.counts.tolist() == M.sum(axis=0).tolist()
    assert found.trial.union == int(M.any(axis=1).sum())
    G = (X @ X.T) * (M.T @ M) / 4096
    assert found.trial.eigenvalues == pytest.approx(np.linalg.eigvalsh(G), rel=1e-9, abs=1e-12)
    assert found.expected_fired == pytest.approx(4096 * firing_probability(1.5))
    deviation = abs(found.trial.counts.mean() - found.expected_fired)
    assert deviation < 5 * found.binomial_spread / np.sqrt(10)  # counts of different points are dependent
    assert found.silent == []


def test_advice_holds_in_training(found):
    advice = {item.option: item.value for item in found.advice}
    assert set(advice) >= {"--width", "--shift", "--margin", "--solver"}
    assert all(item.reason for item in found.advice)
    network = drawn(int(advice["--width"]), float(advice["--shift"]))
    result = GaussNewton(solver=advice["--solver"], margin=advice["--margin"]).fit(network, X, Y)
    assert result.converged
    assert len(result.history) - 1 <= found.recommended.steps + 2


def test_more_steps_are_advised_where_noise_may_need_them():
    forecast = Forecast(4096, 1.0, [1.0, 1e-2, 1e-4, 1e-9], 0.1, True)
    assert steps_advice(forecast, 20) == []
    (advice,) = steps_advice(forecast, 10)
    assert (advice.option, advice.value) == ("--max-steps", "12")


def test_noise_gets_a_warning_and_a_wider_network_or_nothing():
    noise = np.random.default_rng(0).standard_normal(80)
    twins = X + 0.02 * np.random.default_rng(5).standard_normal(X.shape)
    twins /= np.linalg.norm(twins, axis=1, keepdims=True)
    seen = inspect(np.vstack([X, twins]), np.concatenate([noise, -noise]), width=1024, shift=1.5, device=HOST)
    assert not seen.forecast.prompt
    assert seen.recommended is None or seen.recommended.width > 1024
    assert any("not foretold to reach the tolerance" in warning for warning in seen.warnings)
    assert any("close pairs have targets" in warning for warning in seen.warnings)
    network = ShiftedReluNetwork.initialize(1024, 10, shift=1.5, device=HOST)
    assert not GaussNewton(max_steps=8).fit(network, np.vstack([X, twins]), np.concatenate([noise, -noise])).converged


def test_silent_points_and_contradictory_duplicates_are_warnings_not_errors():
    seen = inspect(np.vstack([X, X[:1]]), np.append(Y, Y[0] + 1), width=256, shift=3.0, device=HOST)
    silent = np.flatnonzero(seen.trial.counts == 0)
    assert len(silent) > 0
    assert seen.silent == silent[:10].tolist()
    assert any("fire no neuron" in warning and "shift of" in warning for warning in seen.warnings)
    assert any("duplicated rows have different targets" in warning for warning in seen.warnings)
    assert "singular" in inspection_text(seen)
    assert seen.contradictions.worst[0].second == 80


def test_a_network_too_large_to_draw_is_looked_at_in_part(monkeypatch):
    monkeypatch.setattr(trial, "WORK", 80 * 10 * 1500)
    seen = inspect(X, Y, width=4096, shift=1.0, device=HOST)
    assert (seen.width, seen.trial.width) == (4096, 1024)
    assert seen.trial.counts.mean() == pytest.approx(seen.expected_fired, rel=0.2)
    assert any("those of 1,024 neurons" in warning for warning in seen.warnings)


def test_a_memory_limit_below_everything_is_refused_as_in_training():
    with pytest.raises(DeviceMemoryError, match="more than the memory limit of 1,000,000"):
        inspect(X, Y, width=4096, trainer=GaussNewton(memory_limit=1_000_000), device=HOST)


def test_many_points_are_sampled_for_the_kernel(monkeypatch):
    monkeypatch.setattr(inspection, "SAMPLED_POINTS", 50)
    seen = inspect(X, Y, width=4096, shift=1.0, device=HOST)
    assert (seen.points, seen.sampled_points, len(seen.limit_eigenvalues)) == (80, 50, 50)
    assert any("50 of the 80 points" in warning for warning in seen.warnings)
    assert "infinite width, 50 points" in inspection_text(seen)


def test_a_memory_limit_bounds_the_recommendation():
    limit = 420 << 20
    seen = inspect(X, Y, width=4096, trainer=GaussNewton(memory_limit=limit), device=HOST)
    assert seen.recommended is not None
    assert sum(seen.memory.values()) <= limit


@pytest.mark.parametrize(
    ("points", "targets", "words"),
    [(2 * X, Y, "unit Euclidean norm"), (X, Y[:-1], "y"), (X[:, 0], Y, "X"), (X, np.full(80, np.nan), "y holds nan")],
)
def test_unusable_data_is_refused(points, targets, words):
    with pytest.raises(DataError, match=words):
        inspect(points, targets, width=256, device=HOST)


def test_text_and_figure_show_everything(found):
    text = inspection_text(found)
    assert max(map(len, text.splitlines())) <= COLUMNS
    for words in ("m Q(b)", "binomial", "smallest eigenvalue", "condition", "cosine", "foretold", "memory", "seconds"):
        assert words in text
    fired, spectra, forecasts = draw_inspection(found, "title").axes
    assert len(spectra.lines) == 2
    assert forecasts.lines[0].get_ydata().tolist() == found.forecast.mse
    assert sum(bar.get_height() for bar in fired.patches) == 80


def test_the_command_writes_text_json_and_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).standard_normal((30, 3))
    rows[7] = rows[3]
    np.savetxt("t.csv", np.c_[rows, np.arange(30.0)], delimiter=",", header="a,b,c,y", comments="")
    options = ["--width", "512", "--device", "cpu", "--test-fraction", "0", "--json", "i.json", "--figure", "i.svg"]
    assert main(["inspect", "t.csv", "--target", "y", *options]) == 0
    out = capsys.readouterr().out
    assert "30 points to train on, 0 held out" in out
    assert "rows 3 and 7: cosine 1.0000, targets 3 and 7" in out
    content = json.loads((tmp_path / "i.json").read_text())["inspection"]
    assert len(content["trial"]["counts"]) == 30
    assert content["contradictions"]["contradictory_duplicates"] == 1
    assert (tmp_path / "i.svg").read_text().startswith("<?xml")


def test_the_command_it_prints_can_be_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "sphere:n=40,d=6", "--width", "2048", "--device", "cpu", "--seed", "2"]) == 0
    command = capsys.readouterr().out.split("train it with\n")[1].split()
    assert command[:3] == ["gpu-sublinear", "train", "sphere:n=40,d=6"]
    assert main([*command[1:], "--device", "cpu"]) == 0
    assert "result   converged" in capsys.readouterr().out
