"""Checks that every file of kernel tests makes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gpu_sublinear.devices.cuda import sources
from gpu_sublinear.devices.cuda.sources import KernelLoader
from tests.cuda_emulator import require_sanitizer, run_pytest_sanitized
from tests.helpers.devices import machine

SMALL_STEP = "test_small_step_through_every_kernel"  # in every file of kernel tests


def check_sanitized(sanitizer: str, path: str) -> None:
    """Run the small step of a test file under a sanitizer, which must have nothing to say."""
    require_sanitizer(sanitizer)
    chosen = f"{SMALL_STEP} and emulated"
    if sanitizer == "tsan":
        chosen += " and random and float32"
    done = run_pytest_sanitized(sanitizer, ["-q", path, "-k", chosen], timeout=900)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:]


def kernels_of_small_step(file: ModuleType, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Run the small step of a test file on the emulator; return the kernels that it launches."""
    launched, get = set(), KernelLoader.get

    def noted(self: KernelLoader, name: str, function: str, dtype: str) -> Any:
        launched.add(function)
        return get(self, name, function, dtype)

    monkeypatch.setattr(KernelLoader, "get", noted)
    step = getattr(file, SMALL_STEP)
    given = {"gpu": machine("emulated"), "dtype": "float32", "monkeypatch": monkeypatch}
    step(**{name: given[name] for name in inspect.signature(step).parameters})
    return launched


def all_kernels() -> set[str]:
    """Return the names of the kernels of all files."""
    pattern = re.compile(r'extern "C" __global__ void(?: __launch_bounds__\([\d, ]+\))?\s+(\w+)\(')
    return {found for name in sources.names() for found in pattern.findall(sources.source(name, "float32"))}


def check_refusals(call: Callable, arguments: dict[str, np.ndarray], deeper: str = "dimensions") -> None:
    """Give each argument of an operation another type, gaps, and one dimension more (refused as ``deeper``)."""
    call()
    for name, good in arguments.items():
        with pytest.raises(TypeError, match=r"must be an array of .*(float16|int16)"):
            call(**{name: good.astype(np.float16 if good.dtype.kind == "f" else np.int16)})
        with pytest.raises(ValueError, match=r"contiguous|shape"):
            call(**{name: np.repeat(good, 2, axis=-1)[..., ::2]})
        with pytest.raises(ValueError, match=deeper):
            call(**{name: good[None]})
