"""Sizes, types, devices and tables as people write them: taken, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear import GaussNewton, SharedScan, ShiftedReluNetwork, SublinearRegressor, get_device
from gpu_sublinear.errors import DataError, DeviceMemoryError, OptionError
from gpu_sublinear.fitted.export import parts
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.sizes import byte_count, dtype_name, whole_number
from tests.helpers.models import make_model
from tests.helpers.problems import sphere


@pytest.mark.parametrize(
    ("value", "number"),
    [(7, 7), (np.int32(7), 7), (1e6, 10**6), ("2^10", 1024), ("2**10", 1024), ("1e6", 10**6), ("65_536", 65536)],
)
def test_whole_numbers(value, number):
    assert whole_number(value, "width") == number


@pytest.mark.parametrize("value", [1.5, "many", "2^", None, True, [4], "2^999", float("nan"), "inf"], ids=str)
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(OptionError, match=r"width must be a whole number such as 65536, 1e6 or '2\^16'; got"):
        whole_number(value, "width")


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (1000, 1000),
        (1e9, 10**9),
        ("1e9", 10**9),
        ("1GB", 10**9),
        ("1 gb", 10**9),
        ("8GiB", 8 << 30),
        ("1.5k", 1500),
        (np.float64(2e3), 2000),
    ],
)
def test_bytes(value, count):
    assert byte_count(value, "memory_limit") == count


@pytest.mark.parametrize("value", ["much", "1XB", 0, -5, "", True, float("nan"), float("inf"), [1], "1..2GB"], ids=str)
def test_what_is_no_size_is_named(value):
    with pytest.raises(OptionError, match="memory_limit must be a size such as 8GiB, 500MB or 1e9 bytes, or None; got"):
        GaussNewton(memory_limit=value)


@pytest.mark.parametrize("value", ["float32", np.float32, np.dtype("f4"), "f4", "torch.float32"], ids=str)
def test_types(value):
    assert dtype_name(value) == "float32"


@pytest.mark.parametrize("value", ["half", np.int32, None, 5, np.float16], ids=str)
def test_other_types_are_named(value):
    with pytest.raises(OptionError, match="dtype must be 'float32' or 'float64'; got"):
        dtype_name(value)


def test_options_take_them():
    assert GaussNewton(memory_limit="1GB", batch_size="2^5", max_steps="1e1") == GaussNewton(
        memory_limit=10**9, batch_size=32, max_steps=10
    )
    with pytest.raises(OptionError, match="max_steps must be a whole number"):
        GaussNewton(max_steps="some")


def test_networks_take_them():
    network = ShiftedReluNetwork.initialize("2^10", 3.0, dtype=np.float64, device="cpu", seed=np.int64(5))
    assert (network.width, network.features, network.dtype, network.seed) == (1024, 3, "float64", 5)
    assert network.device is get_device("cpu") is get_device(get_device("cpu"))
    assert ShiftedReluNetwork.from_weights(np.ones((4, 2)), shift=0.5, device="cpu").device is get_device("cpu")
    for option in ({"width": 10.5}, {"features": "few"}, {"seed": "x"}):
        (name,) = option
        with pytest.raises(OptionError, match=f"{name} must be a whole number"):
            ShiftedReluNetwork.initialize(**{"width": 8, "features": 2, "device": "cpu"} | option)
    for device in ("gpu", 5, ["cpu"]):
        with pytest.raises(OptionError, match="device must be one of auto, cuda, cpu, reference; got"):
            ShiftedReluNetwork.initialize(8, 2, device=device)


def test_models_take_them(tmp_path):
    make_model().save(tmp_path / "m")
    assert FittedModel.load(tmp_path / "m", get_device("cpu")).network.device is get_device("cpu")
    assert parts(make_model(), np.float64).W.dtype == np.float64


def test_estimators_take_them():
    X, y = sphere(40, 3)
    written = SublinearRegressor(width="2^8", memory_limit="1GB", dtype=np.float32, device=get_device("cpu"))
    plain = SublinearRegressor(width=256, memory_limit=10**9, dtype="float32", device="cpu")
    np.testing.assert_array_equal(written.fit(X, y).predict(X), plain.fit(X, y).predict(X))
    with pytest.raises(DeviceMemoryError):
        written.set_params(memory_limit="1MB").fit(X, y)


def test_tables_train_a_network():
    pandas = pytest.importorskip("pandas")
    X, y = sphere(40, 3)
    trained = []
    for points, targets in ((X, y), (pandas.DataFrame(X), pandas.Series(y)), (pandas.DataFrame(X), y)):
        network = ShiftedReluNetwork.initialize(256, 3, shift=0.5, dtype="float64", device="cpu")
        GaussNewton(max_steps=3).fit(network, points, targets, validation=(points, targets))
        GaussNewton(max_steps=2).begin(network, points, targets).partial_fit(points[:5], targets[:5])
        SharedScan.build(GaussNewton(), network, points, targets)
        trained.append(network.predict(points))
    np.testing.assert_array_equal(trained[1], trained[0])
    np.testing.assert_array_equal(trained[2], trained[0])
    words = pandas.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0], "c": [1.0, 2.0]})
    for refused in (lambda: GaussNewton().fit(network, words, y[:2]), lambda: network.predict(words)):
        with pytest.raises(DataError, match="the table must hold numbers only"):
            refused()


def test_answers_have_the_floating_type_of_the_points():
    X, y = sphere(40, 3)
    model = SublinearRegressor(width=256, device="cpu", max_steps=60).fit(X, y)
    assert model.predict(X).dtype == np.float64
    single = model.predict(X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, model.predict(X), atol=1e-5)  # 100 roundings of numbers of order 1
    assert model.predict(X.astype(np.float16)).dtype == np.float64  # which half precision could not hold
    assert model.predict(X.tolist()).dtype == np.float64
