"""The documentation site builds without a warning, holds everything public, and needs no network to be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpu_sublinear
from tests.helpers.repository import ROOT

FETCHED = re.compile(r'(?:src|srcset)="([^"]*)"|<link [^>]*href="([^"]*)"|url\(([^)]*)\)|@import "([^"]*)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = dict(os.environ, NO_MKDOCS_2_WARNING="1")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    found = []
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        for match in FETCHED.finditer(path.read_text(encoding="utf-8")):
            address = next(filter(None, match.groups()), "").strip("\"'")
            if address.startswith(("http:", "https:", "//")):
                found.append(f"{path.name}: {address}")
    assert not found


def test_everything_public_is_in_the_reference(site: Path) -> None:
    reference = (site / "api.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="gpu_sublinear\.(?:\w+\.)*(\w+)"', reference))
    assert set(gpu_sublinear.__all__) <= anchors


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nowhere](nowhere.md) [no place](#none)\n")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    validation = settings[settings.index("validation:") :]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation}")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr and "#none" in done.stderr
