"""Kernels that use everything the emulator covers, rightly: every schedule and every sanitizer must stay silent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .module import Module

SOURCE = r"""
#define FULL 0xffffffffu
#ifndef REAL
#define REAL float
#endif
typedef unsigned long long u64;

__device__ __forceinline__ REAL warp_sum(REAL v) {
  for (int o = 16; o > 0; o >>= 1) v += __shfl_down_sync(FULL, v, o);
  return v;
}

// Grid-stride loop, shuffles, static shared memory, a barrier, atomics of floats and integers.
extern "C" __global__ void __launch_bounds__(256)
reduce(const REAL* __restrict__ x, long long n, REAL* sum, int* largest) {
  __shared__ REAL partial[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  REAL s = 0;
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x) {
    s += x[i];
    atomicMax(largest, (int)x[i]);
  }
  s = warp_sum(s);
  if (lane == 0) partial[warp] = s;
  __syncthreads();
  if (warp == 0) {
    s = warp_sum(lane < warps ? partial[lane] : REAL(0));
    if (lane == 0) atomicAdd(sum, s);
  }
}

// Warp-aggregated compaction: ballot, popc, ffs, a shuffle of 8 bytes, one 64-bit atomic per warp.
extern "C" __global__ void compact(const REAL* __restrict__ x, REAL threshold, int n, int* kept, u64* count) {
  const int lane = threadIdx.x & 31;
  for (int base = blockIdx.x * blockDim.x; base < n; base += gridDim.x * blockDim.x) {
    const int i = base + threadIdx.x;
    const bool keep = i < n && x[min(i, n - 1)] > threshold;
    const unsigned ballot = __ballot_sync(FULL, keep);
    u64 start = 0;
    if (ballot && lane == __ffs(ballot) - 1) start = atomicAdd(count, (u64)__popc(ballot));
    start = __shfl_sync(FULL, start, ballot ? __ffs(ballot) - 1 : 0);
    if (keep) kept[start + __popc(ballot & ((1u << lane) - 1u))] = i;
  }
}

// Dynamic shared memory, cleared, filled by atomics, flushed.
extern "C" __global__ void histogram(const unsigned char* __restrict__ bins, int n, int n_bins, int* counts) {
  extern __shared__ int local[];
  for (int i = threadIdx.x; i < n_bins; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[bins[i]], 1);
  __syncthreads();
  for (int i = threadIdx.x; i < n_bins; i += blockDim.x)
    if (local[i]) atomicAdd(&counts[i], local[i]);
}

// Offsets of CSR rows: scans of warps, a scan of their totals, a carry from tile to tile.
extern "C" __global__ void scan(const int* __restrict__ degree, int n, int* __restrict__ offset) {
  __shared__ int totals[32];
  __shared__ int carry;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  if (threadIdx.x == 0) carry = offset[0] = 0;
  __syncthreads();
  for (int base = 0; base < n; base += blockDim.x) {
    const int i = base + threadIdx.x;
    int v = i < n ? degree[i] : 0;
    for (int o = 1; o < 32; o <<= 1) {
      const int left = __shfl_up_sync(FULL, v, o);
      if (lane >= o) v += left;
    }
    if (lane == 31) totals[warp] = v;
    __syncthreads();
    if (warp == 0) {
      int t = lane < warps ? totals[lane] : 0;
      for (int o = 1; o < 32; o <<= 1) {
        const int left = __shfl_up_sync(FULL, t, o);
        if (lane >= o) t += left;
      }
      totals[lane] = t;
    }
    __syncthreads();
    const int inclusive = v + carry + (warp ? totals[warp - 1] : 0);
    if (i < n) offset[i + 1] = inclusive;
    __syncthreads();
    if (threadIdx.x == blockDim.x - 1) carry = inclusive;
    __syncthreads();
  }
}

