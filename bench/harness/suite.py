"""The runner: every experiment in a process of its own, its result written the moment it ends.

An experiment that fails, crashes or runs too long leaves a result that says so, and the others go on.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.harness.experiment import Experiment
from bench.harness.records import ROOT, read, result_path, write_json
from gpu_sublinear.environment import environment

MEASURED_BY = (
    "gpu_sublinear/**/*.py", "kernels/*.cu*", "bench/baselines/*.py", "bench/experiments/*.py",
    "bench/harness/measure.py", "bench/harness/problems.py",
)  # fmt: skip
OPTIONAL = ("torch", "jax", "optimistix", "lineax")
LIMITS = {"tiny": 60.0, "quick": 200.0, "full": 900.0, "gpu": 240.0}  # seconds of one experiment
TAIL = 2000  # characters kept of what a dead process said
Say = Callable[[str], None]


def code_version() -> str:
    """Return a digest of the code that a measurement depends on: report and figure code may change freely."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in MEASURED_BY for path in ROOT.glob(pattern)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def run_here(experiment: Experiment, suite: str, device: str, folder: Path) -> dict[str, Any]:
    """Measure in this process; write and return the result, also where the measurement raises."""
    begin, content, error = time.time(), None, None
    try:
        content = experiment.measure(device=device, **experiment.sizes[suite])
    except Exception as cause:  # whatever it is, the other experiments matter
        error = f"{type(cause).__name__}: {cause}"
        traceback.print_exc()
    return _write(experiment, suite, device, folder, content, error, time.time() - begin)


def run_apart(experiment: Experiment, suite: str, device: str, folder: Path, limit: float) -> dict[str, Any]:
    """Measure in a process of its own with a time limit; a process that dies is a failed result too."""
    path = result_path(folder, suite, experiment.name)
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench", "--worker", experiment.name, "--suite", suite]
    begin = time.time()
    try:
        options = ["--device", device, "--results", str(folder)]
        done = subprocess.run(command + options, cwd=ROOT, timeout=limit, capture_output=True, text=True)
        error = f"the process ended with code {done.returncode}: {_told(done.stderr)[-TAIL:]}"
    except subprocess.TimeoutExpired:
        error = f"stopped after {limit:.0f} s"
    if path.exists():
        return read(path)
    return _write(experiment, suite, device, folder, None, error, time.time() - begin)


def _told(text: str) -> str:
    """Return what a process said, without the folder of this checkout."""
    return text.strip().replace(str(ROOT), ".")


def _write(
    experiment: Experiment, suite: str, device: str, folder: Path, content: Any, error: str | None, seconds: float
) -> dict[str, Any]:
    versions = environment() | {name: _version(name) for name in OPTIONAL}
    result = {
        "experiment": experiment.name, "suite": suite, "device": device, "size": experiment.sizes[suite],
        "code": code_version(), "environment": versions, "seconds": seconds, "error": error, "content": content,
    }  # fmt: skip
    path = write_json(result_path(folder, suite, experiment.name), result)
    return read(path)


def _version(name: str) -> str | None:
    """Return a version without importing the package: torch and jax would start their threads."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def is_done(experiment: Experiment, suite: str, device: str, folder: Path) -> bool:
    """Tell whether a good result of the same code, size and device is there."""
    path = result_path(folder, suite, experiment.name)
    if not path.exists():
        return False
    result = read(path)
    wanted = {"device": device, "size": json.loads(json.dumps(experiment.sizes[suite])), "code": code_version()}
    return result["error"] is None and all(result[key] == value for key, value in wanted.items())


def run_suite(
    experiments: Iterable[Experiment],
    suite: str,
    device: str,
    folder: Path,
    resume: bool = False,
    apart: bool = True,
    limit: float | None = None,
    say: Say = print,
) -> list[dict[str, Any]]:
    """Run experiments one after the other; return the results of those that ran.

    Parameters
    ----------
    limit : float, optional
        Seconds for all together: an experiment is stopped when they are used up, and those after it are skipped.
    """
    begin, results = time.time(), []
    for experiment in experiments:
        if resume and is_done(experiment, suite, device, folder):
            say(f"{experiment.name:<16} done before")
            continue
        left = LIMITS[suite] if limit is None else min(LIMITS[suite], limit - (time.time() - begin))
        if left <= 0:
            say(f"{experiment.name:<16} skipped: no time left")
            continue
        if apart:
            result = run_apart(experiment, suite, device, folder, left)
        else:
            result = run_here(experiment, suite, device, folder)
        results.append(result)
        say(f"{experiment.name:<16} {result['seconds']:6.1f} s  {result['error'] or 'ok'}")
    return results
