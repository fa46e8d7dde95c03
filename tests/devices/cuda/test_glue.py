"""The Python around the kernels: arguments are checked, failures are named, nothing is compiled or asked twice."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpu_sublinear.devices import CSR, TreeLayout
from gpu_sublinear.devices.cuda import device as cuda_module
from gpu_sublinear.devices.cuda import sources as kernels
from gpu_sublinear.devices.cuda.cusparse import check_index_range
from gpu_sublinear.devices.cuda.device import CudaDevice
from gpu_sublinear.devices.cuda.launcher import Launcher
from gpu_sublinear.errors import CupyMissingError, DeviceMemoryError, KernelCompileError, NoCudaDeviceError
from tests.conftest import make_device
from tests.helpers.emulated import EmulatedToolkit, emulated_cuda_device

LAYOUT = TreeLayout(10, 2)


@pytest.fixture
def gpu() -> CudaDevice:
    return make_device("emulated")  # type: ignore[return-value]


# ---- arguments ----------------------------------------------------------------------------------------------------


def arrays(**changes: Any) -> dict[str, Any]:
    """Return arguments that every operation takes gladly, with changes."""
    zeros = {
        "nodes": np.zeros((3, LAYOUT.total), np.float32),
        "X": np.zeros((3, 4), np.float32),
        "W": np.zeros((10, 4), np.float32),
        "signs": np.ones(10, np.float32),
        "neurons": np.array([0, 2], np.int32),
        "indptr": np.array([0, 1, 1, 3]),
        "compact": np.array([0, 0, 1], np.int32),
        "t_indptr": np.array([0, 2, 3]),
        "t_points": np.array([0, 2, 2], np.int32),
        "values": np.ones(3, np.float32),
        "delta": np.zeros((2, 4), np.float32),
    }
    return zeros | changes


def call(gpu: CudaDevice, operation: str, a: dict[str, Any]) -> Any:
    lists = a["indptr"], a["compact"]
    lists_t = a["t_indptr"], a["t_points"]
    return {
        "update_rows": lambda: gpu.update_rows(a["W"], a["neurons"], a["delta"]),
        "fill_leaves": lambda: gpu.fill_leaves(a["nodes"], a["X"], a["W"], a["neurons"]),
        "reduce_level": lambda: gpu.reduce_level(a["nodes"], LAYOUT, 1, a["neurons"]),
        "query_tree": lambda: gpu.query_tree(a["nodes"], LAYOUT, 0.0),
        "forward": lambda: gpu.forward(*lists, a["values"], a["signs"], 0.0),
        "transpose": lambda: gpu.transpose(*lists, 10),
        "count_pairs": lambda: gpu.count_pairs(*lists, *lists_t),
        "fill_jacobian": lambda: gpu.fill_jacobian(*lists, a["neurons"], a["signs"], a["X"], 1.0),
        "fill_jacobian_t": lambda: gpu.fill_jacobian_t(*lists_t, a["neurons"], a["signs"], a["X"], 1.0),
        "spmv": lambda: gpu.spmv(CSR(a["values"], a["compact"], a["indptr"], (3, 4))),
        "sketch_rows": lambda: gpu.sketch_rows(CSR(a["values"], a["compact"], a["indptr"], (3, 4)), 5, 1, 0, 0),
    }[operation]()


USES = {
    "update_rows": "W neurons delta", "fill_leaves": "nodes X W neurons", "reduce_level": "nodes neurons",
    "query_tree": "nodes", "forward": "indptr compact values signs", "transpose": "indptr compact",
    "count_pairs": "indptr compact t_indptr t_points", "fill_jacobian": "indptr compact neurons signs X",
    "fill_jacobian_t": "t_indptr t_points neurons signs X", "spmv": "indptr compact values",
    "sketch_rows": "indptr compact values",
}  # fmt: skip
ARGUMENTS = [(operation, name) for operation, names in USES.items() for name in names.split()]


@pytest.mark.parametrize("operation", USES)
def test_good_arguments_pass(gpu, operation):
    call(gpu, operation, arrays())


@pytest.mark.parametrize(("operation", "name"), ARGUMENTS)
def test_wrong_types_are_refused(gpu, operation, name):
    wrong = arrays()[name].astype(np.float16 if arrays()[name].dtype.kind == "f" else np.int16)
    with pytest.raises(TypeError, match=r"must be an array of .*(float16|int16)"):
        call(gpu, operation, arrays(**{name: wrong}))
    with pytest.raises(TypeError, match="list"):
        call(gpu, operation, arrays(**{name: arrays()[name].tolist()}))


@pytest.mark.parametrize(("operation", "name"), ARGUMENTS)
def test_strides_are_refused(gpu, operation, name):
    wrong = np.repeat(arrays()[name], 2, axis=-1)[..., ::2]
    with pytest.raises(ValueError, match="contiguous"):
        call(gpu, operation, arrays(**{name: wrong}))


@pytest.mark.parametrize(("operation", "name"), ARGUMENTS)
def test_a_dimension_too_many_is_refused(gpu, operation, name):
    with pytest.raises(ValueError, match="dimensions"):
        call(gpu, operation, arrays(**{name: arrays()[name][None]}))


@pytest.mark.parametrize(
    ("operation", "changes", "message"),
    [
        ("update_rows", {"delta": np.zeros((2, 5), np.float32)}, "delta must have shape"),
        ("fill_leaves", {"X": np.zeros((2, 4), np.float32)}, "X must have shape"),
        ("fill_leaves", {"W": np.zeros((10, 5), np.float32)}, "W must have shape"),
        ("fill_leaves", {"W": np.zeros((10, 4))}, "W must be an array of float32"),
        ("fill_leaves", {"W": np.zeros((999, 4), np.float32)}, "999 neurons"),
        ("query_tree", {"nodes": np.zeros((3, 5), np.float32)}, "nodes must have shape"),
        ("forward", {"values": np.ones(2, np.float32)}, "values must have shape"),
        ("forward", {"signs": np.ones(10)}, "signs must be an array of float32"),
    ],
)
def test_arguments_that_do_not_fit_each_other(gpu, operation, changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(gpu, operation, arrays(**changes))


@pytest.mark.parametrize("level", [0, 4, -1])
def test_levels_that_do_not_exist(gpu, level):
    with pytest.raises(ValueError, match="level must be in 1 .. 3"):
        gpu.reduce_level(arrays()["nodes"], LAYOUT, level)


def test_no_points_no_launch():
    gpu = emulated_cuda_device()
    gpu.toolkit.module = None  # type: ignore[assignment,method-assign]
    empty = np.zeros((0, LAYOUT.total), np.float32)
    gpu.fill_leaves(empty, np.zeros((0, 4), np.float32), np.zeros((10, 4), np.float32))
    gpu.reduce_level(empty, LAYOUT, 1)
    indptr, indices, _, visited = gpu.query_tree(empty, LAYOUT, 0.0)
    assert indptr.tolist() == [0] and indices.size == 0 and visited == 0
    assert gpu.forward(indptr, indices, np.zeros(0, np.float32), np.ones(10, np.float32), 0.0).size == 0
    assert gpu.count_pairs(indptr, indices, indptr, indices).shape == (0, 0)


# ---- memory -------------------------------------------------------------------------------------------------------


class FullToolkit(EmulatedToolkit):
    """A GPU whose memory is full."""

    def __init__(self) -> None:
        super().__init__()

        def full(*args: Any, **kwargs: Any) -> Any:
            raise MemoryError("pool exhausted")

        self.xp = SimpleNamespace(**{**vars(np), "empty": full, "zeros": full, "matmul": full})  # type: ignore[assignment]


def test_an_array_that_does_not_fit_is_named():
    with pytest.raises(DeviceMemoryError, match=r"values of J: float32 array of shape 12, 48 bytes.*raise the shift"):
        call(CudaDevice(FullToolkit()), "fill_jacobian", arrays())


def test_scratch_that_does_not_fit_names_the_operation():
    with pytest.raises(DeviceMemoryError, match="matmul: scratch memory does not fit .*pool exhausted"):
        CudaDevice(FullToolkit()).matmul(np.eye(2), np.eye(2))


def test_matrices_beyond_32_bit_indices():
    check_index_range(2**31 - 1, (1, 2**31 - 1))
    for nnz, shape in ((2**31, (1, 1)), (1, (2**31, 1)), (1, (1, 2**31))):
        with pytest.raises(DeviceMemoryError, match="raise the shift or lower the width"):
            check_index_range(nnz, shape)


# ---- grids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [1, 255, 256, 257, 10**6, 2**40])
@pytest.mark.parametrize("rows", [1, 2, 100, 10**6])
def test_grids_fit_cuda(work, rows):
    x, y, z = Launcher(EmulatedToolkit(132)).grid(work, rows, layers=10**6)
    assert 1 <= x <= 2**31 - 1 and 1 <= y <= 65535 and 1 <= z <= 65535
    assert x <= -(-work // 256) and y <= rows


# ---- compiling ----------------------------------------------------------------------------------------------------


class Compiler:
    """Counts what it is asked for; fails on request."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.modules, self.functions = error, 0, 0

    def __call__(self, code: str, options: tuple[str, ...]) -> Compiler:
        self.modules += 1
        return self

    def get_function(self, name: str) -> str:
        self.functions += 1
        if self.error:
            raise self.error
        return name


