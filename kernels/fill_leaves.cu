// fill_leaves.cu -- leaves of all trees: the pre-activations that decide what fires.
//
// Computes      nodes[i, r] = ((x_i0 w_r0 + x_i1 w_r1) + x_i2 w_r2) + ..., every product and every sum rounded to REAL,
//               for all i < n and the r in `neurons` (or r = 0 .. count - 1 where gather is 0).
// Arguments     nodes (n, total), X (n, d), W (m, d) REAL; neurons (count,) int32.
// Parallel      a block of 8 warps owns a tile of 64 points x 128 neurons.  X and W pass through shared memory 16
//               features at a time, transposed; a thread keeps 8 points x 4 neurons in registers, so 12 reads from
//               shared memory feed 32 products.  Lanes of a warp are 32 neighbouring neurons: they share the point
//               (broadcast), read W without bank conflicts and write 32 neighbouring leaves.  Tiles of one group of
//               neurons are neighbours in the grid, so W comes from memory once and X from the L2 cache.
// Floor         sizeof(REAL) (n count + count d + n d) bytes; n count d products and as many sums (not fused: the
//               computed number is rounded twice per feature, on purpose, so half the peak of multiply-adds at most).
//               No tensor cores for the same reason.
// Deterministic yes; bits equal on every device.
// Versions      tile 64 x 128 x 16: this file.  Not yet measured on hardware: other tiles, asynchronous copies into
//               shared memory, two tiles in flight.

#define POINTS 64       // of a tile: 8 warps x 8
#define NEURONS 128     // of a tile: 4 x 32 lanes
#define FEATURES 16     // per pass
#define PAD 4           // keeps rows aligned to 16 bytes and the transposing writes at two-way bank conflicts

__device__ __forceinline__ void load_tile(REAL* tile, int width, const REAL* __restrict__ rows, const int* chosen,
                                          Index first, Index count, int j0, int d) {
  for (int t = threadIdx.x; t < width * FEATURES; t += blockDim.x) {
    const int row = t / FEATURES, j = t % FEATURES;
    const bool inside = first + row < count && j0 + j < d;
    const Index source = !inside ? 0 : chosen ? chosen[first + row] : first + row;
    tile[j * (width + PAD) + row] = inside ? rows[source * d + j0 + j] : (REAL)0;
  }
}

extern "C" __global__ void __launch_bounds__(256)
fill_leaves(REAL* __restrict__ nodes, Index total, const REAL* __restrict__ X, Index n, const REAL* __restrict__ W,
            const int* __restrict__ neurons, int gather, Index count, int d) {
  alignas(16) __shared__ REAL points_tile[FEATURES * (POINTS + PAD)];
  alignas(16) __shared__ REAL neurons_tile[FEATURES * (NEURONS + PAD)];
  const int lane = lane_index(), warp = threadIdx.x / WARP;
  const int* chosen = gather ? neurons : nullptr;
  const Index point_tiles = (n + POINTS - 1) / POINTS, tiles = point_tiles * ((count + NEURONS - 1) / NEURONS);
  for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Index i0 = tile % point_tiles * POINTS, k0 = tile / point_tiles * NEURONS;
    REAL sum[8][4];
#pragma unroll
    for (int p = 0; p < 8; ++p)
#pragma unroll
      for (int q = 0; q < 4; ++q) sum[p][q] = (REAL)-0.0;  // -0 + x is x to the bit, also for x = -0

    for (int j0 = 0; j0 < d; j0 += FEATURES) {
      load_tile(points_tile, POINTS, X, nullptr, i0, n, j0, d);
      load_tile(neurons_tile, NEURONS, W, chosen, k0, count, j0, d);
      __syncthreads();
      const int features = d - j0 < FEATURES ? d - j0 : FEATURES;  // no padding: adding a zero could lose -0
      for (int j = 0; j < features; ++j) {
        const REAL* x = points_tile + j * (POINTS + PAD) + warp * 8;
        const REAL* w = neurons_tile + j * (NEURONS + PAD) + lane;
#pragma unroll
        for (int p = 0; p < 8; ++p)
#pragma unroll
          for (int q = 0; q < 4; ++q) sum[p][q] = add(sum[p][q], mul(x[p], w[q * WARP]));
      }
      __syncthreads();
    }

#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const Index k = k0 + q * WARP + lane;
      if (k >= count) continue;
      const Index r = chosen ? chosen[k] : k;
#pragma unroll
      for (int p = 0; p < 8; ++p) {
        const Index i = i0 + warp * 8 + p;
        if (i < n) nodes[i * total + r] = sum[p][q];
      }
    }
  }
}
