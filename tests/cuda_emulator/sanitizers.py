"""Start pytest, or any Python program, in a process in which a sanitizer watches the emulated kernels."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .toolchain import compiler_or_reason

_LIBRARIES = {"asan": "libasan.so", "tsan": "libtsan.so"}
_OPTIONS = {
    # Python does not free everything at its end; the kernels allocate nothing.
    "asan": ("ASAN_OPTIONS", "detect_leaks=0"),
    "tsan": ("TSAN_OPTIONS", "exitcode=66 history_size=2 report_signal_unsafe=0 atexit_sleep_ms=0"),
    "ubsan": ("UBSAN_OPTIONS", "print_stacktrace=0"),
}
TSAN_EXIT_CODE = 66  # of a process in which ThreadSanitizer saw a race, whatever the tests said


@functools.cache
def sanitizer_or_reason(sanitizer: str) -> tuple[str | None, str]:
    """
    Find the library that has to be loaded before Python for a sanitizer.

    Parameters
    ----------
    sanitizer : str
        "asan", "ubsan" or "tsan".

    Returns
    -------
    tuple of (str or None, str)
        Path ("" where none is needed) and an empty string, or None and the reason why there is none.
    """
    compiler, reason = compiler_or_reason()
    if compiler is None:
        return None, reason
    if sanitizer not in _LIBRARIES:
        return "", ""
    name = _LIBRARIES[sanitizer]
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(found) or not os.path.exists(found):
        return None, f"{compiler} knows no {name}; sanitizers need g++ with its sanitizer libraries"
    return os.path.realpath(found), ""


def run_python_sanitized(
    sanitizer: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """
    Run ``python *arguments`` with a sanitizer; every `Module` in it uses that sanitizer unless told otherwise.

    Parameters
    ----------
    sanitizer : str
        "asan", "ubsan" or "tsan".
    arguments : sequence of str
        What follows ``python``.
    environment : mapping, optional
        Further environment variables.
    timeout : float, optional
        In seconds.

    Returns
    -------
    subprocess.CompletedProcess
        With stdout and stderr, the sanitizer's report among them, together in `stdout`.

    Raises
    ------
    RuntimeError
        If the sanitizer's library is missing.
    """
    library, reason = sanitizer_or_reason(sanitizer)
    if library is None:
        raise RuntimeError(reason)
    variable, options = _OPTIONS[sanitizer]
    env = dict(os.environ, EMULATOR_SANITIZER=sanitizer)
    env[variable] = options
    # Threads of a BLAS are none of ThreadSanitizer's business, and it makes them slow.
    env.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    env.update(environment or {})
    command = [sys.executable, *arguments]
    if library:
        env["LD_PRELOAD"] = library
    if sanitizer == "tsan" and shutil.which("setarch"):
        command = ["setarch", "-R", *command]  # ThreadSanitizer fails on some kernels' address randomisation
    root = Path(__file__).resolve().parents[2]  # so that tests.cuda_emulator can be imported
    return subprocess.run(
        command, env=env, cwd=root, text=True, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run_pytest_sanitized(
    sanitizer: str, test_args: Sequence[str], timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """
    Run pytest with a sanitizer watching the emulated kernels.

    Parameters
    ----------
    sanitizer : str
        "asan" (addresses and undefined behaviour), "ubsan" or "tsan" (data races).
    test_args : sequence of str
        Arguments of pytest, paths relative to the root of the repository.
    timeout : float, optional
        In seconds.

    Returns
    -------
    subprocess.CompletedProcess
        `returncode` is not 0 if a test failed, AddressSanitizer ended the process, or ThreadSanitizer saw a race
        (66); `stdout` has pytest's words and the reports.
    """
    # Without capturing: the report is written by the dying process past pytest, which would swallow it.
    fixed = ["-m", "pytest", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return run_python_sanitized(sanitizer, [*fixed, *test_args], timeout=timeout)
