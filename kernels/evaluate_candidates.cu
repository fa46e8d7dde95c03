// evaluate_candidates.cu -- exact products of the candidate pairs, neuron by neuron, and how many exceed a threshold.
//
// Computes      products[q] = ((x_i0 w_r0 + x_i1 w_r1) + x_i2 w_r2) + ..., every product and sum rounded to REAL, for
//               k < count, r = neurons[k], indptr[k] <= q < indptr[k + 1], i = points[q]; counts[k] = how many of these
//               exceed thresholds[k], strictly.  keep_above.cu makes lists of those.
// Arguments     X (n, d), W (m, d), thresholds (count,) REAL; neurons (count,) int32, indptr (count + 1,) int64, points
//               (c,) int32; products (c,) REAL; counts (count,) int32.
// Parallel      groups of 8 lanes take one neuron each, a lane per candidate (the sum runs through the features in
//               order, so lanes cannot share it).  A warp stages the rows of its 32 points and 4 neurons through shared
//               memory, one cache line of features at a time: a row is read whole by neighbouring lanes, and rows of 33
//               (17) entries keep the lanes' walks free of bank conflicts.
// Floor         c d products and sums (not fused).  Bytes: sizeof(REAL) d + 20 per neuron listed, c (4 + sizeof(REAL)).
//               Rows of X, c d sizeof(REAL), come from the L2 cache, which is the tightest of these where lists are long.
// Deterministic yes; bits equal on every device.
// Versions      staged, groups of 8: this file.  Rejected on paper: each lane reads its own row of X directly (a cache
//               line per lane and load: 64 line reads per candidate at d = 64 against about 6 here); a warp per neuron
//               (lists of 5 to 10 candidates leave most lanes idle); the dense tile of scan_bits.cu (n / candidates times
//               the work).  Not yet measured on hardware: 16-byte loads without staging; rows of W kept where lists
//               exceed 8.
//               Without the wish for 4 blocks in the launch bounds ptxas 13 aims at more, and spills.

#define GROUP 8
#define GROUPS (WARP / GROUP)
constexpr int FEATURES = 128 / sizeof(REAL);  // a line of the cache

extern "C" __global__ void __launch_bounds__(256, 4)
evaluate_candidates(const REAL* __restrict__ X, const REAL* __restrict__ W, const int* __restrict__ neurons,
                    const Index* __restrict__ indptr, const int* __restrict__ points,
                    const REAL* __restrict__ thresholds, Index count, int d, REAL* __restrict__ products,
                    int* __restrict__ counts) {
  __shared__ REAL points_tiles[8][WARP][FEATURES + 1];
  __shared__ REAL neurons_tiles[8][GROUPS][FEATURES + 1];
  const int lane = lane_index(), group = lane / GROUP;
  REAL(*points_tile)[FEATURES + 1] = points_tiles[threadIdx.x / WARP];
  REAL(*neurons_tile)[FEATURES + 1] = neurons_tiles[threadIdx.x / WARP];
  for (Index first = warp_index() * GROUPS; first < count; first += warp_count() * GROUPS) {
    const Index k = first + group;
    const bool listed = k < count;
    const int neuron = listed ? neurons[k] : 0;
    const REAL threshold = listed ? thresholds[k] : (REAL)0;
    const Index stop = listed ? indptr[k + 1] : 0;
    int above = 0;
    for (Index q = (listed ? indptr[k] : 0) + lane % GROUP; __any_sync(FULL_WARP, q < stop); q += GROUP) {
      const int point = q < stop ? points[q] : -1;
      REAL sum = (REAL)-0.0;  // -0 + x is x to the bit, also for x = -0
      for (int j0 = 0; j0 < d; j0 += FEATURES) {
#pragma unroll 8
        for (int t = lane; t < WARP * FEATURES; t += WARP) {
          const int j = t % FEATURES, i = __shfl_sync(FULL_WARP, point, t / FEATURES);
          if (i >= 0 && j0 + j < d) points_tile[t / FEATURES][j] = X[(Index)i * d + j0 + j];
        }
#pragma unroll
        for (int t = lane; t < GROUPS * FEATURES; t += WARP) {
          const int j = t % FEATURES, first_lane = t / FEATURES * GROUP;
          const int i = __shfl_sync(FULL_WARP, point, first_lane), r = __shfl_sync(FULL_WARP, neuron, first_lane);
          if (i >= 0 && j0 + j < d) neurons_tile[t / FEATURES][j] = W[(Index)r * d + j0 + j];
        }
        __syncwarp();
        const int features = point < 0 ? 0 : d - j0 < FEATURES ? d - j0 : FEATURES;
        for (int j = 0; j < features; ++j) sum = add(sum, mul(points_tile[lane][j], neurons_tile[group][j]));
        __syncwarp();
      }
      if (point >= 0) products[q] = sum;
      const unsigned votes = __ballot_sync(FULL_WARP, point >= 0 && sum > threshold);
      above += __popc(votes >> group * GROUP & 0xffu);
    }
    if (listed && lane % GROUP == 0) counts[k] = above;
  }
}
