"""The limit of infinite width, against wide random networks and against training."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear import GaussNewton, ShiftedReluNetwork, get_device
from gpu_sublinear.foresight.ntk import shifted_ntk
from gpu_sublinear.foresight.wide_limit import WideLimit
from tests.helpers.problems import sphere

X, Y = sphere(60, 8)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_kernel_is_the_shifted_ntk(shift):
    exact = shifted_ntk(X, None, shift)
    limit = WideLimit(X, Y, shift)
    apart = ~np.eye(60, dtype=bool)
    assert limit.kernel[apart] == pytest.approx(exact[apart], rel=1e-9, abs=1e-12)
    assert limit.kernel[~apart] == pytest.approx(exact[~apart], rel=1e-7)  # the angle of equal points is rounding
    assert limit.eigenvalues == pytest.approx(np.linalg.eigvalsh(exact), rel=1e-6)


def test_pairs_are_those_that_neurons_share():
    W = np.random.default_rng(0).standard_normal((20_000, 8))
    lengths = (W @ X.T > 1.0).sum(axis=1).astype(float)  # (m,) points of each neuron
    spread = (lengths**2).std() / np.sqrt(len(W))
    assert abs(WideLimit(X, Y, 1.0).pairs - (lengths**2).mean()) < 5 * spread


@pytest.mark.parametrize(("width", "shift"), [(2**12, 0.0), (2**14, 1.0), (2**14, 2.0)])
def test_training_follows_the_forecast(width, shift):
    """The first two errors agree within a factor of four: they fall by 10 to 10,000 a step."""
    foretold = WideLimit(X, Y, shift).forecast(width, 1e-8)
    network = ShiftedReluNetwork.initialize(width, 8, shift=shift, seed=1, dtype="float64", device=get_device("cpu"))
    result = GaussNewton(tolerance=1e-4).fit(network, X, Y)
    actual = [record.mse for record in result.history]
    assert foretold.settles
    assert abs(foretold.steps - (len(actual) - 1)) <= 1
    assert foretold.mse[1] / actual[1] == pytest.approx(1, rel=0.75)
    assert 0.25 < foretold.mse[1] / actual[1] < 4


def test_the_first_flips_are_those_of_a_trained_network():
    shift, width = 1.0, 2**14
    network = ShiftedReluNetwork.initialize(width, 8, shift=shift, seed=1, dtype="float64", device=get_device("cpu"))
    before = shift < network.W @ X.T  # (m, n)
    GaussNewton(max_steps=1).fit(network, X, Y)
    actual = ((shift < network.W @ X.T) != before).sum() / before.sum()
    assert WideLimit(X, Y, shift).forecast(width, 1e-8).flips == pytest.approx(actual, rel=0.25)


def test_contradictions_do_not_settle_and_more_width_helps():
    rng = np.random.default_rng(5)
    twins = X + 0.02 * rng.standard_normal(X.shape)
    twins /= np.linalg.norm(twins, axis=1, keepdims=True)
    limit = WideLimit(np.vstack([X, twins]), np.concatenate([Y, -Y]), 2.0)
    assert not limit.forecast(2**12, 1e-8).prompt
    errors = [limit.forecast(2**k, 1e-8).mse[1] for k in (12, 18, 24)]
    assert errors[0] > errors[1] > errors[2]


def test_forecasts_repeat_and_end_where_nothing_is_left():
    first, second = (WideLimit(X, Y, 2.0, seed=3).forecast(2**14, 1e-8) for _ in range(2))
    assert first == second
    still = WideLimit(X, np.zeros(60), 1.0).forecast(2**12, 0.0)
    assert (still.mse, still.steps, still.settles) == ([0.0], 0, True)
