"""Every kernel compiles without a warning for every supported architecture, without spills, within its registers."""

from __future__ import annotations

import importlib.util

import pytest

from tests.cuda_emulator import skip_or_fail
from tests.cuda_emulator.nvrtc import (
    ARCHITECTURES,
    DTYPES,
    KernelUsage,
    NvrtcError,
    budget_complaints,
    compile_all,
    compile_source,
    compiler_options,
    nvrtc_or_reason,
    parse_usage,
    read_budget,
)

SCALE = """
extern "C" __global__ void scale(const float* __restrict__ x, float* __restrict__ y, float a, long long n) {
  __shared__ float tile[64];
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
    tile[threadIdx.x % 64] = x[i];
    y[i] = a * tile[threadIdx.x % 64];
  }
}
"""
SPILLS = """
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* x, int n) {
  float a[64];
  for (int i = 0; i < 64; ++i) a[i] = x[i * 1024 + threadIdx.x];
  for (int j = 0; j < n; ++j)
#pragma unroll
    for (int i = 0; i < 64; ++i) a[i] = a[i] * a[(i * 7 + 3) % 64] + x[j];
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = a[i];
}
"""


@pytest.fixture(autouse=True)
def _nvrtc() -> None:
    library, reason = nvrtc_or_reason()
    if library is None:
        skip_or_fail(reason)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_clean_kernel_has_a_cubin_and_no_complaint(architecture: int) -> None:
    compiled = compile_source(SCALE, architecture, ("--std=c++17",))
    assert compiled.cubin.startswith(b"\x7fELF")
    assert set(compiled.kernels) == {"scale"}
    used = compiled.kernels["scale"]
    assert used.registers > 0
    assert used.shared >= 256  # newer architectures add what they reserve
    assert budget_complaints(compiled.kernels, {"scale": {"float32": 255}}, "float32", architecture) == []


def test_spills_and_local_memory_are_noticed() -> None:
    compiled = compile_source(SPILLS, 80)
    complaints = budget_complaints(compiled.kernels, {"spills": {"float32": 255}}, "float32", 80)
    assert any("spills, float32, sm_80: spills" in line for line in complaints)
    assert any("local memory" in line for line in complaints)


@pytest.mark.parametrize(
    ("budget", "complaint"),
    [({}, "no budget"), ({"k": {"float64": 99}}, "no budget"), ({"k": {"float32": 31}}, "budget of 31")],
)
def test_excess_of_registers_is_noticed(budget: dict[str, dict[str, int]], complaint: str) -> None:
    usage = {"k": KernelUsage(registers=32, spill_stores=0, spill_loads=0, stack=0, shared=0)}
    (line,) = budget_complaints(usage, budget, "float32", 90)
    assert line.startswith("k, float32, sm_90: ") and complaint in line


@pytest.mark.parametrize(
    "source",
    [
        'extern "C" __global__ void k(float* x) { int unused; x[0] = 1; }',
        'extern "C" __global__ void k(float* x) { x[0] = y; }',
        'extern "C" __global__ void k(long long* x) { atomicAdd(x, 1LL); }',
    ],
    ids=["warning", "error", "atomic that does not exist"],
)
def test_warnings_and_errors_raise(source: str) -> None:
    with pytest.raises(NvrtcError, match=r"k\.cu, sm_90"):
        compile_source(source, 90, name="k.cu")


def test_options_end_as_cupys_do() -> None:
    options = compiler_options(("--std=c++17", "--fmad=false"), 90)
    cupy = ["-ftz=true", "-arch=sm_90", "--device-as-default-execution-space"]
    assert options[:5] == ["--std=c++17", "--fmad=false", *cupy]


def test_log_without_figures_is_an_error() -> None:
    with pytest.raises(NvrtcError, match="cannot read"):
        parse_usage("ptxas info : Compiling entry function 'k' for 'sm_90'\nptxas info : something new")


def _product() -> None:
    if importlib.util.find_spec("gpu_sublinear.devices.cuda.sources") is None:
        skip_or_fail("gpu_sublinear.devices.cuda.sources does not exist")


def test_there_are_kernels() -> None:
    _product()
    from gpu_sublinear.devices.cuda import sources as kernels

    assert len(kernels.names()) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_within_its_budget(architecture: int) -> None:
    _product()
    results = compile_all(architecture)
    assert {dtype for _, dtype, _ in results} == set(DTYPES)
    budget, complaints = read_budget(), []
    for file, dtype, result in results:
        if isinstance(result, NvrtcError):
            complaints.append(f"{file}, {dtype}, sm_{architecture}: {result}")
        elif not result.kernels:
            complaints.append(f"{file}, {dtype}, sm_{architecture}: no kernel in it")
        else:
            complaints += budget_complaints(result.kernels, budget, dtype, architecture)
    assert not complaints, "\n".join(complaints)


def test_the_budget_names_only_kernels_that_exist() -> None:
    _product()
    results = compile_all(ARCHITECTURES[0])
    existing = {kernel for *_, result in results if not isinstance(result, NvrtcError) for kernel in result.kernels}
    assert set(read_budget()) <= existing
