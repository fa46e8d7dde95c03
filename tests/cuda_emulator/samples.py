"""
Small kernels with one seeded defect each, behind the parameter `bad`: right with 0, wrong with 1.

One source, so that each checker needs one build.  As a program (``python -m tests.cuda_emulator.samples KERNEL...``)
it runs the defects one by one in children, because a sanitizer ends the process, and prints what was said as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from .module import Module

SOURCE = r"""
#define FULL 0xffffffffu

// ---- memory ----

extern "C" __global__ void global_read(const int* in, int* out, int n, int bad) {
  out[threadIdx.x] = in[threadIdx.x + bad] - bad;
}

extern "C" __global__ void global_underflow(const int* in, int* out, int n, int bad) {
  if (bad && threadIdx.x == 0) out[-1] = 7;
  out[threadIdx.x] = in[threadIdx.x];
}

extern "C" __global__ void const_write(const int* in, int* out, int n, int bad) {
  if (bad) ((int*)in)[threadIdx.x] = 7;
  out[threadIdx.x] = in[threadIdx.x];
}

extern "C" __global__ void static_shared_write(const int* in, int* out, int n, int bad) {
  __shared__ int tile[128];
  int* behind = tile + n * bad;
  behind[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = behind[threadIdx.x];
}

extern "C" __global__ void static_shared_index(const int* in, int* out, int n, int bad) {
  __shared__ int tile[128];
  tile[threadIdx.x + bad] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + bad];
}

extern "C" __global__ void dynamic_shared_write(const int* in, int* out, int n, int bad) {
  extern __shared__ __align__(16) unsigned char bytes[];
  int* tile = (int*)bytes;
  tile[threadIdx.x + bad] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + bad];
}

extern "C" __global__ void local_array(const int* in, int* out, int n, int bad) {
  int four[4] = {0, 1, 2, 3};
  int* element = four;
  element += (threadIdx.x & 3) + 4 * bad;
  out[threadIdx.x] = in[threadIdx.x] + *element - (int)(threadIdx.x & 3);
}

extern "C" __global__ void uninitialised_shared(const int* in, int* out, int n, int bad) {
  __shared__ int tile[129];
  if (!bad && threadIdx.x == 0) tile[128] = 0;
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x] + tile[128];
}

extern "C" __global__ void misaligned(const int* in, int* out, int n, int bad) {
  const char* bytes = (const char*)in + 4 * threadIdx.x;
  out[threadIdx.x] = *(const int*)(bytes + bad);
}

// ---- arithmetic ----

extern "C" __global__ void overflow(const int* in, int* out, int n, int bad) {
  const int width = 1 + bad * 70000;
  out[threadIdx.x] = in[threadIdx.x] + width * width - 1;
}

extern "C" __global__ void wide_shift(const int* in, int* out, int n, int bad) {
  out[threadIdx.x] = (in[threadIdx.x] << (32 * bad)) + bad;
}

extern "C" __global__ void division_by_zero(const int* in, int* out, int n, int bad) {
  out[threadIdx.x] = in[threadIdx.x] / (1 - bad);
}

// ---- barriers and warps ----

extern "C" __global__ void missing_barrier(const int* in, int* out, int n, int bad) {
  __shared__ int tile[128];
  tile[threadIdx.x] = in[n - 1 - threadIdx.x];
  if (!bad) __syncthreads();
  out[threadIdx.x] = tile[n - 1 - threadIdx.x];
}

extern "C" __global__ void write_after_read(const int* in, int* out, int n, int bad) {
  __shared__ int tile[128], round_total;
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x == 64) round_total = round;
    tile[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    sum += round_total;
    if (!bad) __syncthreads();
  }
  out[threadIdx.x] = tile[threadIdx.x] + sum - 3;
}

