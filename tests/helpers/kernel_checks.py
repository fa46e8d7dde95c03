"""Checks that every file of kernel tests makes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.cuda_emulator import require_sanitizer, run_pytest_sanitized


def check_sanitized(sanitizer: str, path: str) -> None:
    """Run the small step through every kernel of a test file under a sanitizer, which must have nothing to say."""
    require_sanitizer(sanitizer)
    chosen = "test_small_step_through_every_kernel and emulated"
    if sanitizer == "tsan":
        chosen += " and random and float32"
    done = run_pytest_sanitized(sanitizer, ["-q", path, "-k", chosen], timeout=900)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:]


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
