// pack_mask.cu -- who fires on what, one bit for each pair, and the sums of the outputs: the query of packed masks.
//               near_mask: another bit for each pair, whether it is near the threshold: the first look of flips.
//
// Computes      bits[w, i], bit k: whether ((x_i0 w_r0 + x_i1 w_r1) + x_i2 w_r2) + ... > threshold, r = 64 w + k, products
//               and sums rounded as in fill_leaves; totals[p, i] = sum of signs[r] (number - shift) over the firing r of
//               the neuron tiles p, p + parts, ..., in float64.  near[w, i], bit k: whether |number - threshold|, the
//               difference rounded, is at most radius.
// Arguments     X (n, d), W (u, d), signs (u,), threshold, radius REAL; bits, near (words, n) int64, words = ceil(u / 64);
//               totals (parts, n) float64.
// Parallel      the tile of fill_leaves, 64 points x 128 neurons for a block of 8 warps; lanes hold neighbouring neurons,
//               so a vote of the warp is half a word.  A block keeps its tile of points and strides over the neuron tiles
//               of its part.
// Floor         2 u n d operations (not fused); bytes: sizeof(REAL) (u d + n d) + u n / 8, near_mask u n / 4.
// Deterministic yes: parts depend on the problem alone; votes and shuffles.
// Versions      this one only.  Not yet measured on hardware: a pass with TF32 that leaves only pairs within its rounding
//               of the threshold to the computed number.  near_mask wishes for one block in its launch bounds: ptxas 13
//               aims at more otherwise, and spills.

__device__ __forceinline__ Index word_of_votes(const Word (&half)[4], int which) {
  return (Index)((Word64)(which ? half[2] : half[0]) | (Word64)(which ? half[3] : half[1]) << 32);
}

template <bool with_near>
__device__ __forceinline__ void pack(const REAL* __restrict__ X, Index n, const REAL* __restrict__ W,
                                     const REAL* __restrict__ signs, REAL threshold, double shift, Index u, int d,
                                     Index parts, Index words, Index* __restrict__ bits, double* __restrict__ totals,
                                     REAL radius, Index* __restrict__ near) {
  alignas(16) __shared__ REAL points_tile[TILE_FEATURES * (TILE_POINTS + TILE_PAD)];
  alignas(16) __shared__ REAL neurons_tile[TILE_FEATURES * (TILE_NEURONS + TILE_PAD)];
  const int lane = lane_index(), warp = threadIdx.x / WARP;
  const Index point_tiles = (n + TILE_POINTS - 1) / TILE_POINTS;
  const Index neuron_tiles = (u + TILE_NEURONS - 1) / TILE_NEURONS;
  for (Index job = blockIdx.x; job < point_tiles * parts; job += gridDim.x) {
    const Index i0 = job % point_tiles * TILE_POINTS, part = job / point_tiles;
    double total = 0.0;  // of point i0 + 8 warp + lane, for lanes 0 to 7
    for (Index tile = part; tile < neuron_tiles; tile += parts) {
      const Index k0 = tile * TILE_NEURONS;
      REAL sum[8][4];
      tile_numbers(sum, points_tile, neurons_tile, X, i0, n, W, nullptr, k0, u, d);
#pragma unroll
      for (int p = 0; p < 8; ++p) {
        const Index i = i0 + warp * 8 + p, w = k0 / 64 + lane;
        const bool writes = lane < 2 && i < n && w < words;
        Word half[4];
        double above = 0.0;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const Index r = k0 + q * WARP + lane;
          const bool fires = r < u && sum[p][q] > threshold;
          half[q] = __ballot_sync(FULL_WARP, fires);
          if (fires) above = add(above, mul((double)signs[r], sub((double)sum[p][q], shift)));
        }
        if (writes) bits[w * n + i] = word_of_votes(half, lane);
        if (with_near) {
#pragma unroll
          for (int q = 0; q < 4; ++q)
            half[q] = __ballot_sync(FULL_WARP, k0 + q * WARP + lane < u && fabs(sub(sum[p][q], threshold)) <= radius);
          if (writes) near[w * n + i] = word_of_votes(half, lane);
        }
        for (int distance = WARP / 2; distance; distance /= 2)
          above = add(above, __shfl_xor_sync(FULL_WARP, above, distance));
        if (lane == p) total = add(total, above);
      }
    }
    const Index i = i0 + warp * 8 + lane;
    if (lane < 8 && i < n) totals[part * n + i] = total;
  }
}

extern "C" __global__ void __launch_bounds__(256)
pack_mask(const REAL* __restrict__ X, Index n, const REAL* __restrict__ W, const REAL* __restrict__ signs, REAL threshold,
          double shift, Index u, int d, Index parts, Index words, Index* __restrict__ bits,
          double* __restrict__ totals) {
  pack<false>(X, n, W, signs, threshold, shift, u, d, parts, words, bits, totals, threshold, nullptr);
}

extern "C" __global__ void __launch_bounds__(256, 1)
near_mask(const REAL* __restrict__ X, Index n, const REAL* __restrict__ W, const REAL* __restrict__ signs, REAL threshold,
          double shift, Index u, int d, Index parts, Index words, Index* __restrict__ bits,
          double* __restrict__ totals, REAL radius, Index* __restrict__ near) {
  pack<true>(X, n, W, signs, threshold, shift, u, d, parts, words, bits, totals, radius, near);
}
