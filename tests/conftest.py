"""The devices every test body runs on, and how the suite behaves where one is missing."""

from __future__ import annotations

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

from gpu_sublinear.devices import Device, get_device
from gpu_sublinear.errors import GpuSublinearError

settings.register_profile("suite", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("suite")

DEVICES = ("reference", "cpu", "emulated", "cuda")


@cache
def make_device(name: str) -> Device:
    """Return a device for tests; skip (or fail, where the environment demands it) if this machine lacks it."""
    if name == "emulated":
        from tests.cuda_emulator import require_compiler
        from tests.emulated import emulated_cuda_device

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


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    """Every device in turn."""
    return make_device(request.param)


@pytest.fixture
def reference() -> Device:
    """The specification."""
    return get_device("reference")
