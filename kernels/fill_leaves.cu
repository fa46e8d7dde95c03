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
// Versions      tile 64 x 128 x 16: common.cuh.  Not yet measured on hardware: other tiles, asynchronous copies into
//               shared memory, two tiles in flight.

extern "C" __global__ void __launch_bounds__(256)
fill_leaves(REAL* __restrict__ nodes, Index total, const REAL* __restrict__ X, Index n, const REAL* __restrict__ W,
            const int* __restrict__ neurons, int gather, Index count, int d) {
  alignas(16) __shared__ REAL points_tile[TILE_FEATURES * (TILE_POINTS + TILE_PAD)];
  alignas(16) __shared__ REAL neurons_tile[TILE_FEATURES * (TILE_NEURONS + TILE_PAD)];
  const int lane = lane_index(), warp = threadIdx.x / WARP;
  const int* chosen = gather ? neurons : nullptr;
  const Index point_tiles = (n + TILE_POINTS - 1) / TILE_POINTS;
  const Index tiles = point_tiles * ((count + TILE_NEURONS - 1) / TILE_NEURONS);
  for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Index i0 = tile % point_tiles * TILE_POINTS, k0 = tile / point_tiles * TILE_NEURONS;
    REAL sum[8][4];
    tile_numbers(sum, points_tile, neurons_tile, X, i0, n, W, chosen, k0, count, d);

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
