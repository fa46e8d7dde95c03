"""The emulator runs right kernels in silence, and notices every seeded defect."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.cuda_emulator import (
    SCHEDULES,
    CompileError,
    LaunchError,
    Module,
    clean_kernels,
    compiler_or_reason,
    copying,
    require_compiler,
    require_sanitizer,
    run_pytest_sanitized,
    run_python_sanitized,
    samples,
    schedule,
)
from tests.helpers.repository import ROOT

SAMPLES = re.findall(r"__global__ void (\w+)", samples.SOURCE)


@pytest.fixture(autouse=True)
def _compiler() -> None:
    require_compiler()


# ---- right kernels ----


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clean_kernels_pass(order: str, dtype: type[np.floating]) -> None:
    with schedule(order, seed=3):
        clean_kernels.run_all(clean_kernels.module(dtype), dtype)


@pytest.mark.parametrize("order", SCHEDULES)
def test_clean_samples_pass(order: str) -> None:
    module = Module(code=samples.SOURCE)
    with schedule(order, seed=5):
        for name in SAMPLES:
            outcome = samples.launch(module, name, bad=0)
            assert not outcome.error and np.array_equal(outcome.out, samples.inputs()), name


def test_clean_kernels_pass_without_copies_and_with_portable_fibers(monkeypatch: pytest.MonkeyPatch) -> None:
    with copying(False):
        clean_kernels.run_all(clean_kernels.module(np.float32), np.float32)
    monkeypatch.setenv("EMULATOR_UCONTEXT", "1")
    clean_kernels.run_all(clean_kernels.module(np.float32), np.float32)


def _float_bits(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]


def _double_bits(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def test_clean_intrinsics() -> None:
    f = np.float32
    exact_fma = float(f(0.1)) * 10 - 1  # exact in double: 24 bits times 4 bits
    expected = [
        8, 64, 0, 41, 31, 64, 1 << 31, 1 << 63, 3, 3,
        0x3F800000, 0x40000000, 0x3FF0000000000000, 3, 3, 3,
        _double_bits(0.1 + 0.2), _double_bits(0.1 * 0.2), _double_bits(1 / 3), _double_bits(2**0.5),
        _double_bits(2.0**-54), _float_bits(exact_fma), _float_bits(f(0.1) + f(0.2)), _float_bits(f(0.1) * f(0.2)),
        _float_bits(np.sqrt(f(2))), 3, 5, 5, 1, 1, 0,
        0,  # a float32 denormal, made while running: the host's compiler does not flush constants
    ]  # fmt: skip
    out = np.full(len(expected), 77, np.uint64)  # (32,)
    clean_kernels.module(np.float32).get_function("intrinsics")((1,), (32,), (out,))
    assert out.tolist() == expected


@pytest.mark.parametrize("order", SCHEDULES)
def test_clean_warp_functions(order: str) -> None:
    v = np.random.default_rng(1).permutation(32).astype(np.int32)  # (32,)
    lane = np.arange(32)  # (32,)
    out = np.full((12, 32), -7, np.int32)  # (12, 32)
    with schedule(order):
        clean_kernels.module(np.float32).get_function("warp_functions")((1,), (32,), (v, out))
    match = [int(sum(1 << int(j) for j in np.flatnonzero(v % 4 == v[i] % 4))) for i in range(32)]
    expected = [
        np.full(32, 1),
        np.full(32, 1),
        np.array(match, np.uint32).astype(np.int32),
        np.full(32, v.sum()),
        np.full(32, -31),
        np.full(32, 31),
        v[lane ^ 5],
        v[np.where(lane % 8 >= 3, lane - 3, lane)],
        v[np.where(lane % 8 + 3 < 8, lane + 3, lane)],
        v[lane // 8 * 8 + 1],
        np.where(lane < 8, np.bitwise_or.reduce(v[:8]), -1),
        np.full(32, 16 + 100),
    ]
    for i, row in enumerate(expected):
        assert np.array_equal(out[i], row), i


def test_overlapping_arguments_share_memory() -> None:
    source = 'extern "C" __global__ void copy(const int* a, int* b) { b[threadIdx.x] = a[threadIdx.x] + 1; }'
    data = np.zeros(64, np.int32)  # (64,)
    kernel = Module(code=source).get_function("copy")
    kernel((1,), (32,), (data[:32], data[32:]))
    assert data.tolist() == [0] * 32 + [1] * 32
    kernel((1,), (32,), (data[16:48], data[:32]))
    assert data.tolist() == [1] * 16 + [2] * 16 + [1] * 32


def test_threads_may_launch_at_once() -> None:
    module = clean_kernels.module(np.float32)
    module.compile()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            clean_kernels.run_all(module, np.float32, n=500)
        except BaseException as error:  # noqa: B036
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


# ---- defects that end the launch ----

PLACE = r"block \(0,0,0\) thread \(\d+,0,0\)"
NOTICED_ANYWHERE = {
    "global_read": rf"illegal memory access at 0x\w+, {PLACE}",
    "global_underflow": "write next to an array of 512 bytes",
    "const_write": rf"illegal memory access at 0x\w+, {PLACE}",
    "static_shared_write": "behind the end of static shared memory",
    "dynamic_shared_write": rf"illegal memory access at 0x\w+, {PLACE}",
    "division_by_zero": rf"division by zero, {PLACE}",
    "exit_before_barrier": rf"not reached by the whole block.*{PLACE}",
    "divergent_barrier": rf"divergent __syncthreads at kernel.cu line \d+ and at kernel.cu line \d+, {PLACE}",
    "deadlock": rf"deadlock: 128 threads wait, the first in __sync\w+ at kernel.cu line \d+, {PLACE}",
    "wrong_mask": rf"__(shfl_sync|syncwarp) at kernel.cu line \d+ meets __(shfl_sync|syncwarp) .*{PLACE}",
    "lane_not_in_mask": rf"__shfl_sync at kernel.cu line \d+: the calling lane is not in the mask, {PLACE}",
    "mixed_masks": rf"__shfl_sync at kernel.cu line \d+ meets .*another mask.*{PLACE}",
    "inactive_source": rf"__shfl_sync at kernel.cu line \d+: reads a lane that is inactive.*{PLACE}",
    "mixed_collectives": rf"__(syncwarp|ballot_sync) .* meets __(syncwarp|ballot_sync) .*{PLACE}",
}


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("name", NOTICED_ANYWHERE)
def test_defect_ends_the_launch(name: str, order: str) -> None:
    with schedule(order, seed=2), pytest.raises(LaunchError, match=NOTICED_ANYWHERE[name]):
        samples.launch(Module(code=samples.SOURCE), name, bad=1, raising=_reraise)


def _reraise(error: Exception) -> None:
    raise error


def test_a_launch_after_a_failed_one_is_right() -> None:
    module = Module(code=samples.SOURCE)
    for name in NOTICED_ANYWHERE:
        assert samples.launch(module, name, bad=1).error
        assert np.array_equal(samples.launch(module, name, bad=0).out, samples.inputs())


@pytest.mark.parametrize(
    "name", ["missing_barrier", "write_after_read", "uninitialised_shared", "missing_warp_barrier"]
)
def test_defect_gives_a_wrong_result_in_some_schedule(name: str) -> None:
    module, wrong = Module(code=samples.SOURCE), []
    for order in SCHEDULES:
        with schedule(order):
            outcome = samples.launch(module, name, bad=1)
        wrong.append(bool(outcome.error) or not np.array_equal(outcome.out, samples.inputs()))
    assert any(wrong)


UNDEFINED = {
    "overflow": f"integer overflow in a multiplication at kernel.cu line {samples.LINE['overflow'] + 2}, {PLACE}",
    "wide_shift": "shift out of bounds",
    "division_by_zero": "integer division by zero",
    "misaligned": "misaligned access",
    "static_shared_index": "index out of bounds",
    "static_shared_write": "access outside of the object",
    "local_array": "access outside of the object",
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_undefined_behaviour_ends_the_launch(name: str) -> None:
    with pytest.raises(LaunchError, match=UNDEFINED[name]):
        samples.launch(Module(code=samples.SOURCE, sanitizer="ubsan"), name, bad=1, raising=_reraise)


# ---- wrong calls ----

ARRAY, NUMBER = np.zeros(128, np.int32), np.int32(128)
FLOATS = np.zeros(128, np.float32)
READ_ONLY = np.zeros(128, np.int32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ((ARRAY, ARRAY, NUMBER), "takes 4 arguments, 3 given"),
        ((ARRAY, ARRAY, NUMBER, NUMBER, NUMBER), "takes 4 arguments, 5 given"),
        ((FLOATS, ARRAY, NUMBER, NUMBER), "argument 0, declared as const i4\\*: an array of float32"),
        ((ARRAY, ARRAY.astype(np.int64), NUMBER, NUMBER), "argument 1, .*: an array of int64"),
        ((ARRAY, ARRAY.astype(np.uint32), NUMBER, NUMBER), "argument 1, .*: an array of uint32"),
        ((ARRAY.astype(">i4"), ARRAY, NUMBER, NUMBER), "foreign byte order"),
        ((np.zeros(256, np.int32)[::2], ARRAY, NUMBER, NUMBER), "not C-contiguous"),
        ((ARRAY, READ_ONLY, NUMBER, NUMBER), "argument 1, .*read-only"),
        ((ARRAY, ARRAY, 128, NUMBER), "argument 2, declared as i4: a number of type int64"),
        ((ARRAY, ARRAY, np.float32(1), NUMBER), "a number of type float32"),
        ((ARRAY, ARRAY, ARRAY, NUMBER), "an array where a number belongs"),
        ((ARRAY, np.int64(0), NUMBER, NUMBER), "a number where an array belongs"),
        ((ARRAY, ARRAY, "128", NUMBER), "str is neither"),
    ],
)
def test_wrong_arguments_raise(args: tuple[object, ...], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        Module(code=samples.SOURCE).get_function("overflow")((1,), (32,), args)


def test_a_read_only_array_may_be_read() -> None:
    out = np.zeros(128, np.int32)  # (128,)
    Module(code=samples.SOURCE).get_function("overflow")((1,), (128,), (READ_ONLY, out, NUMBER, np.int32(0)))


def test_python_numbers_are_eight_bytes() -> None:
    source = 'extern "C" __global__ void k(long long i, double x, bool b, double* out) { out[0] = b ? i + x : -1; }'
    out = np.zeros(1)  # (1,)
    Module(code=source).get_function("k")((1,), (1,), (3, 0.5, True, out))
    assert out[0] == 3.5


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((0,), (32,), 0, "invalid launch"),
        ((1,), (1025,), 0, "invalid launch"),
        ((1, 65536), (1,), 0, "invalid launch"),
        ((2**31,), (1,), 0, "invalid launch"),
        ((1,), (32,), 49153, "more than its limit of 49152"),
    ],
)
def test_wrong_launches_raise(grid: tuple[int, ...], block: tuple[int, ...], shared: int, message: str) -> None:
    args = (samples.inputs(), np.zeros(samples.THREADS, np.int32), NUMBER, np.int32(0))
    with pytest.raises(LaunchError, match=message):
        Module(code=samples.SOURCE).get_function("overflow")(grid, block, args, shared_mem=shared)


@pytest.mark.parametrize(
    "body",
    [
        "x[0] = __activemask();",
        "atomicAdd((long long*)x, 1LL);",
        'asm volatile("mov.u32 %0, %%laneid;" : "=r"(x[0]));',
        "cooperative_groups::this_thread_block().sync();",
        "x[0] = min(1, 2.0f);",
        "x[0] = __reduce_add_sync(~0u, 1LL);",
    ],
)
def test_what_is_not_covered_does_not_compile(body: str) -> None:
    with pytest.raises(CompileError, match=r"kernel\.cu|asm|Assembler"):
        Module(code=f'extern "C" __global__ void k(int* x) {{ {body} }}').compile()


def test_unknown_names_raise() -> None:
    with pytest.raises(AttributeError, match="no kernel 'nothing'"):
        Module(code=samples.SOURCE).get_function("nothing")
    with pytest.raises(ValueError, match="schedule must be one of"), schedule("sideways"):
        pass
    with pytest.raises(ValueError, match="sanitizer must be one of"):
        Module(code="", sanitizer="msan")
    with pytest.raises(TypeError, match="either code or path"):
        Module()


def test_the_schedule_is_restored_after_an_error() -> None:
    from tests.cuda_emulator import module

    before = module._settings
    with pytest.raises(KeyError), schedule("random", seed=9), copying(False):
        assert module._settings == module.Settings("random", 9, False)
        raise KeyError
    assert module._settings == before


def test_a_missing_compiler_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler_or_reason() == (None, "no C++ compiler: no-such-compiler not found; install g++ or set CXX")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI=true"):
        require_compiler()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no-such-compiler"):
        require_compiler()


# ---- sanitizers, each in a process of its own ----

needs_own_process = pytest.mark.skipif("EMULATOR_SANITIZER" in os.environ, reason="already under a sanitizer")


@needs_own_process
@pytest.mark.parametrize("sanitizer", ["asan", "tsan", "ubsan"])
def test_sanitizers_are_silent_about_clean_kernels(sanitizer: str) -> None:
    require_sanitizer(sanitizer)
    selection = ["tests/cuda_emulator/test_emulator.py", "-q", "-k", "clean_kernels_pass or clean_samples"]
    result = run_pytest_sanitized(sanitizer, selection)
    assert result.returncode == 0 and "13 passed" in result.stdout, result.stdout[-4000:]
    assert "Sanitizer" not in result.stdout


@needs_own_process
def test_pytest_under_address_sanitizer_fails_for_a_defect(tmp_path: Path) -> None:
    require_sanitizer("asan")
    test = tmp_path / "test_defect.py"
    test.write_text(
        "from tests.cuda_emulator import Module, samples\n"
        "def test_defect():\n    samples.launch(Module(code=samples.SOURCE), 'global_read', 1)\n"
    )
    result = run_pytest_sanitized("asan", ["-q", str(test)])
    assert result.returncode != 0
    assert re.search(r"heap-buffer-overflow.*in global_read .*kernel\.cu:\d+", result.stdout, re.DOTALL)


@needs_own_process
@pytest.mark.parametrize(
    ("sanitizer", "grid", "words"),
    [
        (
            "asan",
            "0",
            {
                "global_read": "heap-buffer-overflow",
                "global_underflow": "heap-buffer-overflow",
                "dynamic_shared_write": "use-after-poison",
                "static_shared_write": "access outside of the object",
                "misaligned": "misaligned access",
                "overflow": "integer overflow",
            },
        ),
        (
            "tsan",
            "0",
            dict.fromkeys(
                [
                    "missing_barrier",
                    "write_after_read",
                    "missing_warp_barrier",
                    "shuffle_is_no_fence",
                    "same_value",
                    "plain_and_atomic",
                ],
                "data race",
            ),
        ),
        ("tsan", "1", {"blocks_collide": "data race"}),
    ],
    ids=["asan", "tsan", "tsan between blocks"],
)
def test_sanitizers_notice_defects(sanitizer: str, grid: str, words: dict[str, str]) -> None:
    require_sanitizer(sanitizer)
    arguments = ["-m", "tests.cuda_emulator.samples", *words]
    result = run_python_sanitized(sanitizer, arguments, environment={"EMULATOR_TSAN_GRID": grid})
    assert result.returncode == 0, result.stdout[-4000:]
    for name, (clean, defect) in json.loads(result.stdout.splitlines()[-1]).items():
        assert "OUTCOME right" in clean and "Sanitizer" not in clean, clean
        assert words[name] in defect, f"{name}: {defect}"


def test_importing_the_emulator_needs_no_compiler() -> None:
    code = "import tests.cuda_emulator, tests.cuda_emulator.nvrtc"
    env = dict(os.environ, PATH="", CXX="")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env).returncode == 0
