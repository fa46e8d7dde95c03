"""Sanitizers watch every kernel and have nothing to say."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.devices.cuda import test_bit_kernels, test_implicit_kernels, test_kernels, test_list_kernels
from tests.helpers.kernel_checks import all_kernels, check_sanitized, kernels_of_small_step
from tests.helpers.repository import ROOT

FILES = (test_kernels, test_list_kernels, test_bit_kernels, test_implicit_kernels)


def path(file: ModuleType) -> str:
    """Return the path of a file of tests from the root of the repository."""
    return f"{file.__name__.replace('.', '/')}.py"


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
@pytest.mark.parametrize("file", FILES, ids=path)
def test_sanitizers_are_silent(file, sanitizer):
    assert (ROOT / path(file)).is_file()
    check_sanitized(sanitizer, path(file))


def test_every_kernel_is_in_a_sanitizer_test(monkeypatch):
    """What :func:`check_sanitized` runs of each file, here without a sanitizer, launches all kernels there are."""
    launched = set().union(*(kernels_of_small_step(file, monkeypatch) for file in FILES))
    assert len(launched) > 30 and launched == all_kernels()
