"""What a result depends on besides its inputs: versions, processor, commit."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .version import __version__


def environment() -> dict[str, Any]:
    """Describe the machine and the software, without names of hosts, users or folders.

    Returns
    -------
    dict
        Plain values for JSON; None for what is absent or cannot be found out.
    """
    probes: dict[str, Callable[[], Any]] = {
        "gpu_sublinear": package_version,
        "commit": git_commit,
        "python": platform.python_version,
        "platform": platform.platform,
        "cpu": cpu_model,
        "cores": usable_cores,
        "numpy": lambda: module_version("numpy"),
        "scipy": lambda: module_version("scipy"),
        "scikit_learn": lambda: module_version("sklearn"),
        "numba": lambda: module_version("numba"),
        "cupy": lambda: module_version("cupy"),
        "threads": _thread_settings,
    }
    return {name: _guarded(probe) for name, probe in probes.items()}


def _guarded(probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except Exception:  # a broken installation must not cost the user a trained model
        return None


def package_version() -> str:
    """Return the version of this package."""
    return __version__


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def module_version(name: str) -> str | None:
    """Return the version of a module, None where it is not installed or does not import."""
    if importlib.util.find_spec(name) is None:
        return None
    return str(importlib.import_module(name).__version__)


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """Return the name of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            return _output("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, marked if changed; None elsewhere."""
    root = _root()
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
        changed = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
        return commit + (" with changes" if changed else "")
    return None


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _thread_settings() -> dict[str, str]:
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {name: os.environ[name] for name in names if name in os.environ}
