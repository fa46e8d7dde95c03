"""The devices every test body runs on, and how the suite behaves where one is missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

from gpu_sublinear.devices import Device, get_device
from gpu_sublinear.errors import GpuSublinearError
from tests.cuda_emulator import SCHEDULES, require_compiler, schedule
from tests.helpers.problems import DTYPES

settings.register_profile("suite", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("suite")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # background jobs of scripts; tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)

DEVICES = ("reference", "cpu", "emulated", "cuda")


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


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    """Every device in turn."""
    return make_device(request.param)


@pytest.fixture
def reference() -> Device:
    """The specification."""
    return get_device("reference")


CASES = [*(("emulated", order) for order in SCHEDULES), ("cuda", "")]


@cache
def machine(name: str, multiprocessors: int = 1):
    """Return the cuda device for kernel tests: a tiny emulated GPU, whose grids leave work over, or the real one."""
    if name == "cuda":
        return make_device("cuda")
    from tests.helpers.emulated import emulated_cuda_device

    require_compiler()
    return emulated_cuda_device(multiprocessors)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(filter(None, case)))
def gpu(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The cuda device, emulated in each order of threads, and real."""
    from tests.helpers.emulated import poisoned

    name, order = request.param
    device = machine(name)
    if name == "cuda":
        yield poisoned(device)
        return
    with schedule(order):
        yield device


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    """Both data types in turn."""
    return request.param
