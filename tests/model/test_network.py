"""Initialisation, the shift rule, and the dense forward pass for new data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DataError, OptionError
from gpu_sublinear.index.protocol import forward
from gpu_sublinear.index.tree import ThresholdTree
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.model.shifts import firing_probability, paper_shift, resolve_shift, shift_for_fired
from gpu_sublinear.training.gauss_newton import GaussNewton
from tests.helpers.problems import sphere


def test_shift_rule():
    assert paper_shift(2**16) == pytest.approx(math.sqrt(0.48 * math.log(65536)))
    assert resolve_shift("paper", 1024) == paper_shift(1024)
    assert firing_probability(0.0) == 0.5
    assert 1000 * firing_probability(shift_for_fired(1000, 30)) == pytest.approx(30)
    # algorithm.md's table: 690 fire at m = 2^16, 5186 at 2^20, 39565 at 2^24
    for exponent, fired in ((16, 690), (20, 5186), (24, 39565)):
        assert 2**exponent * firing_probability(paper_shift(2**exponent)) == pytest.approx(fired, rel=1e-3)


def test_signs_balance(device):
    network = ShiftedReluNetwork.initialize(10, 2, device=device)
    network.hold_all()
    assert len(network.signs) == 10
    assert float(network.signs.sum()) == 0


def test_fired_counts_are_binomial(device):
    m, shift = 4000, 1.0
    X, _ = sphere(50, 20)
    network = ShiftedReluNetwork.initialize(m, 20, shift=shift, seed=3, device=device)
    tree = ThresholdTree.build(device, device.asarray(X, "float32"), network.W)
    counts = device.to_host(tree.query(shift).counts)
    p = stats.binom.cdf(counts, m, firing_probability(shift))
    assert np.minimum(p, 1 - p).min() > 1e-3 / 50  # Bonferroni over the points


def test_paired_initialisation_starts_at_zero(device):
    X, _ = sphere(30, 5)
    network = ShiftedReluNetwork.initialize(300, 5, shift=0.5, paired=True, sampling="explicit", device=device)
    network.hold_all()
    X = device.asarray(X, "float32")
    active = ThresholdTree.build(device, X, network.W).query(0.5)
    assert not device.to_host(forward(network, active)).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predict_equals_forward_from_the_leaves(device, dtype):
    X, _ = sphere(30, 5)
    network = ShiftedReluNetwork.initialize(10_000, 5, shift=1.0, dtype=dtype, device=device)
    network.hold_all()
    X = device.asarray(X, dtype)
    active = ThresholdTree.build(device, X, network.W).query(1.0)
    exact = device.to_host(forward(network, active))
    # 10^4 terms of order 1, times m^{-1/2}, each sum rounded: m^{1/2} eps is the worst case
    assert np.abs(network.predict(X) - exact).max() <= 100 * np.finfo(dtype).eps * np.sqrt(10_000) / 10


def test_predict_does_not_depend_on_the_batch(monkeypatch):
    X, _ = sphere(70, 5)
    network = ShiftedReluNetwork.initialize(500, 5, dtype="float64", device=get_device("cpu"))
    whole = network.predict(X)
    monkeypatch.setattr("gpu_sublinear.model.network.PREDICT_POINTS", 16)
    assert np.allclose(network.predict(X), whole, rtol=0, atol=1e-13)
    assert network.predict(X[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 1}, "width must be from 2"),
        ({"width": 7}, "width must be even so that the signs balance; got 7, use 8"),
        ({"width": 2**53 + 2}, "width must be from 2 to"),
        ({"sampling": "lazy"}, "sampling must be one of auto, explicit, virtual; got 'lazy'"),
        ({"sampling": "virtual"}, "virtual sampling needs paired initialisation"),
        ({"shift": "fired:x"}, "got 'fired:x'"),
        ({"features": 0}, "features must be at least 1"),
        ({"shift": -1.0}, "shift must be a finite number >= 0, 'paper' or 'fired:K'; got -1.0"),
        ({"shift": math.nan}, "shift must be a finite number"),
        ({"shift": "large"}, "got 'large'"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64'; got 'float16'"),
        ({"seed": -1}, "seed must be an integer"),
    ],
)
def test_bad_arguments(arguments, message):
    given = {"width": 4, "features": 2, "device": get_device("reference"), **arguments}
    with pytest.raises(OptionError, match=message):
        ShiftedReluNetwork.initialize(**given)


def test_bad_points():
    network = ShiftedReluNetwork.initialize(4, 2, device=get_device("reference"))
    with pytest.raises(DataError, match=r"X must have shape \(n, 2\); got \(3, 3\)"):
        network.predict(np.ones((3, 3)))
    with pytest.raises(DataError, match="NaN or infinite"):
        network.predict(np.array([[np.nan, 0.0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_fit_refuses_are_refused_by_predict(device, dtype):
    X, y = sphere(20, 5)
    network = ShiftedReluNetwork.initialize(200, 5, shift=0.5, dtype=dtype, device=device)
    for wrong in (10 * X, np.vstack([X, 1.01 * X[:1]]), np.vstack([X, 0 * X[:1]])):
        wrong = wrong.astype(dtype)
        with pytest.raises(DataError, match="unit Euclidean norm; row") as told:
            network.predict(device.asarray(wrong))
        with pytest.raises(DataError) as of_fit:
            GaussNewton().fit(network, device.asarray(wrong), device.asarray(np.ones(len(wrong))))
        assert str(told.value) == str(of_fit.value)
    rounded = (X * (1 + 5e-4)).astype(dtype)  # within the tolerance of fit
    assert network.predict(device.asarray(rounded)).shape == (20,)
