"""The scripts ./dev and .ci/run: valid POSIX shell, usage, and what they do, with stand-ins for Python and pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]

FAKE_PYTHON = """#!/bin/sh
# stands for the interpreter: notes its arguments, makes an environment that holds itself
echo "python $*" >>"$LOG"
case "$*" in
--version) echo "Python 3.12.0" ;;
-c*) exit "${TOO_OLD:-0}" ;;
"-m venv --clear .venv")
    mkdir -p .venv/bin
    for name in python ruff mypy lint-imports gpu-sublinear; do cp "$0" ".venv/bin/$name"; done ;;
esac
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the script, a project file and a stand-in for Python."""
    shutil.copy(ROOT / "dev", tmp_path / "dev")
    (tmp_path / "pyproject.toml").write_text("one")
    (tmp_path / "fake").write_text(FAKE_PYTHON)
    (tmp_path / "fake").chmod(0o755)
    return tmp_path


def dev(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"LOG": str(checkout / "log"), "PYTHON": str(checkout / "fake")} | variables
    return subprocess.run([SHELLS[-1] if "dash" not in SHELLS else "dash", str(checkout / "dev"), *arguments],
                          env=env, capture_output=True, text=True)  # fmt: skip


def log(checkout: Path) -> list[str]:
    lines = (checkout / "log").read_text().splitlines()
    (checkout / "log").write_text("")
    return lines


@pytest.mark.parametrize("shell", SHELLS)
def test_syntax(shell):
    for script in ("dev", ".ci/run") if shell == "bash" else ("dev",):
        subprocess.run([shell, "-n", str(ROOT / script)], check=True)


def test_scripts_are_executable_with_the_right_first_line():
    for name, first in (("dev", "#!/bin/sh"), (".ci/run", "#!/usr/bin/env bash")):
        assert os.access(ROOT / name, os.X_OK)
        assert (ROOT / name).read_text().splitlines()[0] == first
    assert "set -eu" in (ROOT / "dev").read_text()
    assert "./dev test" in (ROOT / ".ci/run").read_text()


def test_no_bashisms():
    text = (ROOT / "dev").read_text()
    for pattern in (
        r"\[\[",
        r"\bfunction\b",
        r"\blocal\b",
        r"<<<",
        r"==? *\(",
        r"\becho -[en]",
        r"&>",
        r"\bsource\b",
        r"\$'",
    ):
        assert not re.search(pattern, text), pattern


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("help",), 0), (("--help",), 0), (("fly",), 2)])
def test_usage(checkout, arguments, code):
    done = dev(checkout, *arguments)
    assert done.returncode == code
    assert "usage: ./dev COMMAND" in (done.stderr if code else done.stdout)
    assert not (checkout / ".venv").exists()


def test_train_installs_once_and_again_when_the_project_file_changes(checkout):
    assert dev(checkout, "train", "--seed", "1 2").returncode == 0
    first = log(checkout)
    assert any("-m venv --clear .venv" in line for line in first)
    assert any("--editable .[plot]" in line for line in first)
    assert first[-1].startswith("python train digits --out runs/digits.safetensors --history runs/digits.json")
    assert first[-1].endswith("--seed 1 2")
    assert (checkout / "runs").is_dir()

    dev(checkout, "train")
    assert not any("pip install" in line or "venv" in line for line in log(checkout))
    (checkout / "pyproject.toml").write_text("two")
    dev(checkout, "train")
    assert any("--editable .[plot]" in line for line in log(checkout))


def test_test_runs_the_checks_in_order(checkout):
    done = dev(checkout, "test", "-k", "tree")
    assert done.returncode == 0
    runs = [line for line in log(checkout) if re.match(r"python (check|format|-m pytest|$)", line)]
    lint = ["python check .", "python format --check .", "python ", "python "]  # ruff twice, mypy, lint-imports
    assert runs == [*lint, "python -m pytest -n 2 -k tree"]
    assert "== .venv/bin/ruff check ." in done.stdout


def test_lint_and_bench(checkout):
    assert dev(checkout, "lint").returncode == 0
    assert not any("pytest" in line for line in log(checkout))
    assert dev(checkout, "bench", "--quick").returncode == 0
    assert log(checkout)[-1] == "python -m bench --quick"


def test_docs_fail_on_warnings(checkout):
    assert dev(checkout, "docs").returncode == 0
    lines = log(checkout)
    assert any("--editable .[docs]" in line for line in lines)
    assert lines[-1] == "python -m mkdocs build --strict"


def test_a_python_that_is_too_old_is_refused(checkout):
    done = dev(checkout, "train", TOO_OLD="1")
    assert done.returncode == 1
    assert "is not a Python >= 3.11" in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_refused(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    for name in ("dirname", "cat", "cksum"):
        (tools / name).symlink_to(shutil.which(name))
    env = {"PATH": str(tools)}
    shell = shutil.which(SHELLS[0])
    done = subprocess.run([shell, str(checkout / "dev"), "train"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no Python >= 3.11 with the venv module was found; install one" in done.stderr
