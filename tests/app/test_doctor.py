"""The doctor always prints its report, whatever is broken."""

from __future__ import annotations

import importlib.metadata
import sys
from types import SimpleNamespace

import pytest

from gpu_sublinear import environment
from gpu_sublinear.app import doctor
from gpu_sublinear.app.cli import main
from gpu_sublinear.errors import CupyMissingError


def test_the_report_names_every_part_and_ends_with_advice(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("Python", "NumPy", "SciPy", "Numba", "CuPy", "driver", "NVRTC", "GPU", "kernel"):
        assert f"\n  {name} " in out
    assert "compiled and ran a parallel function" in out
    assert "Device 'auto' is " in out


def test_every_probe_may_fail(capsys, monkeypatch):
    def broken():
        raise RuntimeError("broken\nbadly")

    monkeypatch.setattr(doctor, "PROBES", dict.fromkeys(doctor.PROBES, broken))
    monkeypatch.setattr(doctor, "get_device", lambda name: broken())
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.count("does not work: RuntimeError: broken badly") >= len(doctor.PROBES)
    assert "--device reference" in out


def test_without_cuda_it_says_why_and_what_to_install(monkeypatch):
    def get_device(name):
        if name == "cuda":
            raise CupyMissingError("CuPy is not installed; do this")
        return SimpleNamespace(name="cpu")

    monkeypatch.setattr(doctor, "get_device", get_device)
    text = "\n".join(doctor._advice())
    assert text.startswith("Device 'auto' is cpu, because cuda is not available:\n  CuPy is not installed; do this")
    assert "gpu-sublinear[cuda13]" in text
    assert "gpu-sublinear[cuda12]" in text


def test_with_cuda_it_says_so(monkeypatch):
    monkeypatch.setattr(doctor, "get_device", lambda name: SimpleNamespace(name=name))
    assert "Device 'auto' is cuda" in next(doctor._advice())


def wheels(*names):
    return lambda: [SimpleNamespace(metadata={"Name": name}, version="14.2.0") for name in names]


def test_duplicate_cupy_wheels_are_found(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "distributions", wheels("cupy-cuda12x", "cupy_cuda13x", "numpy", "cupyx-tools")
    )
    assert doctor.cupy_wheels() == ["cupy-cuda12x 14.2.0", "cupy-cuda13x 14.2.0"]
    assert "several wheels overwrite each other; uninstall all of them" in doctor._cupy()


def test_a_cupy_that_does_not_import_is_reported(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", wheels("cupy-cuda12x"))
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nvrtc", None)
    for name in ("CuPy", "driver", "NVRTC", "GPU"):
        assert doctor.guarded(doctor.PROBES[name]).startswith("does not work: ")


def test_a_gpu_is_described(monkeypatch):
    properties = {"name": b"NVIDIA H200", "totalGlobalMem": 139 * 2**30, "major": 9, "minor": 0}
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1, getDeviceProperties=lambda k: properties, driverGetVersion=lambda: 12080
    )
    cupy = SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(importlib.metadata, "distributions", wheels("cupy-cuda12x"))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert doctor._gpus() == "NVIDIA H200 (sm_90, 139 GiB)"
    assert doctor._driver().startswith("supports CUDA up to 12.8")
    assert doctor._cupy() == "cupy-cuda12x 14.2.0, imports as 14.2.0"


# ---- environment ----------------------------------------------------------------------------------------


def test_environment_is_plain_and_names_no_folder():
    found = environment.environment()
    assert {"python", "platform", "cpu", "cores", "numpy", "scipy", "numba", "cupy", "gpu_sublinear", "commit"} <= set(
        found
    )
    assert found["cores"] >= 1
    assert str(environment._root()) not in str(found)


@pytest.mark.parametrize("probe", ["cpu_model", "git_commit", "package_version"])
def test_a_broken_probe_is_none(monkeypatch, probe):
    def broken():
        raise RuntimeError

    monkeypatch.setattr(environment, probe, broken)
    assert None in environment.environment().values()


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "gpu_sublinear" / "environment.py"))
    assert environment.git_commit() is None