def test_everything_is_compiled_once():
    compiler = Compiler()
    loader = kernels.KernelLoader(compiler, "sm_90")
    for _ in range(3):
        assert loader.get("expand_frontier", "count_children", "float32") == "count_children"
        assert loader.get("expand_frontier", "fill_children", "float32") == "fill_children"
        assert loader.get("expand_frontier", "fill_children", "float64") == "fill_children"
    assert (compiler.modules, compiler.functions) == (2, 3)


def test_failures_are_remembered_and_name_file_architecture_and_log():
    compiler = Compiler(RuntimeError("forward.cu(12): error: expected a ;"))
    loader = kernels.KernelLoader(compiler, "sm_75")
    for _ in range(3):
        with pytest.raises(KernelCompileError, match=r"(?s)forward.cu.*sm_75.*double.*expected a ;.*Update CuPy"):
            loader.get("forward", "forward", "float64")
    assert compiler.functions == 1


def test_a_broken_source_is_reported_with_its_own_line(monkeypatch):
    from tests.cuda_emulator import require_compiler

    require_compiler()
    good = kernels.source("probe", "float32")
    broken = good.replace("if (k < count)", "if (k << count")
    line = (kernels.folder() / "probe.cu").read_text().split("if (k < count)")[0].count("\n") + 1
    monkeypatch.setattr(kernels, "source", lambda name, dtype: broken)
    with pytest.raises(KernelCompileError, match=rf"probe\.cu:{line}"):
        kernels.KernelLoader(EmulatedToolkit().module, "emulated").get("probe", "probe", "float32")


