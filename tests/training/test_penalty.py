"""The penalty by leave-one-out: against brute force, also where rows repeat, and on columns of few values."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear import SublinearRegressor
from gpu_sublinear.training.penalty import Rows, leave_one_out

ALPHAS = np.array([1e-3, 0.5, 20.0])


def system(repeats: list[int], whole: bool, seed: int = 0):
    """Return points with so many copies each, their Gram matrix, residuals of two outputs, and weights."""
    rng = np.random.default_rng(seed)
    different = rng.standard_normal((len(repeats), 4))
    A = rng.standard_normal((len(repeats), 30))
    row = rng.permutation(np.repeat(np.arange(len(repeats)), repeats))
    r = rng.standard_normal((len(row), 2))
    w = rng.integers(1, 4, len(row)).astype(float) if whole else rng.uniform(0.5, 2, len(row))
    return different[row], (A @ A.T)[np.ix_(row, row)], r, w


def brute_force(G: np.ndarray, r: np.ndarray, w: np.ndarray, units: np.ndarray, alpha: float) -> float:
    """Solve once for every point, with its unit taken out of its weight; a point of weight 0 is left out altogether."""
    ridge, total = alpha * (np.diag(G) * w).sum() / w.sum(), 0.0
    for i in range(len(w)):
        left = w.copy()
        left[i] -= units[i]
        kept = left > 1e-9
        K = G[np.ix_(kept, kept)] + ridge * np.diag(1 / left[kept])  # weight w: noise of variance lambda / w
        total += w[i] * ((G[i, kept] @ np.linalg.solve(K, r[kept]) - r[i]) ** 2).sum()
    return total / w.sum()


@pytest.mark.parametrize("repeats", [[1] * 9, [3, 1, 2, 1], [5, 5], [6, 1]], ids=str)
@pytest.mark.parametrize("weights", ["one each", "whole", "any"])
def test_one_point_is_left_out(repeats, weights):
    """Two ways through systems of condition below 1e5 agree to 1e-9 in float64."""
    X, G, r, w = system(repeats, weights == "whole")
    w = np.ones(len(w)) if weights == "one each" else w
    units = w if weights == "any" else np.ones(len(w))
    rows, roots = Rows.of(X, r, w), np.sqrt(w)
    assert len(rows.first) == len(repeats)
    scores = leave_one_out(rows.gram(G * np.outer(roots, roots), roots), rows, ALPHAS)
    for alpha, score in zip(ALPHAS, scores, strict=True):
        assert score == pytest.approx(brute_force(G, r, w, units, alpha), rel=1e-9)


def test_whole_weights_count_points():
    X, G, r, w = system([2, 1, 3], True)
    copies = np.repeat(np.arange(len(w)), w.astype(int))
    weighted, repeated = Rows.of(X, r, w), Rows.of(X[copies], r[copies], np.ones(len(copies)))
    roots = np.sqrt(w)
    scores = leave_one_out(weighted.gram(G * np.outer(roots, roots), roots), weighted, ALPHAS)
    again = leave_one_out(repeated.gram(G[np.ix_(copies, copies)], np.ones(len(copies))), repeated, ALPHAS)
    assert np.allclose(scores, again, rtol=1e-10)


@pytest.mark.parametrize("levels", [2, 5, 20])
def test_columns_of_few_values_are_learnt_by_the_defaults(levels):
    """One number for each level and a little noise: what is left of the variance is that of the noise, .01 / 2."""
    rng = np.random.default_rng(levels)
    x = rng.integers(0, levels, 200)
    y = 2.0 * rng.permutation(levels)[x] / max(1, levels - 1) * 2 + 0.1 * rng.standard_normal(200)
    X = x[:, None].astype(float) if levels == 2 else np.eye(levels)[x]
    model = SublinearRegressor(width=2048).fit(X[:150], y[:150])
    assert model.score(X[150:], y[150:]) > 0.97
