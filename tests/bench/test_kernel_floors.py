"""The page about kernels says what the script computes, about every kernel there is."""

from __future__ import annotations

import pytest

from bench import kernel_floors
from tests.helpers.repository import ROOT

PAGE = ROOT / "docs" / "kernels.md"


def test_every_kernel_has_one_line():
    assert kernel_floors.missing() == set()
    assert len({kernel.name for kernel in kernel_floors.TABLE}) == len(kernel_floors.TABLE)


def test_the_page_holds_what_the_script_prints():
    assert kernel_floors.table() in PAGE.read_text(encoding="utf-8")
    assert kernel_floors.sizes() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("shift", kernel_floors.SHIFTS)
def test_floors(shift):
    letters = kernel_floors.counts(shift)
    assert letters["nnz"] == pytest.approx(2**30 * kernel_floors.tail(shift))
    assert kernel_floors.tail(3.0) == pytest.approx(1.3499e-3, rel=1e-4)
    scan = next(kernel for kernel in kernel_floors.TABLE if kernel.name == "scan_bits")
    assert kernel_floors.floor(scan, letters) == pytest.approx(2 * 2**30 * 64 / 33.5e12)
    assert all(kernel_floors.floor(kernel, letters) >= 0 for kernel in kernel_floors.TABLE)
