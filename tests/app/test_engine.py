"""The options that choose how a step is computed: engine, margin, Jacobian, sketch, memory limit."""

from __future__ import annotations

import argparse
import json

import pytest

from gpu_sublinear.app.cli import main
from gpu_sublinear.app.option_values import size
from tests.helpers.command_line import SPHERE

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    "chosen",
    [
        ["--engine", "faithful"],
        ["--engine", "faithful", "--sketch", "neurons", "--jacobian", "factored"],
        ["--margin", "0.3", "--jacobian", "csr", "--sketch", "rows", "--solver", "sketch-cg", "--sketch-rows", "4"],
        ["--margin", "0", "--memory-limit", "8GiB"],
    ],
)
def test_engines_fit_equally_well(here, chosen):
    arguments = [*SPHERE, "--init", "iid", "--dtype", "float64", "--solver-tolerance", "1e-10", "--history", "h.json"]
    mse = []
    for options in ([], chosen):
        assert main([*arguments, *options]) == 0
        mse.append([record["mse"] for record in json.loads((here / "h.json").read_text())["steps"]])
    assert mse[1] == pytest.approx(mse[0], rel=1e-4)


def test_faithful_engine_is_in_the_history(here):
    assert main([*SPHERE, "--engine", "faithful", "--history", "h.json"]) == 0
    settings = json.loads((here / "h.json").read_text())["settings"]
    expected = {"solver": "sketch-cg", "margin": 0, "jacobian": "csr", "sketch": "rows", "sketch_rows": 8.0}
    assert {name: settings[name] for name in expected} == expected


def test_a_memory_limit_too_small_is_refused_before_training(capsys):
    assert main([*SPHERE, "--memory-limit", "1MB"]) == 1
    assert "more than the memory limit of 1,000,000; the largest part are the" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "count"), [("8GiB", 8 << 30), ("500MB", 500_000_000), ("1e9", 10**9), ("2k", 2000)])
def test_sizes(text, count):
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "8 GiBB", "-1GB", "0", "much", "1..5MB"])
def test_bad_sizes(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size such as 8GiB"):
        size(text)
