"""The closed-form shifted NTK: against quadrature, Owen's T, Monte Carlo and the network's own Gram matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr, owens_t

from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DataError, OptionError
from gpu_sublinear.foresight.ntk import NtkRidge, bivariate_tail, shifted_ntk
from gpu_sublinear.model.network import ShiftedReluNetwork

SHIFTS = (1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
CORRELATIONS = (-0.9, -0.5, 0.0, 0.3, 0.9, 0.999)
QUADRATURE = 1e-11  # relative error that scipy's quad is asked for, times ten
OWEN = (
    1e3 * np.finfo(float).eps
)  # Q and T are good to some b^2 eps and 64 ulp; relative to Q, which their difference is not


def sphere(n: int, d: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def independent(b: float, rho: float) -> float:
    """Integrate ``phi(u) Q((b - rho u) / sqrt(1 - rho^2))`` over u > b, scaled by its largest value."""

    def logarithm(u: float) -> float:
        return -u * u / 2 + float(log_ndtr((rho * u - b) / np.sqrt(1 - rho**2)))

    grid = np.linspace(b, b + 40, 20001)
    values = [logarithm(u) for u in grid]
    top, peak = max(values), float(grid[int(np.argmax(values))])
    edges = [b, *(edge for edge in (peak - 1, peak, peak + 1, peak + 4, peak + 12) if edge > b)]
    pieces = zip(edges[:-1], edges[1:], strict=True)
    total = sum(quad(lambda u: np.exp(logarithm(u) - top), *ends, epsrel=1e-12, limit=400)[0] for ends in pieces)
    return float(np.exp(top) * total / np.sqrt(2 * np.pi))


@pytest.mark.parametrize("b", SHIFTS)
def test_tail_against_quadrature_over_the_other_variable(b):
    found = bivariate_tail(b, np.array(CORRELATIONS))
    expected = np.array([independent(b, rho) for rho in CORRELATIONS])
    there = expected > 1e-290  # below, doubles lose digits themselves
    np.testing.assert_allclose(found[there], expected[there], rtol=QUADRATURE)
    assert (found[~there] < 1e-280).all()


@pytest.mark.parametrize("b", SHIFTS)
def test_tail_against_owens_t_where_that_does_not_cancel(b):
    rho = np.linspace(-1 + 1e-9, 1, 201)
    q = ndtr(-b)
    expected = q - 2 * owens_t(b, np.sqrt((1 - rho) / (1 + rho)))
    np.testing.assert_allclose(bivariate_tail(b, rho), expected, rtol=0, atol=OWEN * q)


@pytest.mark.parametrize("b", [0.0, *SHIFTS])
def test_tail_at_correlations_with_a_closed_form(b):
    q = ndtr(-b)
    np.testing.assert_allclose(bivariate_tail(b, [-1.0, 0.0, 1.0]), [0.0, q**2, q], rtol=1e-12, atol=0)


def test_tail_without_shift_is_the_arc_cosine_kernel():
    rho = np.linspace(-1, 1, 11)
    np.testing.assert_allclose(bivariate_tail(0.0, rho), 0.5 - np.arccos(rho) / (2 * np.pi), rtol=1e-14)
    np.testing.assert_allclose(bivariate_tail(1e-12, rho[1:]), bivariate_tail(0.0, rho[1:]), rtol=1e-11)


@pytest.mark.parametrize("b", [0.0, 1.0, 2.0])
def test_tail_against_monte_carlo(b):
    rng, samples = np.random.default_rng(5), 1_000_000
    u, v = rng.standard_normal((2, samples))
    for rho in (-0.3, 0.4, 0.95):
        share = np.mean((u > b) & (rho * u + np.sqrt(1 - rho**2) * v > b))
        expected = float(bivariate_tail(b, rho))
        assert abs(share - expected) < 5 * np.sqrt(expected / samples)  # five standard deviations


def test_tail_grows_with_the_correlation_and_keeps_the_shape():
    rho = np.linspace(-0.999, 1, 60).reshape(3, 20)
    for b in (0.0, 0.7, 4.0):
        tail = bivariate_tail(b, rho)
        assert tail.shape == rho.shape
        assert (np.diff(tail.ravel()) > 0).all()


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_kernel_is_the_expected_gram_matrix_of_the_network(shift):
    X, m = sphere(12, 5), 2**18
    network = ShiftedReluNetwork.initialize(m, 5, shift=shift, dtype="float64", device=get_device("reference"))
    mask = (shift < X @ network.W.T).astype(float)  # (n, m)
    K = shifted_ntk(X, None, shift)
    G = (X @ X.T) * (mask @ mask.T) / m
    spread = abs(X @ X.T) * np.sqrt(bivariate_tail(shift, X @ X.T) / m)  # of one entry of G
    assert (abs(G - K) < 5 * spread + 1e-15).all()
    assert np.linalg.eigvalsh(K).min() > 0


def test_kernel_of_two_sets_is_a_block_of_the_kernel_of_all():
    X = sphere(9, 4)
    np.testing.assert_allclose(shifted_ntk(X[:4], X[4:], 1.5), shifted_ntk(X, None, 1.5)[:4, 4:], rtol=1e-12)


def test_ridge_interpolates_without_alpha_and_shrinks_with_it():
    X = sphere(30, 6)
    y = np.sin(3 * X[:, 0])
    exact = NtkRidge(1.0).fit(X, y)
    np.testing.assert_allclose(exact.predict(X), y, atol=1e-9)
    ridge = NtkRidge(1.0, alpha=0.5).fit(X, y)
    K = shifted_ntk(X, None, 1.0)
    np.testing.assert_allclose(ridge.predict(X), K @ np.linalg.solve(K + 0.5 * np.eye(30), y), atol=1e-10)
    assert np.linalg.norm(ridge.predict(X)) < np.linalg.norm(y)


def test_ridge_with_a_point_given_twice_is_finite_and_fits():
    X = sphere(5, 3)[[0, 1, 2, 3, 4, 4]]
    y = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 4.0])
    np.testing.assert_allclose(NtkRidge(0.5).fit(X, y).predict(X), y, atol=1e-7)


@pytest.mark.parametrize("b", [-0.1, np.inf, np.nan])
def test_threshold_out_of_range_is_refused(b):
    with pytest.raises(OptionError, match="b must be"):
        bivariate_tail(b, 0.5)


@pytest.mark.parametrize("rho", [1.1, -2.0, np.nan])
def test_correlation_out_of_range_is_refused(rho):
    with pytest.raises(DataError, match="rho"):
        bivariate_tail(1.0, [0.0, rho])


def test_unusable_points_are_refused():
    X = sphere(4, 3)
    with pytest.raises(DataError, match="unit norm"):
        shifted_ntk(2 * X, None, 1.0)
    with pytest.raises(DataError, match="columns"):
        shifted_ntk(X, sphere(4, 2), 1.0)
    with pytest.raises(DataError, match="matrix"):
        shifted_ntk(X[0], None, 1.0)
    with pytest.raises(DataError, match="y must be"):
        NtkRidge(1.0).fit(X, np.zeros(3))
    with pytest.raises(OptionError, match="alpha"):
        NtkRidge(1.0, alpha=-1.0).fit(X, np.zeros(4))
