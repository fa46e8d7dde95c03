"""``train --checkpoint`` and ``--resume`` from outside: the same files as without interruption, and what is said."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from gpu_sublinear.app import train as train_command
from gpu_sublinear.app.cli import main
from gpu_sublinear.training.checkpoints.file import Checkpoint
from tests.helpers.command_line import SPHERE, refusal
from tests.helpers.kill import results

RUN = [*SPHERE, "--tolerance", "1e-7", "--history", "h.json", "--out", "m"]
RESUME = ["--checkpoint", "c", "--resume"]


def press(monkeypatch, step: int) -> None:
    """Press Ctrl-C while the line of a step is printed."""

    def line(record, width, line=train_command.step_line):
        if record.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return line(record, width)

    monkeypatch.setattr(train_command, "step_line", line)


def files(name: str) -> tuple:
    """Return what training wrote, without clocks; the files get another name."""
    for source, target in (("m", f"{name}.model"), ("h.json", f"{name}.json")):
        os.replace(source, target)
    return results(Path(), name)


def test_ctrl_c_saves_and_says_how_to_go_on(here, capsys, monkeypatch):
    assert main(RUN) == 0
    expected = files("whole")
    said = capsys.readouterr().out
    assert "resume" not in said and "checkpoints" not in said

    assert main([*RUN, *RESUME, "--report", "r.html"]) == 0  # one that nobody interrupts
    assert "resume   there is no checkpoint 'c' yet: training starts from the beginning" in capsys.readouterr().out
    assert files("first") == expected
    assert ">checkpoints</th>" in (here / "r.html").read_text()
    os.remove("c")

    with monkeypatch.context() as patch:
        press(patch, 2)
        assert main([*RUN, "--checkpoint", "c", "--checkpoint-every", "50"]) == 130
    said = capsys.readouterr().out
    assert "stopped by Ctrl-C after 3 steps" in said and "\n  checkpoints " in said
    assert (here / "m").exists() and len(Checkpoint.load("c").history) == 3
    command = next(line for line in said.splitlines() if line.startswith("go on")).removeprefix("go on    ")
    assert command == f"gpu-sublinear {shlex.join([*RUN, '--checkpoint', 'c', '--checkpoint-every', '50'])} --resume"

    assert main(shlex.split(command)[1:]) == 0
    said = capsys.readouterr().out
    assert "resume   from 'c', after 3 steps\nstep " in said
    history = json.loads((here / "h.json").read_text())
    assert files("resumed") == expected
    assert [step["step"] for step in history["steps"]] == list(range(len(history["steps"])))
    result = history["result"]
    assert 0 < result["resumed_seconds"] < result["seconds"] < result["total_seconds"]

    assert main([*shlex.split(command)[1:], "--figure", "f.svg", "--report", "r.html"]) == 0  # finished: files again
    assert files("again") == expected
    assert (here / "f.svg").exists()
    assert main(["report", "again.json", "--out", "r2.html"]) == 0
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_a_command_with_resume_is_told_as_it_is(here, capsys, monkeypatch):
    press(monkeypatch, 0)
    assert main([*SPHERE, *RESUME]) == 130
    assert f"go on    gpu-sublinear {shlex.join([*SPHERE, *RESUME])}\n" in capsys.readouterr().out


def test_mistakes(here, capsys):
    assert "--resume needs --checkpoint FILE" in refusal(capsys, [*SPHERE, "--resume"])
    assert "--checkpoint-every needs --checkpoint FILE" in refusal(capsys, [*SPHERE, "--checkpoint-every", "2"])
    assert "is also the file of --out" in refusal(capsys, [*SPHERE, "--out", "c", "--checkpoint", "c"])
    assert "the folder 'no' does not exist" in refusal(capsys, [*SPHERE, "--checkpoint", "no/c"])
    assert main([*SPHERE, "--checkpoint", "c"]) == 0
    capsys.readouterr()
    assert "add --resume to go on from it" in refusal(capsys, [*SPHERE, "--checkpoint", "c"])
    message = refusal(capsys, [*SPHERE, *RESUME, "--seed", "1", "--solver", "cg"])
    assert "'c' is a checkpoint of another run: seed was 0 and is 1 now; solver was 'auto' and is 'cg' now" in message
    assert "the training points differ" in message
    (here / "c").write_bytes((here / "c").read_bytes()[:-1])
    assert "'c' is not a readable checkpoint" in refusal(capsys, [*SPHERE, *RESUME])
    assert os.listdir() == ["c"]


def test_values_of_the_interval(capsys):
    with pytest.raises(SystemExit):
        main([*SPHERE, "--checkpoint", "c", "--checkpoint-every", "0"])
    assert "must be at least 1" in capsys.readouterr().err
