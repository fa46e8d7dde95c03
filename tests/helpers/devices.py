"""The devices that test bodies run on: which of them this machine can be asked for, and how they are made."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import pytest

from gpu_sublinear.devices import Device, get_device
from gpu_sublinear.errors import GpuSublinearError
from tests.cuda_emulator import require_compiler

# Without CuPy nothing can reach a GPU: there the tests are not made for `cuda` at all, rather than skipped one by one.
GPU_IS_TESTED = os.environ.get("REQUIRE_GPU") == "1" or importlib.util.find_spec("cupy") is not None
DEVICES = ("reference", "cpu", "emulated", *(("cuda",) if GPU_IS_TESTED else ()))
FAST = DEVICES[1:]  # what is compared with the reference
KERNELS = DEVICES[2:]  # what runs the CUDA sources


@cache
def make_device(name: str) -> Device:
    """Return a device for tests; skip (or fail, where the environment demands it) if this machine lacks it."""
    if name == "emulated":
        from tests.helpers.emulated import emulated_cuda_device

        require_compiler()
        return emulated_cuda_device()
    if name != "cuda":
        return get_device(name)
    try:
        return get_device("cuda")
    except GpuSublinearError as reason:
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail(f"REQUIRE_GPU=1 and no GPU works here: {reason}")
        pytest.skip(f"no GPU: {reason}")


@cache
def machine(name: str, multiprocessors: int = 1):
    """Return the cuda device for kernel tests: a tiny emulated GPU, whose grids leave work over, or the real one."""
    if name == "cuda":
        return make_device("cuda")
    from tests.helpers.emulated import emulated_cuda_device

    require_compiler()
    return emulated_cuda_device(multiprocessors)


def is_emulated(device: Device) -> bool:
    """Tell whether kernels run on the emulator, where problems must be small."""
    return device.describe().get("gpu") == "emulator"
