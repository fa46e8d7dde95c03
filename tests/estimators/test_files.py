"""Estimators saved, loaded and exported: the same answers, labels of their own type."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from gpu_sublinear import SublinearClassifier, SublinearRegressor
from gpu_sublinear.errors import ModelFileError, OptionError
from gpu_sublinear.fitted.model import FittedModel
from tests.helpers.problems import sphere

TINY = {"width": 256, "shift": 0.5, "device": "cpu"}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("columns", [None, 1, 2])
def test_a_regressor_comes_back(tmp_path, columns):
    X, y = sphere(60, 4)
    y = y if columns is None else np.stack([y, 1 - y], axis=1)[:, :columns]
    model = SublinearRegressor(**TINY).fit(X, y)
    model.save(tmp_path / "m")
    again = SublinearRegressor.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.predict(X).shape == y.shape
    assert again.alpha_ == model.alpha_ and again.n_features_in_ == 4
    assert again.partial_fit(X[:5], y[:5]).predict(X).shape == y.shape


@pytest.mark.parametrize(
    "labels", [["ant", "bee", "cat"], [10, -3, 7], [0.0, 1.0, 2.0], [False, True]], ids=lambda labels: str(labels[0])
)
def test_a_classifier_comes_back_with_labels_of_their_type(tmp_path, labels):
    X, y = sphere(90, 4)
    y = np.array(labels)[np.digitize(y, np.quantile(y, [0.3, 0.7])) % len(labels)]
    model = SublinearClassifier(**TINY).fit(X, y)
    model.save(tmp_path / "m")
    again = SublinearClassifier.load(tmp_path / "m", device="cpu")
    assert again.classes_.dtype.kind == model.classes_.dtype.kind
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.decision_function(X), model.decision_function(X))
    of_command_line = FittedModel.load(tmp_path / "m", "cpu").classify(X)
    assert of_command_line.tolist() == [str(label) for label in model.predict(X).tolist()]


def test_names_of_features_come_back(tmp_path):
    pandas = pytest.importorskip("pandas")
    X, y = sphere(40, 3)
    table = pandas.DataFrame(X, columns=list("abc"))
    SublinearRegressor(**TINY).fit(table, y).save(tmp_path / "m")
    again = SublinearRegressor.load(tmp_path / "m", device="cpu")
    assert again.feature_names_in_.tolist() == list("abc")
    again.predict(table)
    with pytest.raises(ValueError, match="feature names"):
        again.predict(table[["c", "b", "a"]])


def test_an_exported_classifier_gives_the_same_scores(tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    X, y = sphere(60, 4)
    model = SublinearClassifier(**TINY).fit(X, y > 0)
    model.to_onnx(tmp_path / "m.onnx")
    found = runtime.InferenceSession(tmp_path / "m.onnx").run(["y"], {"X": X})[0]
    # 256 products of order 1, summed in another order
    np.testing.assert_allclose(found, model.decision_function(X), atol=256 * np.finfo(float).eps)


def test_what_cannot_be_saved_or_loaded_is_refused(tmp_path):
    X, y = sphere(40, 3)
    with pytest.raises(NotFittedError):
        SublinearRegressor().save(tmp_path / "m")
    apart = SublinearRegressor(**TINY, per_target=True).fit(X, np.stack([y, -y], axis=1))
    with pytest.raises(OptionError, match="per_target=True trained several"):
        apart.save(tmp_path / "m")
    SublinearRegressor(**TINY).fit(X, y).save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="is a model of numbers: use SublinearRegressor.load"):
        SublinearClassifier.load(tmp_path / "m", device="cpu")
    SublinearClassifier(**TINY).fit(X, y > 0).save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="is a model of classes: use SublinearClassifier.load"):
        SublinearRegressor.load(tmp_path / "m", device="cpu")
