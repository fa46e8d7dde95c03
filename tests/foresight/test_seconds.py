"""The model of a run's time: counted work, measured prices."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear import get_device
from gpu_sublinear.foresight.seconds import TASKS, Prices, Work, expected_seconds
from gpu_sublinear.foresight.trial import Trial, run_trial
from gpu_sublinear.linear.solver_costs import FLOP, PAIR
from gpu_sublinear.model.shifts import firing_probability
from tests.helpers.problems import sphere

WORK = Work(n=100, d=8, width=4096, shift=2.0, pairs=1e6, rows=200)
SECONDS = {"draw": 0.1, "scan": 0.5, "query": 0.2, "gram": 1.0, "solve": 0.5}


def trial(**changes) -> Trial:
    values = {"width": 1000, "counts": np.full(100, 5), "union": 400, "pairs": 2e6, "candidates": 800}
    return Trial(**values, eigenvalues=None, seconds=SECONDS | changes)


def test_prices_divide_measured_seconds_by_work():
    prices = Prices.of(trial(), 100, 8)
    assert prices.weight == pytest.approx(0.1 / (1000 * 8))
    assert prices.product == pytest.approx(0.5 / (100 * 1000 * 8))
    assert prices.candidate == pytest.approx(0.2 / 800)
    assert prices.speed == pytest.approx(1.5 / (PAIR * 2e6 + FLOP * 100**3 / 3))
    assert Prices.of(trial(gram=1e-4, solve=1e-5), 100, 8).speed == 1  # too short to time


def test_seconds_grow_with_their_work():
    prices = Prices(weight=1e-9, product=1e-10, candidate=1e-8, speed=1.0)
    now = expected_seconds(WORK, prices, "gram", 0.5)
    assert tuple(now) == TASKS
    wider = expected_seconds(Work(100, 8, 8192, 2.0, 2e6, 200), prices, "gram", 0.5)
    assert wider["draw"] == pytest.approx(2 * now["draw"])
    assert wider["first scan"] == pytest.approx(2 * now["first scan"])
    assert all(wider[part] > now[part] for part in TASKS)
    assert now["first step"] > now["later step"] > 0
    larger_shift = expected_seconds(Work(100, 8, 4096, 3.0, 1e4, 200), prices, "gram", 0.5)
    assert larger_shift["later step"] < now["later step"]


def test_expected_work_is_that_of_a_drawn_network():
    X, _ = sphere(50, 6)
    seen = run_trial(get_device("cpu"), X, 20_000, 1.0, 0, "float64")
    work = Work(50, 6, 20_000, 1.0, seen.pairs, 100)
    assert work.fired == pytest.approx(50 * 20_000 * firing_probability(1.0))
    assert seen.counts.sum() == pytest.approx(work.fired, rel=0.05)
    assert seen.candidates == pytest.approx(work.candidates, rel=0.05)
    assert set(seen.seconds) == set(SECONDS)
