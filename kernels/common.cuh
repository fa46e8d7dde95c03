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

// ---- the computed numbers of a tile: fill_leaves.cu, scan_bits.cu, pack_mask.cu ---------------------------------

#define TILE_POINTS 64     // 8 warps x 8, one word of scan_bits.cu
#define TILE_NEURONS 128   // 4 x 32 lanes
#define TILE_FEATURES 16   // per pass
#define TILE_PAD 4         // keeps rows aligned to 16 bytes and the transposing writes at two-way bank conflicts

// Copies TILE_FEATURES features, from j0 on, of `width` rows to shared memory, transposed: the rows of places first,
// first + 1, ... in `chosen` (of all rows if null); zeros for places from count on and for features from d on.
__device__ __forceinline__ void load_tile(REAL* tile, int width, const REAL* __restrict__ rows, const int* chosen,
                                          Index first, Index count, int j0, int d) {
  for (int t = threadIdx.x; t < width * TILE_FEATURES; t += blockDim.x) {
    const int row = t / TILE_FEATURES, j = t % TILE_FEATURES;
    const bool inside = first + row < count && j0 + j < d;
    const Index source = !inside ? 0 : chosen ? chosen[first + row] : first + row;
    tile[j * (width + TILE_PAD) + row] = inside ? rows[source * d + j0 + j] : (REAL)0;
  }
}

// Sets sum[p][q] to the computed number of point i0 + 8 warp + p and the neuron at place k0 + 32 q + lane of `chosen`
// (of all neurons if null).  Called by all 256 threads of a block; ends with a barrier, so the tiles can be used again.
__device__ __forceinline__ void tile_numbers(REAL (&sum)[8][4], REAL* points_tile, REAL* neurons_tile,
                                             const REAL* __restrict__ X, Index i0, Index n, const REAL* __restrict__ W,
                                             const int* chosen, Index k0, Index count, int d) {
#pragma unroll
  for (int p = 0; p < 8; ++p)
#pragma unroll
    for (int q = 0; q < 4; ++q) sum[p][q] = (REAL)-0.0;  // -0 + x is x to the bit, also for x = -0

  for (int j0 = 0; j0 < d; j0 += TILE_FEATURES) {
    load_tile(points_tile, TILE_POINTS, X, nullptr, i0, n, j0, d);
    load_tile(neurons_tile, TILE_NEURONS, W, chosen, k0, count, j0, d);
    __syncthreads();
    const int features = d - j0 < TILE_FEATURES ? d - j0 : TILE_FEATURES;  // no padding: adding a zero could lose -0
    for (int j = 0; j < features; ++j) {
      const REAL* x = points_tile + j * (TILE_POINTS + TILE_PAD) + threadIdx.x / WARP * 8;
      const REAL* w = neurons_tile + j * (TILE_NEURONS + TILE_PAD) + lane_index();
#pragma unroll
      for (int p = 0; p < 8; ++p)
#pragma unroll
        for (int q = 0; q < 4; ++q) sum[p][q] = add(sum[p][q], mul(x[p], w[q * WARP]));
    }
    __syncthreads();
  }
}

// ---- sums over the listed points of a neuron: list_products.cu, move_rows.cu ------------------------------------

#define SUM_PER_LANE 2
#define SUM_FEATURES (WARP * SUM_PER_LANE)

// Sets total to the lane's features, j0 + lane + 32 t, of sum_q g_i x_i over start <= q < stop, i = points[q].
__device__ __forceinline__ void weighted_sum(const REAL* __restrict__ X, const double* __restrict__ g,
                                             const int* __restrict__ points, Index start, Index stop, int j0, int d,
                                             double* total) {
#pragma unroll
  for (int t = 0; t < SUM_PER_LANE; ++t) total[t] = 0.0;
#pragma unroll 4
  for (Index q = start; q < stop; ++q) {
    const Index i = points[q];
    const double weight = g[i];
#pragma unroll
    for (int t = 0; t < SUM_PER_LANE; ++t) {
      const int j = j0 + t * WARP + lane_index();
      if (j < d) total[t] = __fma_rn(weight, (double)X[i * d + j], total[t]);
    }
  }
}
