"""``python -m tests.helpers.installs PYTHON...``: build the wheel, install it with each, train without a compiler.

Not part of the suite: it makes environments and installs packages.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers.packaging import build
from tests.helpers.repository import ROOT

TRAIN = ("train", "sphere:n=64,d=8", "--out", "model.safetensors")
KERNELS = "from gpu_sublinear.devices import kernels; kernels.folder(); print(len(kernels.names()), 'kernels')"


def install_and_train(python: str, wheel: Path, folder: Path) -> str:
    """Return what the program says at the end, or raise ``CalledProcessError``."""
    subprocess.run([python, "-m", "venv", str(folder / "env")], check=True)
    programs = folder / "env" / "bin"
    pip = [str(programs / "pip"), "install", "--quiet", "--only-binary", ":all:", str(wheel)]
    subprocess.run(pip, check=True)
    alone = {"PATH": str(programs), "HOME": str(folder)}  # no compiler, no checkout, nothing of the caller's
    commands = ([str(programs / "gpu-sublinear"), *TRAIN], [str(programs / "python"), "-c", KERNELS])
    said = [
        subprocess.run(c, env=alone, cwd=folder, check=True, capture_output=True, text=True).stdout for c in commands
    ]
    return next(line for line in said[0].splitlines() if line.startswith("result")) + "; " + said[1].strip()


def main(pythons: list[str]) -> int:
    if not pythons:
        sys.exit("usage: python -m tests.helpers.installs PYTHON...")
    failed = 0
    with tempfile.TemporaryDirectory() as top:
        wheel = build("wheel", "WheelBuilder", ROOT, Path(top), versions=["standard"])
        for k, python in enumerate(pythons):
            folder = Path(top) / str(k)
            folder.mkdir()
            try:
                print(f"{python}: {install_and_train(python, wheel, folder)}", flush=True)
            except (OSError, subprocess.CalledProcessError) as error:
                failed += 1
                print(f"{python}: FAILED: {error}\n{getattr(error, 'stderr', '') or ''}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
