"""The command ``path``: rows, the model of the best penalty, files, refusals and interrupts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_sublinear.app import path as path_command
from gpu_sublinear.app.cli import main
from gpu_sublinear.app.inputs import Inputs
from gpu_sublinear.app.option_values import alphas
from gpu_sublinear.app.path import EXPENDABLE, HEADER, folds_of, model_path
from gpu_sublinear.data.classes import Classes
from gpu_sublinear.data.sources import load
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.index.protocol import Following
from gpu_sublinear.tuning.shared_scan import SharedScan
from gpu_sublinear.views.path_rows import PathRow
from gpu_sublinear.views.run_text import narrowed
from tests.helpers.command_line import refusal, usage_error

PLACE = ["--width", "1024", "--shift", "1", "--device", "cpu"]
SEARCH = ["--folds", "3", "--alphas", "100,1,10"]
DIABETES = ["path", "diabetes", *PLACE, *SEARCH]


def targets_csv(folder: Path, names: str = "price,rent/m2", n: int = 60) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 3))
    y = np.stack([np.sin(X[:, 0]) + 0.3 * rng.standard_normal(n), X[:, 1] * X[:, 2] + rng.standard_normal(n)], axis=1)
    np.savetxt(folder / "two.csv", np.hstack([X, y]), delimiter=",", header=f"p,q,r,{names}", comments="")


def rows_of(out: str) -> list[list[str]]:
    """Return the cells of the lines of penalties."""
    lines = [line.split() for line in out.splitlines()]
    return [cells for cells in lines if len(cells) == 7 and cells[1].isdigit()]


def test_path_prints_a_line_per_penalty_and_writes_all_files(here, capsys):
    files = ["--out", "m.safetensors", "--history", "h.json", "--figure", "f.svg"]
    assert main([*DIABETES, *files]) == 0
    out = capsys.readouterr().out
    rows, history = rows_of(out), json.loads((here / "h.json").read_text())
    assert [float(row[0]) for row in rows] == [100, 10, 1]  # from the largest on
    (target,) = history["targets"]
    found = target["path"]
    for row, record in zip(rows, found, strict=True):
        assert row[3] == f"{record['left_out']:.3e}"
        assert len(record["fold_errors"]) == len(record["fold_steps"]) == 3
        assert record["training"] < record["left_out"] < 1.1
        assert record["reason"]
    assert target["alpha"] == min(found, key=lambda record: record["left_out"])["alpha"]
    assert f"alpha = {target['alpha']:.3g} of 3 tried" in out
    model, data = FittedModel.load("m.safetensors", "cpu"), load("diabetes")
    assert model.metadata["settings"]["folds"] == 3
    fit = [target[part] for part in ("training", "held_out")]
    error = ((model.predict(data.X) - data.y) ** 2).mean() / model.targets.std**2
    points = np.array([part["points"] for part in fit])
    assert error == pytest.approx(points @ [part["mse"] for part in fit] / len(data.y), rel=1e-4)
    (chosen,) = (record for record in found if record["alpha"] == target["alpha"])
    assert fit[0]["mse"] == pytest.approx(chosen["training"], rel=1e-4)  # float32
    assert "<svg" in (here / "f.svg").read_text()
    assert history["settings"]["alphas"] == [100.0, 1.0, 10.0]


def test_same_seed_same_bytes(here):
    for name in ("a", "b"):
        assert main([*DIABETES, "--out", name, "--quiet"]) == 0
    assert (here / "a").read_bytes() == (here / "b").read_bytes()
    assert main([*DIABETES, "--seed", "1", "--out", "c", "--quiet"]) == 0
    assert (here / "a").read_bytes() != (here / "c").read_bytes()


@pytest.mark.parametrize("mask", ["lists", "bits", "flips"])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_every_mask_and_host_device(capsys, mask, device):
    shift = "0.1" if mask == "flips" else "1"
    options = ["--width", "256", "--shift", shift, "--device", device, "--mask", mask, *SEARCH]
    assert main(["path", "sphere:n=40,d=4", *options]) == 0
    assert len(rows_of(capsys.readouterr().out)) == 3


def waves_csv(folder: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    y = np.sin(X[:, 0]) + rng.standard_normal(60)
    np.savetxt(folder / "waves.csv", np.c_[X, y], delimiter=",", header="p,q,r,y", comments="")


def test_the_search_ends_where_nothing_is_gained(here, capsys):
    waves_csv(here)
    command = ["path", "waves.csv", *PLACE, "--folds", "2", "--alphas", "1e3:1e-3:13"]
    assert main(command) == 0
    out = capsys.readouterr().out
    tried = len(rows_of(out))
    assert 4 <= tried < 13
    assert "ended    3 penalties and a factor of 10 with errors 1% above the least" in out
    assert main([*command, "--all"]) == 0
    out = capsys.readouterr().out
    assert len(rows_of(out)) == 13
    assert "ended" not in out


@pytest.mark.parametrize("penalties", ["1e7:1e-3:11", "1e5:1:51"])
def test_penalties_under_which_no_weight_moves_are_no_end(capsys, penalties):
    assert main(["path", "sphere:n=60,d=4", *PLACE, "--folds", "2", "--alphas", penalties, "--test-fraction", "0"]) == 0
    rows = [(float(row[0]), float(row[3])) for row in rows_of(capsys.readouterr().out)]
    best = min(rows, key=lambda row: row[1])
    assert best[0] < 100
    assert best[1] < 0.7 * rows[0][1]


def test_a_best_penalty_at_an_end_is_told(capsys):
    for penalties, end in (
        ("1e4,1e3", "smallest tried: a smaller one may be better, see --alphas"),
        ("1,1e-5", "largest"),
    ):
        assert main(["path", "diabetes", *PLACE, "--folds", "2", "--alphas", penalties]) == 0
        assert f"it is the {end}" in capsys.readouterr().out


def test_one_penalty_is_at_no_end(capsys):
    assert main(["path", "diabetes", *PLACE, "--folds", "2", "--alphas", "7"]) == 0
    assert "it is the" not in capsys.readouterr().out


def test_errors_that_are_no_numbers_are_told(here, capsys, monkeypatch):
    monkeypatch.setattr(Following, "outputs", lambda beside: np.full(len(beside.index.X), np.nan))
    assert "no numbers; give larger alphas" in refusal(capsys, [*DIABETES, "--out", "m", "--history", "h.json"])
    (target,) = json.loads((here / "h.json").read_text())["targets"]
    assert len(target["path"]) == 3
    assert target["alpha"] is target["model"] is None
    assert os.listdir() == ["h.json"]


def test_classes_have_equal_shares_in_all_folds(capsys):
    arguments = ["--folds", "2", "--alphas", "10,1", "--test-fraction", ".7"]
    assert main(["path", "digits", "--classify", *PLACE, *arguments]) == 0
    out = capsys.readouterr().out
    assert "10 classes" in out
    assert "accuracy" in out
    labels = np.repeat([0, 1], [30, 10])
    problem = SimpleNamespace(classes=Classes(("a", "b")), labels=labels)
    folds = folds_of(SimpleNamespace(dataset=problem, rows=np.arange(40)), 5, seed=3)
    assert [np.bincount(labels[test]).tolist() for _, test in folds] == [[6, 2]] * 5
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(40))


def test_targets_apart_from_one_scan(here, capsys):
    targets_csv(here)
    command = ["path", "two.csv", "--target", "price,rent/m2", *PLACE, *SEARCH, "--out", "m.st", "--history", "h.json"]
    assert main([*command, "--per-target", "--figure", "f.png"]) == 0
    out = capsys.readouterr().out
    assert out.count("scan ") == 2  # the scan, and its seconds at the end
    assert len(rows_of(out)) == 6
    assert sorted(os.listdir()) == ["f.png", "h.json", "m-price.st", "m-rent_m2.st", "two.csv"]
    history, data = json.loads((here / "h.json").read_text()), load("two.csv", "price,rent/m2")
    for k, target in enumerate(history["targets"]):
        model = FittedModel.load(target["model"], "cpu")
        assert model.target_name == target["target"] == data.target_names[k]
        assert model.network.outputs == 1
        assert ((model.predict(data.X) - data.y[:, k]) ** 2).mean() < data.y[:, k].var()
    assert main([*command, "--figure", "f.png"]) == 0  # one network of two outputs
    assert FittedModel.load("m.st", "cpu").network.outputs == 2


# ---- refusals -------------------------------------------------------------------------------------------


def test_what_cannot_be_searched_is_one_sentence(here, capsys):
    targets_csv(here, "a/b,a_b")
    several = ["path", "two.csv", "--target", "a/b,a_b", *PLACE, "--per-target"]
    assert "is also the file of --out for target 'a/b'" in refusal(capsys, [*several, "--out", "m"])
    assert "400 folds need as many training points; there are 354" in refusal(
        capsys, ["path", "diabetes", "--folds", "400"]
    )
    (here / "rare.csv").write_text("x,y\n" + "\n".join(f"{k},{'rare' if k < 4 else 'usual'}" for k in range(40)))
    rare = ["path", "rare.csv", "--classify", *PLACE, "--test-fraction", "0"]
    assert "class 'rare' has 4 training points, fewer than 5 folds" in refusal(capsys, rare)
    assert "leave out --per-target" in refusal(capsys, ["path", "digits", "--classify", "--per-target", *PLACE])
    assert "memory limit" in refusal(capsys, ["path", "diabetes", *PLACE, "--memory-limit", "401MiB"])
    silent = refusal(capsys, ["path", "diabetes", "--width", "1024", "--shift", "4", "--device", "cpu"])
    assert "of 354 points fire no neuron" in silent  # of the training points, not of a fold
    assert sorted(os.listdir()) == ["rare.csv", "two.csv"]


@pytest.mark.parametrize(
    "text",
    ["1e200,1", "1e101:1:3", "10:1:1e9", "1:2", "a", "1:2:3:4", "0,1", "1,-1", "10:0:3", "10:1:1", "", "nan", "1,,2"],
)
def test_sequences_of_penalties_that_are_none(capsys, text):
    error = usage_error(capsys, ["path", "diabetes", "--alphas", text])
    assert "--alphas" in error


def test_sequences_of_penalties():
    np.testing.assert_allclose(alphas("1000:0.1:5"), [1000, 100, 10, 1, 0.1], rtol=1e-12)
    assert alphas("3,1e-2") == [3.0, 0.01]
    assert alphas("7") == [7.0]
    np.testing.assert_allclose(alphas("1e99:1e-300:3"), [1e99, 10**-100.5, 1e-300])


# ---- interrupts and terminals ---------------------------------------------------------------------------


def interrupt_at(monkeypatch, number: int, press) -> None:
    """Call ``press`` when the row of this number is printed."""
    line, printed = PathRow.line.fget, []

    def pressed(row: PathRow) -> str:
        printed.append(row)
        if len(printed) == number:
            press()
        return line(row)

    monkeypatch.setattr(PathRow, "line", property(pressed))


def watch(monkeypatch, owner, name: str, press=lambda state: None) -> list:
    """Return the list of what a generator function will have yielded; call ``press`` with each before it goes on."""
    real, states = getattr(owner, name), []

    def watched(*given, **named):
        for state in real(*given, **named):
            states.append(state)
            press(state)
            yield state

    monkeypatch.setattr(owner, name, watched)
    return states


def press_ctrl_c(*_) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_the_best_so_far(here, capsys, monkeypatch):
    interrupt_at(monkeypatch, 2, press_ctrl_c)
    trained, whole = watch(monkeypatch, path_command, "trainings"), watch(monkeypatch, SharedScan, "path")
    models: list[str | None] = []  # that the history names, whenever it is written
    written = path_command.write_text

    def noted(name, text):
        models.append(json.loads(text)["targets"][0]["model"])
        assert models[-1] is None or os.path.exists(models[-1])
        written(name, text)

    monkeypatch.setattr(path_command, "write_text", noted)
    assert main([*DIABETES, "--out", "m", "--history", "h.json", "--figure", "f.svg"]) == 130
    assert "of 2 tried" in capsys.readouterr().out
    assert [state[:2] for state in trained] == [(k, fold) for k in range(2) for fold in range(3)]  # nothing after it
    assert models == [None, None, "m"]
    assert len(whole) == 2
    (target,) = json.loads((here / "h.json").read_text())["targets"]
    assert len(target["path"]) == 2
    assert target["alpha"] == 10.0
    FittedModel.load("m", "cpu")


def test_ctrl_c_before_the_first_penalty_is_done(here, capsys, monkeypatch):
    watch(monkeypatch, path_command, "trainings", press_ctrl_c)
    assert main([*DIABETES, "--out", "m", "--figure", "f.svg"]) == 130
    assert "no penalty was tried on all folds; no model was saved" in capsys.readouterr().out
    assert os.listdir() == []


def test_ctrl_c_in_the_last_fold_trains_no_more(here, capsys, monkeypatch):
    watch(monkeypatch, path_command, "trainings", lambda state: state[:2] == (1, 2) and press_ctrl_c())
    whole = watch(monkeypatch, SharedScan, "path")
    assert main([*DIABETES, "--all", "--out", "m"]) == 130
    out = capsys.readouterr().out
    assert "of 1 tried" in out
    assert "the search was interrupted: another may be better" in out
    assert "it is the" not in out
    assert len(whole) == 1


@pytest.mark.parametrize("command", [["train", "sphere:n=40,d=4", *PLACE], DIABETES], ids=["train", "path"])
def test_ctrl_c_while_files_are_written_waits_for_them(here, capsys, monkeypatch, command):
    model = Inputs.model

    def pressed(*given):
        press_ctrl_c()
        return model(*given)

    monkeypatch.setattr(Inputs, "model", pressed)
    assert main([*command, "--out", "m", "--history", "h.json", "--figure", "f.svg"]) == 130
    out = capsys.readouterr().out
    assert "interrupted" not in out and "stopped by" not in out and "resume" not in out
    assert sorted(os.listdir()) == ["f.svg", "h.json", "m"]


def test_refusals_come_before_work(capsys, monkeypatch):
    monkeypatch.setattr(Inputs, "compile", None)
    assert "one by one" in refusal(capsys, ["path", "diabetes", *PLACE, "--activation", "abs"])


def test_an_abort_leaves_the_history_of_what_was_done(here, capsys, monkeypatch):
    def abort():
        raise KeyboardInterrupt

    interrupt_at(monkeypatch, 3, abort)
    assert "aborted" in refusal(capsys, [*DIABETES, "--out", "m", "--history", "h.json"], code=130)
    assert os.listdir() == ["h.json"]
    assert len(json.loads((here / "h.json").read_text())["targets"][0]["path"]) == 2


def test_narrow_terminals_keep_what_matters():
    row = PathRow(3.16, 12, 0.5, 0.6, 0.02, [0.6], [3], 123.4, "", 1.5)
    assert len(HEADER) == len(row.line)
    assert narrowed(row.line, 200, HEADER, EXPENDABLE) == row.line
    narrow = narrowed(row.line, 40, HEADER, EXPENDABLE)
    assert len(narrow) <= 40
    assert narrow.split() == ["3.16", "5.000e-01", "6.000e-01", "2.0e-02"]
    assert narrowed(HEADER, 40, HEADER, EXPENDABLE).split() == ["alpha", "training", "left", "out", "s.e."]


@given(st.text(max_size=30))
def test_models_of_targets_have_names_that_files_can_have(name):
    path = Path(model_path("runs/m.safetensors", name))
    assert path.parent == Path("runs")
    assert path.suffix == ".safetensors"
    assert path.name.startswith("m-")
