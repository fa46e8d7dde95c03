"""The program from outside: outputs, exit codes, one sentence per mistake, and nothing left behind."""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_sublinear.app import inputs
from gpu_sublinear.app import train as train_command
from gpu_sublinear.app.cli import main
from gpu_sublinear.app.interrupt import StopOnInterrupt
from gpu_sublinear.app.option_values import number, shift, whole
from gpu_sublinear.fitted.model import FittedModel
from tests.helpers.command_line import ENVIRONMENT, SMALL, SPHERE, program, refusal, usage_error

RECORD_KEYS = {
    "step", "loss", "mse", "residual_norm", "fired", "union", "solver_iterations", "solver_residual",
    "moved_neurons", "tree_nodes_visited", "seconds", "phases", "peak_bytes",
}  # fmt: skip
PHASES = {"query", "forward", "jacobian", "sketch", "solve", "update"}


# ---- train ----------------------------------------------------------------------------------------------


def test_alpha_auto_trains_with_the_penalty_that_was_chosen(here, capsys):
    assert main([*SPHERE, "--alpha", "auto", "--history", "h.json"]) == 0
    steps = json.loads(Path("h.json").read_text())["steps"]
    assert steps[1]["penalty"] > 0


def test_batches_train_by_epochs_also_with_a_penalty(here):
    epochs = ["--batch-size", "10", "--max-steps", "60", "--tolerance", "1e-2"]
    assert main([*SPHERE, *epochs, "--history", "h.json", "--out", "m"]) == 0
    history = json.loads(Path("h.json").read_text())
    assert history["settings"]["batch_size"] == 10 and history["result"]["converged"]
    assert history["steps"][0]["solver_iterations"] == 4  # 32 points, four blocks
    assert FittedModel.load("m").metadata["settings"]["batch_size"] == 10
    assert main([*SPHERE, *epochs[:4], "--alpha", "0.1", "--history", "p.json"]) == 0
    penalised = json.loads(Path("p.json").read_text())
    assert penalised["result"]["converged"] and penalised["steps"][-1]["penalty"] > 0


def test_train_prints_steps_and_table_and_writes_all_files(here, capsys):
    files = ["--out", "m.safetensors", "--history", "h.json", "--figure", "f.png"]
    assert main([*SPHERE, *files]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "sphere:n=40,d=6: 32 points to train on, 8 held out, 6 features" in captured.out
    assert "result   converged: " in captured.out
    for word in ("step", "fired/point", "training", "held out", "time by phase", "neurons touched", "peak memory"):
        assert word in captured.out
    assert max(map(len, captured.out.splitlines())) <= 100
    assert sorted(os.listdir()) == ["f.png", "h.json", "m.safetensors"]
    assert (here / "f.png").read_bytes().startswith(b"\x89PNG")


def test_history_has_environment_settings_steps_and_result(here):
    assert main([*SPHERE, "--history", "h.json", "--seed", "3"]) == 0
    history = json.loads((here / "h.json").read_text())
    assert set(history) == {"environment", "settings", "steps", "result"}
    assert {"python", "numpy", "numba", "cupy", "cpu", "cores", "commit", "gpu_sublinear"} <= set(
        history["environment"]
    )
    settings = history["settings"]
    expected = {"width": 2048, "seed": 3, "device": "reference", "solver": "auto", "margin": "auto", "sketch_rows": 2.0}
    assert {name: settings[name] for name in expected} == expected
    assert (settings["points"], settings["held_out_points"], settings["features"]) == (32, 8, 6)
    for k, record in enumerate(history["steps"]):
        assert set(record) >= RECORD_KEYS
        assert set(record["phases"]) == PHASES
        assert record["step"] == k
    assert history["result"]["converged"] is True
    assert history["result"]["training"]["mse"] <= 1e-8 * 4  # tolerance^2, with room for the dense forward's rounding
    assert history["result"]["held_out"]["points"] == 8


def test_same_seed_same_model_bytes_and_another_seed_another_model(here):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*SPHERE, "--seed", seed, "--out", name]) == 0
    assert (here / "a").read_bytes() == (here / "b").read_bytes()
    assert (here / "a").read_bytes() != (here / "c").read_bytes()


