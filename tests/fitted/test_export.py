"""Exported models: equal outputs in PyTorch, TorchScript and ONNX, and clear errors where a library is missing."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpu_sublinear.app.cli import main
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import OptionError
from gpu_sublinear.fitted import export
from gpu_sublinear.fitted.export import ExportLibraryError, to_onnx, to_torch, to_torchscript
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.model.network import ShiftedReluNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
RNG = np.random.default_rng(7)
RAW = RNG.standard_normal((33, 5)) * [1, 10, 100, 0, 1e-3] + [0, 5, 2000, 3, 0]  # column 3 is constant
Y = RAW[:, 0] * 7 + 100
CASES = [(kind, dtype) for kind in ("standard", "smooth", "unit", "bare") for dtype in ("float32", "float64")]


def make(kind: str, dtype: str, width: int = 10_000) -> tuple[FittedModel | ShiftedReluNetwork, np.ndarray]:
    """Return a model of several blocks of neurons and points for it."""
    preprocessing = Preprocessing.fit(RAW, "standard" if kind == "bare" else kind)
    network = ShiftedReluNetwork.initialize(
        width, preprocessing.inputs, shift=0.5, seed=3, dtype=dtype, device=get_device("reference")
    )
    if kind == "bare":
        return network, preprocessing.transform(RAW)
    return FittedModel(network, preprocessing, TargetScaling.fit(Y)), RAW


def tolerance(model: FittedModel | ShiftedReluNetwork, X: np.ndarray, dtype: str) -> np.ndarray:
    """Return what two orders of summing the same terms may differ by, (n,): each term is rounded d times, the sum m.

    Roundings are independent, so they grow as a square root; the factor 8 is eight standard deviations of it.
    """
    fitted = isinstance(model, FittedModel)
    network = model.network if fitted else model
    rows = model.preprocessing.transform(X) if fitted else X
    std = model.targets.std if fitted else 1.0
    above = np.maximum(rows @ np.asarray(network.W, np.float64).T - network.shift, 0)  # (n, m)
    root = np.sqrt(above.shape[1] + rows.shape[1])
    size = network.scale * np.sqrt((above**2).sum(axis=1)) * root + np.abs(model.predict(X)) / std  # (n,)
    return 8 * np.finfo(dtype).eps * size * std + 8 * np.finfo(np.float64).eps * np.abs(model.predict(X))


def run_torch(model, X, tmp_path, **options):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return to_torch(model, **options)(torch.tensor(X)).numpy()


def run_torchscript(model, X, tmp_path, **options):
    torch = pytest.importorskip("torch")
    to_torchscript(model, tmp_path / "m.pt", **options)
    with torch.no_grad():
        return torch.jit.load(tmp_path / "m.pt")(torch.tensor(X)).numpy()


def run_onnx(model, X, tmp_path, **options):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    to_onnx(model, tmp_path / "m.onnx", **options)
    return runtime.InferenceSession(tmp_path / "m.onnx").run(["y"], {"X": X})[0]


RUNNERS = [run_torch, run_torchscript, run_onnx]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks, the last one ragged."""
    for library in ("torch", "onnx"):
        if importlib.util.find_spec(library):
            monkeypatch.setattr(importlib.import_module(f"gpu_sublinear.fitted.{library}"), "NEURON_BLOCK", 3000)


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_outputs_are_equal(run, kind, dtype, tmp_path):
    model, X = make(kind, dtype)
    found = run(model, X, tmp_path)
    assert found.dtype == np.float64
    assert found.shape == (len(X),)
    expected = model.predict(X)
    allowed = tolerance(model, X, dtype)
    assert (allowed < 0.05 * np.abs(expected - expected.mean()).max()).all()  # a broken export would be noticed
    assert (np.abs(found - expected) <= allowed).all()


@pytest.mark.parametrize("run", RUNNERS)
def test_any_number_of_points(run, tmp_path):
    model, X = make("standard", "float64")
    for n in (1, 7):
        assert (np.abs(run(model, X[:n], tmp_path) - model.predict(X[:n])) <= tolerance(model, X[:n], "float64")).all()


@pytest.mark.parametrize("run", RUNNERS)
def test_another_type_of_weights(run, tmp_path):
    model, X = make("standard", "float64")
    found = run(model, X, tmp_path, dtype="float32")
    assert (np.abs(found - model.predict(X)) <= tolerance(model, X, "float32")).all()
    assert (found != run(model, X, tmp_path)).any()


