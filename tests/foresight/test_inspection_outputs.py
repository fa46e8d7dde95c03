"""What ``inspect`` says of several outputs and of classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpu_sublinear import GaussNewton, ShiftedReluNetwork, get_device
from gpu_sublinear.app.cli import main
from gpu_sublinear.errors import OptionError
from gpu_sublinear.foresight.advice import enough_fired
from gpu_sublinear.foresight.close_points import find_contradictions
from gpu_sublinear.foresight.inspection import inspect
from gpu_sublinear.foresight.seconds import Work
from gpu_sublinear.foresight.wide_limit import WideLimit
from gpu_sublinear.model.shifts import firing_probability
from tests.helpers.targets import NAMES, columns, flowers

HOST = get_device("cpu")


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray]:
    return columns(n=80, d=10, outputs=3)


def test_memory_time_and_width_count_the_outputs(problem):
    X, Y = problem
    several, one = (inspect(X, y, width=4096, shift=1.0, device=HOST) for y in (Y, Y[:, 0]))
    assert set(several.memory) - set(one.memory) == {"signs and lists of several outputs", "vectors of n x outputs"}
    assert several.recommended is not None
    chosen = several.recommended
    assert chosen.width * firing_probability(chosen.shift) >= 4 * enough_fired(80)  # C = 4 patterns
    assert several.memory["vectors of n x outputs"] == 16 * 80 * 3 * 8
    work = Work(80, 10, 4096, 1.0, 1e6, 160)
    assert replace(work, outputs=3).solvers()["gram"] > work.solvers()["gram"]


def test_too_few_neurons_for_the_outputs_are_refused(problem):
    with pytest.raises(OptionError, match="width of at least 8"):
        inspect(*problem, width=4, device=HOST)


def test_the_first_step_of_several_outputs_is_foretold(problem):
    X, Y = problem
    network = ShiftedReluNetwork.initialize(4096, 10, shift=1.0, seed=0, paired=True, outputs=3, device=HOST)
    history = GaussNewton(max_steps=1, tolerance=0).fit(network, X, Y).history
    foretold = WideLimit(X, Y, 1.0).forecast(4096, 1e-8).mse
    assert foretold[0] == pytest.approx(history[0].mse)
    assert 1 / 4 < foretold[1] / history[1].mse < 4  # an estimate: the docs promise the order of magnitude


def test_outputs_that_are_a_rotation_of_each_other_have_one_forecast(problem):
    X, Y = problem
    Y = Y[:, :2]
    turned = Y @ np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    first, second = (WideLimit(X, y, 1.0) for y in (Y, turned))
    # the patterns of one are the outputs of the other, so both halves of the work are networks of one output
    halves = [WideLimit(X, turned[:, k], 1.0)._step(turned[:, k], 2048, np.random.default_rng(0))[1] for k in (0, 1)]
    assert first.forecast(4096, 1e-8, 1).flips == pytest.approx(np.mean(halves), rel=1e-6)
    assert first.patterns == second.patterns == 2


def test_contradictions_of_several_targets_name_the_output():
    X = np.eye(3)[[0, 0, 1, 2]]
    Y = np.array([[1.0, 2.0], [1.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    found = find_contradictions(X, Y)
    assert (found.duplicates, found.contradictory_duplicates) == (1, 1)
    (pair,) = found.worst
    assert (pair.first, pair.second, pair.output, pair.targets) == (0, 1, 1, (2.0, 5.0))
    assert find_contradictions(X, np.ones((4, 2))).contradictory_duplicates == 0


def test_the_command_on_classes_prints_a_command_that_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flowers(tmp_path / "f.csv")
    options = ["--target", "kind", "--classify"]
    assert main(["inspect", "f.csv", *options, "--width", "4096", "--shift", "1", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"{len(NAMES)} classes of 'kind'" in out and "vectors of n x outputs" in out
    command = out.split("train it with\n")[1].splitlines()[0].split()
    assert "--classify" in command
    assert main([*command[1:], "--device", "cpu"]) == 0