extern "C" __global__ void exit_before_barrier(const int* in, int* out, int n, int bad) {
  if (bad && threadIdx.x / 32 == 1) return;
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

extern "C" __global__ void divergent_barrier(const int* in, int* out, int n, int bad) {
  if (bad && threadIdx.x / 32 == 1) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = in[threadIdx.x];
}

extern "C" __global__ void deadlock(const int* in, int* out, int n, int bad) {
  if (bad && threadIdx.x == 0) __syncwarp();
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

extern "C" __global__ void wrong_mask(const int* in, int* out, int n, int bad) {
  int value = 0;
  const int half = (threadIdx.x & 31) < 16;
  if (!bad || half) value = __shfl_sync(FULL, in[threadIdx.x], threadIdx.x & 31);
  __syncwarp();
  out[threadIdx.x] = value;
}

extern "C" __global__ void lane_not_in_mask(const int* in, int* out, int n, int bad) {
  out[threadIdx.x] = __shfl_sync(bad ? 0xffffu : FULL, in[threadIdx.x], threadIdx.x & 31);
}

extern "C" __global__ void mixed_masks(const int* in, int* out, int n, int bad) {
  const unsigned mask = bad && (threadIdx.x & 1) ? 0x7fffffffu : FULL;
  out[threadIdx.x] = __shfl_sync((threadIdx.x & 31) == 31 ? FULL : mask, in[threadIdx.x], threadIdx.x & 31);
}

extern "C" __global__ void inactive_source(const int* in, int* out, int n, int bad) {
  const int lane = threadIdx.x & 31;
  int value = in[threadIdx.x];
  if (lane < 16) value = __shfl_sync(0xffffu, value, lane + 16 * bad);
  out[threadIdx.x] = value;
}

extern "C" __global__ void mixed_collectives(const int* in, int* out, int n, int bad) {
  if (bad && (threadIdx.x & 1)) __syncwarp();
  else __ballot_sync(FULL, 1);
  out[threadIdx.x] = in[threadIdx.x];
}

// ---- races that need not change a result ----

extern "C" __global__ void missing_warp_barrier(const int* in, int* out, int n, int bad) {
  __shared__ int tile[128];
  tile[threadIdx.x] = in[threadIdx.x ^ 1];
  if (!bad) __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

extern "C" __global__ void shuffle_is_no_fence(const int* in, int* out, int n, int bad) {
  __shared__ int tile[128];
  tile[threadIdx.x] = in[threadIdx.x ^ 1];
  const int zero = __shfl_sync(FULL, 0, 0);
  if (!bad) __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1] + zero;
}

extern "C" __global__ void same_value(const int* in, int* out, int n, int bad) {
  out[bad ? 0 : threadIdx.x] = in[0];
  if (threadIdx.x) out[threadIdx.x] = in[threadIdx.x];
}

extern "C" __global__ void plain_and_atomic(const int* in, int* out, int n, int bad) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  if (!bad) __syncthreads();
  out[threadIdx.x] = in[threadIdx.x] + (count < 0);
}

extern "C" __global__ void blocks_collide(const int* in, int* out, int n, int bad) {
  const int i = bad ? threadIdx.x : blockIdx.x * blockDim.x + threadIdx.x;
  if (bad || i < n) out[i] = in[i];
}
"""

THREADS = 128
LINE = {name: 1 + SOURCE[: SOURCE.index(f" {name}(")].count("\n") for name in ("overflow", "divergent_barrier")}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a launch gave: the array, or the error that ended it."""

    out: np.ndarray
    error: str


def inputs() -> np.ndarray:
    """The array that every sample copies, in one way or another."""
    return np.arange(1000, 1000 + THREADS, dtype=np.int32)  # (128,)


def launch(module: Module, name: str, bad: int, raising: Callable[..., Any] | None = None) -> Outcome:
    """
    Run one sample; a right one gives `inputs()`.

    Parameters
    ----------
    module : Module
        Of `SOURCE`.
    name : str
        The kernel.
    bad : int
        1 for the seeded defect.
    raising : callable, optional
        Called with the error instead of keeping it.

    Returns
    -------
    Outcome
        Array and error.
    """
    source = inputs()
    out = np.full(THREADS, -1, dtype=np.int32)  # (128,)
    grid = (2,) if name == "blocks_collide" else (1,)
    args = (source, out, np.int32(THREADS), np.int32(bad))
    try:
        module.get_function(name)(grid, (THREADS,), args, shared_mem=4 * THREADS)
    except Exception as error:
        if raising:
            raising(error)
        return Outcome(out, str(error))
    return Outcome(out, "")


def _in_child(module: Module, name: str, bad: int) -> str:
    """Everything a child process says that runs one sample, and a line with its outcome."""
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                outcome = launch(module, name, bad)
                right = not outcome.error and np.array_equal(outcome.out, inputs())
                os.write(1, f"\nOUTCOME {'right' if right else outcome.error or 'wrong'}\n".encode())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        said.seek(0)
        return said.read().decode(errors="replace")


def main(names: list[str]) -> int:
    """Print a JSON object: for each kernel, what was said with the defect and without."""
    module = Module(code=SOURCE)
    module.compile()
    said = {name: [_in_child(module, name, bad) for bad in (0, 1)] for name in names}
    sys.stdout.write("\n" + json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
