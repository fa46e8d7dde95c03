"""Runs CUDA kernels without a GPU: the emulator, its sanitizers, and the compile gate. See README.md."""

from __future__ import annotations

import os

from .module import SCHEDULES, Kernel, LaunchError, Module, copying, schedule
from .sanitizers import run_pytest_sanitized, run_python_sanitized, sanitizer_or_reason
from .toolchain import CompileError, compiler_or_reason

__all__ = [
    "SCHEDULES",
    "CompileError",
    "Kernel",
    "LaunchError",
    "Module",
    "compiler_or_reason",
    "copying",
    "require_compiler",
    "require_sanitizer",
    "run_pytest_sanitized",
    "run_python_sanitized",
    "sanitizer_or_reason",
    "schedule",
    "skip_or_fail",
]


def skip_or_fail(reason: str) -> None:
    """Skip the running test for `reason`; where the environment says CI=true, fail: there nothing may be missing."""
    import pytest

    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (required because CI=true)", pytrace=False)
    pytest.skip(reason)


def require_compiler() -> None:
    """Skip the running test, or fail in CI, if there is no C++ compiler."""
    compiler, reason = compiler_or_reason()
    if compiler is None:
        skip_or_fail(reason)


def require_sanitizer(sanitizer: str) -> None:
    """Skip the running test, or fail in CI, if the compiler lacks the sanitizer's library."""
    library, reason = sanitizer_or_reason(sanitizer)
    if library is None:
        skip_or_fail(reason)
