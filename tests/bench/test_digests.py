"""Digests of small trainings: each has a name of its own, errors are recorded, and a stopped run is compared."""

from __future__ import annotations

import json

from bench.harness import digests
from gpu_sublinear import get_device

CPU = get_device("cpu")


def test_every_case_has_a_name_of_its_own():
    names = [name for name, _ in digests.cases(CPU)]
    assert len(names) == len(set(names)) > 90


def test_a_digest_is_the_same_again_and_differs_by_option():
    first, again, other = (digests.training(CPU, options) for options in (digests.LISTS, digests.LISTS, digests.RIDGE))
    assert first == again != other


def test_a_resumed_run_is_compared_with_one_that_never_stopped(monkeypatch):
    whole = digests.resumed(CPU, digests.LISTS)
    assert len(whole) == digests.DIGITS
    monkeypatch.setattr(digests, "_in_pieces", lambda device, options, path, stops: str(len(stops)))
    assert digests.resumed(CPU, digests.LISTS) == "1 whole, 2 resumed"


def test_errors_are_recorded_and_a_difference_sets_the_exit_code(monkeypatch, capsys):
    def fail():
        raise ValueError("no such thing")

    monkeypatch.setattr(digests, "cases", lambda device: [("bad", fail)])
    assert digests.main(["cpu"]) == 0
    assert json.loads(capsys.readouterr().out) == {"cpu bad": "ValueError no such thing"}
    monkeypatch.setattr(digests, "cases", lambda device: [("bad", lambda: "1 whole, 2 resumed")])
    assert digests.main(["cpu"]) == 1