// One number per line of the table `intrinsics` in test_emulator.py.
extern "C" __global__ void intrinsics(u64* out) {
  const int t = threadIdx.x;
  const u64 results[] = {
      (u64)__popc(0xf0f0u), (u64)__popcll(~0ull), (u64)__ffs(0), (u64)__ffsll(1ll << 40),
      (u64)__clz(1), (u64)__clzll(0),
      (u64)__brev(1u), __brevll(1ull), (u64)__umulhi(1u << 31, 6u), __umul64hi(1ull << 63, 6ull),
      (u64)__float_as_uint(1.0f), (u64)__float_as_int(2.0f), (u64)__double_as_longlong(1.0),
      (u64)__longlong_as_double(0x4008000000000000ll), (u64)__uint_as_float(0x40400000u),
      (u64)__int_as_float(0x40400000),
      (u64)__double_as_longlong(__dadd_rn(0.1, 0.2)), (u64)__double_as_longlong(__dmul_rn(0.1, 0.2)),
      (u64)__double_as_longlong(__ddiv_rn(1.0, 3.0)), (u64)__double_as_longlong(__dsqrt_rn(2.0)),
      (u64)__double_as_longlong(__fma_rn(0.1, 10.0, -1.0)), (u64)__float_as_uint(__fmaf_rn(0.1f, 10.0f, -1.0f)),
      (u64)__float_as_uint(__fadd_rn(0.1f, 0.2f)), (u64)__float_as_uint(__fmul_rn(0.1f, 0.2f)),
      (u64)__float_as_uint(sqrt(2.0f)), (u64)min(3, 5ll), (u64)max(3, 5ull), (u64)min(7u, 5),
      (u64)(max(__uint_as_float(0x7fc00000u), 1.0f) == 1.0f), (u64)(min(2.0, 1.0) == 1.0), __ldg(&out[0]) * 0,
      (u64)__float_as_uint(__fmul_rn(__uint_as_float(0x00800000u), 16.0f / blockDim.x)),
  };
  __syncthreads();
  if (t == 0)
    for (int i = 0; i < (int)(sizeof results / sizeof *results); ++i) out[i] = results[i];
}

// Votes, match, reductions and shuffles of one warp; out has 12 rows of 32.
extern "C" __global__ void warp_functions(const int* in, int* out) {
  const int lane = threadIdx.x, v = in[lane];
  out[lane] = __any_sync(FULL, v == 3);
  out[32 + lane] = __all_sync(FULL, v >= 0);
  out[64 + lane] = (int)__match_any_sync(FULL, v % 4);
  out[96 + lane] = __reduce_add_sync(FULL, v);
  out[128 + lane] = __reduce_min_sync(FULL, -v);
  out[160 + lane] = (int)__reduce_max_sync(FULL, (unsigned)v);
  out[192 + lane] = __shfl_xor_sync(FULL, v, 5);
  out[224 + lane] = __shfl_up_sync(FULL, v, 3, 8);
  out[256 + lane] = __shfl_down_sync(FULL, v, 3, 8);
  out[288 + lane] = __shfl_sync(FULL, v, 9, 8);
  out[320 + lane] = lane < 8 ? __reduce_or_sync(0xffu, v) : -1;
  out[352 + lane] = __syncthreads_count(v & 1) + 100 * __syncthreads_or(v == 3) + 1000 * __syncthreads_and(v == 3);
}
"""


def run_all(module: Module, dtype: type[np.floating], n: int = 3001, blocks: int = 6) -> None:
    """
    Run the larger kernels on data whose sums are exact, and compare.

    Parameters
    ----------
    module : Module
        Of `SOURCE`, with REAL as `dtype`.
    dtype : type
        numpy.float32 or numpy.float64.
    n : int
        Number of inputs.
    blocks : int
        Blocks of each launch.
    """
    rng = np.random.default_rng(0)

    def run(name: str, grid: int, *args: object, shared_mem: int = 0) -> None:
        module.get_function(name)((grid,), (128,), args, shared_mem=shared_mem)

    x = rng.integers(0, 1000, n).astype(dtype)  # (n,); sums of integers are exact in any order
    total, largest = np.zeros(1, dtype), np.zeros(1, np.int32)  # (1,), (1,)
    run("reduce", blocks, x, np.int64(n), total, largest)
    assert total[0] == x.sum(dtype=np.float64) and largest[0] == x.max()

    kept, count = np.full(n, -1, np.int32), np.zeros(1, np.uint64)  # (n,), (1,)
    run("compact", blocks, x, dtype(300), np.int32(n), kept, count)
    assert count[0] == (x > 300).sum()
    assert np.array_equal(np.sort(kept[: count[0]]), np.flatnonzero(x > 300)) and (kept[count[0] :] == -1).all()

    bins, counts = rng.integers(0, 50, n).astype(np.uint8), np.zeros(50, np.int32)  # (n,), (50,)
    run("histogram", blocks, bins, np.int32(n), np.int32(50), counts, shared_mem=200)
    assert np.array_equal(counts, np.bincount(bins, minlength=50))

    degree, offset = rng.integers(0, 9, n).astype(np.int32), np.full(n + 1, -1, np.int32)  # (n,), (n+1,)
    run("scan", 1, degree, np.int32(n), offset)
    assert np.array_equal(offset, np.concatenate([[0], np.cumsum(degree)]))


def module(dtype: type[np.floating], build: Callable[..., Module] = Module) -> Module:
    """The module of `SOURCE` for a dtype, built with options that NVRTC gets too."""
    real = {np.float32: "float", np.float64: "double"}[dtype]
    return build(code=SOURCE, options=("--std=c++17", "--fmad=false", f"-DREAL={real}"))
