"""Sample weights are repetitions, and the penalty by cross-validation is that of the definition."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear.errors import DataError, OptionError
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.penalty import PENALTIES
from tests.helpers.devices import make_device
from tests.helpers.problems import sphere

SAME = 1e-9  # relative; the two runs differ by the order of float64 sums, magnified by cond(G) of some hundreds
WAYS = ({}, {"margin": 0}, {"jacobian": "csr"}, {"solver": "cg"}, {"solver": "sketch-cg"}, {"mask": "bits", "alpha": 0})


def noisy(n: int = 24, d: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y = sphere(n, d)
    rng = np.random.default_rng(1)
    return X, y + rng.standard_normal(n), rng.integers(0, 4, n)


def trained(device, X, y, weights=None, outputs=1, **options):
    kinds = {"shift": 0.5, "seed": 1, "dtype": "float64", "outputs": outputs, "device": device}
    network = ShiftedReluNetwork.initialize(512, X.shape[1], **kinds)
    trainer = GaussNewton(**({"alpha": 0.1, "tolerance": 1e-10, "max_steps": 3} | options))
    return trainer.fit(network, X, y, sample_weight=weights)


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_whole_weights_are_repetitions(name, options):
    device = make_device(name)
    X, y, w = noisy()
    if options.get("alpha") == 0:
        w = np.minimum(w, 1)  # copies make G singular; the ridge penalty mends that, full steps would not
    tight = options | ({"cg": tight_cg()} if "cg" in options.get("solver", "") else {})
    weighted = trained(device, X, y, w, **tight)
    repeated = trained(device, np.repeat(X, w, axis=0), np.repeat(y, w), **tight)
    assert len(weighted.history) == len(repeated.history)
    for one, other in zip(weighted.history, repeated.history, strict=True):
        assert one.mse == pytest.approx(other.mse, rel=SAME)
        assert one.penalty == pytest.approx(other.penalty, rel=SAME)
    P = sphere(30, 4, seed=5)[0]
    want = repeated.network.predict(P)
    np.testing.assert_allclose(weighted.network.predict(P), want, rtol=0, atol=SAME * abs(want).max())


def test_whole_weights_are_repetitions_for_several_outputs(reference):
    X, y, w = noisy()
    Y = np.stack([y, np.sin(3 * y), -y], axis=1)
    many = {"outputs": 3, "cg": tight_cg(), "alpha": "auto"}
    weighted = trained(reference, X, Y, w, **many)
    repeated = trained(reference, np.repeat(X, w, axis=0), np.repeat(Y, w, axis=0), **many)
    assert weighted.alpha == repeated.alpha
    assert [one.mse for one in weighted.history] == pytest.approx([one.mse for one in repeated.history], rel=SAME)
    want = repeated.network.predict(X)
    np.testing.assert_allclose(weighted.network.predict(X), want, rtol=0, atol=SAME * abs(want).max())


def tight_cg():
    from gpu_sublinear.options import CGOptions

    return CGOptions(1e-13)


def test_a_weight_pulls_the_fit_towards_its_point(reference):
    X, y, _ = noisy()
    w = np.ones(len(y))
    w[3] = 1000.0
    even, pulled = (trained(reference, X, y, v, alpha=10.0).network.predict(X) - y for v in (None, w))
    assert abs(pulled[3]) < 0.1 * abs(even[3])


def test_chosen_penalties_of_weights_and_of_repetitions_agree(reference):
    X, y, w = noisy()
    weighted = trained(reference, X, y, w, alpha="auto")
    repeated = trained(reference, np.repeat(X, w, axis=0), np.repeat(y, w), alpha="auto")
    assert weighted.alpha == repeated.alpha
    assert weighted.alpha in PENALTIES
    assert weighted.history[-1].mse == pytest.approx(repeated.history[-1].mse, rel=SAME)


def test_noise_is_given_a_penalty_and_smooth_targets_are_interpolated(reference):
    X, y = sphere(60, 3)
    noise = np.random.default_rng(0).standard_normal(60)
    assert trained(reference, X, y, alpha="auto", max_steps=0).alpha < 1e-2
    assert trained(reference, X, noise, alpha="auto", max_steps=0).alpha > 1


def test_the_choice_from_a_part_of_many_points_is_near_that_from_all(monkeypatch, reference):
    X, y = sphere(90, 3)
    y = y + np.random.default_rng(0).standard_normal(90)
    every = trained(reference, X, y, alpha="auto", max_steps=0).alpha
    monkeypatch.setattr("gpu_sublinear.training.penalty.MOST_POINTS", 60)
    part = trained(reference, X, y, np.full(90, 1.5), alpha="auto", max_steps=0).alpha
    assert abs(np.log10(part / every)) <= 1  # an order of magnitude: the error is flat around its minimum


@pytest.mark.parametrize(
    ("weights", "words"),
    [([1.0] * 3, r"shape \(24,\)"), ([-1.0] * 24, ">= 0"), ([np.nan] * 24, ">= 0"), ([0] * 24, "all sample weights")],
)
def test_impossible_weights_are_refused(reference, weights, words):
    X, y, _ = noisy()
    with pytest.raises(DataError, match=words):
        trained(reference, X, y, weights)


def test_an_unknown_word_for_alpha_is_refused():
    with pytest.raises(OptionError, match="or 'auto'; got 'best'"):
        GaussNewton(alpha="best")
