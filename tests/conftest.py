"""Fixtures of the whole suite: the devices every test body runs on, and an empty working folder."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gpu_sublinear.devices import Device, get_device
from tests.cuda_emulator import SCHEDULES, schedule
from tests.helpers.devices import DEVICES, GPU_IS_TESTED, KERNELS, machine, make_device
from tests.helpers.problems import DTYPES

settings.register_profile("suite", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("suite")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # background jobs of scripts; tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once, instead of for each test, that no GPU was asked for."""
    if not GPU_IS_TESTED:
        terminalreporter.write_line("device cuda: left out, CuPy is not installed; REQUIRE_GPU=1 demands it")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Give each worker a stretch of the suite: neighbours share fixtures and compiled functions; who is done steals."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    """Every device in turn."""
    return make_device(request.param)


@pytest.fixture
def reference() -> Device:
    """The specification."""
    return get_device("reference")


CASES = [(name, order) for name in KERNELS for order in (SCHEDULES if name == "emulated" else ("",))]


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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
