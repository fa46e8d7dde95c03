"""Several outputs in files: saved models, older files, exports, scaling of several targets."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling, as_targets
from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DataError, ModelFileError
from gpu_sublinear.fitted.export import parts, to_onnx, to_torch, to_torchscript
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.views.run_text import Fit
from tests.helpers.models import change_header

X = np.random.default_rng(0).standard_normal((30, 3))
Y = np.stack([X @ [1.0, -2.0, 0.5] + 40, np.sin(X[:, 0]), 1e3 * X[:, 1] * X[:, 2]], axis=1)


def make_model(sampling: str = "explicit", dtype: str = "float64", paired: bool = True, shift=0.5) -> FittedModel:
    preprocessing, targets = Preprocessing.fit(X), TargetScaling.fit(Y)
    network = ShiftedReluNetwork.initialize(
        512, 4, shift=shift, seed=5, dtype=dtype, paired=paired, sampling=sampling, outputs=3, device=get_device("cpu")
    )
    GaussNewton(max_steps=2).fit(network, preprocessing.transform(X), targets.transform(Y))
    return FittedModel(network, preprocessing, targets, {"feature_names": ["a", "b", "c"], "target_name": "t"})


@pytest.mark.parametrize("sampling", ["explicit", "virtual"])
def test_round_trip_gives_the_same_predictions(tmp_path, sampling):
    model = make_model(sampling, shift=1.0)
    model.save(tmp_path / "m.safetensors")
    loaded = FittedModel.load(tmp_path / "m.safetensors", "cpu")
    assert loaded.network.outputs == 3 and loaded.network.sampling == sampling
    assert loaded.predict(X).shape == (30, 3)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_files_of_format_2_have_one_output(tmp_path):
    path = tmp_path / "m.safetensors"
    network = ShiftedReluNetwork.initialize(64, 4, shift=0.5, device=get_device("reference"))
    model = FittedModel(network, Preprocessing.fit(X), TargetScaling.fit(Y[:, 0]))
    model.save(path)

    def age(header):
        header["format_version"] = 2
        del header["network"]["outputs"]

    change_header(path, age)
    loaded = FittedModel.load(path, "reference")
    assert loaded.network.outputs == 1
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize("outputs", [1, 2, 0, 1000, "3", None])
def test_outputs_that_do_not_fit_are_refused(tmp_path, outputs):
    path = tmp_path / "m.safetensors"
    make_model().save(path)
    change_header(path, lambda header: header["network"].update(outputs=outputs))
    with pytest.raises(ModelFileError, match="damaged"):
        FittedModel.load(path, "reference")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("target", ["torch", "torchscript", "onnx"])
@pytest.mark.parametrize("paired", [True, False])
def test_exports_give_the_same_columns(tmp_path, target, paired):
    model = make_model(paired=paired)
    if target == "onnx":
        pytest.importorskip("onnx")
        runtime = pytest.importorskip("onnxruntime")
        to_onnx(model, tmp_path / "m.onnx")
        found = runtime.InferenceSession(tmp_path / "m.onnx").run(None, {"X": X})[0]
    else:
        torch = pytest.importorskip("torch")
        module = to_torch(model)
        if target == "torchscript":
            to_torchscript(model, tmp_path / "m.pt")
            module = torch.jit.load(tmp_path / "m.pt")
        with torch.no_grad():
            found = module(torch.tensor(X)).numpy()
    predicted = model.predict(X)
    assert found.shape == predicted.shape == (30, 3)
    held = parts(model)
    size = np.abs(held.W).sum(axis=1).sum() * held.scale * np.asarray(model.targets.std)  # of all terms together
    assert (np.abs(found - predicted) <= 8 * np.finfo(np.float64).eps * (size + np.abs(predicted))).all()


def test_scaling_has_one_line_for_each_column():
    targets = TargetScaling.fit(Y)
    Z = targets.transform(Y)
    assert np.allclose(Z.mean(axis=0), 0, atol=1e-12) and np.allclose(Z.std(axis=0), 1)
    assert np.allclose(targets.inverse(Z), Y, rtol=1e-12)
    single = TargetScaling.fit(Y[:, :1])
    assert isinstance(single.mean, float) and single.transform(Y[:, :1]).shape == (30,)
    with pytest.raises(DataError, match="target 1 .counted from 0. is constant"):
        TargetScaling.fit(np.stack([Y[:, 0], np.ones(30)], axis=1))


def test_targets_of_several_columns_are_checked():
    wrong = Y.copy()
    wrong[7, 1] = np.nan
    with pytest.raises(DataError, match="nan at row 7"):
        as_targets(wrong, several=True)
    with pytest.raises(DataError, match="one number per point"):
        as_targets(Y)
    assert as_targets(Y, several=True).shape == (30, 3)


def test_errors_of_several_columns_are_means_over_them():
    predicted = Y + [[1.0, 0.0, 0.0]]
    fit = Fit.of(predicted, Y, Y.var(axis=0))
    assert fit.mse == pytest.approx(1 / Y[:, 0].var() / 3)
    assert fit.r2 == pytest.approx(1 - 1 / Y[:, 0].var() / 3)
    assert Fit.of(Y[:1], Y[:1], Y.var(axis=0)).r2 is None
