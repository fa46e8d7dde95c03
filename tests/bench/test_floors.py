"""The floors are those of every kernel there is, and the result kept is what the formulas say."""

from __future__ import annotations

import json

import pytest

from bench.experiments import floors
from bench.harness.records import RESULTS, plain, read, result_path


def test_every_kernel_has_one_line():
    assert floors.missing() == set()
    assert len({kernel.name for kernel in floors.KERNELS}) == len(floors.KERNELS)


def test_the_result_kept_is_what_the_formulas_say():
    expected = floors.measure(device="cpu", **floors.SIZES)
    kept = read(result_path(RESULTS, "full", "floors"))["content"]
    assert floors.tables(kept) == floors.tables(json.loads(json.dumps(plain(expected))))


@pytest.mark.parametrize("shift", floors.SIZES["shifts"])
def test_floors(shift):
    letters = floors.counts(shift)
    assert letters["nnz"] == pytest.approx(2**30 * floors.tail(shift))
    assert floors.tail(3.0) == pytest.approx(1.3499e-3, rel=1e-4)
    scan = next(kernel for kernel in floors.KERNELS if kernel.name == "scan_bits")
    assert floors.floor(scan, letters) == pytest.approx(2 * 2**30 * 64 / 33.5e12)
    assert all(floors.floor(kernel, letters) >= 0 for kernel in floors.KERNELS)
