"""A fit that explains next to nothing says so, next to what a constant would explain."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from gpu_sublinear import SublinearClassifier, SublinearRegressor
from gpu_sublinear.errors import OutgrownStatisticsWarning, PoorFitWarning
from gpu_sublinear.estimators.doubts import NEXT_TO_NOTHING
from tests.helpers.problems import sphere

TINY = {"width": 512, "shift": 0.5, "device": "cpu"}


def said(model, *data, partial: bool = False, **options) -> list[str]:
    """Fit; return the doubts about what was explained."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (model.partial_fit if partial else model.fit)(*data, **options)
    return [str(found.message) for found in caught if found.category is PoorFitWarning]


def waves(n: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).uniform(-20, 20, n)
    return x[:, None], np.sin(x) + np.sin(2 * x)


@pytest.mark.parametrize("n", [100, 400])
def test_a_noiseless_function_that_is_missed_is_reported(n):
    X, y = waves(n)
    model = SublinearRegressor(device="cpu")
    (text,) = said(model, X, y)
    score = model.score(X, y)
    assert score < NEXT_TO_NOTHING
    assert f"R^2 of training is {score:.2g}, and that of a constant 0" in text
    assert "try preprocessing='standard', a smaller shift, a larger width or other features" in text
    assert model.converged_ and "penalised loss" in model.reason_  # at the minimum of what is minimised: still true


def test_what_is_explained_is_not_doubted():
    X, y = sphere(100, 4)
    assert not said(SublinearRegressor(**TINY), X, y)
    assert not said(SublinearClassifier(**TINY), X, y > 0)
    assert not said(SublinearRegressor(**TINY), X, np.full(100, 3.0))  # there is nothing to explain
    noisy = y + 1.5 * y.std() * np.random.default_rng(0).standard_normal(100)  # R^2 of the truth: .3
    assert not said(SublinearRegressor(**TINY), X, noisy)


def test_noise_is_doubted_because_predictions_are_a_constant():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 5)), rng.standard_normal(200)
    model = SublinearRegressor(**TINY)
    (text,) = said(model, X, y)
    assert f"a smaller alpha than {model.alpha_:g}" in text and model.alpha_ > 1
    assert np.ptp(model.predict(X)) < 0.1 * y.std()


def test_classes_are_compared_with_the_most_frequent_one():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 5)), np.array(["ant", "bee", "cat"])[np.minimum(rng.integers(0, 5, 200), 2)]
    for options in ({}, {"per_target": True}):
        model = SublinearClassifier(**TINY, **options)
        (text,) = said(model, X, y)
        frequent = (y == "cat").mean()
        assert f"accuracy of training is {model.score(X, y):.3g}, and {frequent:.3g} for the most" in text
    (text,) = said(SublinearClassifier(**TINY), X, y == "cat", sample_weight=rng.uniform(0.5, 2, 200))
    assert "most frequent class alone" in text


def test_targets_of_their_own_are_named():
    X, y = sphere(100, 4)
    noise = np.random.default_rng(0).standard_normal(100)
    (text,) = said(SublinearRegressor(**TINY, per_target=True), X, np.stack([y, noise], axis=1))
    assert "for target 1," in text and "for target 0" not in text


def test_weights_and_points_added_later_count():
    X, y = sphere(100, 4)
    w = np.random.default_rng(0).integers(1, 4, 100)
    weighted = said(SublinearRegressor(**TINY, alpha=1000.0), X, y, sample_weight=w)
    assert weighted == said(SublinearRegressor(**TINY, alpha=1000.0), np.repeat(X, w, axis=0), np.repeat(y, w))
    assert len(weighted) == 1
    model = SublinearRegressor(**TINY, alpha=1000.0)
    assert said(model, X[:50], y[:50], partial=True)
    assert said(model, X[50:], y[50:], partial=True)


def test_both_doubts_come_after_the_fit():
    X, y = waves(100)
    model = SublinearRegressor(device="cpu", max_steps=1)
    with pytest.warns(ConvergenceWarning), pytest.warns(PoorFitWarning):
        model.fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PoorFitWarning):
            model.set_params(max_steps=30).fit(X, y)
    assert model.n_iter_ > 1  # the fit stands


# ---- points unlike those of the first call ---------------------------------------------------------------


def grown(model, X, y) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.partial_fit(X, y)
    return [str(found.message) for found in caught if found.category is OutgrownStatisticsWarning]


@pytest.mark.parametrize("preprocessing", ["smooth", "standard"])
def test_a_feature_that_was_constant_at_first_is_named(preprocessing):
    X, y = sphere(120, 3)
    X = np.column_stack([X, np.arange(120) >= 60])
    model = SublinearRegressor(**TINY, preprocessing=preprocessing)
    assert not grown(model, X[:50], y[:50])
    assert not grown(model, X[50:60], y[50:60])
    (text,) = grown(model, X[60:], y[60:] + 3)
    assert "vary in feature 3 (counted from 0)" in text and "call fit with all points" in text


def test_one_row_at_first_is_reported_by_the_second_call():
    pandas = pytest.importorskip("pandas")
    X, y = sphere(60, 7)
    table = pandas.DataFrame(X, columns=list("abcdefg"))
    model = SublinearRegressor(**TINY)
    assert not grown(model, table[:1], y[:1])
    (text,) = grown(model, table[1:], y[1:])
    assert "features 'a', 'b', 'c', 'd', 'e' and 2 more, which" in text


def test_a_feature_that_hardly_varied_at_first_is_named_and_a_rare_one_is_not():
    X, y = sphere(200, 3)
    rare = np.zeros(200)
    rare[[50, 120, 150]] = 1
    X = np.column_stack([X, rare])
    model = SublinearRegressor(**TINY)
    assert not grown(model, X[:100], y[:100])
    assert not grown(model, X[100:], y[100:])
    X[:100, 1] *= 1e-3
    model = SublinearRegressor(**TINY)
    grown(model, X[:100], y[:100])
    (text,) = grown(model, X[100:], y[100:])
    assert "feature 1 (counted" in text


def test_rows_that_are_only_normalised_have_no_statistics():
    X, y = sphere(60, 3)
    model = SublinearRegressor(**TINY, preprocessing="unit")
    grown(model, X[:1], y[:1])
    assert not grown(model, X[1:], y[1:])
