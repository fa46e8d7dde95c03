"""Systems that lack something: no folder to keep compiled functions in, no modules of Unix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_sublinear
from gpu_sublinear.devices import host

PACKAGE = Path(gpu_sublinear.__file__).parent
DRAW = """
import logging
logging.basicConfig(format="%(levelname)s %(message)s")
from gpu_sublinear import get_device
W = get_device("cpu").normal_rows(7, 0, 16, 3, "float32")
print(abs(W - get_device("reference").normal_rows(7, 0, 16, 3, "float32")).max() < 1e-5)
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder whose package it shall find."""
    where = environment.get("PYTHONPATH", PACKAGE.parent)
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
        cwd=where,
    )


@pytest.fixture
def read_only(tmp_path) -> dict[str, str]:
    """An installation and a home in which nobody can make a folder, not even root: files are in the way."""
    where = shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [where, *(path for path in where.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file")
    return {"PYTHONPATH": str(tmp_path), "HOME": nowhere, "XDG_CACHE_HOME": nowhere, "LOCALAPPDATA": nowhere}


def test_where_no_cache_can_be_written_functions_are_compiled_anew_and_the_log_says_so_once(read_only):
    done = run("-c", DRAW, **read_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
    assert done.stderr.count("WARNING compiled functions cannot be kept") == 1
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in done.stderr


def test_a_folder_that_is_named_is_used(read_only, tmp_path):
    done = run("-c", DRAW, **read_only, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stdout.strip() == "True"
    assert "cannot be kept" not in done.stderr
    assert list((tmp_path / "cache").rglob("*.nbi"))


def test_doctor_knows_where_no_cache_can_be_written(read_only):
    said = run("-m", "gpu_sublinear", "doctor", **read_only).stdout
    assert "Device 'auto' is cpu, because cuda is not available:" in said or "Device 'auto' is cuda" in said


def test_doctor_says_in_a_sentence_that_no_device_works(monkeypatch):
    from gpu_sublinear.app import doctor

    def broken(name):
        raise RuntimeError(f"no {name} here")

    monkeypatch.setattr(doctor, "get_device", broken)
    assert "Device 'auto' does not work (RuntimeError: no auto here)" in "\n".join(doctor.report())


HIDE = """
import os, sys
for name in ("resource", "fcntl", "pwd", "grp", "termios", "syslog"):
    sys.modules[name] = None
for name in ("sysconf", "sched_getaffinity", "register_at_fork", "fork", "getuid", "geteuid", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
"""


def test_everything_is_imported_without_modules_of_unix():
    """As on Windows: what it lacks is hidden, then every file is imported that needs no library left out here."""
    code = HIDE + (
        "import importlib, pkgutil, gpu_sublinear\n"
        "for found in pkgutil.walk_packages(gpu_sublinear.__path__, 'gpu_sublinear.'):\n"
        "    if found.name in ('gpu_sublinear.fitted.torch', 'gpu_sublinear.fitted.onnx', 'gpu_sublinear.__main__'):\n"
        "        continue\n"
        "    importlib.import_module(found.name)\n"
        "print('imported')\n"
    )
    done = run("-c", code)
    assert done.stdout.strip() == "imported", done.stderr


def test_a_network_is_trained_without_modules_of_unix():
    code = HIDE + (
        "import numpy as np\n"
        "from gpu_sublinear import SublinearRegressor\n"
        "X = np.random.default_rng(0).standard_normal((40, 3))\n"
        "model = SublinearRegressor(width=256, device='cpu').fit(X, X[:, 0])\n"
        "print(model.score(X, X[:, 0]) > .5)\n"
    )
    assert run("-c", code).stdout.strip() == "True"


def test_what_the_system_does_not_say_is_not_invented(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(host.os, "sysconf", raising=False)
    device = gpu_sublinear.get_device("reference")
    assert device.total_bytes() == host.UNKNOWN_MEMORY
    monkeypatch.setattr(host, "Path", lambda name: Path("/no/such/folder"))
    assert device.peak_bytes() == 0
