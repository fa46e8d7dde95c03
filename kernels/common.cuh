// common.cuh -- what every kernel of this folder shares.  Concatenated before each .cu (never #included: CuPy's disk
// cache keys on the source text alone), after `#define REAL float` or `#define REAL double`.
//
// The computed number.  Whether a neuron fires is decided by one rounded number, so products and sums that feed a
// decision, or that must equal the reference to the bit, are spelt with the helpers below: each rounds once, to
// nearest, and the compiler may not fuse them into a multiply-add, whatever the flags say.

typedef long long Index;             // offsets: 64 bits everywhere, nodes may hold more than 2^31 values
typedef unsigned int Word;           // 32 random bits
typedef unsigned long long Word64;

#define FULL_WARP 0xffffffffu
#define WARP 32

__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double sub(double a, double b) { return __dsub_rn(a, b); }
__device__ __forceinline__ double mul(double a, double b) { return __dmul_rn(a, b); }

// ---- where a thread stands in a one-dimensional grid ------------------------------------------------------------

__device__ __forceinline__ Index thread_index() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ Index thread_count() { return (Index)gridDim.x * blockDim.x; }
__device__ __forceinline__ Index warp_index() { return thread_index() / WARP; }
__device__ __forceinline__ Index warp_count() { return thread_count() / WARP; }
__device__ __forceinline__ int lane_index() { return threadIdx.x % WARP; }

// ---- Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): devices/philox.py is the specification -----------------

struct Random {
  Word word[4];
};

__device__ __forceinline__ Random philox4x32(Word c0, Word c1, Word c2, Word c3, Word64 seed) {
  Word k0 = (Word)seed, k1 = (Word)(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const Word64 p0 = (Word64)c0 * 0xD2511F53u, p1 = (Word64)c2 * 0xCD9E8D57u;
    c0 = (Word)(p1 >> 32) ^ c1 ^ k0;
    c1 = (Word)p1;
    c2 = (Word)(p0 >> 32) ^ c3 ^ k1;
    c3 = (Word)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Random{{c0, c1, c2, c3}};
}
