"""What the wheel and the source distribution hold: every kernel source, and in the wheel nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gpu_sublinear.devices.cuda import sources as kernels
from tests.helpers.packaging import build
from tests.helpers.repository import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of this checkout."""
    return build("wheel", "WheelBuilder", ROOT, tmp_path_factory.mktemp("dist"), versions=["standard"])


def test_wheel_has_every_kernel_source_and_nothing_beside_them(wheel: Path) -> None:
    sources = {f"gpu_sublinear/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.cu")}
    assert len(sources) > 1
    sources.add(f"gpu_sublinear/kernels/{kernels.HEADER}")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if name.startswith("gpu_sublinear/kernels/")}
    assert set(packed) == sources
    for name, text in packed.items():
        assert text == (ROOT / "kernels" / Path(name).name).read_bytes()


def test_wheel_has_every_module_and_no_tests(wheel: Path) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gpu_sublinear").rglob("*.py")}
    modules |= {f"gpu_sublinear/html/report.{suffix}" for suffix in ("html", "css")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert modules <= names
    assert "gpu_sublinear/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "bench", "kernels"))]


def test_an_installed_wheel_finds_its_sources(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from gpu_sublinear.devices.cuda import sources as kernels; print(kernels.folder()); print(*kernels.names())"
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    place, found = ran.stdout.splitlines()
    assert Path(place) == tmp_path / "gpu_sublinear" / "kernels"
    assert tuple(found.split()) == kernels.names()


def test_importing_the_package_needs_no_cupy_and_does_not_import_it() -> None:
    modules = "gpu_sublinear, gpu_sublinear.devices.cuda.device, gpu_sublinear.devices.cuda.cusparse"
    code = f"import sys, {modules}; print('cupy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


# ---- the source distribution ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    path = build("sdist", "SdistBuilder", ROOT, folder)
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    (top,) = (entry for entry in folder.iterdir() if entry.is_dir())
    return top


def test_source_distribution_has_what_building_and_testing_need(unpacked: Path) -> None:
    patterns = ("kernels/*.cu*", "gpu_sublinear/**/*.py", "tests/**/*.py", "docs/*.md", "docs/figures/*.svg")
    wanted = {path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)}
    wanted |= {Path(name) for name in ("dev", "README.md", "CHANGELOG.md", "pyproject.toml", "mkdocs.yml")}
    assert sorted(path for path in wanted if not (unpacked / path).is_file()) == []


def test_source_distribution_builds_the_same_wheel(unpacked: Path, wheel: Path, tmp_path: Path) -> None:
    again = build("wheel", "WheelBuilder", unpacked, tmp_path, versions=["standard"])
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {item.filename: item.CRC for item in first.infolist()} == {
            item.filename: item.CRC for item in second.infolist()
        }