@pytest.mark.parametrize("solver", ["auto", "sketch-cg", "cg", "gram"])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_every_solver_and_host_device_trains(capsys, solver, device):
    assert main([*SPHERE, "--solver", solver, "--device", device, "--init", "paired", "--dtype", "float64"]) == 0
    assert "converged" in capsys.readouterr().out


def test_real_data_with_all_points_and_the_paper_shift(capsys):
    arguments = ["train", "diabetes", "--width", "2^10", "--device", "cpu", "--test-fraction", "0", "--max-steps", "1"]
    assert main([*arguments, "--shift", "paper"]) == 0
    out = capsys.readouterr().out
    assert "442 points to train on, 0 held out" in out
    assert f"shift b = {math.sqrt(0.48 * math.log(1024)):.4g}" in out
    assert "\nheld out" not in out
    assert "not converged: max_steps" in out


def test_two_points_train(here, capsys):
    (here / "two.csv").write_text("1,2\n3,4\n")
    assert main(["train", "two.csv", *SMALL]) == 0
    assert "2 points to train on, 0 held out" in capsys.readouterr().out


# ---- predict --------------------------------------------------------------------------------------------


@pytest.fixture
def trained(here, capsys) -> Path:
    """A working folder with data.csv and a model of it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    np.savetxt("data.csv", np.column_stack([X, 5 + X[:, 0]]), delimiter=",", header="a,b,c,t", comments="")
    np.savetxt("new.csv", X, delimiter=",")
    assert main(["train", "data.csv", *SMALL, "--out", "model"]) == 0
    capsys.readouterr()
    return here


def test_predict_with_and_without_target(trained, capsys):
    assert main(["predict", "model", "data.csv", "--device", "cpu", "--out", "p.csv"]) == 0
    assert "40 points predicted; mse / variance of the training targets" in capsys.readouterr().out
    lines = (trained / "p.csv").read_text().splitlines()
    assert lines[0] == "prediction"
    X = np.loadtxt("new.csv", delimiter=",")
    expected = FittedModel.load("model", "cpu").predict(X)
    np.testing.assert_array_equal(np.array(lines[1:], dtype=float), expected)

    assert main(["predict", "model", "new.csv", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == lines
    note = "note: no header: the columns are taken in the order of training ('a', 'b', 'c')\n"
    assert captured.err == f"{note}40 points predicted\n"


def test_predict_refusals(trained, capsys):
    (trained / "wide.csv").write_text("1,2,3,4,5,6\n")
    (trained / "cut").write_bytes((trained / "model").read_bytes()[:500])
    assert "6 features, but the model was trained on 3" in refusal(capsys, ["predict", "model", "wide.csv"])
    assert "there is no model file 'none'" in refusal(capsys, ["predict", "none", "data.csv"])
    assert "is not a readable model file" in refusal(capsys, ["predict", "cut", "data.csv"])
    assert "not a readable model file" in refusal(capsys, ["predict", "data.csv", "model"])
    assert "is also an input" in refusal(capsys, ["predict", "model", "data.csv", "--out", "model"])
    assert "does not exist" in refusal(capsys, ["predict", "model", "data.csv", "--out", "no/p.csv"])
    assert sorted(os.listdir()) == ["cut", "data.csv", "model", "new.csv", "wide.csv"]


# ---- mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("a,y\n1,2\n", ["has 1 point", "at least 2"]),
        ("a,y\n1,2\n2,nan\n", ["has 1 point"]),
        ("a,y\ninf,2\n2,3\n", ["line 2, column 'a': 'inf' is not finite"]),
        ("a,y\n1,red\n2,blue\n", ["line 2, column 'y': 'red' is not a number"]),
        ("a,y\n1,2\n2\n", ["line 3: 1 cells, but the first line has 2"]),
        ("a,y\n1,2\n2,2\n3,2\n", ["the target is constant: all", "are 2"]),
        ("a,y\n1,2\n1,3\n2,4\n", ["duplicated rows have different targets", "average or drop them", "training points"]),
    ],
)
def test_bad_data_is_one_sentence_and_leaves_nothing(here, capsys, text, parts):
    (here / "d.csv").write_text(text)
    files = ["--out", "m", "--history", "h.json", "--figure", "f.png"]
    message = refusal(capsys, ["train", "d.csv", *SMALL, "--damping", "none", "--test-fraction", "0", *files])
    for part in parts:
        assert part in message
    assert os.listdir() == ["d.csv"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--width", "1"], "width"),
        (["--width", "2047"], "width must be even"),
        (["--shift", "50"], "fire no neuron"),
        (["--seed", "2^64"], "seed"),
        (["--test-fraction", "0.99"], "leaves"),
        (["--target", "0"], "leave out --target"),
        (["--figure", "f.gif"], "must end in .png, .svg or .pdf"),
        (["--figure", "no/f.png"], "the folder 'no' does not exist"),
        (["--out", "no/m"], "--out: the folder 'no' does not exist"),
        (["--history", "."], "--history: '.' is a folder"),
        (["--out", "same", "--history", "same"], "is also the file of --out"),
    ],
)
def test_bad_options_are_one_sentence_and_leave_nothing(here, capsys, options, part):
    message = refusal(capsys, [*SPHERE, "--out", "m", *options])
    assert part in message
    assert os.listdir() == []


def test_silent_points_name_points_and_a_shift_that_works(here, capsys):
    message = refusal(
        capsys, ["train", "sphere:n=40,d=6", "--width", "2048", "--shift", "4.5", "--device", "reference"]
    )
    assert "fire no neuron (points " in message
    works = message.partition("a shift of ")[2].split()[0]
    assert main(["train", "sphere:n=40,d=6", "--width", "2048", "--shift", works, "--device", "reference"]) == 0


def test_an_output_may_not_be_the_input(here, capsys):
    (here / "d.csv").write_text("1,2\n3,4\n")
    assert "is also an input" in refusal(capsys, ["train", "d.csv", *SMALL, "--out", "./d.csv"])
    assert (here / "d.csv").read_text() == "1,2\n3,4\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "DATA"),
        (["train", "digits", "--widht", "3"], "--widht"),
        (["train", "digits", "--width", "many"], "'many' is not a whole number such as 65536, 1e6 or 2^16"),
        (["train", "digits", "--width", "1.5"], "not a whole number"),
        (["train", "digits", "--width", "0"], "at least 1"),
        (["train", "digits", "--solver", "magic"], "invalid choice"),
        (["train", "digits", "--device", "tpu"], "invalid choice"),
        (["train", "digits", "--dtype", "int8"], "invalid choice"),
        (["train", "digits", "--shift", "-1"], "at least 0"),
        (["train", "digits", "--shift", "inf"], "at least 0"),
        (["train", "digits", "--shift", "much"], "'much'"),
        (["train", "digits", "--tolerance", "nan"], "at least 0 and below 1"),
        (["train", "digits", "--test-fraction", "1"], "at least 0 and below 1"),
        (["train", "digits", "--max-steps", "-1"], "at least 0"),
        (["train", "digits", "--seed", "-1"], "at least 0"),
        (["train", "digits", "--arity", "1"], "at least 2"),
        (["train", "digits", "--solver-tolerance", "0"], "above 0"),
    ],
)
def test_usage_errors_exit_with_2(capsys, arguments, part):
    assert part in usage_error(capsys, arguments)


@pytest.mark.parametrize("option", ["--out", "--history", "--figure"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(here, capsys, monkeypatch, option):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "the disk is full" in refusal(capsys, [*SPHERE, option, "file.png"])
    assert os.listdir() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_an_error_and_no_traceback():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "gpu_sublinear", "train", "sphere:n=9,d=2", *SMALL]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr == "gpu-sublinear: error: No space left on device\n"


def test_missing_matplotlib_is_found_before_training(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'gpu-sublinear[plot]'" in refusal(capsys, [*SPHERE, "--figure", "f.png"])


def test_not_enough_memory_is_one_sentence(capsys, monkeypatch):
    def exhausted(*arguments):
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr(inputs, "load", exhausted)
    assert "not enough memory (Unable to allocate 1 TiB); use fewer points" in refusal(capsys, SPHERE)


def test_divergence_writes_the_history_and_no_model(here, capsys, monkeypatch):
    fit = train_command.GaussNewton.fit

    def diverge(*arguments, **named):
        result = fit(*arguments, **named)
        last = replace(result.history[-1], loss=math.inf, mse=math.inf, residual_norm=math.inf)
        return replace(result, history=[*result.history[:-1], last], converged=False, reason="it diverged")

    monkeypatch.setattr(train_command.GaussNewton, "fit", diverge)
    message = refusal(capsys, [*SPHERE, "--out", "m", "--history", "h.json"])
    assert "it diverged; no model was saved" in message
    assert os.listdir() == ["h.json"]
    assert json.loads((here / "h.json").read_text())["steps"][-1]["loss"] is None


# ---- interrupts and pipes -------------------------------------------------------------------------------


def test_ctrl_c_stops_after_the_step_and_saves(here, capsys, monkeypatch):
    def press(record, width, line=train_command.step_line):
        if record.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return line(record, width)

    monkeypatch.setattr(train_command, "step_line", press)
    assert main([*SPHERE, "--tolerance", "0", "--out", "m", "--history", "h.json", "--figure", "f.svg"]) == 130
    out = capsys.readouterr().out
    assert "stopped by Ctrl-C after 2 steps" in out
    history = json.loads((here / "h.json").read_text())
    assert history["result"]["reason"] == "stopped by Ctrl-C after 2 steps"
    assert len(history["steps"]) == 2
    FittedModel.load("m", "reference")
    assert (here / "f.svg").exists()


def test_the_second_ctrl_c_aborts():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopOnInterrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_abort_leaves_nothing(here, capsys, monkeypatch):
    def abort(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command.GaussNewton, "fit", abort)
    assert "aborted" in refusal(capsys, [*SPHERE, "--out", "m"], code=130)
    assert os.listdir() == []


def test_ctrl_c_from_outside(here):
    with program(*SPHERE[:2], "--width", "2^14", "--device", "reference", "--tolerance", "0", "--max-steps", "10000",
                 "--out", "m") as process:  # fmt: skip
        for line in process.stdout:
            if line.startswith("   1"):
                process.send_signal(signal.SIGINT)
                break
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step and saving; Ctrl-C again aborts" in error
    assert "stopped by Ctrl-C" in out
    assert os.listdir() == ["m"]


def test_a_reader_that_goes_away_does_not_cost_the_model(here):
    with program(*SPHERE, "--out", "m") as process:
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
    assert error == ""
    assert process.returncode == 0
    assert os.listdir() == ["m"]


def test_a_reader_of_predictions_that_goes_away(trained):
    rows = "\n".join(["1,2,3"] * 50_000)
    (trained / "many.csv").write_text(rows)
    with program("predict", "model", "many.csv", "--device", "reference") as process:
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
    assert error == "note: no header: the columns are taken in the order of training ('a', 'b', 'c')\n"
    assert process.returncode == 141


# ---- help and values ------------------------------------------------------------------------------------


def test_help_and_version_do_not_wait_for_numba():
    code = "import sys; from gpu_sublinear.app.cli import parser; parser().format_help(); print([m for m in ('numba', 'sklearn', 'cupy', 'matplotlib', 'pandas') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "[]\n"


def test_version_and_help(capsys):
    for arguments, part in (
        (["--version"], "gpu-sublinear 0."),
        (["--help"], "examples:"),
        (["train", "--help"], "2^18"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert part in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("65536", 65536),
        ("65_536", 65536),
        ("1e6", 10**6),
        ("2^16", 65536),
        ("2**16", 65536),
        ("18446744073709551615", 2**64 - 1),
        ("-3", -3),
    ],
)
def test_whole_numbers(text, value):
    assert whole(text) == value


@given(st.text(alphabet="0123456789.eE^*_+-xnaif ", max_size=12))
def test_values_are_numbers_or_usage_errors(text):
    for read in (whole, number(0, 1), shift):
        try:
            value = read(text)
        except argparse.ArgumentTypeError:
            continue
        assert isinstance(value, int | float)
        assert math.isfinite(value)


def test_a_penalty_that_was_chosen_is_said_and_saved(here, capsys):
    """On the screen, in the history, in the model, and on the page."""
    given = ["train", "diabetes", *SMALL, "--alpha", "auto", "--max-steps", "2"]
    files = ["--history", "h.json", "--out", "m", "--report", "r.html"]
    assert main([*given, *files]) == 0
    chosen = json.loads((here / "h.json").read_text())["result"]["alpha"]
    assert f"penalty  alpha = {chosen:.3g}, chosen by leave-one-out" in capsys.readouterr().out
    assert FittedModel.load("m").metadata["alpha"] == chosen > 0
    assert "ridge penalty" in (here / "r.html").read_text()
