"""The program from outside: small trainings, and mistakes that must be one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gpu_sublinear.app.cli import main
from tests.helpers.repository import ROOT

SMALL = ["--width", "2048", "--shift", "1", "--device", "reference"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SPHERE = ["train", "sphere:n=40,d=6", *SMALL]


def refusal(capsys, arguments: list[str], code: int = 1) -> str:
    """Run the program, which must fail with one sentence; return it."""
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("gpu-sublinear: error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def usage_error(capsys, arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def program(*arguments: str) -> subprocess.Popen[str]:
    """Start the program as a user would, with Ctrl-C as a terminal gives it."""
    return subprocess.Popen(
        [sys.executable, "-m", "gpu_sublinear", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