def test_a_row_that_predict_refuses_is_nan(tmp_path):
    model, X = make("unit", "float64")
    X = X.copy()
    X[1] = 0
    for run in (run_torch, run_onnx):
        assert np.flatnonzero(np.isnan(run(model, X, tmp_path))).tolist() == [1]


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_that_a_bare_network_refuses_is_nan(run, dtype, tmp_path):
    model, X = make("bare", dtype)
    X = X.copy()
    X[1] *= 10
    X[4] *= 0.998
    assert np.flatnonzero(np.isnan(run(model, X, tmp_path))).tolist() == [1, 4]


def test_the_module_learns(tmp_path):
    torch = pytest.importorskip("torch")
    model, X = make("standard", "float64", width=64)
    module = to_torch(model)
    module(torch.tensor(X)).sum().backward()
    gradient = dict(module.named_parameters())["W"].grad
    assert [name for name, _ in module.named_parameters()] == ["W"]
    assert gradient.shape == (64, 6)
    step = 1e-6 * gradient.numpy()
    before = model.predict(X).sum()
    model.network.hold_all()
    model.network.rows += step
    slope = (model.predict(X).sum() - before) / (step**2).sum() * 1e-6
    assert slope == pytest.approx(1, rel=1e-3)  # away from kinks the step is small enough for one per mille


def test_wrong_arguments(tmp_path):
    model, X = make("bare", "float32", width=64)
    with pytest.raises(OptionError, match="model must be a FittedModel or a ShiftedReluNetwork; got int"):
        to_torch(3)
    with pytest.raises(OptionError, match="dtype must be 'float32' or 'float64'; got 'half'"):
        to_onnx(model, tmp_path / "m", dtype="half")
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"X must have shape \(n, 6\)"):
        to_torch(model)(torch.zeros(3, 5))


def test_too_large_for_one_onnx_file(tmp_path, monkeypatch):
    module = pytest.importorskip("gpu_sublinear.fitted.onnx")
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(OptionError, match="one ONNX file holds 2 GiB; use dtype='float32'"):
        to_onnx(make("bare", "float64", width=64)[0], tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("write", "module"), [(to_torchscript, "torch"), (to_onnx, "onnx")])
def test_missing_libraries(write, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"gpu_sublinear.fitted.{module}", raising=False)
    with pytest.raises(ExportLibraryError, match=r"pip install 'gpu-sublinear\[export\]'"):
        write(make("bare", "float32", width=64)[0], tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_importing_the_package_imports_neither_library():
    code = "import sys, gpu_sublinear.fitted.export, gpu_sublinear.app.cli; print({'torch', 'onnx'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    model, _ = make("standard", "float32", width=64)
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_command(saved, form, capsys):
    pytest.importorskip("torch" if form == "torchscript" else "onnx")
    out = saved.parent / "exported"
    assert main(["export", str(saved), "--format", form, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"exported {out} ({form}, 64 neurons)\n"
    assert out.stat().st_size > 64 * 6 * 4


def test_command_refuses_to_overwrite_the_model(saved, capsys):
    before = saved.read_bytes()
    assert main(["export", str(saved), "--format", "onnx", "--out", str(saved)]) == 1
    assert "is the model itself; choose another path" in capsys.readouterr().err
    assert saved.read_bytes() == before


def test_command_with_a_missing_model(tmp_path, capsys):
    assert main(["export", str(tmp_path / "none"), "--format", "onnx", "--out", str(tmp_path / "x")]) == 1
    assert "there is no model file" in capsys.readouterr().err


def test_one_place_looks_inside_the_network():
    source = Path(export.__file__).read_text()
    assert source.count("network.parts()") == 1 and "network.W" not in source


def test_onnx_takes_neurons_in_blocks(tmp_path):
    onnx = pytest.importorskip("onnx")
    to_onnx(make("bare", "float32")[0], tmp_path / "m.onnx")  # 10,000 neurons in blocks of 3,000
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert sum(node.op_type == "Gemm" for node in model.graph.node) == 4
    assert max(max(tensor.dims, default=0) for tensor in model.graph.initializer) == 3000
