"""A fit that fails or is interrupted leaves the estimator as it was, to the last attribute."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gpu_sublinear import SublinearClassifier, SublinearRegressor
from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DataError, DeviceMemoryError
from tests.helpers.problems import sphere

TINY = {"width": 128, "shift": 0.5, "tolerance": 1e-6, "max_steps": 4, "device": "cpu"}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def problem(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    X, y = sphere(n, 4)
    return 3 * X + 1, 10 * y - 5


def state(model) -> bytes:
    return pickle.dumps(model)


def interrupt_after(monkeypatch, calls: int) -> None:
    """Press Ctrl-C in the middle of a training: when a factor is asked for the ``calls``-th time."""
    device, left = get_device("cpu"), [calls]
    whole = type(device).cholesky

    def cholesky(self, A):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return whole(self, A)

    monkeypatch.setattr(type(device), "cholesky", cholesky)


def test_a_refit_that_fails_changes_nothing():
    X, y = problem()
    model = SublinearRegressor(**TINY).fit(X, y)
    score, before = model.score(X, y), state(model)
    model.set_params(memory_limit=1000)
    with pytest.raises(DeviceMemoryError):
        model.fit(100 * X[:, :3] + 1000, 50 * y + 7)
    model.set_params(memory_limit=None)
    assert model.score(X, y) == score
    assert state(model) == before


def test_a_refit_with_other_classes_that_fails_changes_nothing():
    X, y = problem()
    model = SublinearClassifier(**TINY).fit(X, y > -5)
    before = state(model)
    with pytest.raises(DataError, match="one class only"):
        model.fit(X[:, :2], np.full(60, "ant"))
    assert state(model) == before


def test_a_first_fit_that_fails_leaves_nothing():
    X, y = problem()
    model = SublinearRegressor(**TINY, memory_limit=1000)
    before = dict(vars(model))
    for fit in (model.fit, model.partial_fit):
        with pytest.raises(DeviceMemoryError):
            fit(X, y)
        assert vars(model) == before


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_a_refit_that_is_interrupted_changes_nothing(monkeypatch, alpha):
    X, y = problem()
    model = SublinearRegressor(**TINY, alpha=alpha).fit(X, y)
    before = state(model)
    interrupt_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(100 * X[:, :3] + 1000, 50 * y + 7)
    assert state(model) == before


@pytest.mark.parametrize("option", [{"mask": "lists"}, {"mask": "bits"}, {"margin": 0}, {"batch_size": 16}], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("calls", [1, 3])
def test_points_whose_training_is_interrupted_were_never_given(monkeypatch, option, alpha, calls):
    X, y = problem(90)
    models = [SublinearRegressor(**TINY, alpha=alpha, **option).partial_fit(X[:50], y[:50]) for _ in range(2)]
    before = state(models[0])
    with monkeypatch.context() as patch:
        interrupt_after(patch, calls)
        with pytest.raises(KeyboardInterrupt):
            models[0].partial_fit(X[50:70], 3 * y[50:70])
    assert state(models[0]) == before
    for model in models:
        model.partial_fit(X[70:], y[70:])
    one, other = (model.network_ for model in models)  # they go on as if nothing had been tried
    np.testing.assert_array_equal(one.neurons, other.neurons)
    np.testing.assert_array_equal(one.rows, other.rows)


def test_points_added_to_a_fitted_model_and_interrupted_were_never_given(monkeypatch):
    X, y = problem(90)
    model = SublinearRegressor(**TINY, alpha=0.1).fit(X[:50], y[:50])
    before = state(model)
    interrupt_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X[50:], 3 * y[50:])
    assert state(model) == before