def test_sources():
    assert set(kernels.names()) >= {"probe", "fill_leaves", "expand_frontier"}
    for name in kernels.names():
        for dtype, real in (("float32", "float"), ("float64", "double")):
            text = kernels.source(name, dtype)
            assert text.startswith(f"#define REAL {real}\n") and "#include" not in text.replace("#included", "")
            header = (kernels.folder() / f"{name}.cu").read_text()
            assert header.startswith(f"// {name}.cu -- ") and 'extern "C" __global__' in header


def test_damaged_installation(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "files", lambda package: tmp_path)
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "a" / "b" / "c" / "sources.py"))
    with pytest.raises(FileNotFoundError, match="reinstall"):
        kernels.folder.__wrapped__()


# ---- connecting ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unconnected(monkeypatch):
    monkeypatch.setattr(cuda_module, "_outcome", None)


def test_without_cupy(monkeypatch, unconnected):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(CupyMissingError, match=r"pip install 'gpu-sublinear\[cuda12\]'") as first:
        cuda_module.connect()
    monkeypatch.delitem(sys.modules, "cupy")
    with pytest.raises(CupyMissingError) as second:  # remembered, not tried again
        cuda_module.connect()
    assert first.value is second.value


def test_without_a_driver(monkeypatch, unconnected):
    def count() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy = ModuleType("cupy")
    cupy.__version__ = "14.2.0"  # type: ignore[attr-defined]
    cupy.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(NoCudaDeviceError, match="CuPy 14.2.0 .*cudaErrorInsufficientDriver.*nvidia-smi"):
        cuda_module.connect()


def test_a_working_gpu_is_probed_once(monkeypatch, unconnected):
    made = []
    monkeypatch.setattr(cuda_module, "cupy_toolkit", lambda: made.append(1) or EmulatedToolkit())
    assert cuda_module.connect() is cuda_module.connect()
    assert made == [1]


class Disobedient(EmulatedToolkit):
    """Compiles, but launches fail, or do nothing."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        def launch(*args: Any) -> None:
            if self.error:
                raise self.error

        return SimpleNamespace(get_function=lambda name: launch)


@pytest.mark.parametrize(
    ("error", "message"), [(RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU"), "NO_BINARY"), (None, "wrong numbers")]
)
def test_a_gpu_that_does_not_run_kernels(monkeypatch, unconnected, error, message):
    monkeypatch.setattr(cuda_module, "cupy_toolkit", lambda: Disobedient(error))
    with pytest.raises(NoCudaDeviceError, match=message):
        cuda_module.connect()


def test_report(gpu):
    assert gpu.describe()["device"] == "cuda"
    assert 0 < gpu.peak_bytes() <= gpu.total_bytes()
    assert gpu.asarray([[1, 2]], np.float32).flags.c_contiguous
    gpu.synchronize()
